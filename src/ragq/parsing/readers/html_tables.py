"""Tables of HTML: their cells by column, without the columns that only set others apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from selectolax.lexbor import LexborNode

from ragq.parsing.tables import Span, fill_grid
from ragq.parsing.writer import UnreadableError

MAX_CELLS = 2_000_000
MAX_CELL_CHARACTERS = 2_000  # a longer cell means that the table arranges a page

_ROW_GROUPS = ("thead", "tbody", "tfoot")
_CELLS = ("td", "th")
_BEFORE_NUMBERS = frozenset(("$", "€", "£", "¥", "CHF", "(", "$(", "€("))
_AFTER_NUMBERS = frozenset((")", "%", ")%", "%)", "€", "*"))


def find_rows(table: LexborNode) -> list[LexborNode]:
    """The rows of a table, without those of tables in it."""
    rows = []
    for part in _children(table):
        if part.tag == "tr":
            rows.append(part)
        elif part.tag in _ROW_GROUPS:
            rows += [row for row in _children(part) if row.tag == "tr"]
    return rows


def is_data(rows: list[LexborNode], table: LexborNode) -> bool:
    """Tell a table of data from one that arranges a page."""
    is_layout = table.attributes.get("role") in ("presentation", "none")
    if is_layout or any(inner.mem_id != table.mem_id for inner in table.css("table, h1, h2, h3, h4, h5, h6")):
        return False
    cells = [_cells(row) for row in rows]
    return max(map(len, cells), default=0) > 1 and all(
        len(cell.text()) <= MAX_CELL_CHARACTERS for row in cells for cell in row
    )


def read_table(table: LexborNode, rows: list[LexborNode], read_cell: Callable[[LexborNode], str]) -> dict[str, Any]:
    """Read a table as `DocumentWriter.add_table` takes it."""
    spans = ([_read_span(cell, read_cell(cell)) for cell in _cells(row)] for row in rows)
    header_rows = _count_header_rows(rows)
    grid, count = [], 0
    for row in fill_grid(spans):
        grid.append(row)
        count += len(row)
        if count > MAX_CELLS:
            raise UnreadableError(f"A table of the page has more than {MAX_CELLS:,} cells.", "too_large")
    caption = next((read_cell(part) for part in _children(table) if part.tag == "caption"), "")
    return {"rows": _join_signs(grid), "header_rows": header_rows or None, "caption": caption}


def _count_header_rows(rows: list[LexborNode]) -> int:
    count = 0
    for row in rows:
        cells = _cells(row)
        is_header = row.parent is not None and row.parent.tag == "thead"
        if not is_header and not (len(cells) > 1 and all(cell.tag == "th" for cell in cells)):
            break
        count += 1
    return count if count < len(rows) else 0


def _join_signs(rows: list[list[str]]) -> list[list[str]]:
    """Join signs of currency, brackets and percent that have a column of their own to their numbers; drop empty columns."""
    width = max(map(len, rows), default=0)
    rows = [row + [""] * (width - len(row)) for row in rows]
    columns = [list(column) for column in zip(*rows, strict=True)]
    kept: list[list[str]] = []
    for column, after in zip(columns, [*columns[1:], []], strict=True):
        if after and _holds_signs(column, after, _BEFORE_NUMBERS):
            after[:] = [sign + cell if sign != cell else cell for sign, cell in zip(column, after, strict=True)]
        elif kept and _holds_signs(column, kept[-1], _AFTER_NUMBERS):
            kept[-1] = [cell + sign if sign != cell else cell for cell, sign in zip(kept[-1], column, strict=True)]
        elif any(column) and not (kept and column == kept[-1]):
            kept.append(column)
    return [list(row) for row in zip(*kept, strict=True)]


def _holds_signs(column: list[str], neighbour: list[str], signs: frozenset[str]) -> bool:
    """Whether a column holds signs alone, beside merged cells that it shares with its neighbour."""
    return any(cell in signs for cell in column) and all(
        not cell or cell in signs or cell == other for cell, other in zip(column, neighbour, strict=True)
    )


def _children(node: LexborNode) -> list[LexborNode]:
    return [child for child in node.iter() if child.is_element_node]


def _cells(row: LexborNode) -> list[LexborNode]:
    return [cell for cell in _children(row) if cell.tag in _CELLS]


def _read_span(cell: LexborNode, text: str) -> Span:
    attributes = cell.attributes
    if not attributes:
        return Span(text)
    width, height = (
        int(value) if (value := (attributes.get(name) or "1").strip()).isdecimal() and len(value) < 6 else 1
        for name in ("colspan", "rowspan")
    )
    return Span(text, width, height)
