"""The jobs of every compared queue: one HTTP call, blocking in a thread or on the event loop, or nothing."""

from __future__ import annotations

import http.client
import os
import threading
from urllib.parse import urlsplit

import aiohttp

URL = os.environ.get("BENCH_ENDPOINT", "")
SOCKET = os.environ.get("BENCH_VALKEY_SOCKET", "")

_local = threading.local()
_session: aiohttp.ClientSession | None = None


def call_blocking(sent: float) -> str:
    """Call on this thread's own connection."""
    if not hasattr(_local, "connection"):
        _local.connection = http.client.HTTPConnection(urlsplit(URL).netloc)
    _local.connection.request("GET", f"/wait?sent={sent}")
    text: str = _local.connection.getresponse().read().decode()
    return text


async def call(sent: float) -> str:
    """Call from the event loop, on a session of the process."""
    global _session  # noqa: PLW0603  (a task queue has no place for objects that its functions share)
    if _session is None:
        _session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    async with _session.get(f"{URL}/wait?sent={sent}") as answer:
        return await answer.text()
