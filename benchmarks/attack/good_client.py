"""Good clients, in a process of their own: `python -m benchmarks.attack.good_client URL KEY` until standard input ends.

One asks `GET /healthz`, each time on a new connection; one sends `POST /chat` on a kept connection. Prints `ready`, and at
the end JSON: the times of each in seconds; a request that failed counts as 30 s.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import aiohttp
import uvloop

FAILED_SECONDS = 30.0
PAUSE_SECONDS = 0.01


async def ask(session: aiohttp.ClientSession, method: str, path: str, times: list[float]) -> None:
    """Send a request and note how long it took."""
    started = time.monotonic()
    try:
        async with session.request(method, path) as reply:
            await reply.read()
            ok = reply.status == 200
    except (aiohttp.ClientError, TimeoutError):
        ok = False
    times.append(time.monotonic() - started if ok else FAILED_SECONDS)
    await asyncio.sleep(PAUSE_SECONDS)


async def run(url: str, key: str) -> dict[str, list[float]]:
    """Ask until standard input ends."""
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    limit = aiohttp.ClientTimeout(FAILED_SECONDS)
    headers = {"Authorization": f"Bearer {key}"}
    found: dict[str, list[float]] = {"healthz": [], "chat": []}
    fresh = aiohttp.ClientSession(url, timeout=limit, connector=aiohttp.TCPConnector(force_close=True))
    kept = aiohttp.ClientSession(url, timeout=limit, headers=headers)
    async with fresh, kept:
        print("ready", flush=True)
        while not ended.done():
            await ask(fresh, "GET", "/healthz", found["healthz"])
            await ask(kept, "POST", "/chat?query=How+tall+is+the+lighthouse%3F", found["chat"])
    return found


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(*sys.argv[1:]))))
