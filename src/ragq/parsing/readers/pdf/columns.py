"""Tables without ruling lines: words that stand below each other in columns, most of them numbers or short."""

from __future__ import annotations

import re
from ctypes import byref, c_double
from dataclasses import dataclass

import pypdfium2.raw as pdfium

from ragq.parsing.readers.pdf.words import Word

CELL_GAP = 0.9  # of a letter's height: words further apart are in two cells
LEAST_COLUMNS = 3
LEAST_ROWS = 3
MAX_LINE_GAP = 2.2  # of a line's height, between two rows of a table
MAX_HEADER_ROWS = 2
SHORT_CELL = 14  # characters
LEAST_SHORT = 0.6  # of the cells but each row's first; columns of running text have long lines
LEAST_NUMBERS = 0.2  # of those cells
LEAST_FULL = 0.4  # of the lines must fill most columns

_NUMBER = re.compile(r"[-+(*]?[^\w\s]{0,3}\d[\d.,:/'’%-]*\)?%?(?:[AP]M)?|[-–—]+")


@dataclass(slots=True)
class Cell:
    """Words that stand close to each other in a line."""

    words: list[Word]

    @property
    def left(self) -> float:
        return self.words[0].left

    @property
    def right(self) -> float:
        return self.words[-1].right

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)


@dataclass(slots=True)
class Columns:
    """A table: its rows, and the words in it."""

    rows: list[list[str]]
    words: list[Word]
    header_rows: int


Line = list[Cell]


def find_columns(words: list[Word]) -> list[Columns]:
    """Find tables whose rows have at least three cells, in columns that do not overlap."""
    tables = (_make_table(part) for run in _find_runs(divide(words)) for part in _split(run))
    return [table for table in tables if table]


def divide(words: list[Word]) -> list[Line]:
    """Divide words into lines from the top, and lines into cells."""
    lines: list[list[Word]] = []
    for word in sorted(words, key=lambda one: (one.middle, one.left)):
        if lines and abs(word.middle - lines[-1][-1].middle) < 0.35 * min(word.height, lines[-1][-1].height):
            lines[-1].append(word)
        else:
            lines.append([word])
    divided = []
    for line in lines:
        cells: Line = []
        for word in sorted(line, key=lambda one: one.left):
            if cells and word.left - cells[-1].right <= CELL_GAP * max(word.height, cells[-1].words[-1].height):
                cells[-1].words.append(word)
            else:
                cells.append(Cell([word]))
        divided.append(cells)
    return divided


def _find_runs(lines: list[Line]) -> list[list[Line]]:
    """Find lines of several cells that follow each other closely, with lines of one cell between them."""
    runs: list[list[Line]] = []
    run: list[Line] = []
    for line in lines:
        near = bool(run) and line[0].words[0].top - run[-1][0].words[0].bottom < MAX_LINE_GAP * line[0].words[0].height
        if near and (len(line) > 1 or len(run[-1]) > 1):
            run.append(line)
            continue
        runs.append(run)
        run = [line] if len(line) >= LEAST_COLUMNS else []
    return [_trim(run) for run in [*runs, run]]


def _trim(run: list[Line]) -> list[Line]:
    while run and len(run[-1]) < 2:
        run = run[:-1]
    return run


def _split(run: list[Line]) -> list[list[Line]]:
    """Split where another table begins: at a line of several cells without numbers, after lines with some or a title."""
    parts: list[list[Line]] = [[]]
    had_numbers = False
    for line in run:
        has_numbers = any(is_number(cell.text) for cell in line)
        is_after_title = bool(parts[-1]) and len(parts[-1][-1]) == 1
        if (had_numbers or is_after_title) and not has_numbers and len(line) >= LEAST_COLUMNS:
            parts.append([])
            had_numbers = False
        parts[-1].append(line)
        had_numbers = had_numbers or has_numbers
    return [_trim(part) for part in parts]


def _make_table(run: list[Line]) -> Columns | None:
    widest = max(map(len, run), default=0)
    full = [line for line in run if len(line) >= LEAST_COLUMNS and len(line) >= 0.7 * widest]
    if widest < LEAST_COLUMNS or len(full) < max(2, LEAST_FULL * len(run)):
        return None
    columns = _find_intervals(full)
    if len(columns) < LEAST_COLUMNS or len(columns) < 0.8 * widest:
        return None
    if any(len(line) == 1 and len(_find_over(line[0], columns)) > 1 and line[0].left < columns[0][1] for line in run):
        return None
    rows = _join_lines([_place(line, columns) for line in run])
    has_header = not any(map(is_number, rows[0]))
    if not _is_sure(rows, has_header=has_header, columns=len(columns)):
        return None
    words = [word for line in run for cell in line for word in cell.words]
    return Columns(rows, words, int(has_header))


