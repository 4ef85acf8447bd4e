"""Tables that ruling lines are drawn around: their cells are what the lines enclose."""

from __future__ import annotations

from collections import defaultdict
from ctypes import byref, c_float
from dataclasses import dataclass, field

import pypdfium2.raw as pdfium

from ragq.parsing.readers.pdf.columns import divide, is_number
from ragq.parsing.readers.pdf.words import Turn, Word

MAX_OBJECTS, MAX_SEGMENTS = 5000, 4000
SAME = 2.5  # points: lines so near are one
LEAST_LENGTH = 5.0
MAX_WORK = 2_000_000  # cells times lines
LEAST_SPLIT = 0.5  # of the columns must have words in each line of a band of several rows, and numbers as often
MAX_CELL_WORDS = 60  # in the mean; what holds more is a box around text


Segment = tuple[tuple[float, float], tuple[float, float]]


@dataclass(slots=True)
class Rules:
    """Ruling lines: (place, from, to) of each."""

    across: list[tuple[float, float, float]] = field(default_factory=list)
    down: list[tuple[float, float, float]] = field(default_factory=list)

    @property
    def encloses_cells(self) -> bool:
        """Whether there are enough lines each way for a table, and not too many."""
        rows, columns = len(_merge(self.across)), len(_merge(self.down))
        return rows >= 3 and columns >= 3 and rows * columns * (len(self.across) + len(self.down)) <= MAX_WORK

    @classmethod
    def turn(cls, segments: list[Segment], turn: Turn) -> Rules:
        """Turn lines as the words are turned."""
        rules = cls()
        for one, other in segments:
            a, b = turn(*one), turn(*other)
            (left, right), (top, bottom) = sorted((a[0], b[0])), sorted((a[1], b[1]))
            if bottom - top < SAME:
                rules.across.append(((top + bottom) / 2, left, right))
            else:
                rules.down.append(((left + right) / 2, top, bottom))
        return rules


@dataclass(slots=True)
class Grid:
    """The cells of a table, and the words in it; `is_layout` if the lines are only boxes around parts of the page."""

    rows: list[list[str]]
    words: list[Word]
    is_layout: bool = False


def read_segments(page: pdfium.FPDF_PAGE) -> list[Segment]:
    """Read the level and upright lines that are drawn on a page."""
    segments: list[Segment] = []
    matrix, x, y = pdfium.FS_MATRIX(), c_float(), c_float()
    read = 0
    for place in range(min(pdfium.FPDFPage_CountObjects(page), MAX_OBJECTS)):
        drawn = pdfium.FPDFPage_GetObject(page, place)
        if pdfium.FPDFPageObj_GetType(drawn) != pdfium.FPDF_PAGEOBJ_PATH:
            continue
        count = pdfium.FPDFPath_CountSegments(drawn)
        read += max(0, count)
        if read > MAX_SEGMENTS:
            break
        pdfium.FPDFPageObj_GetMatrix(drawn, byref(matrix))
        first = last = (0.0, 0.0)
        for number in range(count):
            segment = pdfium.FPDFPath_GetPathSegment(drawn, number)
            pdfium.FPDFPathSegment_GetPoint(segment, byref(x), byref(y))
            point = (
                matrix.a * x.value + matrix.c * y.value + matrix.e,
                matrix.b * x.value + matrix.d * y.value + matrix.f,
            )
            if pdfium.FPDFPathSegment_GetType(segment) == pdfium.FPDF_SEGMENT_MOVETO:
                first = point
            else:
                segments.append((last, point))
            last = point
            if pdfium.FPDFPathSegment_GetClose(segment):
                segments.append((last, first))
    return [segment for segment in segments if _is_rule(*segment)]


def _is_rule(one: tuple[float, float], other: tuple[float, float]) -> bool:
    across, down = abs(one[0] - other[0]), abs(one[1] - other[1])
    return min(across, down) < SAME and max(across, down) >= LEAST_LENGTH


def find_frames(segments: list[Segment]) -> list[Rules]:
    """Find lines that touch each other and enclose at least two by two cells."""
    return [group for group in _connect(Rules.turn(segments, lambda x, y: (x, y))) if group.encloses_cells]


def find_grids(segments: list[Segment], turn: Turn, words: list[Word]) -> list[Grid]:
    """Find tables whose cells are enclosed by lines."""
    grids = []
    for group in _connect(Rules.turn(segments, turn)):
        if group.encloses_cells:
            grid = _fill(group, _merge(group.across), _merge(group.down), words)
            filled = {cell for row in grid.rows for cell in row if cell}
            wide = sum(len(set(filter(None, row))) > 1 for row in grid.rows)
            if wide > 1 and len(filled) > 3 and not grid.is_layout:
                grids.append(grid)
    return grids


