"""Valkey is down for a minute, or full."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from benchmarks.drill.audit import Report, audit
from benchmarks.drill.load import Answer, HttpClient, for_seconds, keep_asking, until
from benchmarks.drill.stage import Stage

WORKERS = 2
RESULTS_SECONDS = 5.0
SETTLE_SECONDS = 60
REFUSED_SECONDS = 15

Say = Callable[[str], None]


async def outage(stage: Stage, client: HttpClient, say: Say, *, seconds: float = 60, jobs: int = 100) -> Report:
    """Stop Valkey while jobs are in flight: their results wait, and are stored when it is back."""
    report = Report("outage")
    await stage.start_workers(WORKERS)
    tags = [f"outage-{number}" for number in range(jobs)]
    await asyncio.gather(*(client.ask(tag, fake=f"latency={random.uniform(0.5, 5):.2f}") for tag in tags))
    await until(lambda: {run.tag for run in stage.runs()} >= set(tags), what="all jobs are in flight")
    stage.valkey.kill()
    say("Valkey is away")
    answers = await _probe(client, seconds)
    await asyncio.to_thread(stage.valkey.start)
    returned = time.monotonic()
    await client.settle(seconds=SETTLE_SECONDS)
    waited = time.monotonic() - returned
    _judge(report, stage, client, answers, status=503)
    report.figures["results_after_return_seconds"] = round(waited, 2)
    report.checks[f"all results at most {RESULTS_SECONDS} s after the return"] = waited <= RESULTS_SECONDS
    stage.stop_workers()
    return report


async def _probe(client: HttpClient, seconds: float) -> list[Answer]:
    """Ask a new question once a second."""
    answers, goes_on = [], for_seconds(seconds)
    while goes_on():
        answers.append(await client.post(f"probe-{time.monotonic_ns()}"))
        await asyncio.sleep(1)
    return answers


def _judge(report: Report, stage: Stage, client: HttpClient, answers: list[Answer], *, status: int) -> None:
    account = client.account
    audit(report, account, stage.count_results(list(account.accepted.values())), stage.runs())
    refused = [one.status == status and one.retry_after >= 1 for one in answers]
    report.figures["refused_meanwhile"] = f"{sum(refused)} of {len(refused)}"
    report.checks |= {
        "every accepted job finished": account.count("finished") == len(account.accepted),
        f"the API answered {status} with Retry-After meanwhile": bool(refused) and all(refused),
        "no worker ended by itself": not stage.exited(),
    }


async def memory(stage: Stage, client: HttpClient, say: Say, *, seconds: float = 10) -> Report:
    """Fill Valkey's memory while jobs are in flight, then free it."""
    report = Report("memory")
    await stage.start_workers(WORKERS)
    load = asyncio.create_task(keep_asking(client, report.scenario, for_seconds(seconds)))
    await until(lambda: client.account.count("finished") > 5, what="the load runs")
    with stage.valkey.connect() as connection:
        connection.config_set("maxmemory", 1)
        say("memory is full")
        answers = await _probe(client, seconds)
        connection.config_set("maxmemory", 0)
    await load
    await client.settle(seconds=SETTLE_SECONDS)
    _judge(report, stage, client, answers, status=429)
    stage.stop_workers()
    return report


async def eviction(stage: Stage, _client: HttpClient, _say: Say) -> Report:
    """Start a worker and an API with a Valkey that evicts: both must refuse."""
    report = Report("eviction")
    with stage.valkey.connect() as connection:
        connection.config_set("maxmemory-policy", "allkeys-lru")
        try:
            report.checks["a worker refuses a Valkey that evicts"] = await is_refused(stage, "worker", "queries")
            report.checks["the API refuses a Valkey that evicts"] = await is_refused(stage, "serve", "--port", "0")
        finally:
            connection.config_set("maxmemory-policy", "noeviction")
    return report


async def is_refused(stage: Stage, *arguments: str) -> bool:
    """Whether this command soon exits with an error that names the policy."""
    started = stage.spawn(f"refused-{arguments[0]}", *arguments)
    try:
        await until(lambda: started.process.poll() is not None, seconds=REFUSED_SECONDS)
    except AssertionError:
        return False
    finally:
        started.kill()
    return started.process.returncode != 0 and "maxmemory-policy" in started.log.read_text()
