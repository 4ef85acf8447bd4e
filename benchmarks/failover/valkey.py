"""Kill the primary of Valkey and delete its disk, again and again under load; and what waiting for the replica costs."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path

import redis

from benchmarks.drill.audit import Report, audit, spread
from benchmarks.drill.kills import SETTLE_SECONDS
from benchmarks.drill.load import HttpClient, keep_asking
from benchmarks.drill.stage import Stage
from tests.replicas import ReplicatedValkey, Sentinel
from tests.servers import Valkey, wait_until

LATENCY_SECONDS = 0.4  # of an LLM call
WORKERS = 2
CLIENTS = 12
STEADY_SECONDS = (0.5, 2.0)  # of load between a complete pair and the next kill
BACK_SECONDS = 15.0
POLL_SECONDS = 0.05

Say = Callable[[str], None]


class ValkeyPair(Valkey):
    """A primary, its replica, and a Sentinel that promotes the replica when the primary is gone."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.primary, self.replica = ReplicatedValkey(folder), ReplicatedValkey(folder)
        self._sentinel: Sentinel | None = None

    def start(self) -> ValkeyPair:
        self.primary.start()
        self.replica.start(self.primary)
        self._sentinel = Sentinel(self.folder, self.primary)
        self.url = self._sentinel.url
        self.wait_until_complete()
        return self

    def wait_until_complete(self) -> None:
        """Wait until the Sentinel could promote the replica."""
        assert self._sentinel
        wait_until(self._sentinel.knows_replica, seconds=60, what="the Sentinel knows the replica")

    def lose_primary(self) -> None:
        """Kill the primary, delete its disk, and wait until the replica is promoted."""
        self.primary.lose()
        wait_until(self.replica.is_primary, seconds=60, what="the replica is promoted")
        self.primary, self.replica = self.replica, self.primary

    def add_replica(self) -> None:
        """Start an empty server where the lost one was, as the replica of the new primary."""
        self.replica.start(self.primary)

    def connect(self) -> redis.Redis:
        return self.primary.connect()

    def stop(self) -> None:
        for server in (self._sentinel, self.primary, self.replica):
            if server:
                server.stop()


async def lose_primaries(stage: Stage, pair: ValkeyPair, client: HttpClient, say: Say, *, kills: int) -> Report:
    """Lose the primary with its disk under load, this many times: no accepted job is lost, and none has two results."""
    report = Report("valkey")
    await stage.start_workers(WORKERS)
    promoted: list[float] = []
    accepting: list[float] = []
    is_done = asyncio.Event()
    load = asyncio.create_task(keep_asking(client, "valkey", lambda: not is_done.is_set(), clients=CLIENTS))
    try:
        for number in range(kills):
            await asyncio.sleep(random.uniform(*STEADY_SECONDS))
            killed_at = time.monotonic()
            await asyncio.to_thread(pair.lose_primary)
            promoted.append(time.monotonic() - killed_at)
            await asyncio.to_thread(pair.add_replica)
            while (await client.post(f"probe-{number}")).status != 200:
                assert time.monotonic() < killed_at + 60, "no question is accepted"
                await asyncio.sleep(POLL_SECONDS)
            accepting.append(time.monotonic() - killed_at)
            await asyncio.to_thread(pair.wait_until_complete)
            say(
                f"{number + 1} primaries lost, {len(client.account.accepted)} accepted, accepting after {accepting[-1]:.1f} s"
            )
    finally:
        is_done.set()
        await load
    await _report(report, stage, client, promoted, accepting)
    stage.stop_workers()
    return report


async def _report(
    report: Report, stage: Stage, client: HttpClient, promoted: list[float], accepting: list[float]
) -> None:
    """Audit what was accepted, after the primaries were lost."""
    report.figures["settle_seconds"] = round(await client.settle(seconds=SETTLE_SECONDS), 1)
    audit(report, client.account, stage.count_results(list(client.account.accepted.values())), stage.runs())
    report.figures |= {
        "primaries_lost_with_their_disks": len(accepting),
        "promoted_seconds": spread(promoted),
        "accepting_again_seconds": spread(accepting),
        "worker_exits": stage.exited(),
    }
    report.checks |= {
        "every accepted job finished": client.account.count("finished") == len(client.account.accepted),
        "no worker ended by itself": not stage.exited(),
        f"questions are accepted again in {BACK_SECONDS} s": max(accepting) <= BACK_SECONDS,
    }


async def measure_cost(stage: Stage, say: Say, *, accepts: int) -> Report:
    """Time accepts of two API processes in turns: one waits for the replica, the other only for the primary's disk."""
    report = Report("cost")
    async with (
        stage.api_beside(RAGQ_VALKEY_REPLICAS=0, RAGQ_MAX_QUEUED=0) as alone_url,
        stage.api_beside(RAGQ_MAX_QUEUED=0) as waiting_url,
        HttpClient(alone_url) as alone,
        HttpClient(waiting_url) as waiting,
    ):
        for clients in (1, 32):
            for name, times in zip(
                ("primary", "replica"), await _time_accepts(alone, waiting, accepts, clients), strict=True
            ):
                figures = spread([1000 * one for one in times])
                report.figures[f"{name}_{clients}_at_once_ms"] = figures
                say(f"accepted, {clients} at once, {name}: {figures} ms")
    report.checks["every accept was timed"] = all(one["count"] >= accepts // 32 * 32 for one in report.figures.values())
    return report


async def _time_accepts(alone: HttpClient, waiting: HttpClient, count: int, clients: int) -> tuple[list[float], ...]:
    """Seconds of accepts at each, in turns, each time by this many clients at once."""
    times: tuple[list[float], ...] = ([], [])

    async def accept(client: HttpClient, found: list[float]) -> None:
        started = time.monotonic()
        assert (await client.post(f"cost-{time.monotonic_ns()}-{random.random()}")).status == 200
        found.append(time.monotonic() - started)

    for _ in range(count // clients):
        for client, found in zip((alone, waiting), times, strict=True):
            await asyncio.gather(*(accept(client, found) for _ in range(clients)))
    return times


async def run(folder: Path, say: Say, *, kills: int, accepts: int = 0) -> list[Report]:
    """Run the drill and, with a number of accepts, the measurement first."""
    pair = ValkeyPair(folder)
    with Stage(folder, latency=LATENCY_SECONDS, settings={"RAGQ_VALKEY_REPLICAS": 1}, valkey=pair) as stage:
        reports = []
        if accepts:
            reports.append(await measure_cost(stage, say, accepts=accepts))
            with pair.connect() as connection:
                connection.flushall()
        async with HttpClient(stage.url) as client:
            return [*reports, await lose_primaries(stage, pair, client, say, kills=kills)]
