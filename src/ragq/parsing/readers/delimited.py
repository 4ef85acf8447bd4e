"""CSV, TSV and the like: each row as a line that names its columns."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice

from ragq.parsing.encodings import decode
from ragq.parsing.tables import LOOKED_AT_ROWS, Cells
from ragq.parsing.writer import DocumentWriter, UnreadableError

SEPARATORS = ",;\t|"  # of those that fit alike, the first
SAMPLE_ROWS = 50
MAX_FIELD_CHARACTERS = 1_000_000

_EXCEL_SEPARATOR = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)


def read(data: bytes, filename: str, document: DocumentWriter) -> None:
    """Write the rows of a file, numbered as they are in it."""
    del filename
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    text = decode(data, document)
    skipped = 0
    if named := _EXCEL_SEPARATOR.match(text):
        separator, skipped, text = named[1], 1, text[named.end() :]
    else:
        separator = find_separator(text)
    preamble = _count_preamble(list(islice(_read_rows(text, separator), SAMPLE_ROWS)))
    rows = _read_rows(text, separator)
    for number, row in enumerate(islice(rows, preamble), 1 + skipped):
        document.add_table([row], header_rows=0, first_number=number)
    document.add_table(rows, first_number=1 + skipped + preamble)


def find_separator(text: str) -> str:
    """Find the separator that cuts most rows into the same number of cells, more than one; a comma if none does."""
    best, found = (0.0, 0), ","
    for separator in SEPARATORS:
        rows = list[list[str]]()
        with suppress(UnreadableError):  # the next separator may fit
            rows = [row for row in islice(_read_rows(text, separator), SAMPLE_ROWS) if row]
        width, count = Counter(map(len, rows)).most_common(1)[0] if rows else (0, 0)
        if width > 1 and (score := (round(count / len(rows), 1), _weigh(width, separator))) > best:
            best, found = score, separator
    return found


def _weigh(width: int, separator: str) -> int:
    """Commas are in numbers and sentences, too, so they count only if there is no other separator that fits as well."""
    return 0 if separator == "," else width


def _read_rows(text: str, separator: str) -> Iterator[list[str]]:
    """Yield rows.

    Raises:
        UnreadableError: A cell is too long, as after a quotation mark that nothing closes.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    try:
        yield from reader
    except csv.Error as error:
        raise UnreadableError(
            f"Line {reader.line_num:,}: a quotation mark opens a cell and nothing closes it."
        ) from error


def _count_preamble(rows: list[Cells]) -> int:
    """Count the lines above the table, such as a title: they have at most one cell, and those below many."""
    if not rows:
        return 0
    width, _ = Counter(len(row) for row in rows if row).most_common(1)[0] if any(rows) else (0, 0)
    first = next((place for place, row in enumerate(rows) if _count_filled(row) * 2 > width), 0)
    return first if width > 1 and first < LOOKED_AT_ROWS else 0


def _count_filled(row: Iterable[str]) -> int:
    return sum(bool(cell.strip()) for cell in row)
