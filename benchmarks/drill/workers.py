"""Workers that freeze, whose clock is wrong, or that a job kills."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.drill.audit import Report, audit
from benchmarks.drill.load import HttpClient, background, for_seconds, keep_asking, until
from benchmarks.drill.stage import Stage

FREEZE_LEASES = 3
CLOCK_SHIFT_SECONDS = 120.0
SETTLE_SECONDS = 120
POISON = "poison"
CLOCK = """import os, time
_time, _time_ns, _shift = time.time, time.time_ns, float(os.environ["DRILL_CLOCK_SHIFT"])
time.time = lambda: _time() + _shift
time.time_ns = lambda: _time_ns() + int(_shift * 1e9)
"""

Say = Callable[[str], None]


async def frozen(stage: Stage, client: HttpClient, say: Say, *, jobs: int = 10) -> Report:
    """Freeze a worker for three leases with jobs in flight: its late commits are refused."""
    report = Report("frozen")
    (victim,) = await stage.start_workers(1)
    tags = [f"frozen-{number}" for number in range(jobs)]
    for tag in tags:
        await client.ask(tag, fake="latency=2")
    await until(lambda: {run.tag for run in stage.runs()} >= set(tags), what="all jobs are in flight")
    os.kill(victim.process.pid, signal.SIGSTOP)
    try:
        await stage.start_workers(1)
        say(f"frozen with {jobs} jobs in flight")
        await asyncio.sleep(FREEZE_LEASES * stage.lease_seconds)
    finally:
        os.kill(victim.process.pid, signal.SIGCONT)
    await client.settle(seconds=SETTLE_SECONDS)
    await until(lambda: len(_refusals(stage)) >= jobs, what="the late worker is told that it lost its jobs")
    _judge(report, stage, client)
    report.figures["told_to_stop"] = len(_refusals(stage))
    stage.stop_workers()
    return report


def _refusals(stage: Stage) -> set[str]:
    """Ids that a worker logged as lost."""
    return {line["job_id"] for worker in stage.workers for line in worker.events("commit_refused", "job_dropped")}


def _judge(report: Report, stage: Stage, client: HttpClient) -> None:
    account = client.account
    audit(report, account, stage.count_results(list(account.accepted.values())), stage.runs())
    report.checks |= {
        "every accepted job finished": account.count("finished") == len(account.accepted),
        "no worker ended by itself": not stage.exited(),
    }


async def clock(stage: Stage, client: HttpClient, say: Say, *, seconds: float = 30) -> Report:
    """Let two workers' wall clocks be wrong by two minutes, either way: leases are Valkey's affair.

    The clock is that of `time.time`, replaced at the start of the process.
    """
    report = Report("clock")
    await stage.start_workers(1)
    for shift in (CLOCK_SHIFT_SECONDS, -CLOCK_SHIFT_SECONDS):
        variables = shifted(stage.folder, shift)
        assert abs(_clock_error(variables) - shift) < 5, "the clock was not shifted"
        await stage.start_workers(1, **variables)
    await keep_asking(client, report.scenario, for_seconds(seconds))
    await client.settle(seconds=SETTLE_SECONDS)
    say(f"{len(client.account.accepted)} accepted")
    _judge(report, stage, client)
    report.figures["workers_that_ran_jobs"] = len({run.worker for run in stage.runs() if run.tag.startswith("clock")})
    report.checks |= {
        "no job ran twice": report.figures["jobs_run_more_than_once"] == 0,
        "the workers with a wrong clock took part": report.figures["workers_that_ran_jobs"] == 3,
    }
    stage.stop_workers()
    return report


def shifted(folder: Path, shift_seconds: float) -> dict[str, str]:
    """Variables that give a process a wrong wall clock."""
    home = folder / "clock"
    home.mkdir(exist_ok=True)
    (home / "sitecustomize.py").write_text(CLOCK)
    path = os.pathsep.join([str(home), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {"PYTHONPATH": path, "DRILL_CLOCK_SHIFT": str(shift_seconds)}


def _clock_error(variables: dict[str, str]) -> float:
    """How wrong the clock of such a process is."""
    script = [sys.executable, "-c", "import time; print(time.time())"]
    shown = subprocess.run(script, env=os.environ | variables, capture_output=True, text=True, check=True)
    return float(shown.stdout) - time.time()


async def poison(stage: Stage, client: HttpClient, say: Say, *, innocents: int = 200) -> Report:
    """Kill whatever worker begins the poison job: it ends in quarantine, and its neighbours are answered."""
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
