"""Find jobs, list entries and leases in Valkey that contradict each other. Read-only."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import redis.asyncio
from redis import exceptions

from ragq.client.job import pool_of
from ragq.client.replication.address import connect
from ragq.client.valkey_client import UNAVAILABLE
from ragq.errors import UnavailableError
from ragq.models import DEFAULT_TENANT, JobStatus, Orphan
from ragq.settings import Settings

RECHECK_SECONDS = 1.0  # between the two snapshots
BATCH = 500  # commands of a pipeline
PAGE = 10_000  # entries of a list read at once
SUCCESS = "1"  # RQ's type of a successful result

UNFINISHED = (JobStatus.QUEUED, JobStatus.STARTED, JobStatus.SCHEDULED)

_END = "End it (POST /v1/responses/ID/cancel, or take the file out of its store) and ask again."
KINDS = {
    "queued_in_no_list": f"The job is queued but in no list, so no worker will run it. {_END}",
    "started_without_lease": f"The job is started but has no lease, so its worker's death would go unnoticed. {_END}",
    "scheduled_not_delayed": f"The job waits for a retry that is not scheduled. {_END}",
    "finished_without_one_result": "The job is finished but does not have exactly one result. Ask again.",
    "unreadable_job": "The job's key does not hold a job. Inspect it with valkey-cli, then delete it.",
    "list_without_turn": "The list has jobs but is not in its lane's ring, and no job of its tenant runs whose end would "
    "put it there. A worker adds it in 10 s: is one running?",
    "uneven_turns": "The lists of a tenant have different turns, so its lanes are not in order. Each claim mends it.",
    "turn_without_jobs": "Harmless: the list is empty but has a turn. The next claim drops it.",
    "stale_list_entry": "Harmless: the entry's job is gone or not queued. The next claim drops the entry.",
    "stale_lease": "Harmless: the lease's job is gone or not started. The lease is dropped when it expires.",
    "wrong_queued_bytes": "The list's count of waiting bytes is wrong, so admission is too strict or lax: report it.",
    "stale_bytes": "Harmless: the job has ended, but its bytes are counted until its deadline.",
    "stale_in_flight_entry": "Harmless: this attempt is not running. Only the count of jobs in flight is wrong.",
}


@dataclass(frozen=True, slots=True)
class _JobState:
    status: str
    attempt: str
    answers: int = 0


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """The state of Valkey, read in steps while it changes; a job is None if its key does not hold a job."""

    lists: dict[str, list[str]]
    in_flight: dict[str, list[str]]  # by the name of a list
    leases: set[str]
    delayed: set[str]
    turns: dict[str, float]  # name of a list -> time of its tenant's next turn
    times: dict[str, float]  # pool -> its time
    limited: set[str]  # tenants with a limit of running jobs
    bytes: dict[str, str]  # job id -> "bytes:NAME"
    queued_bytes: dict[str, str]  # name -> bytes
    jobs: dict[str, _JobState | None]


async def audit_queue(settings: Settings, url: str) -> list[Orphan]:
    """Find orphans.

    A running system cannot be read at one moment, so each suspected orphan is checked again a second later. It is
    reported only if it is wrong in the same way and its job has not changed in between.

    Raises:
        UnavailableError: Valkey does not answer.
    """
    async with _connected(url) as connection:
        reader = _Reader(connection, settings.key_prefix)
        before = await reader.read(None)
        suspects = list(_find_orphans(before))
        if not suspects:
            return []
        await asyncio.sleep(RECHECK_SECONDS)
        after = await reader.read({_job_id(orphan) for orphan in suspects})
    still = {orphan for orphan in _find_orphans(after) if _unmoved(orphan, before, after)}
    return [orphan for orphan in suspects if orphan in still]


async def find_keys_of(settings: Settings, url: str, tenant_id: str) -> set[str]:
    """Find what names a tenant in Valkey: keys by their name, jobs by their tenant, and entries of all other keys.

    Results and events without a job are found, too, since nothing tells whose they are.

    Raises:
        UnavailableError: Valkey does not answer.
    """
    async with _connected(url) as connection:
        return await _Reader(connection, settings.key_prefix).find_keys_of(tenant_id)


@contextlib.asynccontextmanager
async def _connected(url: str) -> AsyncIterator[redis.asyncio.Redis]:
    connection = connect(
        url, decode_responses=True, encoding_errors="replace", socket_timeout=30, socket_connect_timeout=3
    )
    try:
        yield connection
    except UNAVAILABLE as error:
        raise UnavailableError("Valkey does not answer.", detail=error, code="queue_unavailable") from error
    finally:
        await connection.aclose()


class _Reader:
    """Reads snapshots, in small commands that do not block Valkey."""

    def __init__(self, connection: redis.asyncio.Redis, prefix: str) -> None:
        self._redis = connection
        self._prefix = prefix

    async def read(self, job_ids: set[str] | None) -> _Snapshot:
        """Read the lists and sets, then the given jobs, or all jobs for None."""
        lists = {name: await self._read_list(f"{self._prefix}:queue:{name}") for name in await self._scan("queue")}
        held, sums = await self._read_bytes()
        in_flight, turns = await self._read_turns()
        shares = await self._redis.hgetall(f"{self._prefix}:shares")
        return _Snapshot(
            lists=lists,
            in_flight=in_flight,
            leases=set(await self._read_set("leases")),
            delayed=set(await self._read_set("delayed")),
            turns=turns,
            times={pool: await self._read_time(pool) for pool in await self._scan("turns")},
            limited={str(tenant) for tenant, share in shares.items() if not str(share).endswith(":0")},
            bytes=held,
            queued_bytes=sums,
            jobs=await self._read_jobs(await self._scan("job") if job_ids is None else sorted(job_ids)),
        )

    async def _scan(self, kind: str) -> list[str]:
        """List the names X of the keys P:kind:X."""
        start = f"{self._prefix}:{kind}:"
        names = [str(key).removeprefix(start) async for key in self._redis.scan_iter(f"{start}*", count=1000)]
        return sorted({name for name in names if ":" not in name})

    async def _read_list(self, key: str) -> list[str]:
        entries: list[str] = []
        while page := await self._redis.lrange(key, len(entries), len(entries) + PAGE - 1):
            entries += map(str, page)
        return entries

    async def _read_set(self, name: str) -> list[str]:
        return list(map(str, await self._redis.zrange(f"{self._prefix}:{name}", 0, -1)))

    async def _read_turns(self) -> tuple[dict[str, list[str]], dict[str, float]]:
        """Read the jobs in flight and the turns in one transaction: a list has no turn while its tenant is full."""
        names, lanes = await self._scan("wip"), await self._scan("ring")
        pipeline = self._redis.pipeline(transaction=True)
        for name in names:
            pipeline.zrange(f"{self._prefix}:wip:{name}", 0, -1)
        for lane in lanes:
            pipeline.zrange(f"{self._prefix}:ring:{lane}", 0, -1, withscores=True)
        answers = await pipeline.execute()
        in_flight = dict(zip(names, answers[: len(names)], strict=True))
        return in_flight, {name: turn for ring in answers[len(names) :] for name, turn in ring}

    async def _read_time(self, pool: str) -> float:
        return await self._redis.zscore(f"{self._prefix}:turns:{pool}", "@now") or 0

    async def _read_bytes(self) -> tuple[dict[str, str], dict[str, str]]:
        """Read the byte counts of jobs and of lanes, in one transaction."""
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.hgetall(f"{self._prefix}:bytes")
        pipeline.hgetall(f"{self._prefix}:queued_bytes")
        held, sums = await pipeline.execute()
        return held, sums

    async def _read_jobs(self, ids: list[str]) -> dict[str, _JobState | None]:
        answers = await self._pipe(ids, lambda pipe, id_: pipe.hmget(f"{self._prefix}:job:{id_}", "status", "attempt"))
        jobs: dict[str, _JobState | None] = {}
        for id_, answer in zip(ids, answers, strict=True):
            if isinstance(answer, exceptions.ResponseError):
                jobs[id_] = None
            elif answer[0] is not None:  # it may have expired since its key was listed
                jobs[id_] = _JobState(answer[0], answer[1] or "")
        finished = [id_ for id_, job in jobs.items() if job and job.status == JobStatus.FINISHED]
        answers_of = await self._count_answers(finished)
        return jobs | {id_: _JobState(JobStatus.FINISHED, "", count) for id_, count in answers_of.items()}

    async def _count_answers(self, ids: list[str]) -> dict[str, int]:
        """Count the successful results of finished jobs; a requeued job also has its earlier failures there."""
        lengths = await self._pipe(ids, lambda pipe, id_: pipe.xlen(f"{self._prefix}:results:{id_}"))
        counts = dict(zip(ids, lengths, strict=True))
        others = [id_ for id_, length in counts.items() if length != 1]
        streams = await self._pipe(others, lambda pipe, id_: pipe.xrange(f"{self._prefix}:results:{id_}"))
        for id_, stream in zip(others, streams, strict=True):
            readable = not isinstance(stream, exceptions.ResponseError)
            counts[id_] = sum(fields.get("type") == SUCCESS for _, fields in stream) if readable else 0
        return counts

    async def find_keys_of(self, tenant_id: str) -> set[str]:
        """Read every key under the prefix, except for the mark that refuses a deleted tenant's jobs."""
        named, found = re.compile(rf"(^|[@:]){re.escape(tenant_id)}(:|$)"), set[str]()
        all_keys = {str(key) async for key in self._redis.scan_iter(f"{self._prefix}:*", count=1000)}
        keys = sorted(all_keys - {f"{self._prefix}:closed"})
        kinds = await self._pipe(keys, lambda pipe, key: pipe.type(key))
        for key, kind in zip(keys, kinds, strict=True):
            what, _, name = key.removeprefix(f"{self._prefix}:").partition(":")
            is_lost = what in ("results", "events") and f"{self._prefix}:job:{name}" not in all_keys
            if is_lost or named.search(f"{what}:{name}"):
                found.add(key)
            elif what == "job":
                found |= {key} if kind == "hash" and await self._redis.hget(key, "tenant") == tenant_id else set()
            elif what not in ("results", "events"):
                found |= {f"{key} {entry}" for entry in await self._read_entries(key, kind) if named.search(entry)}
        return found

    async def _read_entries(self, key: str, kind: str) -> list[str]:
        """The members or fields of a collection, or a text."""
        if kind == "list":
            return await self._read_list(key)
        if kind == "zset":
            return [str(member) async for member, _ in self._redis.zscan_iter(key, count=1000)]
        if kind == "set":
            return [str(member) async for member in self._redis.sscan_iter(key, count=1000)]
        if kind == "hash":
            return [part async for pair in self._redis.hscan_iter(key, count=1000) for part in map(str, pair)]
        return [str(await self._redis.get(key))] if kind == "string" else []

    async def _pipe(self, ids: list[str], command: Callable[[Any, str], Any]) -> list[Any]:
        answers: list[Any] = []
        for start in range(0, len(ids), BATCH):
            pipeline = self._redis.pipeline(transaction=False)
            for id_ in ids[start : start + BATCH]:
                command(pipeline, id_)
            answers += await pipeline.execute(raise_on_error=False)
        return answers


