"""A receiver of webhooks that answers according to the path and records the requests."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import web

T = TypeVar("T")


@dataclass
class Receiver:
    """Records requests to `/ok`, `/flaky` (500 at first), `/redirect` (to `/ok`), `/gone` and `/slow` (never answers)."""

    url: str = ""
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    def got(self, path: str) -> list[dict[str, Any]]:
        return [json.loads(body) for at, _, body in self.requests if at == path]

    async def answer(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append((request.path, headers, await request.read()))
        if request.path == "/slow":
            await asyncio.sleep(60)
        if request.path == "/flaky" and len(self.got("/flaky")) == 1:
            return web.Response(status=500)
        if request.path == "/redirect":
            return web.Response(status=302, headers={"Location": f"{self.url}/ok"})
        return web.Response(status=410 if request.path == "/gone" else 500 if request.path == "/broken" else 204)


@asynccontextmanager
async def running_receiver() -> AsyncIterator[Receiver]:
    receiver, app = Receiver(), web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.answer)
    runner = web.AppRunner(app, shutdown_timeout=0, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield receiver
    finally:
        await runner.cleanup()


async def eventually(check: Callable[[], Awaitable[T]], *, seconds: float = 15, what: str = "") -> T:
    """Await `check` until its result is true; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := await check()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or check}"
        await asyncio.sleep(0.03)
    return value
