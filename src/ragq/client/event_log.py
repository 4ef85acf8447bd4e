"""The event logs in Valkey: the events of a running job, which any process can read from the start and follow.

A log is a stream `P:events:ID`; each entry holds an attempt number and events. The log expires with the job.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any

import redis.asyncio
import structlog

from ragq.client.valkey_client import ValkeyClient, pairs, translate_errors
from ragq.errors import UnavailableError
from ragq.records import LogEntry, read_events
from ragq.tasks import end_tasks

log = structlog.get_logger(__name__)

BLOCK_MS = 100  # how long one read waits; a new follower joins the next read

EntryId = tuple[int, int]


@dataclass(slots=True, eq=False)
class _Follower:
    key: bytes
    last: EntryId = (0, 0)
    entries: asyncio.Queue[list[LogEntry]] = field(default_factory=asyncio.Queue)


class EventReader:
    """Follows any number of logs over one connection, in one task."""

    def __init__(self, valkey: ValkeyClient, listener: redis.asyncio.Redis, prefix: str) -> None:
        self._valkey, self._listener = valkey, listener
        self._prefix = prefix
        self._followers: set[_Follower] = set()
        self._task: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Stop reading."""
        if self._task:
            await end_tasks([self._task])

    async def follow(self, job_id: str, ended: asyncio.Event) -> AsyncIterator[LogEntry]:
        """Yield a log's entries from the start, as they arrive. After `ended` is set, yield the rest and stop."""
        follower = _Follower(f"{self._prefix}:events:{job_id}".encode())
        self._followers.add(follower)
        self._task = self._task or asyncio.create_task(self._read_forever(), context=Context())
        end, more = asyncio.create_task(ended.wait()), None
        try:
            while not ended.is_set():
                more = asyncio.create_task(follower.entries.get())
                await asyncio.wait({more, end}, return_when=asyncio.FIRST_COMPLETED)
                if not more.done():
                    break
                for entry in more.result():
                    yield entry
        finally:
            end.cancel()
            if more:
                more.cancel()
            self._followers.discard(follower)
        while not follower.entries.empty():
            for entry in follower.entries.get_nowait():
                yield entry
        async with translate_errors():
            rest = await self._valkey.call("XRANGE", follower.key, f"({_written(follower.last)}", "+")
        for entry in _read([(id_, pairs(fields)) for id_, fields in rest]):
            yield entry

    async def _read_forever(self) -> None:
        while True:
            if not self._followers:
                await asyncio.sleep(BLOCK_MS / 1000)
                continue
            try:
                self._distribute(*await self._read_more())
            except UnavailableError as error:
                log.warning("waiting_for_service", part="events", error=str(error))
                await asyncio.sleep(1)
            except Exception:  # a log that cannot be read must not stop the other followers
                log.exception("events_not_read")
                await asyncio.sleep(1)

    def _distribute(self, after: dict[bytes, EntryId], found: dict[bytes, list[Any]]) -> None:
        for follower in self._followers:
            if follower.key not in found or follower.last < after[follower.key]:
                continue  # it joined during this read and still needs earlier entries
            new = [(id_, fields) for id_, fields in found[follower.key] if _entry_id(id_) > follower.last]
            if new:
                follower.last = _entry_id(new[-1][0])
                follower.entries.put_nowait(_read(new))

    async def _read_more(self) -> tuple[dict[bytes, EntryId], dict[bytes, list[Any]]]:
        """Read each log after the last entry that all its followers have; returns that entry's id and what follows."""
        last: dict[bytes, EntryId] = {}
        for follower in self._followers:
            last[follower.key] = min(follower.last, last.get(follower.key, follower.last))
        logs: Any = {key: _written(id_) for key, id_ in last.items()}
        async with translate_errors():
            found: Any = await self._listener.xread(logs, block=BLOCK_MS)
        return last, dict(found)


def _entry_id(text: bytes) -> EntryId:
    time, _, number = text.partition(b"-")
    return int(time), int(number)


def _written(id_: EntryId) -> str:
    return f"{id_[0]}-{id_[1]}"


def _read(entries: list[Any]) -> list[LogEntry]:
    return [LogEntry(int(fields[b"attempt"]), read_events(fields[b"events"])) for _, fields in entries]