def _job_id(orphan: Orphan) -> str:
    return orphan.id.partition(":")[0]


def _unmoved(orphan: Orphan, before: _Snapshot, after: _Snapshot) -> bool:
    """Whether state and attempt are the same; a job that is claimed and handed back repeatedly is not an orphan."""
    return before.jobs.get(_job_id(orphan)) == after.jobs.get(_job_id(orphan))


def _find_orphans(snapshot: _Snapshot) -> Iterator[Orphan]:
    yield from _find_bad_turns(snapshot)
    listed = {id_ for ids in snapshot.lists.values() for id_ in ids}
    yield from _find_bad_jobs(snapshot, listed)
    yield from _find_stale("stale_list_entry", snapshot, listed, JobStatus.QUEUED)
    yield from _find_stale("stale_lease", snapshot, snapshot.leases, JobStatus.STARTED)
    yield from _find_wrong_bytes(snapshot)
    for entry in (entry for entries in snapshot.in_flight.values() for entry in entries):
        id_, _, attempt = entry.partition(":")
        job = snapshot.jobs.get(id_)
        if job is None or (job.status, job.attempt) != (JobStatus.STARTED, attempt):
            yield _orphan("stale_in_flight_entry", entry)


def _find_bad_turns(snapshot: _Snapshot) -> Iterator[Orphan]:
    running = {_owner(name) for name, entries in snapshot.in_flight.items() if entries}
    for name, ids in snapshot.lists.items():
        may_wait = _owner(name)[1] in snapshot.limited and _owner(name) in running
        if ids and name not in snapshot.turns and not may_wait:
            yield _orphan("list_without_turn", name)
    turns: dict[tuple[str, str], set[float]] = {}
    for name, turn in snapshot.turns.items():
        if not snapshot.lists.get(name):
            yield _orphan("turn_without_jobs", name)
        pool = pool_of(name.partition("@")[0])
        turns.setdefault((pool, _owner(name)[1]), set()).add(max(turn, snapshot.times.get(pool, 0)))
    yield from (
        _orphan("uneven_turns", f"{pool} {tenant}") for (pool, tenant), found in turns.items() if len(found) > 1
    )


