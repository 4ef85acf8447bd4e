"""A worker's metrics and its health over HTTP, on its event loop.

prometheus_client's own server keeps a thread for each connection without a time limit, so silent clients would fill the
process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from dataclasses import dataclass
from http import HTTPStatus

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from ragq.client.queue_monitor import WORKER_SECONDS
from ragq.client.replication.address import read_address
from ragq.errors import ConfigurationError
from ragq.settings import Settings, is_loopback

EVERY_INTERFACE = ("0.0.0.0", "::")  # noqa: S104  (what the operator chose)
SECONDS = 5.0  # for a whole request and its answer
MAX_CONNECTIONS = 32
MAX_HEAD_BYTES = 16 << 10
JSON_TYPE = "application/json"


@dataclass(slots=True)
class WorkerHealth:
    """Whether a worker does its work.

    Attributes:
        registered_at: When Valkey last took its heartbeat, on the monotonic clock; None before the first.
        has_models: It has loaded what its jobs need.
        is_stopping: It claims no more jobs.
    """

    registered_at: float | None = None
    has_models: bool = False
    is_stopping: bool = False

    def find_fault(self) -> str | None:
        """Why it is not ready; None if it is."""
        if self.is_stopping:
            return "It is stopping."
        if self.registered_at is None or time.monotonic() - self.registered_at > WORKER_SECONDS:
            return "Valkey does not take its heartbeat."
        return None if self.has_models else "It is loading the embedding model."


async def serve_metrics(settings: Settings, health: WorkerHealth) -> tuple[asyncio.Server, str]:
    """Serve this process's metrics to Prometheus, and its health at `/healthz` and `/readyz`.

    `/healthz` shows that the event loop runs. It does not ask whether Valkey is there: a restart would not bring it back.

    Returns:
        The server and its address.

    Raises:
        ConfigurationError: The address cannot be bound.
    """
    open_: set[asyncio.StreamWriter] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_.add(writer)
        try:
            if len(open_) <= MAX_CONNECTIONS:
                with contextlib.suppress(TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                    async with asyncio.timeout(SECONDS):
                        await _answer(reader, writer, health)
        finally:
            open_.discard(writer)
            writer.transport.abort()

    try:
        server = await asyncio.start_server(
            answer, settings.metrics_host, settings.metrics_port, limit=MAX_HEAD_BYTES, backlog=MAX_CONNECTIONS
        )
    except OSError as error:
        raise ConfigurationError(
            f"RAGQ_METRICS_HOST {settings.metrics_host}, RAGQ_METRICS_PORT {settings.metrics_port}: {error.strerror}. "
            "Each worker on a machine needs its own port; 0 picks a free one."
        ) from error
    host = await _find_reachable_host(settings)
    return server, f"{f'[{host}]' if ':' in host else host}:{server.sockets[0].getsockname()[1]}"


async def _find_reachable_host(settings: Settings) -> str:
    """Find where others reach the server: of every interface, on the one that leads to Valkey.

    A Valkey on this machine leads to no interface; then it is this machine's name.
    """
    if settings.metrics_host not in EVERY_INTERFACE:
        return settings.metrics_host
    valkey = read_address(settings.valkey_url.get_secret_value()).host if settings.valkey_url else None
    host = ""
    if valkey:
        with contextlib.suppress(OSError):
            # Connecting a datagram socket sends nothing; it only chooses the interface.
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                asyncio.DatagramProtocol, remote_addr=valkey
            )
            host = str(transport.get_extra_info("sockname")[0])
            transport.close()
    return host if host and not is_loopback(host) else socket.gethostname()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, health: WorkerHealth) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    status, kind, body = respond(head, health)
    fields = f"content-type: {kind}\r\ncontent-length: {len(body)}\r\nconnection: close\r\nallow: GET"
    writer.write(f"HTTP/1.1 {status.value} {status.phrase}\r\n{fields}\r\n\r\n".encode() + body)
    writer.close()
    await writer.wait_closed()


def respond(head: bytes, health: WorkerHealth) -> tuple[HTTPStatus, str, bytes]:
    """The status, content type and body for a request's head."""
    if head.startswith(b"GET /healthz "):
        return HTTPStatus.OK, JSON_TYPE, b'{"status": "ok"}'
    if head.startswith(b"GET /readyz "):
        fault = health.find_fault()
        shown = {"status": "not ready", "worker": fault} if fault else {"status": "ready"}
        return HTTPStatus.SERVICE_UNAVAILABLE if fault else HTTPStatus.OK, JSON_TYPE, json.dumps(shown).encode()
    if head.startswith(b"GET "):
        return HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest()
    return HTTPStatus.METHOD_NOT_ALLOWED, CONTENT_TYPE_LATEST, b""
