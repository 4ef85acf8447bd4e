"""Ten times more batch work than there is room for, and an interactive client that asks now and then."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.drill.audit import Report, audit, percentile
from benchmarks.drill.load import HttpClient, background, for_seconds
from benchmarks.drill.stage import Stage

CONCURRENCY = 50
CLIENTS = 10 * CONCURRENCY
LATENCY_SECONDS = 1.0
SETTINGS = {"RAGQ_QUERY_CONCURRENCY": CONCURRENCY, "RAGQ_MAX_QUEUED": 2 * CONCURRENCY}
BATCH_POLL_SECONDS = 1.0
INTERACTIVE_EVERY_SECONDS = 3.0
UNLOADED_QUESTIONS = 10
SETTLE_SECONDS = 120
SLOWDOWN = 2.0

Say = Callable[[str], None]


@dataclass
class Refusals:
    """For each refused client: (Retry-After at the first refusal, seconds until it was accepted)."""

    told_and_waited: list[tuple[float, float]] = field(default_factory=list)
    refused: int = 0
    gave_up: int = 0

    def ratios(self) -> list[float]:
        return [told / max(waited, 0.001) for told, waited in self.told_and_waited]


async def flood(stage: Stage, client: HttpClient, say: Say, *, seconds: float = 60) -> Report:
    """Overload the batch lane: Retry-After is accurate, and the interactive lane stays usable."""
    report = Report("flood")
    await stage.start_workers(1)
    unloaded = [await _ask_interactively(client, f"calm-{number}") for number in range(UNLOADED_QUESTIONS)]
    refusals, goes_on = Refusals(), for_seconds(seconds)
    async with background(_show_progress(client, refusals, say)):
        crowd = [_batch_client(client, f"batch-{number}", goes_on, refusals) for number in range(CLIENTS)]
        asking = asyncio.create_task(_ask_now_and_then(client, goes_on))
        await asyncio.gather(*crowd)
        loaded = await asking
        await client.settle(seconds=SETTLE_SECONDS)
    _judge(report, stage, client, refusals)
    calm, busy = statistics.median(unloaded), statistics.median(loaded)
    report.figures |= {
        "interactive_unloaded_p50_seconds": round(calm, 2),
        "interactive_p50_seconds": round(busy, 2),
        "interactive_p95_seconds": percentile(loaded, 95),
    }
    report.checks[f"the interactive median is at most {SLOWDOWN} times the unloaded one"] = busy <= SLOWDOWN * calm
    stage.stop_workers()
    return report


def _judge(report: Report, stage: Stage, client: HttpClient, refusals: Refusals) -> None:
    account = client.account
    audit(report, account, stage.count_results(list(account.accepted.values())), stage.runs())
    ratios = refusals.ratios()
    report.figures |= {
        "clients": CLIENTS,
        "refusals": refusals.refused,
        "refused_then_accepted": len(ratios),
        "refused_until_the_end": refusals.gave_up,
        "retry_after_to_truth_p50": percentile(ratios, 50),
        "truth_seconds_p50": percentile([waited for _, waited in refusals.told_and_waited], 50),
    }
    report.checks |= {
        "every accepted job finished": account.count("finished") == len(account.accepted),
        "the flood was refused with 429 and Retry-After": refusals.refused > 0,
        "Retry-After is within a factor of two of the truth (median)": 0.5 <= (percentile(ratios, 50) or 0) <= 2,
        "no 5xx but 503": not [status for status in account.answers if status >= 500 and status != 503],
        "no worker ended by itself": not stage.exited(),
    }


async def _show_progress(client: HttpClient, refusals: Refusals, say: Say) -> None:
    while True:
        await asyncio.sleep(5)
        account = client.account
        say(f"{len(account.accepted)} accepted, {account.count('finished')} finished, {refusals.refused} refusals")


async def _batch_client(client: HttpClient, name: str, goes_on: Callable[[], bool], refusals: Refusals) -> None:
    """Ask, wait for Retry-After if refused, wait for the answer, ask the next."""
    numbers = itertools.count()
    while goes_on():
        tag = f"{name}-{next(numbers)}"
        if await _get_in(client, tag, goes_on, refusals):
            await client.follow(tag, poll=BATCH_POLL_SECONDS)


async def _get_in(client: HttpClient, tag: str, goes_on: Callable[[], bool], refusals: Refusals) -> bool:
    first: tuple[float, float] | None = None
    while (answer := await client.post(tag, tier="flex")).status != 200:
        if answer.status == 429:
            assert answer.body["error"]["code"] == "rate_limit_exceeded", answer
            assert answer.retry_after >= 1, answer
            refusals.refused += 1
            first = first or (answer.retry_after, time.monotonic())
        if not goes_on():
            refusals.gave_up += 1
            return False
        await asyncio.sleep(answer.retry_after or 1)
    if first:
        refusals.told_and_waited.append((first[0], time.monotonic() - first[1]))
    return True


async def _ask_now_and_then(client: HttpClient, goes_on: Callable[[], bool]) -> list[float]:
    times: list[float] = []
    for number in itertools.count():
        await asyncio.sleep(INTERACTIVE_EVERY_SECONDS)
        if not goes_on():
            return times
        times.append(await _ask_interactively(client, f"person-{number}"))
    return times


async def _ask_interactively(client: HttpClient, tag: str) -> float:
    """Ask in the priority lane; returns the seconds until the answer."""
    started = time.monotonic()
    await client.ask(tag, tier="priority")
    await client.follow(tag, poll=0.1)
    return time.monotonic() - started
