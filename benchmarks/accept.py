"""How many questions does one API process accept, if each is on disk before the reply?

64 connections of a generator process send `POST /chat` and `POST /v1/responses` (background), each again as soon as it
has its reply. `ragq up` runs its own Valkey (AOF always) and PostgreSQL, and no worker: no question is answered.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import generator
from benchmarks.generator import generate
from benchmarks.harness import Report, arguments, cpu_seconds, draw_bars
from tests.servers import Ragq

CONNECTIONS = 64
ROUTES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/chat", {}),
    "responses": ("/v1/responses", {"background": True}),
}
WANTED = {"chat": 1000, "responses": 700}  # accepts/s
P99_MS = 150


def measure(ragq: Ragq, name: str, seconds: float) -> dict[str, Any]:
    """One round of one route: accepts, times, and CPU per accept of each process."""
    route, more = ROUTES[name]
    before = {kind: cpu_seconds(pid) for kind, pid in ragq.pids.items()}
    found = generate(generator.accept, ragq.url, route=route, more=more, connections=CONNECTIONS, seconds=seconds)
    spent = {kind: cpu_seconds(pid) - before[kind] for kind, pid in ragq.pids.items()}
    return found | {
        "cpu_ms_per_accept": {kind: round(1000 * used / found["accepted"], 3) for kind, used in spent.items()}
    }


def summarize(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The round with the median rate, and the rate of each."""
    ordered = sorted(rounds, key=lambda one: float(one["accepts_per_second"]))
    return ordered[len(ordered) // 2] | {"rounds": [one["accepts_per_second"] for one in rounds]}


def run(report: Report, rounds: int, seconds: float) -> None:
    """Measure the routes in turn, each after a warm-up."""
    with tempfile.TemporaryDirectory(prefix="ragq-accept-") as folder, report.watching():
        ragq = Ragq(
            Path(folder) / "data",
            *("--query-workers", "0", "--document-workers", "0"),
            RAGQ_MAX_QUEUED=0,
            RAGQ_MAX_WAIT_SECONDS=0,
        ).start()
        try:
            for name in ROUTES:
                measure(ragq, name, 1)
            found = [{name: measure(ragq, name, seconds) for name in ROUTES} for _ in range(rounds)]
        finally:
            ragq.stop()
    report.figures = {name: summarize([one[name] for one in found]) for name in ROUTES}


def main() -> None:
    """Run it, and write the figures."""
    parser = arguments("accept", __doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8, help="Of each route in each round.")
    given = parser.parse_args()
    report = Report("accept")
    run(report, given.rounds, given.seconds)
    for name, wanted in WANTED.items():
        figures, path = report.figures[name], ROUTES[name][0]
        report.checks[f"POST {path}: at least {wanted} accepts/s"] = figures["accepts_per_second"] >= wanted
        report.checks[f"POST {path}: p99 at most {P99_MS} ms"] = figures["ms"]["p99"] <= P99_MS
        report.checks[f"POST {path}: nothing but 200"] = not figures["other_statuses"]
    code = report.publish(given.out)
    titles: dict[str, Callable[[dict[str, Any]], float]] = {
        "accepts/s": lambda one: one["accepts_per_second"],
        "p99 of an accept, ms": lambda one: one["ms"]["p99"],
        "API's CPU an accept, ms": lambda one: one["cpu_ms_per_accept"]["api"],
    }
    shown = {f"POST {ROUTES[name][0]}": figures for name, figures in report.figures.items()}
    draw_bars(given.out, {title: {name: of(one) for name, one in shown.items()} for title, of in titles.items()})
    sys.exit(code)


if __name__ == "__main__":
    main()
