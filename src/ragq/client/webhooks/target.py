"""Where webhooks may go: public addresses, and hosts that the operator allows."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from urllib.parse import urlsplit

from ragq.errors import InvalidRequestError
from ragq.settings import Settings

NOT_PUBLIC = "The host's address is not public. To allow the host, add it to RAGQ_WEBHOOK_ALLOWED_HOSTS."
# Addresses in these networks stand for IPv4 addresses, which may be private, or are site-local.
_STANDING_FOR_IPV4 = ("::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "fec0::/10")
_TRANSLATED = [ipaddress.ip_network(name) for name in _STANDING_FOR_IPV4]


def read_allowed(settings: Settings) -> frozenset[str]:
    """Read the hosts that may have a private address and may be called without TLS."""
    names = settings.webhook_allowed_hosts.split(",")
    return frozenset(name.strip().lower() for name in names if name.strip())


def is_public(address: str) -> bool:
    """Whether an address is on the public Internet; False for one that embeds another address."""
    found = ipaddress.ip_address(address)
    translated = any(found.version == network.version and found in network for network in _TRANSLATED)
    return found.is_global and not found.is_multicast and not translated


def check_url(settings: Settings, url: str) -> None:
    """Refuse a URL that can never be a webhook's target. The name is resolved only when it is used.

    Raises:
        InvalidRequestError: The message gives the reason.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidRequestError(f"The URL is not valid: {error}.", param="url") from error
    if not host or port == 0 or parts.username is not None or parts.fragment:
        raise InvalidRequestError("The URL needs a host, and no user, password or fragment.", param="url")
    allowed = host in read_allowed(settings)
    if parts.scheme != "https" and not (allowed and parts.scheme == "http"):
        raise InvalidRequestError(
            "The URL must begin with https://, unless RAGQ_WEBHOOK_ALLOWED_HOSTS names its host.", param="url"
        )
    if (address := find_address(host)) and not allowed and not is_public(address):
        raise InvalidRequestError(NOT_PUBLIC, param="url")


def find_address(host: str) -> str | None:
    """Parse a host that is an address, also in the short forms that operating systems accept; None for a name."""
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(host))
    with contextlib.suppress(OSError):
        return socket.inet_ntoa(socket.inet_aton(host.rstrip(".")))
    return None
