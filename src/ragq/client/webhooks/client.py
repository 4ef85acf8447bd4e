"""Send webhooks as in Standard Webhooks (https://www.standardwebhooks.com), only to public addresses.

Imported when the first webhook is sent: the API needs an HTTP client for nothing else.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from ragq import tracing
from ragq.client.connection_errors import describe
from ragq.client.webhooks.target import NOT_PUBLIC, find_address, is_public, read_allowed
from ragq.settings import Settings
from ragq.storage.webhooks import SECRET_PREFIX, Attempt, ClaimedDelivery

RESOLVER_THREADS = 16  # a separate pool: a slow name server must not block other work in threads


class NotPublicError(OSError):
    """The host has an address that is not public."""


def sign(secret: str, event_id: str, timestamp: int, body: bytes) -> str:
    """Sign a delivery as Standard Webhooks' `v1`."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    signed = f"{event_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


class PublicResolver(AbstractResolver):
    """Resolves names; refuses a host with any non-public address, unless the host is allowed."""

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
            raise NotPublicError(NOT_PUBLIC)
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
        self._resolver = PublicResolver(self._allowed)
        # Each delivery opens its own connection, so that its address is resolved and checked.
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
        """Send a delivery; the returned attempt holds the status or the error. The response's body is not read."""
        host = urlsplit(delivery.url).hostname or ""
        address = find_address(host)
        if address and host not in self._allowed and not is_public(address):  # addresses do not pass the resolver
            return Attempt(None, NOT_PUBLIC)
        body, timestamp = _write_body(delivery), int(time.time())
        headers = {
            "content-type": "application/json",
            "user-agent": "ragq-webhooks",
            "webhook-id": delivery.event_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(delivery.secret, delivery.event_id, timestamp, body),
        } | (tracing.headers() or {})
        try:
            async with self._session.post(delivery.url, data=body, headers=headers, allow_redirects=False) as response:
                return Attempt(response.status, None)
        except TimeoutError:
            return Attempt(None, f"No answer within {self._settings.webhook_timeout_seconds:g} s.")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            inside = isinstance(error.__cause__, NotPublicError)
            return Attempt(None, NOT_PUBLIC if inside else f"{host}: {describe(error)}")


def _write_body(delivery: ClaimedDelivery) -> bytes:
    event = {
        "id": delivery.event_id,
        "object": "event",
        "created_at": int(delivery.event_at.timestamp()),
        "type": delivery.type,
        "data": {"id": delivery.object_id},
    }
    return json.dumps(event, separators=(",", ":")).encode()
