"""Draw the latencies of a load test as an SVG: a dot for each question, over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from ragq.commands.load import LoadReport, Measured

LEFT, TOP, WIDTH, HEIGHT, RIGHT, BOTTOM = 70, 50, 560, 260, 50, 40
ANSWERED, FAILED, LINE = "#2166ac", "#b2182b", "#9aa5b1"
FONT = 'font-family="sans-serif" font-size="12"'
STEPS = 4  # of the scale of latencies


def draw(report: LoadReport, measured: Sequence[Measured]) -> str:
    """Draw the latency of each question against when it was sent, with lines for p50, p95 and p99."""
    longest = max((one.latency_ms for one in measured), default=1.0)
    top = math.ceil(longest / 10) * 10
    last = max((one.sent_at for one in measured), default=0.0) or 1.0

    def x(seconds: float) -> str:
        return f"{LEFT + WIDTH * seconds / last:.1f}"

    def y(milliseconds: float) -> str:
        return f"{TOP + HEIGHT * (1 - milliseconds / top):.1f}"

    title = f"ragq bench: {report.rate:g} answers/s, {report.concurrency} at once ({report.answers_by})"
    height, right = TOP + HEIGHT + BOTTOM, LEFT + WIDTH
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {right + RIGHT} {height}" {FONT}>',
        f'<rect width="{right + RIGHT}" height="{height}" fill="#fff"/>',
        f'<text x="{LEFT}" y="24" font-size="14" font-weight="bold">{escape(title)}</text>',
        f'<text x="{right}" y="{height - 8}" text-anchor="end">sent after {last:.1f} s</text>',
    ]
    for step in range(STEPS + 1):
        value = top * step / STEPS
        parts.append(f'<text x="{LEFT - 8}" y="{y(value)}" text-anchor="end">{value:,.0f} ms</text>')
    for name, value in report.latency_ms.items():
        parts.append(f'<line x1="{LEFT}" x2="{right}" y1="{y(value)}" y2="{y(value)}" stroke="{LINE}"/>')
        parts.append(f'<text x="{right + 5}" y="{y(value)}">{name}</text>')
    for one in measured:
        colour = FAILED if one.error else ANSWERED
        parts.append(f'<circle cx="{x(one.sent_at)}" cy="{y(one.latency_ms)}" r="2" fill="{colour}"/>')
    return "\n".join([*parts, "</svg>", ""])
