"""`python -m benchmarks.drill`: run the drills, show a table, write JSON and a chart; code 1 if any failed."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.drill import batches, chart, crashpoints, flood, kills, replies, restarts, stock, valkey, workers
from benchmarks.drill.audit import Report
from benchmarks.drill.load import HttpClient
from benchmarks.drill.stage import LIFTED, Stage
from ragq.models import Lane

RESULTS = Path(__file__).parents[1] / "results"
SECONDS_PER_KILL = 1.0  # expected in a mix limited by time


Drill = Callable[..., Coroutine[Any, Any, Report]]


@dataclass(frozen=True)
class Scenario:
    """A drill, and the stage it needs."""

    run: Drill
    latency: float = 0.5
    settings: Mapping[str, object] = field(default_factory=dict)


SCENARIOS = {
    "kills": Scenario(kills.kills, settings={"RAGQ_QUARANTINE_DEATHS": LIFTED}),
    "restarts": Scenario(restarts.restarts, latency=2),
    "quarantine": Scenario(kills.quarantine),
    "replies": Scenario(replies.replies),
    "frozen": Scenario(workers.frozen),
    "blocked": Scenario(workers.blocked),
    "outage": Scenario(valkey.outage),
    "memory": Scenario(valkey.memory),
    "eviction": Scenario(valkey.eviction),
    "clock": Scenario(workers.clock),
    "batches": Scenario(batches.batches, settings={"RAGQ_QUARANTINE_DEATHS": LIFTED, "RAGQ_QUERY_CONCURRENCY": 5}),
    "flood": Scenario(flood.flood, flood.LATENCY_SECONDS, flood.SETTINGS),
    "poison": Scenario(workers.poison),
    "crashpoints": Scenario(crashpoints.crashpoints, latency=0.1),
    "crashpoints-one-list": Scenario(partial(crashpoints.crashpoints, lanes=[Lane.DEFAULT]), latency=0.1),
}


def mix(seconds: float) -> dict[str, Scenario]:
    """Drills that take about this long together: kills, dropped replies and a frozen worker."""
    lease = {"RAGQ_LEASE_SECONDS": 3, "RAGQ_HEARTBEAT_SECONDS": 1}
    killing = SCENARIOS["kills"]
    count = max(5, round(seconds * 0.25 / SECONDS_PER_KILL))
    return {
        "kills": Scenario(
            partial(killing.run, count=count, valkey_kills=1 + count // 40, up_kills=1 + count // 10),
            settings=killing.settings,
        ),
        "replies": Scenario(partial(replies.replies, seconds=seconds * 0.15)),
        "frozen": Scenario(workers.frozen, settings=lease),
    }


async def perform(scenario: Scenario, name: str, folder: Path) -> Report:
    """Run a drill on a new stage."""
    say = partial(_say, name)
    with Stage(folder, latency=scenario.latency, settings=scenario.settings) as stage:
        async with HttpClient(stage.url) as client:
            return await scenario.run(stage, client, say)


async def perform_stock(queues: int, folder: Path) -> Report:
    return await stock.stock(folder, partial(_say, f"stock, queues: {queues}"), queues=queues)


def _say(name: str, text: str) -> None:
    print(f"[{name}] {text}", flush=True)


def run(drills: list[tuple[str, Drill]]) -> list[Report]:
    """Run drills one after the other; the folder of a failed one is kept, for its logs."""
    reports: list[Report] = []
    for name, drill in drills:
        started, folder = time.monotonic(), Path(tempfile.mkdtemp(prefix="ragq-drill-"))
        try:
            report = asyncio.run(drill(folder))
        except AssertionError as error:  # a wait of the drill timed out
            report = Report(name, checks={f"the drill ran to its end ({error})": False})
        report.figures["seconds"] = round(time.monotonic() - started, 1)
        if report.passed:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            report.figures["logs"] = str(folder)
        _say(name, "passed" if report.passed else f"FAILED: {'; '.join(report.failures())}")
        reports.append(report)
    return reports


def show_table(reports: list[Report]) -> None:
    """Print one line for each drill."""
    columns = "drill,accepted,finished,lost,two results,runs,recovery p50,p95,max,seconds,verdict".split(",")
    rows = [columns]
    for report in reports:
        figures: dict[str, Any] = report.figures
        recovery = figures.get("recovery_seconds", {})
        cells = [figures.get("accepted"), figures.get("states", {}).get("finished"), figures.get("lost")]
        cells += [figures.get("two_visible_results"), figures.get("runs")]
        cells += [recovery.get(name) for name in ("p50", "p95", "max")]
        shown = ["" if cell is None else str(cell) for cell in [*cells, figures["seconds"]]]
        rows.append([report.scenario, *shown, "passed" if report.passed else "FAILED"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for report in reports:
        for failure in report.failures():
            print(f"FAILED: {report.scenario}: {failure}")


def save(reports: list[Report], path: Path, beside: Path) -> None:
    """Write the JSON, and a chart that includes stock RQ if it was drilled.

    Reports in the file of drills that did not run now are kept.
    """
    if path.exists():
        run_now = {report.scenario: report for report in reports}
        earlier = [Report(**report) for report in json.loads(path.read_text())["reports"]]
        reports = [run_now.pop(report.scenario, report) for report in earlier] + list(run_now.values())
    path.parent.mkdir(parents=True, exist_ok=True)
    machine = {"cpus": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}
    path.write_text(json.dumps({"machine": machine, "reports": [asdict(one) for one in reports]}, indent=2) + "\n")
    others = []
    if beside.exists() and beside != path:
        others = [Report(**report) for report in json.loads(beside.read_text())["reports"]]
    for file in [path, *chart.draw(reports + others, path)]:
        print(file)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drill", description=__doc__)
    parser.add_argument("--seconds", type=float, help="run a short mix of drills that takes about this many seconds")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=SCENARIOS, help=", ".join(SCENARIOS))
    parser.add_argument("--stock", action="store_true", help="drill stock `rq worker` instead")
    parser.add_argument("--out", type=Path, help="path of the JSON; the chart goes beside it")
    arguments = parser.parse_args()
    if arguments.seconds and not arguments.out:
        parser.error("a short mix is not a result to publish: choose another file with --out")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every stage is stopped
    beside = RESULTS / "drill-stock.json"
    if arguments.stock:
        reports = run([(f"stock, queues: {count}", partial(perform_stock, count)) for count in (1, 2)])
    else:
        chosen = mix(arguments.seconds) if arguments.seconds else SCENARIOS
        names = arguments.only or list(chosen)
        drills = {**SCENARIOS, **chosen}
        reports = run([(name, partial(perform, drills[name], name)) for name in names])
    show_table(reports)
    save(reports, arguments.out or (beside if arguments.stock else RESULTS / "drill.json"), beside)
    sys.exit(not all(report.passed for report in reports))


if __name__ == "__main__":
    main()