def _is_sure(rows: list[list[str]], *, has_header: bool, columns: int) -> bool:
    """Whether rows are a table's, not lines of text in columns."""
    below = [cell for row in rows[1:] for cell in row[1:] if cell]
    numbers = sum(map(is_number, below))
    if len(rows) < LEAST_ROWS and not (has_header and len(rows) == 2 and numbers * 2 > columns):
        return False
    short = sum(len(cell) <= SHORT_CELL for cell in below)
    return numbers >= LEAST_NUMBERS * len(below) and short >= LEAST_SHORT * len(below)


def _join_lines(rows: list[list[str]]) -> list[list[str]]:
    """Put what stands below a cell, in a line that fills few columns but not the first, into that cell."""
    joined: list[list[str]] = []
    for row in rows:
        filled = [number for number, cell in enumerate(row) if cell]
        goes_on = joined and filled[0] > 0 and len(filled) * 3 <= len(row) and not any(map(is_number, row))
        if goes_on and len(joined) > 1:
            for number in filled:
                joined[-1][number] = f"{joined[-1][number]} {row[number]}".strip()
        else:
            joined.append(row)
    return joined


def _find_intervals(lines: list[Line]) -> list[tuple[float, float]]:
    intervals: list[tuple[float, float]] = []
    for left, right in sorted((cell.left, cell.right) for line in lines for cell in line):
        if intervals and left < intervals[-1][1]:
            intervals[-1] = intervals[-1][0], max(right, intervals[-1][1])
        else:
            intervals.append((left, right))
    return intervals


def _place(line: Line, columns: list[tuple[float, float]]) -> list[str]:
    """Put cells into the columns that they stand in; one that is as wide as several is in each of them."""
    row = [""] * len(columns)
    for cell in line:
        over = _find_over(cell, columns)
        for number in over if len(line) > 1 else over[:1]:
            row[number] = f"{row[number]} {cell.text}".strip()
    return row


def _find_over(cell: Cell, columns: list[tuple[float, float]]) -> list[int]:
    """Return the columns that a cell stands in, or else the nearest one."""
    over = [number for number, (left, right) in enumerate(columns) if min(cell.right, right) > max(cell.left, left)]
    center = (cell.left + cell.right) / 2
    return over or [min(range(len(columns)), key=lambda one: abs(sum(columns[one]) / 2 - center))]


def has_columns(text_page: pdfium.FPDF_TEXTPAGE, boxes: int) -> bool:
    """Tell at little cost whether several lines of a page have several cells, as far as pdfium draws them apart.

    Args:
        boxes: How many of text pdfium has counted on the page; it tells none of them before that.
    """
    left, top, right, bottom = c_double(), c_double(), c_double(), c_double()
    pointers = byref(left), byref(top), byref(right), byref(bottom)
    lines = cells = 0
    wider = 0.0
    start = end = low = high = 0.0  # of the box before, along the line and across it
    for number in range(boxes):
        pdfium.FPDFText_GetRect(text_page, number, *pointers)
        along, across = (left.value, right.value), (bottom.value, top.value)
        wider += along[1] - along[0] - across[1] + across[0]
        if wider < 0:  # as on a page that lies on its side
            along, across = across, along
        is_same_line = low < (across[0] + across[1]) / 2 < high
        gap = max(along[0] - end, start - along[1])
        if is_same_line and gap > CELL_GAP * (across[1] - across[0]):
            cells += 1
            lines += cells == LEAST_COLUMNS - 1
            if lines == LEAST_ROWS - 1:
                return True
        elif not is_same_line:
            cells = 0
        (start, end), (low, high) = along, across
    return False


def count_header_rows(rows: list[list[str]]) -> int | None:
    """Count the first rows that are words above columns with numbers; None if that does not tell."""
    if max(map(len, rows), default=0) == 2:  # often names and values: only numbers below a word make a header
        return int(len(rows) > 1 and not is_number(rows[0][-1]) and all(is_number(row[-1]) for row in rows[1:]))
    has_numbers = [any(map(is_number, row)) for row in rows]
    if not any(has_numbers) or has_numbers.index(True) > MAX_HEADER_ROWS:
        return None
    return has_numbers.index(True)


def is_number(text: str) -> bool:
    """Whether a cell is a number, a date or a time, or a sign that there is none."""
    return bool(_NUMBER.fullmatch(text.replace(" ", "")))
