"""Certificates, and a TLS proxy for a server without TLS."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ragq.tasks import end_tasks


@dataclass(frozen=True, slots=True)
class Certificate:
    """A self-signed certificate and its key."""

    file: Path
    key: Path


def make_certificate(folder: Path, name: str) -> Certificate:
    """Make a certificate for a host name or an address."""
    kind = "IP" if name[0].isdigit() else "DNS"
    made = Certificate(folder / f"{name}.pem", folder / f"{name}.key")
    subject = ["-subj", f"/CN={name}", "-addext", f"subjectAltName={kind}:{name}"]
    where = ["-keyout", str(made.key), "-out", str(made.file)]
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    subprocess.run([*command, *subject, *where], check=True, capture_output=True)
    return made


class TlsProxy:
    """Listens with TLS on a port of loopback and forwards everything to a socket; use it with `with`."""

    def __init__(self, target: Path, certificate: Certificate) -> None:
        self._target = target
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate.file, certificate.key)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)

    async def _close(self) -> None:
        self._server.close()
        await end_tasks(asyncio.all_tasks() - {asyncio.current_task()})
        for _ in range(5):  # turns of the event loop in which the transports close
            await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(writer.transport.abort)
            theirs, ours = await asyncio.open_unix_connection(self._target)
            stack.callback(ours.transport.abort)
            ways = asyncio.create_task(_pass_on(reader, ours)), asyncio.create_task(_pass_on(theirs, writer))
            stack.push_async_callback(end_tasks, ways)
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
