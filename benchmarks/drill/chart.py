"""The chart of a drill: how fast killed jobs start again, and what became of what was accepted."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

from benchmarks.drill.audit import Report

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

SUFFIXES = (".svg", ".png")


def draw(reports: list[Report], path: Path) -> list[Path]:
    """Draw the reports; returns the files, named as `path` but for their suffixes."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    _draw_recoveries(left, [report for report in reports if report.recoveries])
    _draw_counts(right, [report for report in reports if "accepted" in report.figures])
    files = [path.with_suffix(suffix) for suffix in SUFFIXES]
    for file in files:
        figure.savefig(file, dpi=120)
    plt.close(figure)
    return files


def _draw_recoveries(axes: Axes, reports: list[Report]) -> None:
    for report in reports:
        times = sorted(report.recoveries)
        shares = [100 * (number + 1) / len(times) for number in range(len(times))]
        axes.step(times, shares, where="post", label=f"{report.scenario} ({len(times)})")
    axes.set_title("From a SIGKILL to the job's next run (only jobs that ran again)")
    axes.set_xlabel("seconds")
    axes.set_ylabel("% of these jobs")
    axes.grid(alpha=0.3)
    if reports:
        axes.legend()


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
