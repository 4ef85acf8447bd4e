"""Good clients in a process: `python -m benchmarks.attack.good_client URL KEY` runs until standard input ends.

One sends `GET /healthz` on a new connection each time; one sends `POST /chat` on a kept-alive connection. It prints `ready`
and, at the end, the times of each in seconds as JSON; a failed request counts as 30 s.
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
    """Send a request and record its time."""
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
