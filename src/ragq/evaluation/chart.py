"""Draw the measures of a report, or of two, as bars in an SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from ragq.evaluation.measures import MEASURES
from ragq.evaluation.report import Report

LEFT, WIDTH, RIGHT = 210, 360, 60  # names, bars, values
BAR, GAP, TOP = 14, 10, 46
COLOURS = ("#9aa5b1", "#2166ac")  # of the run before, of this one


def draw(report: Report, before: Report | None = None) -> str:
    """Draw a bar for each measure; with a run before, two."""
    runs = [before, report] if before else [report]
    names = [name for name in MEASURES if name in report.measures]
    rows, y = list[str](), TOP
    for name in names:
        rows += _draw_row(name, [run.measures[name].mean if name in run.measures else None for run in runs], y)
        y += BAR * len(runs) + GAP
    colours = dict(zip(("before", "this run"), COLOURS, strict=True)) if before else {}
    return "\n".join([*_draw_frame(f"ragq eval: {report.dataset}", y, colours), *rows, "</svg>", ""])


def _draw_frame(title: str, height: int, colours: Mapping[str, str]) -> list[str]:
    width = LEFT + WIDTH + RIGHT
    legend = [
        f'<text x="{LEFT + 80 * place}" y="36" fill="{colour}">■ {name}</text>'
        for place, (name, colour) in enumerate(colours.items())
    ]
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="{LEFT}" y="20" font-size="14" font-weight="bold">{escape(title)}</text>',
        *legend,
    ]


def _draw_row(name: str, values: Sequence[float | None], y: int) -> list[str]:
    middle = y + BAR * len(values) / 2 + 4
    drawn = [f'<text x="{LEFT - 8}" y="{middle:g}" text-anchor="end">{escape(MEASURES[name].title)}</text>']
    for place, (value, colour) in enumerate(zip(values, COLOURS[-len(values) :], strict=True)):
        if value is not None:
            top, width = y + BAR * place, round(WIDTH * value, 1)
            drawn.append(f'<rect x="{LEFT}" y="{top}" width="{width}" height="{BAR - 1}" fill="{colour}"/>')
            drawn.append(f'<text x="{LEFT + width + 5}" y="{top + BAR - 3}" font-size="11">{value:.3f}</text>')
    return drawn