def _owner(name: str) -> tuple[str, str]:
    """The queue and the tenant of a list."""
    lane, _, tenant = name.partition("@")
    return lane.partition(".")[0], tenant or DEFAULT_TENANT


def _find_wrong_bytes(snapshot: _Snapshot) -> Iterator[Orphan]:
    sums: dict[str, int] = dict.fromkeys(snapshot.queued_bytes, 0)
    for id_, entry in snapshot.bytes.items():
        size, _, name = entry.partition(":")
        sums[name] = sums.get(name, 0) + int(size)
        job = snapshot.jobs.get(id_)
        if id_ not in snapshot.jobs or (job and job.status not in UNFINISHED):
            yield _orphan("stale_bytes", id_)
    for name, total in sums.items():
        if total != int(snapshot.queued_bytes.get(name, 0)):
            yield _orphan("wrong_queued_bytes", name)


def _find_bad_jobs(snapshot: _Snapshot, listed: set[str]) -> Iterator[Orphan]:
    for id_, job in snapshot.jobs.items():
        if job is None:
            yield _orphan("unreadable_job", id_)
        elif job.status == JobStatus.QUEUED and id_ not in listed:
            yield _orphan("queued_in_no_list", id_)
        elif job.status == JobStatus.STARTED and id_ not in snapshot.leases:
            yield _orphan("started_without_lease", id_)
        elif job.status == JobStatus.SCHEDULED and id_ not in snapshot.delayed:
            yield _orphan("scheduled_not_delayed", id_)
        elif job.status == JobStatus.FINISHED and job.answers != 1:
            yield _orphan("finished_without_one_result", id_)


def _find_stale(kind: str, snapshot: _Snapshot, ids: Iterable[str], status: JobStatus) -> Iterator[Orphan]:
    for id_ in ids:
        job = snapshot.jobs.get(id_)
        if job is None or job.status != status:
            yield _orphan(kind, id_)


def _orphan(kind: str, id_: str) -> Orphan:
    meaning = KINDS[kind]
    return Orphan(kind, id_, meaning, harmless=meaning.startswith("Harmless"))
