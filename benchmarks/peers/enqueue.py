"""Enqueue for a compared queue: `python -m benchmarks.peers.enqueue MODULE KIND COUNT RATE`.

MODULE has `enqueue(kind, sents)`. RATE is jobs a second, enqueued in steps of 50 ms; 0 enqueues all at once.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import time

STEP_SECONDS = 0.05


async def main(module: str, kind: str, count: int, rate: float) -> None:
    """Enqueue; each job carries the time at which it was sent."""
    enqueue = importlib.import_module(module).enqueue
    if not rate:
        return await enqueue(kind, [time.time()] * count)
    size, started = round(rate * STEP_SECONDS), time.monotonic()
    for step in range(round(count / size)):
        await asyncio.sleep(max(0.0, started + step * STEP_SECONDS - time.monotonic()))
        await enqueue(kind, [time.time()] * size)
    return None


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
