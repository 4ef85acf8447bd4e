"""Describe connection errors without the exception's text, which may repeat a URL or a server's response."""

from __future__ import annotations

import aiohttp

from ragq.client.model_faults import FaultError, Kind
from ragq.errors import UnavailableError


def describe(error: Exception) -> str:
    """Describe an error of aiohttp or the OS: its type, and the OS's message if there is one."""
    name = type(error).__name__
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"{name}, status {error.status}"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"{name}, the answer is not valid HTTP"
    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    words = getattr(cause, "verify_message", None) or getattr(cause, "strerror", None)
    return f"{name}, {words}" if words else name


def connection_fault(kind: Kind, error: Exception) -> FaultError:
    """Classify a failed connection."""
    return FaultError(UnavailableError, f"{kind}_unavailable", describe(error))
