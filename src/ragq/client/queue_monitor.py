"""What Valkey tells of the queue: the live workers, and how much waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any

import redis.asyncio
from redis import exceptions

from ragq.client.job import read_worker
from ragq.errors import UnavailableError

ANSWER_SECONDS = 5.0
WORKER_SECONDS = 15  # a worker that has not registered for so long is gone
UNAVAILABLE = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.BusyLoadingError,
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,
    exceptions.MasterDownError,
    OSError,
)

REFUSALS = (
    "MISCONF",
    "NOREPLICAS",
    "BUSY ",
    "OOM",
)  # the disk is full, replicas are missing, a script hangs, memory is full


@contextlib.asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Give Valkey its time to answer, and say in our words that it did not.

    The connections have no `socket_timeout`: in Python 3.11 the one of redis-py swallows cancellations.
    """
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            yield
    except (*UNAVAILABLE, exceptions.ResponseError) as error:
        if not isinstance(error, UNAVAILABLE) and not str(error).startswith(REFUSALS):
            raise
        raise UnavailableError(
            f"Valkey does not take the command ({type(error).__name__}: {error}). Nothing was changed as far as "
            "is known; the same call may be sent again.",
            code="queue_unavailable",
            retry_after_seconds=2,
        ) from error


class QueueMonitor:
    """Reads lists and workers; workers make themselves known here."""

    def __init__(self, connection: redis.asyncio.Redis, prefix: str) -> None:
        self._redis = connection
        self._prefix = prefix

    async def register_worker(self, name: str, fields: dict[str, Any], queues: Iterable[str]) -> None:
        """Show a worker to RQ's tools and to the estimates, with its lists, until it is silent for a while."""
        key = f"{self._prefix}:worker:{name}"
        async with translated():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.hset(key, mapping={field: value for field, value in fields.items() if value is not None})
            pipeline.expire(key, WORKER_SECONDS)
            pipeline.sadd(f"{self._prefix}:workers", key)
            for queue in queues:
                pipeline.sadd(f"{self._prefix}:workers:{queue}", key)
                pipeline.sadd(f"{self._prefix}:queues", f"{self._prefix}:queue:{queue}")
            await pipeline.execute()

    async def unregister_worker(self, name: str, queues: Iterable[str]) -> None:
        """Take a worker out of what RQ's tools show."""
        key = f"{self._prefix}:worker:{name}"
        async with translated():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.delete(key)
            pipeline.srem(f"{self._prefix}:workers", key)
            for queue in queues:
                pipeline.srem(f"{self._prefix}:workers:{queue}", key)
            await pipeline.execute()

    async def describe(self) -> dict[str, Any]:
        """Count the jobs of each list, tell how long the first in it waits, and name the live workers."""
        async with translated():
            names = [
                _text(key).removeprefix(f"{self._prefix}:queue:")
                for key in sorted(await self._redis.smembers(f"{self._prefix}:queues"))
            ]
            queues = [await self._describe_list(name) for name in names]
            workers = [await self._redis.hgetall(key) for key in await self._redis.smembers(f"{self._prefix}:workers")]
        return {
            "queues": queues,
            "workers": [
                read_worker({_text(name): _text(value) for name, value in fields.items()})
                for fields in workers
                if fields
            ],
        }

    async def _describe_list(self, name: str) -> dict[str, Any]:
        now = time.time()
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.llen(f"{self._prefix}:queue:{name}")
        pipeline.zcard(f"{self._prefix}:wip:{name}")
        pipeline.zcard(f"{self._prefix}:scheduled:{name}")
        pipeline.zcount(f"{self._prefix}:finished:{name}", now, "+inf")
        pipeline.zcount(f"{self._prefix}:failed:{name}", now, "+inf")
        pipeline.lindex(f"{self._prefix}:queue:{name}", 0)
        *counts, first = await pipeline.execute()
        since = await self._redis.hget(f"{self._prefix}:job:{_text(first)}", "created_ms") if first else None
        words = ("queued", "in_flight", "scheduled", "finished", "failed")
        created_ms = _text(since) if since else ""
        oldest = max(0.0, round(now - int(created_ms) / 1000, 1)) if created_ms.isdigit() else None
        return {"name": name, **dict(zip(words, counts, strict=True)), "oldest_seconds": oldest}


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