def _connect(rules: Rules) -> list[Rules]:
    """Divide lines into groups that touch each other."""
    lines = [(left, place, right, place, True, place) for place, left, right in rules.across]
    lines += [(place, top, place, bottom, False, place) for place, top, bottom in rules.down]
    parents = list(range(len(lines)))

    def find(one: int) -> int:
        while parents[one] != one:
            parents[one] = parents[parents[one]]
            one = parents[one]
        return one

    order = sorted(range(len(lines)), key=lambda one: lines[one][1])
    active: list[int] = []
    for one in order:
        left, top, right, *_ = lines[one]
        active = [other for other in active if lines[other][3] >= top - SAME]
        for other in active:
            if lines[other][0] <= right + SAME and lines[other][2] >= left - SAME:
                parents[find(one)] = find(other)
        active.append(one)
    groups: dict[int, Rules] = defaultdict(Rules)
    for one, (left, top, right, bottom, is_across, place) in enumerate(lines):
        if is_across:
            groups[find(one)].across.append((place, left, right))
        else:
            groups[find(one)].down.append((place, top, bottom))
    return list(groups.values())


def _merge(lines: list[tuple[float, float, float]]) -> list[float]:
    """Return where lines are, each place once."""
    merged: list[float] = []
    for place in sorted(line[0] for line in lines):
        if not merged or place - merged[-1] > SAME:
            merged.append(place)
    return merged


def _fill(group: Rules, rows: list[float], columns: list[float], words: list[Word]) -> Grid:
    """Put each word into its cell; cells with no line between them are one, and each of their places shows its text."""
    height, width = len(rows) - 1, len(columns) - 1
    owner = {(row, column): (row, column) for row in range(height) for column in range(width)}

    def find(cell: tuple[int, int]) -> tuple[int, int]:
        while owner[cell] != cell:
            cell = owner[cell]
        return cell

    for row, column in list(owner):
        middle_x, middle_y = (columns[column] + columns[column + 1]) / 2, (rows[row] + rows[row + 1]) / 2
        if column + 1 < width and not _is_drawn(group.down, columns[column + 1], middle_y):
            owner[find((row, column + 1))] = find((row, column))
        if row + 1 < height and not _is_drawn(group.across, rows[row + 1], middle_x):
            owner[find((row + 1, column))] = find((row, column))
    texts: dict[tuple[int, int], list[Word]] = defaultdict(list)
    bands: list[list[tuple[int, Word]]] = [[] for _ in range(height)]
    for word in words:
        place = _locate(rows, word.middle), _locate(columns, (word.left + word.right) / 2)
        if place[0] is not None and place[1] is not None:
            texts[find((place[0], place[1]))].append(word)
            bands[place[0]].append((place[1], word))
    table = []
    for row, band in enumerate(bands):
        if split := _split(band, width):
            table += split
        else:
            table.append([_join(texts.get(find((row, column)), [])) for column in range(width)])
    inside = [word for band in bands for _, word in band]
    is_layout = len(inside) > MAX_CELL_WORDS * len(texts) or any(map(_is_columns, texts.values()))
    return Grid(table, inside, is_layout)


def _split(band: list[tuple[int, Word]], width: int) -> list[list[str]]:
    """Split what stands between two lines into rows, if it is several: each fills most of the columns."""
    lines = divide([word for _, word in band])
    columns = {id(word): column for column, word in band}
    filled = [{columns[id(word)] for cell in line for word in cell.words} for line in lines]
    words = [word for column, word in band if column]
    is_numeric = sum(is_number(word.text) for word in words) > LEAST_SPLIT * len(words)
    if len(lines) < 2 or width < 3 or not is_numeric or min(map(len, filled)) < LEAST_SPLIT * width:
        return []
    rows = []
    for line in lines:
        row = [""] * width
        for cell in line:
            for word in cell.words:
                row[columns[id(word)]] = f"{row[columns[id(word)]]} {word.text}".strip()
        rows.append(row)
    return rows


def _is_columns(words: list[Word]) -> bool:
    """Whether a cell is itself a table without lines."""
    lines = divide(words)
    return len(lines) >= 3 and sum(len(line) > 1 for line in lines) > len(lines) / 2


def _join(words: list[Word]) -> str:
    return " ".join(cell.text for line in divide(words) for cell in line)


def _is_drawn(lines: list[tuple[float, float, float]], place: float, through: float) -> bool:
    return any(abs(at - place) <= SAME and start - SAME <= through <= end + SAME for at, start, end in lines)


def _locate(borders: list[float], place: float) -> int | None:
    for number in range(len(borders) - 1):
        if borders[number] <= place <= borders[number + 1]:
            return number
    return None
