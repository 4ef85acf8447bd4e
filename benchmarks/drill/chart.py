"""The chart of a drill: how fast jobs of killed workers run again, and the outcome of accepted jobs."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

from benchmarks.drill.audit import Report

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

SUFFIXES = (".svg", ".png")


def draw(reports: list[Report], path: Path) -> list[Path]:
    """Draw the reports; returns the files, named like `path` with other suffixes."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    _draw_recoveries(left, [report for report in reports if _killed(report)])
    _draw_counts(right, [report for report in reports if "accepted" in report.figures])
    files = [path.with_suffix(suffix) for suffix in SUFFIXES]
    for file in files:
        figure.savefig(file, dpi=120)
    plt.close(figure)
    return files


def _killed(report: Report) -> int:
    """Jobs that had to run again: those that did, and those that had not by the end of the wait."""
    return len(report.recoveries) + report.figures["lost"] if "settle_seconds" in report.figures else 0


def _draw_recoveries(axes: Axes, reports: list[Report]) -> None:
    for report in reports:
        times = sorted(report.recoveries)
        count = _killed(report)
        shares = [100 * number / count for number in range(len(times) + 1)]
        until = max([1.0, report.figures["settle_seconds"], *times])
        label = f"{report.scenario}: {len(times)} of {count}"
        axes.step([0, *times, until], [*shares, shares[-1]], where="post", label=label)
    axes.set_title("Jobs of killed workers that ran again")
    axes.set_xlabel("seconds since the SIGKILL")
    axes.set_ylabel("%")
    axes.set_ylim(-3, 103)
    axes.grid(alpha=0.3)
    if reports:
        axes.legend(loc="center right")


def _draw_counts(axes: Axes, reports: list[Report]) -> None:
    places = range(len(reports))
    for offset, name, counts in (
        (-0.2, "accepted", [report.figures["accepted"] for report in reports]),
        (0.2, "finished", [report.figures["states"].get("finished", 0) for report in reports]),
    ):
        bars = axes.barh([place + offset for place in places], counts, 0.4, label=name)
        axes.bar_label(bars, padding=3)
    axes.set_title("Accepted and finished")
    axes.set_xlabel("jobs")
    axes.set_yticks(list(places), [report.scenario for report in reports])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.legend()
