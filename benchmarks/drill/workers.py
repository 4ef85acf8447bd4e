"""Workers that freeze, have a wrong clock, or are killed by a job."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.drill.audit import Report, audit
from benchmarks.drill.load import HttpClient, background, for_seconds, keep_asking, until
from benchmarks.drill.scrape import scrape_worker
from benchmarks.drill.stage import Stage, Worker

FREEZE_LEASES = 3
BLOCK_LEASES = 2
CLOCK_SHIFT_SECONDS = 120.0
SETTLE_SECONDS = 120
POISON = "poison"
BLOCK = """import os, signal, time
signal.signal(signal.SIGUSR1, lambda *_: time.sleep(float(os.environ["DRILL_BLOCK_SECONDS"])))
"""
CLOCK = """import os, time
_time, _time_ns, _shift = time.time, time.time_ns, float(os.environ["DRILL_CLOCK_SHIFT"])
time.time = lambda: _time() + _shift
time.time_ns = lambda: _time_ns() + int(_shift * 1e9)
"""

Say = Callable[[str], None]


async def frozen(stage: Stage, client: HttpClient, say: Say, *, jobs: int = 12) -> Report:
    """Freeze a worker for three leases with jobs in flight: its late commits are refused."""

    async def freeze(victim: Worker) -> None:
        os.kill(victim.process.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(FREEZE_LEASES * stage.lease_seconds)
        finally:
            os.kill(victim.process.pid, signal.SIGCONT)

    return await _silence(Report("frozen"), stage, client, say, [f"frozen-{number}" for number in range(jobs)], freeze)


async def blocked(stage: Stage, client: HttpClient, say: Say, *, jobs: int = 12) -> Report:
    """Block a worker's event loop for two leases, by a signal handler that sleeps on its main thread."""
    seconds = BLOCK_LEASES * stage.lease_seconds
    variables = injected(stage.folder, BLOCK) | {"DRILL_BLOCK_SECONDS": str(seconds)}

    async def block(victim: Worker) -> None:
        os.kill(victim.process.pid, signal.SIGUSR1)
        await asyncio.sleep(seconds)

    tags = [f"blocked-{number}" for number in range(jobs)]
    return await _silence(Report("blocked"), stage, client, say, tags, block, **variables)


async def _silence(
    report: Report,
    stage: Stage,
    client: HttpClient,
    say: Say,
    tags: list[str],
    silence: Callable[[Worker], Awaitable[None]],
    **variables: object,
) -> Report:
    """Silence one of two workers while it holds jobs: the other runs them, and the first learns that it lost them."""
    workers = await stage.start_workers(2, **variables)
    await asyncio.gather(*(client.ask(tag, fake="latency=2") for tag in tags))
    await until(lambda: {run.tag for run in stage.runs()} >= set(tags), what="all jobs are in flight")
    held = {
        one.name: {client.account.accepted[run.tag] for run in stage.runs() if run.worker == one.name}
        for one in workers
    }
    victim = max(workers, key=lambda one: len(held[one.name]))
    lost = held[victim.name]
    say(f"{victim.name} is silenced with {len(lost)} jobs in flight")
    await silence(victim)
    await client.settle(seconds=SETTLE_SECONDS)
    await until(lambda: _refused(victim) >= lost, what="the late worker is told that it lost its jobs")
    _judge(report, stage, client)
    counted = await scrape_worker(client, victim)
    refused = counted["ragq_leases_lost_total"] + counted["ragq_commits_refused_total"]
    report.figures["jobs_held_and_refused"] = len(lost)
    report.checks["its metrics count what it lost"] = refused >= len(lost)
    report.checks["the silent worker held jobs, and all of them ran elsewhere"] = (
        0 < len(lost) == report.figures["jobs_run_more_than_once"]
    )
    stage.stop_workers()
    return report


def _refused(worker: Worker) -> set[str]:
    """Ids of the jobs that the worker learned it had lost."""
    return {line["job_id"] for line in worker.events("commit_refused", "job_dropped")}


def _judge(report: Report, stage: Stage, client: HttpClient) -> None:
    account = client.account
    audit(report, account, stage.count_results(list(account.accepted.values())), stage.runs())
    report.checks |= {
        "every accepted job finished": account.count("finished") == len(account.accepted),
        "no worker ended by itself": not stage.exited(),
    }


async def clock(stage: Stage, client: HttpClient, say: Say, *, seconds: float = 30) -> Report:
    """Set two workers' wall clocks wrong by two minutes, in both directions: leases use only Valkey's clock.

    `time.time` is replaced at the start of the process.
    """
    report = Report("clock")
    await stage.start_workers(1)
    for shift in (CLOCK_SHIFT_SECONDS, -CLOCK_SHIFT_SECONDS):
        variables = injected(stage.folder, CLOCK) | {"DRILL_CLOCK_SHIFT": str(shift)}
        assert abs(_clock_error(variables) - shift) < 5, "the clock was not shifted"
        await stage.start_workers(1, **variables)
    await keep_asking(client, report.scenario, for_seconds(seconds))
    await client.settle(seconds=SETTLE_SECONDS)
    say(f"{len(client.account.accepted)} accepted")
    _judge(report, stage, client)
    report.figures["workers_that_ran_jobs"] = len(
        {run.worker for run in stage.runs() if run.tag in client.account.accepted}
    )
    report.checks |= {
        "no job ran twice": report.figures["jobs_run_more_than_once"] == 0,
        "the workers with a wrong clock took part": report.figures["workers_that_ran_jobs"] == 3,
    }
    stage.stop_workers()
    return report


def injected(folder: Path, code: str) -> dict[str, str]:
    """Environment variables that make a Python process run this code at its start."""
    home = folder / f"inject-{hashlib.sha1(code.encode()).hexdigest()[:8]}"
    home.mkdir(exist_ok=True)
    (home / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": os.pathsep.join([str(home), *filter(None, [os.environ.get("PYTHONPATH")])])}


def _clock_error(variables: dict[str, str]) -> float:
    """The clock error of such a process."""
    script = [sys.executable, "-c", "import time; print(time.time())"]
    shown = subprocess.run(script, env=os.environ | variables, capture_output=True, text=True, check=True)
    return float(shown.stdout) - time.time()


async def poison(stage: Stage, client: HttpClient, say: Say, *, innocents: int = 200) -> Report:
    """Kill every worker that starts the poison job: it is quarantined, and the other jobs are answered."""
    report = Report("poison")
    await stage.start_workers(3)
    async with background(_kill_whoever_runs_poison(stage)):
        await client.ask(POISON)
        asked = client.account.accepted
        await keep_asking(client, "innocent", lambda: len(asked) <= innocents)
        await client.settle(seconds=SETTLE_SECONDS)
    say(f"{len(stage.past)} workers died of the poison, which is now: {client.account.states[POISON]}")
    audit(report, client.account, stage.count_results(list(asked.values())), stage.runs())
    report.figures["workers_killed"] = len(stage.past)
    report.checks |= {
        "the poison was quarantined": client.account.states[POISON] == "failed: quarantined",
        "every innocent finished": client.account.count("finished") == len(asked) - 1,
    }
    stage.stop_workers()
    return report


async def _kill_whoever_runs_poison(stage: Stage) -> None:
    while True:
        doomed = {run.worker for run in stage.runs() if run.tag == POISON}
        for worker in [one for one in stage.workers if one.name in doomed]:
            stage.kill_worker(worker)
            stage.start_worker()
        await asyncio.sleep(0.05)
