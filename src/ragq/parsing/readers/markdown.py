"""Markdown: the text as it is, with the headings and tables that a CommonMark parser finds in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyromark

from ragq.models import Table
from ragq.parsing.encodings import decode
from ragq.parsing.headings import HeadingPath
from ragq.parsing.writer import DocumentWriter

_FRONT_MATTER = re.compile(r"---[ \t]*\r?\n(?:.*\n){0,200}?---[ \t]*(?:\r?\n|$)")
_TITLE = re.compile(r"^title:[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


@dataclass(slots=True)
class _Block:
    """A heading or a table; offsets count bytes.

    Attributes:
        level: Of a heading; 0 for a table.
        texts: A heading's text, or that of each cell in a table's header.
    """

    start: int
    end: int
    level: int = 0
    texts: list[str] = field(default_factory=list)


def read(data: bytes, filename: str, document: DocumentWriter) -> None:
    """Write the text verbatim."""
    del filename
    text = decode(data, document)
    if (front := _FRONT_MATTER.match(text)) and (title := _TITLE.search(front.group())):
        document.title = title[1].strip("\"'")
    headings, tables = find_structure(text)
    document.add_verbatim(text, headings=headings, tables=tables, has_lines=True)


def find_headings(text: str) -> list[tuple[int, str]]:
    """Find the headings outside of code, HTML, quotes and lists, each with its parents' titles ("A › B")."""
    return find_structure(text)[0]


def find_structure(text: str) -> tuple[list[tuple[int, str]], list[Table]]:
    """Find the headings and tables outside of code, HTML, quotes and lists."""
    front_matter = _FRONT_MATTER.match(text)
    start = front_matter.end() if front_matter else 0
    path = HeadingPath()
    headings: list[tuple[int, str]] = []
    tables: list[Table] = []
    data = text[start:].encode()  # the parser counts bytes
    offset = counted = 0
    for block in _read_blocks(text[start:]):
        offset += len(data[counted : block.start].decode())
        counted = block.start
        if not block.level:
            tables.append(_make_table(block, data, start + offset))
        elif title := "".join(block.texts).strip():
            indent = len(data[: block.start]) - len(
                data[: block.start].rstrip(b" ")
            )  # a heading's line may be indented
            headings.append((start + offset - indent, path.add(block.level, title)))
    return headings, tables


def _make_table(block: _Block, data: bytes, start: int) -> Table:
    """The table at a block; the line under its header is a row like any other, so that all of it is kept."""
    rows, offset = [], start
    for number, line in enumerate(_LINE.findall(data[block.start : block.end].decode())):
        rows.append((offset, max(1, number)))
        offset += len(line)
    return Table(start, offset, tuple(rows), "; ".join(filter(None, block.texts)))


def _read_blocks(text: str) -> Iterator[_Block]:
    """Yield each heading and table that is in no other block."""
    depth = 0
    block = _Block(0, 0)
    is_read = True
    for event, span in pyromark.events_with_range(text, options=pyromark.Options.ENABLE_TABLES):
        match event:
            case {"Start": start}:
                if not depth:
                    block = _Block(span["start"], span["end"], texts=[""])
                    is_read = True
                elif start == "TableCell" and is_read:
                    block.texts.append("")
                depth += 1
            case {"Text": str(part)} | {"Code": str(part)} if is_read and depth:
                block.texts[-1] += part
            case "SoftBreak" | "HardBreak" if is_read and depth:
                block.texts[-1] += " "
            case {"End": end}:
                depth -= 1
                is_read = is_read and end != "TableHead"  # what follows are the table's rows
                if not depth and isinstance(end, dict) and "Heading" in end:
                    block.level = int(end["Heading"][1])
                if not depth and (block.level or end == "Table"):
                    yield block
