"""The state of the queue in Valkey: live workers, and jobs by list."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ragq.client.valkey_client import Command, ValkeyClient, pairs, translate_errors

AT_ONCE = 100  # lists
COUNTS = 6  # of a list: see _counts_of
WORKER_SECONDS = 15  # a worker that has not registered for this long is gone


@dataclass(frozen=True, slots=True)
class ListState:
    """The jobs of a list by state, and how long the first one has waited."""

    name: str
    queued: int
    in_flight: int
    scheduled: int
    finished: int
    failed: int
    oldest_seconds: float | None


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A live worker, as it last registered.

    Attributes:
        ready: It has loaded the models that its jobs need.
        metrics: Host and port of its metrics; empty when it serves none.
        in_flight: Number of jobs that it holds.
        heartbeat_seconds: How long ago it registered; None if it does not say.
        slots: Number of jobs that it may hold, by queue.
        finished: Number of jobs that it finished since its start; `failed` likewise.
    """

    name: str
    host: str
    pid: int
    state: str
    ready: bool
    queues: list[str]
    metrics: str
    in_flight: int
    finished: int
    failed: int
    heartbeat_seconds: float | None = None
    slots: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class QueueState:
    """All lists, and all live workers."""

    queues: list[ListState]
    workers: list[WorkerState]

    def oldest_seconds(self, queue: str) -> float:
        """How long the first job of a queue has waited, in any of its lists; 0 if none waits."""
        lists = [one for one in self.queues if re.split("[.@]", one.name)[0] == queue]
        return max((one.oldest_seconds or 0.0 for one in lists), default=0.0)


class QueueMonitor:
    """Reads lists and workers; workers register here."""

    def __init__(self, valkey: ValkeyClient, prefix: str, run: Callable[..., Awaitable[Any]]) -> None:
        self._valkey = valkey
        self._prefix = prefix
        self._run = run

    async def register_worker(self, name: str, fields: Mapping[str, str | int | None], queues: Iterable[str]) -> None:
        """Register a worker and its lists for RQ's tools and the estimates; it expires unless repeated."""
        lists = list(queues)
        known = [part for pair in fields.items() if pair[1] is not None for part in pair]
        await self._run("register", name, WORKER_SECONDS, len(lists), *lists, *known)

    async def unregister_worker(self, name: str, queues: Iterable[str]) -> None:
        """Remove a worker from the ones that RQ's tools show."""
        key = f"{self._prefix}:worker:{name}"
        commands: list[Command] = [["DEL", key], ["SREM", f"{self._prefix}:workers", key]]
        commands += [["SREM", f"{self._prefix}:workers:{queue}", key] for queue in queues]
        async with translate_errors():
            await self._valkey.transact(commands)

    async def describe(self) -> QueueState:
        """Read the state of each list and the live workers."""
        async with translate_errors():
            keys = sorted(await self._valkey.call("SMEMBERS", f"{self._prefix}:queues"))
            queues = await self._describe_lists([_text(key).removeprefix(f"{self._prefix}:queue:") for key in keys])
            names = await self._valkey.call("SMEMBERS", f"{self._prefix}:workers")
            hashes = await self._valkey.call_all(["HGETALL", key] for key in names)
        workers = [{_text(name): _text(value) for name, value in pairs(fields).items()} for fields in hashes]
        return QueueState(queues, [_read_worker(fields) for fields in workers if fields])

    async def _describe_lists(self, names: list[str]) -> list[ListState]:
        """Read some lists at a time, since each tenant has its own; those of one list in one step."""
        now, prefix, states = time.time(), self._prefix, list[ListState]()
        for start in range(0, len(names), AT_ONCE):
            part = names[start : start + AT_ONCE]
            read = await self._valkey.transact(command for name in part for command in _counts_of(prefix, name, now))
            counts = [read[first : first + COUNTS] for first in range(0, len(read), COUNTS)]
            keys = [f"{prefix}:job:{_text(first or b'')}" for *_, first in counts]
            created = await self._valkey.call_all(["HGET", key, "created_ms"] for key in keys)
            for name, (*numbers, _), since in zip(part, counts, created, strict=True):
                fields: list[Any] = [name, *numbers, _seconds_since(since, now)]
                states.append(ListState(*fields))
        return states


def _seconds_since(created_ms: bytes | None, now: float) -> float | None:
    known = created_ms is not None and created_ms.isdigit()
    return max(0.0, round(now - int(created_ms or 0) / 1000, 1)) if known else None


def _counts_of(prefix: str, name: str, now: float) -> list[Command]:
    return [
        ["LLEN", f"{prefix}:queue:{name}"],
        ["ZCARD", f"{prefix}:wip:{name}"],
        ["ZCARD", f"{prefix}:scheduled:{name}"],
        ["ZCOUNT", f"{prefix}:finished:{name}", now, "+inf"],
        ["ZCOUNT", f"{prefix}:failed:{name}", now, "+inf"],
        ["LINDEX", f"{prefix}:queue:{name}", 0],
    ]


def _read_worker(fields: dict[str, str]) -> WorkerState:
    return WorkerState(
        name=fields.get("name", ""),
        host=fields.get("hostname", ""),
        pid=int(fields.get("pid", 0)),
        state=fields.get("state", ""),
        ready=fields.get("ready", "1") == "1",  # an older version does not send it
        queues=fields.get("queues", "").split(","),
        metrics=fields.get("metrics", ""),
        in_flight=int(fields.get("in_flight", 0)),
        finished=int(fields.get("successful_job_count", 0)),
        failed=int(fields.get("failed_job_count", 0)),
        heartbeat_seconds=_age(fields.get("last_heartbeat", "")),
        slots=dict(_read_slot(slot) for slot in fields.get("slots", "").split()),
    )


def _read_slot(text: str) -> tuple[str, int]:
    queue, _, count = text.partition("=")
    return queue, int(count) if count.isdigit() else 0


def _age(time_of_rq: str) -> float | None:
    try:
        beat = datetime.fromisoformat(time_of_rq)
    except ValueError:
        return None
    return max(0.0, round((datetime.now(UTC) - beat).total_seconds(), 1))


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
