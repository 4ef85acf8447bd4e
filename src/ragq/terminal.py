"""Format answers and the state of the service for a terminal."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from ragq.models import CERTAIN


def format_response(response: dict[str, Any]) -> str:
    """Format a response: its text, each source with file, page and quote, and the timings."""
    if response["error"]:
        return click.style(f"{response['status']}: {response['error']['message']}", fg="red")
    if not response["output"]:
        return str(response["status"])
    content = response["output"][-1]["content"][0]
    lines = [content["text"]]
    for number, citation in enumerate(content["annotations"], 1):
        location = f", {citation['location']}" if citation["location"] else ""
        lines.append(
            click.style(f"  [{number}] {citation['filename']}{location}: ", fg="cyan")
            + f"“{_short(citation['quote'])}”"
        )
    support = response.get("support") or {"statements": []}
    for one in support["statements"]:
        if one["verdict"] == "unsupported":
            statement = _short(content["text"][one["start"] : one["end"]])
            lines.append(click.style(f"  not supported: “{statement}”: {one['reason']}", fg="yellow"))
    confidence = response.get("confidence")
    if confidence and content["annotations"] and confidence["value"] < CERTAIN:
        lines.append(click.style(f"  confidence {confidence['value']:.2f}: {confidence['reason']}", fg="yellow"))
    timing = response["timing"]
    stages = (("queued", "queued_ms"), ("search", "retrieve_ms"), ("answer", "answer_ms"), ("total", "total_ms"))
    shown = "  ".join(f"{name} {timing[key]} ms" for name, key in stages if timing.get(key) is not None)
    lines.append(click.style(f"  {shown}", dim=True))
    return "\n".join(lines)


def _short(text: str, limit: int = 160) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def format_status(status: dict[str, Any]) -> str:
    """Format queues and workers as two tables, if they are shown to this caller, and the kind of answers."""
    lines: list[str] = []
    if "queues" in status:
        words = ("queued", "in_flight", "scheduled", "finished", "failed")
        lines += [f"{'queue':24}" + "".join(f"{word:>11}" for word in words)]
        lines += [f"{queue['name']:24}" + "".join(f"{queue[word]:>11}" for word in words) for queue in status["queues"]]
        lines += ["", f"{'worker':24}{'queues':>22}{'state':>11}{'in_flight':>11}{'finished':>11}{'failed':>11}"]
        lines += [*map(_format_worker, status["workers"]), ""]
    answers = status["answers"]
    lines += [f"answers: {answers['kind']}" + (f" by {answers['model']}" if answers.get("model") else "")]
    return "\n".join(lines)


def _format_worker(worker: dict[str, Any]) -> str:
    counts = f"{worker['in_flight']:>11}{worker['finished']:>11}{worker['failed']:>11}"
    who = f"{worker['host']}:{worker['pid']}"
    return f"{who[-24:]:24}{','.join(worker['queues']):>22}{worker['state']:>11}{counts}"


def format_table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> str:
    """Format objects as a table; times, whose columns end with `_at`, are in UTC."""
    cells = [columns, *[tuple(_format_cell(column, row[column]) for column in columns) for row in rows]]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def _format_cell(column: str, value: Any) -> str:
    if value is None:
        return "-"
    return f"{datetime.fromtimestamp(value, UTC):%Y-%m-%d %H:%M}" if column.endswith("_at") else str(value)
