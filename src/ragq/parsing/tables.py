"""Rows of tables as lines of text that can be read, found and quoted one by one: "Header: value; Header: value"."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

Cells = Sequence[str]

LOOKED_AT_ROWS = 20  # in which the header is looked for
MAX_HEADER_CHARACTERS = 100
MAX_COLUMNS = 2_000
MIN_MERGED_CHARACTERS = 30  # the same in each cell: longer texts are one cell over several columns

_SPACES = re.compile(r"\s+")
_NUMBER = re.compile(r"[-+(]?[^\w\s]{0,3}\d[\d.,'’\s]*[%)\w]{0,4}")


class Span(NamedTuple):
    """A cell with the columns and rows that it takes."""

    text: str
    columns: int = 1
    rows: int = 1


def fill_grid(rows: Iterable[Iterable[Span]]) -> Iterator[list[str]]:
    """Yield each row's cells by column, a cell that takes several columns or rows repeated in each."""
    above: dict[int, Span] = {}  # by column, with the rows that they still take
    for spans in rows:
        cells: list[str] = []
        below: dict[int, Span] = {}
        for span in spans:
            if not above and span.columns == span.rows == 1:  # as nearly all are
                cells.append(span.text)
                continue
            _add_from_above(cells, above, below, len(cells))
            for _ in range(min(max(span.columns, 1), MAX_COLUMNS - len(cells))):
                if span.rows > 1:
                    below[len(cells)] = span._replace(rows=span.rows - 1)
                cells.append(span.text)
        _add_from_above(cells, above, below, max(above, default=0))
        above = below
        yield cells


def _add_from_above(cells: list[str], above: dict[int, Span], below: dict[int, Span], last: int) -> None:
    """Add the cells that began in rows above, from the next column on, and empty ones up to column `last`."""
    while (column := len(cells)) in above or column < last:
        span = above.get(column, Span(""))
        if span.rows > 1:
            below[column] = span._replace(rows=span.rows - 1)
        cells.append(span.text)


def write_rows(
    rows: Iterable[Cells], *, header_rows: int | None = None, first_number: int = 1
) -> Iterator[tuple[int, str]]:
    """Yield the number and the line of each row that is not empty.

    Rows above the header that fill one cell, such as a title, are lines of their own; so are the header's rows if there
    is nothing below them.

    Args:
        header_rows: How many of the first rows name the columns; None to tell by what is in them.
        first_number: Number of the first row.
    """
    cleaned = ([_clean(cell) for cell in cells] for cells in rows)
    head = list(islice(cleaned, LOOKED_AT_ROWS))
    first, last = find_header(head) if header_rows is None else (0, min(header_rows, len(head)))
    if last >= len(head):
        first = last = 0
    names = _name_columns(head[first:last])
    for place, cells in enumerate(chain(head, cleaned)):
        if first <= place < last:
            continue
        if line := _write_row(cells, names if place >= last else []):
            yield first_number + place, line


def find_header(rows: Sequence[Cells]) -> tuple[int, int]:
    """Find the rows that name the columns, as (first, first after them); both 0 if none does.

    The header is the first row that fills several cells, if all of them are words, all differ, and the rows below are
    at least as wide.
    """
    for place, cells in enumerate(rows):
        filled = [cell for cell in cells if cell]
        if len(set(filled)) < 2:
            continue
        below = [[cell for cell in row if cell] for row in rows[place + 1 :]]
        is_header = (
            len(set(filled)) == len(filled)
            and not any(_NUMBER.fullmatch(cell) or len(cell) > MAX_HEADER_CHARACTERS for cell in filled)
            and any(below)
            and len(filled) * 2 >= max(map(len, below))
        )
        return (place, place + 1) if is_header else (0, 0)
    return 0, 0


def _name_columns(rows: Sequence[Cells]) -> list[str]:
    """Name each column by its cells in the header's rows, from the top; a cell that is merged over rows counts once."""
    width = max(map(len, rows), default=0)
    names = []
    for column in range(width):
        cells = dict.fromkeys(row[column] for row in rows if column < len(row) and row[column])
        names.append(" ".join(cells)[:MAX_HEADER_CHARACTERS].rstrip(" :"))
    return names


def _write_row(cells: Cells, names: Sequence[str]) -> str:
    filled = [cell for cell in cells if cell]
    is_merged = len(filled) > 1 and len(filled[0]) >= MIN_MERGED_CHARACTERS and not _NUMBER.fullmatch(filled[0])
    if len(set(filled)) == 1 and (is_merged or (not names and not _NUMBER.fullmatch(filled[0]))):
        return filled[0]  # a title or a note over several columns
    named = ((names[column] if column < len(names) else "", cell) for column, cell in enumerate(cells))
    return "; ".join(f"{name}: {cell}" if name else cell for name, cell in named if cell)


def _clean(cell: str) -> str:
    return _SPACES.sub(" ", cell).strip()
