"""Format answers and the state of the service for a terminal."""

from __future__ import annotations

import re
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from ragq.models import CERTAIN

# What begins a line of its own: a heading, a row, code, an item of a list.
OWN_LINE = re.compile(r"\s|#|\||```|[-*+•▪‣◦–]\s|\(?(?:\d{1,3}|[a-zA-Z])[.)]\s")
ROW = re.compile(r"[^:;]{1,60}: [^;]*; [^:;]{1,60}: ")  # of a table
SHORT_LINE = 30  # one of fewer characters, such as one of a form or an address, ended on purpose
GAP = "  "  # between columns
NARROWEST = 12  # to what a column is cut where the terminal is too narrow
COLOURS = {
    "completed": "green",
    "finished": "green",
    "ready": "green",
    "in_progress": "yellow",
    "started": "yellow",
    "queued": "yellow",
    "scheduled": "yellow",
    "failed": "red",
    "cancelled": "red",
    "canceled": "red",
    "expired": "red",
}  # of a status


def format_response(response: dict[str, Any]) -> str:
    """Format a response: its text, each source with file, page and quote, and the timings."""
    if response["error"]:
        return click.style(f"{response['status']}: {response['error']['message']}", fg="red")
    if not response["output"]:
        return str(response["status"])
    content = response["output"][-1]["content"][0]
    lines = [_show_copied(content) if response["output"][-1].get("kind") == "extractive" else content["text"]]
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


def _show_copied(content: dict[str, Any]) -> str:
    """The text of an answer that is copied from documents, passage by passage, each of which ends where it is cited."""
    shown, start = "", 0
    for citation in content["annotations"]:
        end = max(start, citation["index"])
        passage = content["text"][start:end]
        shown += join_lines(passage) if citation["filename"].lower().endswith(".pdf") else passage
        start = end
    return f"{shown}{content['text'][start:]}"


def join_lines(text: str) -> str:
    """Show the single line breaks within the paragraphs of a PDF as spaces, as `lines.js` of the page does."""
    if "```" in text:
        return text
    first, *others = text.split("\n")
    joined, earlier, before = first, "", first
    for line in others:
        # A quote may begin at the end of a line, which is short then.
        goes_on = not earlier and before and line[:1].islower()
        joined += (" " if goes_on or _is_wrapped(before, line) else "\n") + line
        earlier, before = before, line
    return joined


def _is_wrapped(before: str, line: str) -> bool:
    """Whether a line goes on with the one before it, which ended with the page's width."""
    ends_on_purpose = len(before.strip()) < SHORT_LINE or before.startswith("#")
    is_own = not line.strip() or OWN_LINE.match(line) or (ROW.match(before) and ROW.match(line))
    return not (ends_on_purpose or is_own)


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


def format_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Format objects as a table; times, whose columns end with `_at`, are in UTC.

    In a terminal statuses are coloured, and the widest text is cut to what fits.
    """
    cells = [list(columns), *[[_format_cell(column, row[column]) for column in columns] for row in rows]]
    widths = [max(map(_width_of, column)) for column in zip(*cells, strict=True)]
    texts = [place for place, column in enumerate(columns) if not (column == "id" or column.endswith("_at"))]
    if sys.stdout.isatty() and texts:
        excess = sum(widths) + len(GAP) * (len(widths) - 1) - shutil.get_terminal_size().columns
        widest = max(texts, key=widths.__getitem__)
        widths[widest] = min(widths[widest], max(NARROWEST, widths[widest] - max(0, excess)))
    head, *body = [GAP.join(map(_fit, columns, line, widths)).rstrip() for line in cells]
    return "\n".join([click.style(head, bold=True), *body])


def format_fields(fields: Mapping[str, Any]) -> str:
    """Format an object, a line for each field."""
    cells = [(name, _format_cell(name, value)) for name, value in fields.items()]
    width = max(len(name) for name, _ in cells)
    return "\n".join(f"{click.style(name.ljust(width), bold=True)}{GAP}{_colour(name, cell)}" for name, cell in cells)


def _format_cell(column: str, value: Any) -> str:
    if value is None or value in ([], {}, ""):
        text = "-"
    elif isinstance(value, Mapping):
        text = ", ".join(f"{name} {_format_cell(name, one)}" for name, one in value.items())
    elif isinstance(value, list):
        text = ", ".join(_format_cell("", one) for one in value)
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    elif column.endswith("_at"):
        text = f"{datetime.fromtimestamp(value, UTC):%Y-%m-%d %H:%M}"
    elif column.endswith("bytes"):
        text = format_bytes(value)
    else:
        text = str(round(value, 3) if isinstance(value, float) else value)
    # What others wrote may hold what a terminal takes for a command.
    return "".join(one if one.isprintable() else " " for one in text)


def format_bytes(count: float) -> str:
    """Format a number of bytes with a unit of 1,000: "12.3 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def _fit(column: str, cell: str, width: int) -> str:
    """Fill a cell up to its width, or cut it."""
    if _width_of(cell) > width:
        while _width_of(cell) > width - 1:
            cell = cell[:-1]
        cell += "…"
    return _colour(column, cell) + " " * (width - _width_of(cell))


def _colour(column: str, cell: str) -> str:
    return click.style(cell, fg=COLOURS.get(cell)) if column in ("status", "state") else cell


def _width_of(text: Iterable[str]) -> int:
    """The columns of a terminal that a text takes."""
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text
    )
