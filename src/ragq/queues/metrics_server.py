"""A worker's metrics over HTTP, on its event loop.

prometheus_client's own server keeps a thread for each connection without a time limit, so silent clients would fill the
process.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from urllib.parse import urlsplit

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from ragq.errors import ConfigurationError
from ragq.settings import Settings, is_loopback

EVERY_INTERFACE = ("0.0.0.0", "::")  # noqa: S104  (what the operator chose)
SECONDS = 5.0  # for a whole request and its answer
MAX_CONNECTIONS = 32
MAX_HEAD_BYTES = 16 << 10


async def serve_metrics(settings: Settings) -> tuple[asyncio.Server, str]:
    """Serve this process's metrics to Prometheus; returns the server and its address.

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
                        await _answer(reader, writer)
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
    valkey = urlsplit(settings.valkey_url.get_secret_value() if settings.valkey_url else "")
    host = ""
    if valkey.hostname:
        with contextlib.suppress(OSError):
            # Connecting a datagram socket sends nothing; it only chooses the interface.
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                asyncio.DatagramProtocol, remote_addr=(valkey.hostname, valkey.port or 6379)
            )
            host = str(transport.get_extra_info("sockname")[0])
            transport.close()
    return host if host and not is_loopback(host) else socket.gethostname()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    body = generate_latest() if head.startswith(b"GET ") else b""
    status = "200 OK" if body else "405 Method Not Allowed"
    fields = f"content-type: {CONTENT_TYPE_LATEST}\r\ncontent-length: {len(body)}\r\nconnection: close\r\nallow: GET"
    writer.write(f"HTTP/1.1 {status}\r\n{fields}\r\n\r\n".encode() + body)
    writer.close()
    await writer.wait_closed()
