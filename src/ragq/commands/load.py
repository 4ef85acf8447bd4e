"""Ask a service many questions at once, and measure how long the answers take."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import click

from ragq.api_client import ApiClient
from ragq.errors import RagqError
from ragq.evaluation.measures import percentiles
from ragq.tasks import end_tasks

LAST_SECONDS = 30.0  # for what is being answered when the time is over
STAGES = {"queued_ms": "queued", "retrieve_ms": "search", "answer_ms": "answer"}  # the server's own times


@dataclass(frozen=True, slots=True)
class Bounds:
    """When a load test ends, and how hard it presses.

    Attributes:
        requests: It asks no more questions than this.
        seconds: It asks no new question after this time.
        concurrency: Questions that are being answered at once.
    """

    requests: int
    seconds: float
    concurrency: int


@dataclass(frozen=True, slots=True)
class Measured:
    """One question: when it was sent, in seconds from the beginning, and its end.

    Attributes:
        latency_ms: Until the answer had arrived.
        error: The code of its error; empty if it was answered.
        stages_ms: The server's own times, by the names in STAGES.
    """

    sent_at: float
    latency_ms: float
    error: str = ""
    stages_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a load test measured.

    Attributes:
        answers_by: `extractive`, or the name of the LLM.
        seconds: From the first question to the last answer.
        unfinished: Questions that were not answered when the time was over.
        errors: How many questions ended with each code.
        rate: Answers a second.
        latency_ms: p50, p95 and p99 of the answers; `stages_ms` likewise for each of the server's own times.
    """

    url: str
    created_at: str
    ragq: str
    answers_by: str
    concurrency: int
    seconds: float
    requests: int
    answered: int
    unfinished: int
    errors: dict[str, int]
    rate: float
    latency_ms: dict[str, float]
    stages_ms: dict[str, dict[str, float]]


async def press(
    client: ApiClient, questions: Sequence[str], bounds: Bounds, advance: Callable[[int], None]
) -> tuple[list[Measured], float, int]:
    """Ask the questions in turns until a bound is met; nothing of it is stored.

    Returns:
        What was measured, the seconds that it took, and the number of questions that had no answer at the end.
    """
    started, measured = time.monotonic(), list[Measured]()
    turns = itertools.islice(itertools.cycle(questions), bounds.requests)
    asked = 0

    async def ask_on() -> None:
        nonlocal asked
        while time.monotonic() - started < bounds.seconds and (question := next(turns, None)) is not None:
            asked += 1
            measured.append(await _measure(client, question, started))
            advance(1)

    tasks = [asyncio.create_task(ask_on()) for _ in range(bounds.concurrency)]
    done, _ = await asyncio.wait(tasks, timeout=bounds.seconds + LAST_SECONDS)
    seconds = time.monotonic() - started
    await end_tasks(tasks)
    for task in done:
        task.result()
    return measured, seconds, asked - len(measured)


async def _measure(client: ApiClient, question: str, started: float) -> Measured:
    sent = time.monotonic()
    error, timing = "", dict[str, Any]()
    try:
        answered = await client.ask(question, background=False, store=False)
        timing = answered["timing"]
        if answered["status"] not in ("completed", "incomplete"):
            error = (answered["error"] or {}).get("code") or answered["status"]
    except RagqError as fault:
        error = fault.code
    stages = {name: timing[key] for key, name in STAGES.items() if timing.get(key) is not None}
    return Measured(sent - started, (time.monotonic() - sent) * 1000, error, stages)


def make_report(
    url: str, status: dict[str, Any], bounds: Bounds, measured: Sequence[Measured], *, seconds: float, unfinished: int
) -> LoadReport:
    """Sum up what was measured.

    Args:
        status: The answer of the service's `/status`.
    """
    answered = [one for one in measured if not one.error]
    stages = {name: [one.stages_ms[name] for one in answered if name in one.stages_ms] for name in STAGES.values()}
    return LoadReport(
        url=url,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        ragq=status["version"],
        answers_by=status["answers"].get("model") or status["answers"]["kind"],
        concurrency=bounds.concurrency,
        seconds=round(seconds, 3),
        requests=len(measured) + unfinished,
        answered=len(answered),
        unfinished=unfinished,
        errors=dict(Counter(one.error for one in measured if one.error)),
        rate=round(len(answered) / seconds, 2),
        latency_ms=_round(percentiles([one.latency_ms for one in answered])),
        stages_ms={name: _round(percentiles(values)) for name, values in stages.items() if values},
    )


def _round(found: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 1) for name, value in found.items()}


def format_report(report: LoadReport) -> str:
    """Format a report as a table, with the errors below it."""
    rate = click.style(f"{report.rate:g} answers/s", bold=True)
    answered = f"{report.answered} of {report.requests} questions answered ({report.answers_by})"
    lines = [f"{answered} in {report.seconds:.1f} s, {report.concurrency} at once: {rate}"]
    if report.latency_ms:
        lines += ["", click.style(f"{'ms':10}" + "".join(f"{name:>10}" for name in report.latency_ms), bold=True)]
        for name, found in {"total": report.latency_ms, **report.stages_ms}.items():
            lines.append(f"{name:10}" + "".join(f"{value:>10,.0f}" for value in found.values()))
    for code, count in report.errors.items():
        lines.append(click.style(f"{count} failed: {code}", fg="red"))
    if report.unfinished:
        lines.append(click.style(f"{report.unfinished} not answered when the time was over", fg="red"))
    return "\n".join(lines)
