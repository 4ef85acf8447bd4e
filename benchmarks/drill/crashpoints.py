"""The sweep: kill a worker before and after each of its writes, with one run of a worker for each."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

from benchmarks.drill.audit import Report
from benchmarks.drill.load import Client, until
from benchmarks.drill.stage import Stage, Worker
from ragq.client.job import NewJob
from ragq.client.rq_client import JobQueue
from ragq.client.scripts import read_scripts
from ragq.models import DEFAULT_TENANT, Lane, Question, QueueName
from ragq.records import QueryArguments
from ragq.settings import Settings
from tests.proxy import Cut, ValkeyProxy, Write

AT_ONCE = 3
IDLE_SECONDS = 2.0  # after the last job has ended: enough for another heartbeat and reap
END_SECONDS = 60
MOST_RUNS = 2
SETTINGS = {"RAGQ_LEASE_SECONDS": 1.2, "RAGQ_HEARTBEAT_SECONDS": 0.4}

Say = Callable[[str], None]
Choice = Callable[[Write], Cut | None]


@dataclass(frozen=True)
class Point:
    """The outcome of one crash; `results` and `runs` hold a number for each job."""

    cut: str
    results: list[int]
    runs: list[int]

    @property
    def holds(self) -> bool:
        return set(self.results) == {1} and max(self.runs) <= MOST_RUNS


class Jobs:
    """A job in each of the lanes, under its own key prefix."""

    def __init__(self, stage: Stage, prefix: str, lanes: Sequence[Lane]) -> None:
        self.prefix = prefix
        self._stage = stage
        settings = Settings(_env_file=None, key_prefix=prefix)
        self.queue = JobQueue(settings, stage.valkey.url)
        self._lanes = lanes
        self.ids = [f"resp_{prefix}.{lane}" for lane in lanes]

    async def enqueue(self) -> None:
        for id_, lane in zip(self.ids, self._lanes, strict=True):
            arguments = QueryArguments(Question(f"How tall is it? [[fake job={id_}]]", []))
            job = NewJob(id=id_, arguments=arguments, queue=QueueName.QUERIES, lane=lane, deadline_seconds=600)
            await self.queue.enqueue(job)

    async def have_ended(self) -> bool:
        jobs = [await self.queue.fetch(id_, DEFAULT_TENANT) for id_ in self.ids]
        return all(job is not None and job.status.is_final for job in jobs)

    async def end(self, *others: Callable[[], bool], linger: float = 0.0) -> None:
        """Wait until all have ended and `linger` seconds have passed, or any of `others` is true."""
        async with asyncio.timeout(END_SECONDS):
            while not any(check() for check in others):
                if await self.have_ended():
                    with contextlib.suppress(AssertionError):
                        await until(lambda: any(check() for check in others), seconds=linger)
                    return
                await asyncio.sleep(0.1)

    def outcome(self, cut: str) -> Point:
        with self._stage.valkey.connect() as connection:
            results = [int(connection.xlen(f"{self.prefix}:results:{id_}")) for id_ in self.ids]
        tags = [run.tag for run in self._stage.runs()]
        return Point(cut, results, [tags.count(id_) for id_ in self.ids])


@contextlib.asynccontextmanager
async def _jobs(stage: Stage, prefix: str, lanes: Sequence[Lane]) -> AsyncIterator[Jobs]:
    jobs = Jobs(stage, prefix, lanes)
    try:
        await jobs.enqueue()
        yield jobs
    finally:
        await jobs.queue.close()


async def crash(stage: Stage, prefix: str, choose: Choice, lanes: Sequence[Lane]) -> tuple[Point, list[Write]]:
    """Run a worker until it is killed at the chosen write or is idle; then let a healthy worker finish.

    Returns:
        The outcome, and the writes of the first worker.
    """
    victim: Worker | None = None

    def strike(_write: Write, _cut: Cut) -> None:
        assert victim
        stage.kill_worker(victim)

    path = stage.folder / f"{prefix}.sock"
    async with _jobs(stage, prefix, lanes) as jobs, ValkeyProxy(path, stage.valkey_socket, choose, strike) as proxy:
        victim = stage.start_worker(RAGQ_VALKEY_URL=proxy.url, RAGQ_KEY_PREFIX=prefix, **SETTINGS)
        await jobs.end(lambda: bool(proxy.cuts), linger=IDLE_SECONDS)
        if not proxy.cuts:
            stage.kill_worker(victim)
        healthy = stage.start_worker(RAGQ_KEY_PREFIX=prefix, **SETTINGS)
        await jobs.end()
        stage.kill_worker(healthy)
        cut = ", ".join(f"{cut.value} {write}" for write, cut in proxy.cuts) or "idle"
        return jobs.outcome(cut), list(proxy.writes)


async def sweep(
    stage: Stage, choices: Iterable[tuple[str, Choice]], say: Say, *, lanes: Sequence[Lane] = tuple(Lane)
) -> list[Point]:
    """Crash at each of the choices, a few at a time, each under its own prefix."""
    slots = asyncio.Semaphore(AT_ONCE)
    done = itertools.count(1)

    async def one(prefix: str, choose: Choice) -> Point:
        async with slots:
            point, _ = await crash(stage, prefix, choose, lanes)
        say(f"{next(done):3} {point.cut}: results {point.results}, runs {point.runs}")
        return point

    return await asyncio.gather(*(one(prefix, choose) for prefix, choose in choices))


def at_number(number: int, cut: Cut) -> Choice:
    return lambda write: cut if write.number == number else None


def at_first(name: str, cut: Cut) -> Choice:
    return lambda write: cut if str(write) == f"{name}#1" else None


async def crashpoints(stage: Stage, _client: Client, say: Say, *, lanes: Sequence[Lane] = tuple(Lane)) -> Report:
    """Crash before and after every write that a worker makes from its start until it is idle."""
    report, started = Report(f"crashpoints, lists: {len(lanes)}"), time.monotonic()
    load_scripts(stage)
    whole, writes = await crash(stage, "whole", lambda _: None, lanes)
    say(f"{len(writes)} writes: {' '.join(map(str, writes))}")
    choices = [(f"{cut.value}{write.number}", at_number(write.number, cut)) for write in writes for cut in Cut]
    points = await sweep(stage, choices, say, lanes=lanes)
    broken = [asdict(point) for point in [whole, *points] if not point.holds]
    report.figures |= {
        "writes": len(writes),
        "points": len(points),
        "points_reached": sum(point.cut != "idle" for point in points),
        "jobs": len(points) * len(lanes),
        "jobs_run_twice": sum(count > 1 for point in points for count in point.runs),
        "seconds_per_point": round((time.monotonic() - started) / len(points), 1),
        "broken": broken,
    }
    report.checks["every job of every point has one visible result and at most two runs"] = not broken
    return report


def load_scripts(stage: Stage) -> None:
    """Load all scripts into Valkey, so that failed EVALSHA calls are not counted as writes."""
    with stage.valkey.connect() as connection:
        for text in read_scripts().values():
            connection.script_load(text)
