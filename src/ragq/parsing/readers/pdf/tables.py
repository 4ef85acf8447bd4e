"""Find the tables on a page of a PDF, by ruling lines or by columns of words, and which lines of its text they are."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pypdfium2.raw as pdfium

from ragq.parsing.readers.pdf.columns import count_header_rows, find_columns, has_columns
from ragq.parsing.readers.pdf.grid import find_frames, find_grids, read_segments
from ragq.parsing.readers.pdf.words import MAX_CHARACTERS, Word, read_words

LEAST_RULES = 6  # objects beside those of text: fewer do not enclose four cells
LEAST_NUMBERS = 3  # that follow a number
_NUMBERS = re.compile(r"\d[%)]? [^\s\w]?\d")
_MAYBE_NUMBERS = re.compile(r" (?<=[\d%)] )[^\s\w]?\d")  # finds no fewer, and is faster because it begins with a space
_HYPHEN = re.compile(r"[\ufffe\x02] ?")  # as pdfium writes it where it ended a line


@dataclass(frozen=True, slots=True)
class TableBlock:
    """A table.

    Attributes:
        lines: Which lines of the page's text are in it; it stands where the first of them does.
    """

    lines: frozenset[int]
    rows: list[list[str]]
    header_rows: int | None = None
    caption: str = ""


def find_tables(page: pdfium.FPDF_PAGE, text_page: pdfium.FPDF_TEXTPAGE, raw: str) -> list[TableBlock]:
    """Find tables whose words are whole lines of the text, with nothing else in them; others stay running text."""
    boxes = pdfium.FPDFText_CountRects(text_page, 0, -1)
    drawn = pdfium.FPDFPage_CountObjects(page) - boxes
    segments = read_segments(page) if drawn >= LEAST_RULES else []
    has_frames = len(segments) >= LEAST_RULES and bool(find_frames(segments))
    may_be_columns = _has_numbers(raw) and has_columns(text_page, boxes)
    if not (has_frames or may_be_columns) or len(raw) > MAX_CHARACTERS:
        return []
    words, turn = read_words(text_page, raw.split("\r\n"))
    tables: list[TableBlock] = []
    for grid in find_grids(segments, turn, words) if has_frames else []:
        tables += _place(grid.words, words, grid.rows)
    taken = frozenset[int]().union(*(table.lines for table in tables))
    if may_be_columns:
        for columns in find_columns([word for word in words if word.line not in taken]):
            tables += _place(columns.words, words, columns.rows)
    return tables


def _has_numbers(raw: str) -> bool:
    return all(len(pattern.findall(raw)) >= LEAST_NUMBERS for pattern in (_MAYBE_NUMBERS, _NUMBERS))


def _place(inside: list[Word], words: list[Word], rows: list[list[str]]) -> list[TableBlock]:
    """Tell which lines a table takes the place of; none if they hold other words too."""
    if not inside:
        return []
    lines = frozenset(word.line for word in inside)
    if sum(word.line in lines for word in words) != len(inside):
        return []
    rows = [[_HYPHEN.sub("-", cell) for cell in row] for row in rows]
    caption = ""
    if len(rows[0]) > 1 and len(set(rows[0])) == 1:  # one cell over the whole width
        caption, rows = rows[0][0], rows[1:]
    return [TableBlock(lines, rows, count_header_rows(rows), caption)]
