"""Sending webhooks by Standard Webhooks (https://www.standardwebhooks.com), to public addresses alone."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import ipaddress
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from ragq.client.webhook_store import SECRET_PREFIX, Attempt, ClaimedDelivery
from ragq.errors import InvalidRequestError
from ragq.settings import Settings

RESOLVER_THREADS = 16  # of our own: a name server that is slow must not hold up whatever else runs in threads
INSIDE = "The host's address is not public. RAGQ_WEBHOOK_ALLOWED_HOSTS opens hosts by name."
# Addresses of these networks stand for IPv4 addresses, inside ones too, or for a site's own.
_STANDING_FOR_IPV4 = ("::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "fec0::/10")
_TRANSLATED = [ipaddress.ip_network(name) for name in _STANDING_FOR_IPV4]


class _InsideError(OSError):
    """A host has an address that is not public."""


def read_allowed(settings: Settings) -> frozenset[str]:
    """Read the hosts that may be inside, and may be spoken to without TLS."""
    names = settings.webhook_allowed_hosts.split(",")
    return frozenset(name.strip().lower() for name in names if name.strip())


def is_public(address: str) -> bool:
    """Whether an address is one of the public Internet, and plainly so."""
    found = ipaddress.ip_address(address)
    translated = any(found.version == network.version and found in network for network in _TRANSLATED)
    return found.is_global and not found.is_multicast and not translated


def check_url(settings: Settings, url: str) -> None:
    """Refuse a URL that can never be a webhook's target. Names are looked up when it is used.

    Raises:
        InvalidRequestError: Saying why.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidRequestError(f"The URL cannot be read: {error}.", param="url") from error
    if not host or port == 0 or parts.username is not None or parts.fragment:
        raise InvalidRequestError("The URL needs a host, and no user, password or fragment.", param="url")
    allowed = host in read_allowed(settings)
    if parts.scheme != "https" and not (allowed and parts.scheme == "http"):
        raise InvalidRequestError("The URL must begin with https://.", param="url")
    if (address := _address_of(host)) and not allowed and not is_public(address):
        raise InvalidRequestError(INSIDE, param="url")


def sign(secret: str, event_id: str, timestamp: int, body: bytes) -> str:
    """Sign a delivery as Standard Webhooks' `v1`."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    signed = f"{event_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def _address_of(host: str) -> str | None:
    """Read a host that is an address, also in the short and odd forms that systems take; None for a name."""
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(host))
    with contextlib.suppress(OSError):
        return socket.inet_ntoa(socket.inet_aton(host.rstrip(".")))
    return None


class _Resolver(AbstractResolver):
    """Looks names up, and knows no name of which any address is not public, but for the allowed ones."""

    def __init__(self, allowed: frozenset[str]) -> None:
        self._allowed = allowed
        self._threads = ThreadPoolExecutor(RESOLVER_THREADS, "webhook-names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
        )
        addresses = [(kind, protocol, str(address[0])) for kind, _, protocol, _, address in found]
        if host.lower() not in self._allowed and not all(is_public(address) for _, _, address in addresses):
            raise _InsideError(INSIDE)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, protocol, address in addresses
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class WebhookClient:
    """Sends deliveries; use it as `async with WebhookClient(settings) as client`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._allowed = read_allowed(settings)
        self._resolver = _Resolver(self._allowed)
        # Each delivery has a connection of its own, so that its address is looked up and checked.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, resolver=self._resolver, use_dns_cache=False, force_close=True),
            timeout=aiohttp.ClientTimeout(total=settings.webhook_timeout_seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()
        await self._resolver.close()

    async def send(self, delivery: ClaimedDelivery) -> Attempt:
        """Send a delivery; whatever goes wrong is in the answer. The answer's body is not read."""
        host = urlsplit(delivery.url).hostname or ""
        address = _address_of(host)
        if address and host not in self._allowed and not is_public(address):  # no resolver is asked for these
            return Attempt(None, INSIDE)
        body, timestamp = _write_body(delivery), int(time.time())
        headers = {
            "content-type": "application/json",
            "user-agent": "ragq-webhooks",
            "webhook-id": delivery.event_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(delivery.secret, delivery.event_id, timestamp, body),
        }
        try:
            async with self._session.post(delivery.url, data=body, headers=headers, allow_redirects=False) as response:
                return Attempt(response.status, None)
        except TimeoutError:
            return Attempt(None, f"No answer within {self._settings.webhook_timeout_seconds:g} s.")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            inside = isinstance(error.__cause__, _InsideError)
            return Attempt(None, INSIDE if inside else f"{type(error).__name__}: {error}"[:500].replace("\0", ""))


def _write_body(delivery: ClaimedDelivery) -> bytes:
    event = {
        "id": delivery.event_id,
        "object": "event",
        "created_at": int(delivery.event_at.timestamp()),
        "type": delivery.type,
        "data": {"id": delivery.object_id},
    }
    return json.dumps(event, separators=(",", ":")).encode()
