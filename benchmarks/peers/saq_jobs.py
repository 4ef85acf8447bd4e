"""SAQ on one process, 500 jobs at once."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis
from saq.queue.redis import RedisQueue

from benchmarks.peers import calls

queue = RedisQueue(Redis(unix_socket_path=calls.SOCKET))
COMMAND = ["saq", f"{__name__}.settings"]


async def call(_context: dict[str, Any], *, sent: float) -> str:
    """Call the endpoint."""
    return await calls.call(sent)


async def noop(_context: dict[str, Any], *, sent: float) -> str:
    """Do nothing."""
    return str(sent)


settings = {"queue": queue, "functions": [call, noop], "concurrency": 500}


async def enqueue(kind: str, sents: list[float]) -> None:
    """Enqueue a job for each time."""
    await queue.connect()
    for sent in sents:
        await queue.enqueue(kind, sent=sent)
