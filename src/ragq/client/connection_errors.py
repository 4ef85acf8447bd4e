"""Say what broke a connection, without the text of exceptions: it may repeat a URL or what a server sent."""

from __future__ import annotations

import aiohttp


def describe(error: Exception) -> str:
    """Name an error of aiohttp or of the system by its type and, where there are any, the system's words."""
    name = type(error).__name__
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"{name}, status {error.status}"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"{name}, the answer is not valid HTTP"
    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    words = getattr(cause, "verify_message", None) or getattr(cause, "strerror", None)
    return f"{name}, {words}" if words else name
