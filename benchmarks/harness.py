"""Shared by the benchmarks: CPU and memory of process trees, noise of the machine, results and charts."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

RESULTS = Path(__file__).parent / "results"
PEERS = Path(__file__).parents[1] / ".venv-peers" / "bin"  # environment of the compared projects
CALIBRATION_LOOPS = 2_000_000
SUFFIXES = (".png", ".svg")
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Report:
    """The results of one benchmark.

    Attributes:
        figures: Name → figure, possibly nested.
        checks: A target in words → whether it was met.
        noise: See `watching`.
    """

    name: str
    figures: dict[str, Any] = field(default_factory=dict)
    checks: dict[str, bool] = field(default_factory=dict)
    noise: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Record how noisy the machine was meanwhile.

        `fixed_work_ms`: time of the same loop before and after; `stolen_share`: share of CPU time that the hypervisor
        gave to others.
        """
        before, stolen, started = _fixed_work_ms(), _stolen_seconds(), time.monotonic()
        yield
        share = (_stolen_seconds() - stolen) / ((time.monotonic() - started) * (os.cpu_count() or 1))
        self.noise = {
            "fixed_work_ms_before": before,
            "fixed_work_ms_after": _fixed_work_ms(),
            "stolen_share": round(share, 3),
        }

    def publish(self, out: Path) -> int:
        """Write the JSON and print it; returns the exit code, 1 if a target was missed."""
        system = {"cpus": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}
        content = {"machine": system, "noise": self.noise, "figures": self.figures, "checks": self.checks}
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(content, indent=2) + "\n")
        print(json.dumps(self.figures, indent=2))
        print(f"noise: {self.noise}\n{out}")
        for check, holds in self.checks.items():
            print(f"{'met   ' if holds else 'MISSED'}  {check}")
        return int(not all(self.checks.values()))


def arguments(name: str, description: str | None) -> argparse.ArgumentParser:
    """A parser with `--out`, the path of the JSON; the chart goes beside it."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument("--out", type=Path, default=RESULTS / f"{name}.json")
    return parser


def _fixed_work_ms() -> float:
    started = time.process_time()
    sum(range(CALIBRATION_LOOPS))
    return round((time.process_time() - started) * 1000, 1)


def _stolen_seconds() -> float:
    return int(Path("/proc/stat").read_text().split(maxsplit=9)[8]) / TICKS


def percentiles(seconds: list[float]) -> dict[str, float]:
    """p50, p95, p99 and max of some times, in ms."""
    ordered = sorted(seconds)
    at = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {
        name: round(1000 * ordered[min(len(ordered) - 1, int(len(ordered) * share))], 1) for name, share in at.items()
    }


def tree(pid: int) -> dict[int, str]:
    """A process and its descendants: pid → command line."""
    children = defaultdict(list)
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            children[int(path.read_text().rsplit(")", 1)[1].split()[1])].append(int(path.parent.name))
    found, waiting = {}, [pid]
    while waiting:
        one = waiting.pop()
        waiting += children[one]
        with contextlib.suppress(OSError):
            found[one] = Path(f"/proc/{one}/cmdline").read_text().replace("\0", " ")
    return found


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process, its ended children, and its running descendants."""
    total = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            total += sum(int(ticks) for ticks in Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()[11:15])
    return total / TICKS


def pss_mb(pid: int) -> float:
    """Memory of a process and its descendants; shared memory counts once."""
    total = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return round(total / 1024, 1)


def draw_bars(out: Path, panels: Mapping[str, Mapping[str, float | None]]) -> None:
    """Draw a panel for each title with a bar for each name, as PNG and SVG beside the JSON; None draws no bar."""
    figure, places = plt.subplots(1, len(panels), figsize=(5.5 * len(panels), 3.6), layout="constrained", squeeze=False)
    for axes, (title, bars) in zip(places[0], panels.items(), strict=True):
        drawn = axes.barh(list(bars), [value or 0 for value in bars.values()])
        axes.bar_label(drawn, ["–" if value is None else f"{value:g}" for value in bars.values()], padding=3)
        axes.set_title(title)
        axes.invert_yaxis()
        axes.margins(x=0.18)
    for suffix in SUFFIXES:
        figure.savefig(out.with_suffix(suffix), dpi=120)
    plt.close(figure)


def draw_lines(out: Path, title: str, x: str, y: str, lines: Mapping[str, Mapping[float, float]]) -> None:
    """Draw a line for each name, from x to y, as PNG and SVG beside the JSON."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, points in lines.items():
        axes.plot(list(points), list(points.values()), marker="o", label=name)
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    for suffix in SUFFIXES:
        figure.savefig(out.with_suffix(suffix), dpi=120)
    plt.close(figure)
