"""An endpoint of a served model that answers what a test tells it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Handler = Callable[[dict[str, Any], int], web.Response]
"""Takes a call's body and its number, from 1."""


@dataclass
class Endpoint:
    """What it was asked, with the `url` of each call among its headers, and what it answers after `delay` seconds."""

    handler: Handler
    calls: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""
    delay: float = 0.0

    async def answer(self, request: web.Request) -> web.Response:
        self.headers.append(dict(request.headers) | {"url": request.path_qs})
        self.calls.append(await request.json())
        await asyncio.sleep(self.delay)
        return self.handler(self.calls[-1], len(self.calls))


@asynccontextmanager
async def serve(handler: Handler, path: str) -> AsyncIterator[Endpoint]:
    """Serve `/v1` and a path below it on a free port."""
    endpoint, application = Endpoint(handler), web.Application(client_max_size=64 << 20)
    application.router.add_post(f"/v1{path}", endpoint.answer)
    runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    endpoint.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield endpoint
    finally:
        await runner.cleanup()
