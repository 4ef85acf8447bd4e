"""Addresses of an OpenID provider."""

from __future__ import annotations

from urllib.parse import urlencode, urlsplit

from ragq.errors import ConfigurationError
from ragq.settings import is_loopback


def check_address(text: str) -> None:
    """Check that an address has TLS, unless it is on this machine.

    Raises:
        ConfigurationError: It has none, or is no address.
    """
    try:
        parts = urlsplit(text)
        host = parts.hostname
    except ValueError:
        host = None
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))):
        raise ConfigurationError(f"The OpenID provider's address '{text}' must begin with https://.")


def add_query(address: str, query: dict[str, str]) -> str:
    """Add parameters to an address, which may have some."""
    return f"{address}{'&' if urlsplit(address).query else '?'}{urlencode(query)}"
