"""`python -m benchmarks.failover`: lose primaries with their disks under load, audit what was accepted, write JSON; code 1 if a check failed."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.drill.audit import Report
from benchmarks.failover import postgres, valkey
from benchmarks.harness import arguments

COST_ACCEPTS = 1600

Say = Callable[[str], None]
Drill = Callable[[Path, Say], Coroutine[Any, Any, list[Report]]]


def run(drill: Drill) -> list[Report]:
    """Run a drill in a folder of its own, which is kept if it failed, for its logs."""
    folder = Path(tempfile.mkdtemp(prefix="ragq-ha-"))
    reports = asyncio.run(drill(folder, partial(print, flush=True)))
    if all(report.passed for report in reports):
        shutil.rmtree(folder, ignore_errors=True)
    else:
        print(f"logs: {folder}")
    return reports


def main() -> None:
    """Read the command line and run."""
    parser = arguments("failover", __doc__)
    parser.add_argument("--kills", type=int, default=25, help="primaries of Valkey that are lost")
    parser.add_argument("--database-kills", type=int, default=5, help="primaries of PostgreSQL that are lost")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every server is stopped
    reports: list[Report] = []
    if options.kills:
        reports += run(partial(valkey.run, kills=options.kills, accepts=COST_ACCEPTS))
    if options.database_kills:
        reports += run(partial(postgres.run, kills=options.database_kills))
    options.out.write_text(json.dumps([asdict(report) for report in reports], indent=2) + "\n")
    print(options.out.read_text())
    for report in reports:
        for failure in report.failures():
            print(f"FAILED: {report.scenario}: {failure}")
    sys.exit(not all(report.passed for report in reports))


if __name__ == "__main__":
    main()
