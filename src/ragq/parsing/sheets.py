"""Sheets as tables: what stands apart from each other on a sheet is a table of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from ragq.parsing.tables import LOOKED_AT_ROWS, Cells, find_header
from ragq.parsing.writer import DocumentWriter

ReadRows = Callable[[], Iterable[Cells]]


def write_sheet(document: DocumentWriter, read_rows: ReadRows) -> None:
    """Write a sheet's rows, numbered as people count them.

    Args:
        read_rows: Returns the rows from the sheet's first on; called twice, so that they need not be kept.
    """
    starts = list(_find_tables(read_rows()))
    rows = iter(read_rows())
    done = 0
    for place, (start, header_rows) in enumerate(starts, 1):
        end = starts[place][0] if place < len(starts) else None
        part = islice(rows, start - done, None if end is None else end - done)
        document.add_table(part, header_rows=header_rows, first_number=start + 1)
        done = end or 0


def _find_tables(rows: Iterable[Cells]) -> Iterator[tuple[int, int | None]]:
    """Yield where tables start, with how many rows of each are a header (None: as `find_header` tells).

    Rows after an empty one begin a table if they have a header, or are mere lines of text; else they belong to the table
    above: many a sheet sets its total apart.
    """
    is_first = True
    for start, head in _iterate_blocks(rows):
        has_header = find_header(head) != (0, 0)
        is_text = all(sum(map(bool, cells)) < 2 for cells in head)
        if is_first or has_header or is_text:
            yield start, 0 if is_text else None
        is_first = False


def _iterate_blocks(rows: Iterable[Cells]) -> Iterator[tuple[int, list[Cells]]]:
    """Yield the number of the first row of each block of rows without an empty one, and its first rows."""
    start, head = 0, list[Cells]()
    for number, cells in enumerate(rows):
        if not any(cells):
            if head:
                yield start, head
            head = []
        elif not head:
            start, head = number, [cells]
        elif len(head) < LOOKED_AT_ROWS:
            head.append(cells)
    if head:
        yield start, head
