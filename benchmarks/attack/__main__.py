"""Attack our own `ragq up` in every way that its limits address; prints a line each, exits with 1 if one succeeded.

Only loopback is attacked, with bounded load, in less than ten minutes.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks.attack import access, exhaustion, mcp, sockets
from benchmarks.attack.stage import Attack, Stage, Verdict
from benchmarks.harness import Report, arguments
from ragq.descriptors import raise_descriptor_limit

_BY_NAME = (*access.ATTACKS, *sockets.ATTACKS, *mcp.ATTACKS)
ATTACKS: dict[str, Attack] = {**{attack.__name__: attack for attack in _BY_NAME}, **exhaustion.ATTACKS}
LAST = "talkative_errors"  # last, since it damages a folder of the open service


async def run(names: list[str], report: Report) -> None:
    """Attack in turn, and print a line for each."""
    with tempfile.TemporaryDirectory(prefix="ragq-attack-") as folder, report.watching():
        async with Stage.set_up(Path(folder)) as stage:
            for name in sorted(names, key=lambda name: name == LAST):
                started = time.monotonic()
                try:
                    verdict = await ATTACKS[name](stage)
                except Exception as error:  # noqa: BLE001  (an attack that fails to run is reported in its line)
                    verdict = Verdict("", f"{type(error).__name__}: {error}", held=False)
                word = "held  " if verdict.held else "BROKEN"
                print(f"{word}  {name}: {verdict.tried}: {verdict.happened}", flush=True)
                report.figures[name] = asdict(verdict) | {"seconds": round(time.monotonic() - started, 1)}
                report.checks[name] = verdict.held


def main() -> None:
    """Read the command line and attack."""
    parser = arguments("attack", __doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=ATTACKS, help=", ".join(ATTACKS))
    given = parser.parse_args()
    raise_descriptor_limit()
    report = Report("attack")
    asyncio.run(run(given.only or list(ATTACKS), report))
    sys.exit(report.publish(given.out))


if __name__ == "__main__":
    main()
