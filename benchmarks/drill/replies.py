"""Lost replies of Valkey: a write that was done must not be done again."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable

from benchmarks.drill.audit import Report, audit
from benchmarks.drill.load import HttpClient, for_seconds, keep_asking
from benchmarks.drill.stage import Stage
from tests.proxy import Cut, ValkeyProxy, Write

WORKERS = 2
SETTLE_SECONDS = 60


async def replies(
    stage: Stage, _client: HttpClient, say: Callable[[str], None], *, seconds: float = 60, every: int = 20
) -> Report:
    """Drop the reply of one write in `every`, at random, between Valkey and both the API and the workers."""
    report = Report("replies")

    def choose(_write: Write) -> Cut | None:
        return Cut.AFTER if random.random() * every < 1 else None

    async with _cutting(stage, choose) as (proxy, client):
        await stage.start_workers(WORKERS, RAGQ_VALKEY_URL=proxy.url)
        await keep_asking(client, report.scenario, for_seconds(seconds))
        await client.settle(seconds=SETTLE_SECONDS)
        say(f"{len(proxy.cuts)} replies dropped, {len(client.account.accepted)} accepted")
        judge(report, stage, client, proxy)
    return report


async def named_reply(stage: Stage, name: str) -> Report:
    """Drop the first reply of one script, by name: of an enqueue, of the claim of a job, of its commit."""
    report = Report(f"reply of {name}")
    async with _cutting(stage, lambda write: Cut.AFTER if str(write) == f"{name}#1" else None) as (proxy, client):
        await client.ask(f"reply-{name}")  # before the worker starts, so that its first claim takes the job
        await stage.start_workers(1, RAGQ_VALKEY_URL=proxy.url)
        await client.settle(seconds=SETTLE_SECONDS)
        judge(report, stage, client, proxy)
    return report


@contextlib.asynccontextmanager
async def _cutting(
    stage: Stage, choose: Callable[[Write], Cut | None]
) -> AsyncIterator[tuple[ValkeyProxy, HttpClient]]:
    """Run a proxy, and an API that reaches Valkey through it; yields the proxy and the API's client."""
    async with (
        ValkeyProxy(stage.folder / "replies.sock", stage.valkey_socket, choose) as proxy,
        stage.api_beside(RAGQ_VALKEY_URL=proxy.url) as url,
        HttpClient(url) as client,
    ):
        try:
            yield proxy, client
        finally:
            await asyncio.to_thread(stage.stop_workers)


def judge(report: Report, stage: Stage, client: HttpClient, proxy: ValkeyProxy) -> None:
    """Audit, and count the dropped replies."""
    account = client.account
    audit(report, account, stage.count_results(list(account.accepted.values())), stage.runs())
    report.figures["dropped"] = dict(Counter(write.name for write, _ in proxy.cuts).most_common())
    report.checks |= {
        "a reply was dropped": bool(proxy.cuts),
        "every accepted job finished": account.count("finished") == len(account.accepted),
        "no job ran twice": report.figures["jobs_run_more_than_once"] == 0,
        "no request met a conflict": account.answers[409] == 0,
        "no worker ended by itself": not stage.exited(),
    }
