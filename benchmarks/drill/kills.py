"""Random SIGKILLs of workers, Valkey and `ragq up` under load; for stock RQ, of workers and Valkey."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from benchmarks.drill.audit import Report, audit, recoveries, spread
from benchmarks.drill.load import Client, HttpClient, background, keep_asking
from benchmarks.drill.scrape import scrape_api
from benchmarks.drill.stage import Stage

GAP_SECONDS = (0.35, 1.0)  # between kills
VALKEY_AWAY_SECONDS = (0.0, 5.0)
WORKERS = 4
RECOVERY_SECONDS = 13.0  # lease + 3
READY_SECONDS = 1.5
UP_SECONDS = 10.0
READY_SHARE = 0.95  # of the starts without an outage
SETTLE_SECONDS = 120
SHOWN_METRICS = ("ragq_jobs_put_back_total", "ragq_jobs_archived_total", "ragq_queue_jobs", "ragq_refused_total")

Say = Callable[[str], None]


class Killer:
    """Kills workers of a stage, and now and then Valkey or `ragq up`; each is restarted at once.

    It waits while a kill would leave less than half of the workers ready, so that work goes on even on a machine that
    starts workers slowly.
    """

    def __init__(self, stage: Stage, *, kills: int, valkey_kills: int, up_kills: int = 0) -> None:
        self.done = 0
        self.outages: list[tuple[float, float]] = []  # of Valkey
        self.up_outages: list[tuple[float, float]] = []
        self.up_starts: list[float] = []  # seconds until `ragq up` was ready again
        self._stage, self._kills = stage, kills
        self.gap_seconds = 0.0  # mean time between kills
        self._valkey_at = _spread(kills, valkey_kills)
        self._up_at = _spread(kills, up_kills)
        self.began_at = 0.0
        self._outage: asyncio.Task[None] | None = None
        self._up_start: asyncio.Task[None] | None = None

    @property
    def goes_on(self) -> bool:
        return self.done < self._kills

    async def run(self) -> None:
        started, self.began_at = time.monotonic(), time.time()
        while self.goes_on:
            await asyncio.sleep(random.uniform(*GAP_SECONDS))
            self._stage.replace_exited()
            ready = [worker for worker in self._stage.workers if worker.is_ready()]
            if len(ready) <= WORKERS // 2:
                continue
            await asyncio.to_thread(self._stage.kill_worker, random.choice(ready))
            self._stage.start_worker()
            self.done += 1
            if self.done in self._valkey_at:
                if self._outage:
                    await self._outage
                self._outage = asyncio.create_task(self._kill_valkey())
            if self.done in self._up_at:
                if self._up_start:
                    await self._up_start
                self._up_start = asyncio.create_task(self._kill_up())
        self.gap_seconds = round((time.monotonic() - started) / self.done, 2)
        for task in (self._outage, self._up_start):
            if task:
                await task

    async def _kill_up(self) -> None:
        started = time.time()
        await asyncio.to_thread(self._stage.supervisor.kill)
        self.up_starts.append(round(await asyncio.to_thread(self._stage.start_supervisor), 2))
        self.up_outages.append((started, time.time()))

    async def _kill_valkey(self) -> None:
        started = time.time()
        await asyncio.to_thread(self._stage.valkey.kill)
        await asyncio.sleep(random.uniform(*VALKEY_AWAY_SECONDS))
        await asyncio.to_thread(self._stage.valkey.start)
        self.outages.append((started, time.time()))


def _spread(kills: int, others: int) -> set[int]:
    """The worker kills after which the other kills follow, evenly spread."""
    return {round(kills / (others + 1) * (number + 1)) for number in range(others)}


async def show_progress(say: Say, killer: Killer, client: Client) -> None:
    """Print the progress every few seconds."""
    started = time.monotonic()
    while True:
        await asyncio.sleep(5)
        account = client.account
        say(
            f"{time.monotonic() - started:4.0f} s: {killer.done} worker kills, {len(killer.outages)} Valkey kills, "
            f"{len(killer.up_starts)} kills of ragq up, {len(account.accepted)} accepted, {account.count('finished')} finished"
        )


async def kill_under_load(report: Report, stage: Stage, client: Client, killer: Killer, say: Say) -> None:
    """Start workers, keep asking while the killer kills, wait until all jobs have ended, and audit."""
    await stage.start_workers(WORKERS)
    async with background(show_progress(say, killer, client)):
        await asyncio.gather(killer.run(), keep_asking(client, report.scenario, lambda: killer.goes_on))
        report.figures["settle_seconds"] = round(await client.settle(seconds=SETTLE_SECONDS), 1)
    runs = stage.runs()
    audit(report, client.account, stage.count_results(list(client.account.accepted.values())), runs)
    found = recoveries(runs, stage.past)
    report.recoveries = [one.seconds for one in found]
    report.figures |= {
        "worker_kills": killer.done,
        "valkey_kills": len(killer.outages),
        "gap_seconds_mean": killer.gap_seconds,
        "worker_exits": stage.exits,
        "failed_starts": stage.failed_starts,
        "recovery_seconds": spread(report.recoveries),
        "recovery_seconds_without_outage": spread([one.seconds for one in found if not one.overlaps(killer.outages)]),
        "recovery_seconds_of_suspects": spread([one.seconds for one in found if one.death > 1]),
    }


async def kills(
    stage: Stage,
    client: HttpClient,
    say: Say,
    *,
    count: int = 1000,
    valkey_kills: int = 25,
    up_kills: int = 20,
    ready_seconds: float = READY_SECONDS,
) -> Report:
    """Kill workers, Valkey and `ragq up` at random: no accepted job is lost, and all of them end.

    Args:
        ready_seconds: Nearly every worker that replaces a killed one must claim (`worker_started`) within this, unless
            Valkey is away or `ragq up` starts again meanwhile.
    """
    report, killer = Report("kills"), Killer(stage, kills=count, valkey_kills=valkey_kills, up_kills=up_kills)
    await kill_under_load(report, stage, client, killer, say)
    starts = stage.ready_times(without=[(0, killer.began_at), *killer.outages, *killer.up_outages])
    in_time = sum(seconds <= ready_seconds for seconds in starts)
    counted = await scrape_api(client)
    p95 = report.figures["recovery_seconds"]["p95"]
    report.figures |= {
        "up_kills": len(killer.up_starts),
        "up_ready_seconds": spread(killer.up_starts),
        "metrics_of_the_api": {name: counted[name] for name in sorted(counted) if name in SHOWN_METRICS},
        "worker_ready_seconds": spread(stage.ready_times()),
        "worker_ready_seconds_without_outage": spread(starts),
        "workers_ready_in_time_without_outage": f"{in_time} of {len(starts)}",
    }
    report.checks |= {
        "every accepted job finished": client.account.count("finished") == len(client.account.accepted),
        "no worker ended by itself, ready or not": not stage.exits and not stage.failed_starts,
        f"of the workers, {READY_SHARE:.0%} are ready in {ready_seconds} s": in_time >= READY_SHARE * len(starts) > 0,
        f"ragq up is ready again in {UP_SECONDS} s": max(killer.up_starts, default=0) <= max(UP_SECONDS, ready_seconds),
        f"recovery p95 is at most {RECOVERY_SECONDS} s": p95 is not None and p95 <= RECOVERY_SECONDS,
    }
    return report


async def quarantine(stage: Stage, client: Client, say: Say, *, count: int = 200) -> Report:
    """Kill at random with the default quarantine: how many innocent jobs are quarantined by chance?

    The model: a run is killed with probability p. A job is quarantined if it dies twice among others and then twice
    alone, so with probability p⁴.
    """
    report = Report("quarantine")
    await kill_under_load(report, stage, client, Killer(stage, kills=count, valkey_kills=0), say)
    account = client.account
    quarantined = account.count("failed: quarantined")
    probability = (len(report.recoveries) + quarantined) / max(1, report.figures["runs"])
    report.figures |= {
        "innocents_quarantined": quarantined,
        "killed_share_of_runs": round(probability, 3),
        "expected_by_chance": round(len(account.accepted) * probability**4, 2),
    }
    ended = account.count("finished") + quarantined
    report.checks["every job finished or was quarantined"] = ended == len(account.accepted)
    return report
