"""Jupyter notebooks: text as it is, code, and what it printed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from ragq.parsing.encodings import decode
from ragq.parsing.readers import text as plain
from ragq.parsing.writer import DocumentWriter

MAX_OUTPUT_CHARACTERS = 20_000

_HEADING = re.compile(r"(#{1,6})[ \t]+(.*)")
_FENCE = re.compile(r"[ \t]{0,3}(?:```|~~~)")


def read(data: bytes, filename: str, document: DocumentWriter) -> None:
    """Write the cells of a notebook. A file that is not a notebook is written as text."""
    text = decode(data, document)
    try:
        notebook = json.loads(text)
        cells = notebook.get("cells") or [cell for sheet in notebook.get("worksheets", []) for cell in sheet["cells"]]
        blocks = [block for cell in cells for block in _read_cell(cell)]
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError):
        plain.read(data, filename, document)
        return
    document.encoding = ""  # JSON's own affair
    if cut := sum(kind == "output" and len(block) > MAX_OUTPUT_CHARACTERS for kind, block in blocks):
        document.warn(
            f"{cut:,} {'output is' if cut == 1 else 'outputs are'} cut after {MAX_OUTPUT_CHARACTERS:,} characters."
        )
    for kind, block in blocks:
        if kind == "markdown":
            _write_markdown(block, document)
        else:
            document.add_text(block[:MAX_OUTPUT_CHARACTERS] if kind == "output" else block)


def _read_cell(cell: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the kind and the text of a cell, and of what it printed."""
    yield str(cell["cell_type"]), _join(cell.get("source") or cell.get("input") or "")
    for output in cell.get("outputs", []):
        shown = output.get("text") or (output.get("data") or {}).get("text/plain") or ""
        if text := _join(shown).strip():
            yield "output", text


def _write_markdown(text: str, document: DocumentWriter) -> None:
    """Write Markdown with its headings."""
    lines: list[str] = []
    is_code = False
    for line in text.split("\n"):
        is_code ^= bool(_FENCE.match(line))
        if not is_code and (heading := _HEADING.match(line)):
            document.add_text("\n".join(lines))
            lines = []
            document.add_heading(len(heading[1]), heading[2].rstrip("# "))
        else:
            lines.append(line)
    document.add_text("\n".join(lines))


def _join(source: str | list[str]) -> str:
    return source if isinstance(source, str) else "".join(source)
