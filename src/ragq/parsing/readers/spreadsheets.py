"""Sheets of Microsoft Excel: XLSX and XLS.

Cells come from calamine, which keeps them where they are; office_oxide knows how Excel shows a number ("15.3%").
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime, time
from functools import partial
from typing import Any

from python_calamine import CalamineError, CalamineSheet, CalamineWorkbook, PasswordError, SheetTypeEnum

from ragq.models import PlaceKind
from ragq.parsing.archives import DAMAGED, ENCRYPTED, Archive
from ragq.parsing.kinds import Kind, detect
from ragq.parsing.readers.embedded import write_embedded
from ragq.parsing.readers.office import read_title, read_tree
from ragq.parsing.sheets import write_sheet
from ragq.parsing.writer import DocumentWriter, UnreadableError

MAX_FORMATTED_BYTES = 16_000_000  # of a file's sheets: for longer ones the library's tree takes too much memory

Texts = Iterator[list[str]]  # the texts of each row's cells that are not empty
Merged = list[tuple[tuple[int, int], tuple[int, int]]]


def read(data: bytes, filename: str, document: DocumentWriter) -> None:
    """Write each sheet's rows, those of hidden sheets too; sheets that hold a chart have none."""
    kind = detect(data, filename)
    size = len(data)
    if kind is Kind.XLSX:
        archive = Archive(data)
        archive.check_parts((".xml", ".rels", ".bin"))
        size = archive.size("xl/worksheets/") + archive.size("xl/sharedStrings.xml")
    workbook = _open(data)
    tree: dict[str, Any] = {"sections": []}
    if size <= MAX_FORMATTED_BYTES:
        with suppress(UnreadableError):  # then numbers are written plainly
            tree = read_tree(data, kind)
            document.title = read_title(data, kind, tree)
    sheets = workbook.sheets_metadata
    for number, sheet in enumerate(sheets, 1):
        if sheet.typ is not SheetTypeEnum.WorkSheet:
            continue
        found: dict[str, Any] = next(
            (section for section in tree["sections"] if section.get("title") == sheet.name), {}
        )
        document.start_place(PlaceKind.SHEET, number, sheet.name)
        cells = _open_sheet(workbook, sheet.name)
        if cells is None and not found:
            document.warn(f"sheet {sheet.name} is damaged, and was not read.")
        write_sheet(document, partial(_read_rows, cells, found))
        _write_comments(document, found)
        document.progress(number, len(sheets))
    if kind is Kind.XLSX:
        write_embedded(Archive(data), document)


def _open(data: bytes) -> CalamineWorkbook:
    try:
        return CalamineWorkbook.from_filelike(io.BytesIO(data))
    except PasswordError as error:
        raise UnreadableError(ENCRYPTED, "encrypted") from error
    except CalamineError as error:
        raise UnreadableError(DAMAGED) from error


def _open_sheet(workbook: CalamineWorkbook, name: str) -> CalamineSheet | None:
    """Open a sheet; None if calamine refuses it, as it does for a number that is written with a space."""
    with suppress(CalamineError):
        return workbook.get_sheet_by_name(name)
    return None


def _read_rows(sheet: CalamineSheet | None, found: dict[str, Any]) -> Iterator[list[str]]:
    """Yield the cells of each row from the sheet's first on, as they are shown; without calamine, not the empty rows."""
    if sheet:
        yield from _repeat_merged(_show_rows(sheet.iter_rows(), _iterate_texts(found)), sheet)
        return
    for table in found.get("elements", []):
        for row in table["rows"] if table["type"] == "table" else ():
            yield [_text_of_cell(cell) for cell in row["cells"]]


def _iterate_texts(section: dict[str, Any]) -> Texts:
    """Yield what the library shows in each row that is not empty."""
    rows = (row for table in section.get("elements", []) if table["type"] == "table" for row in table["rows"])
    for row in rows:
        if texts := list(filter(None, map(_text_of_cell, row["cells"]))):
            yield texts


def _text_of_cell(cell: dict[str, Any]) -> str:
    return " ".join(
        str(run.get("text") or "") for block in cell.get("content", []) for run in block.get("content", [])
    ).strip()


def _show_rows(rows: Iterable[list[Any]], texts: Texts) -> Iterator[list[str]]:
    for row in rows:
        values = [value for value in row if value != ""]
        shown = next(texts, []) if values else []
        if len(shown) == len(values):
            iterator = iter(shown)
            yield ["" if value == "" else _show(value, next(iterator)) for value in row]
        else:
            yield ["" if value == "" else _show(value, "") for value in row]


def _show(value: Any, shown: str) -> str:
    """Write a value as the sheet shows it, else plainly; the library that knows shows times as fractions of a day."""
    match value:
        case str():
            return value
        case bool():
            return str(value).upper()
        case int() | float():
            return shown or f"{value:.15g}"
    if shown and not shown.replace(".", "", 1).isdigit():
        return shown
    text = str(value)
    return text.removesuffix(":00") if isinstance(value, datetime | time) else text


def _repeat_merged(rows: Iterator[list[str]], sheet: CalamineSheet) -> Iterator[list[str]]:
    """Repeat the text of merged cells in each place that they take."""
    first_column = sheet.start[1] if sheet.start else 0
    waiting = sorted(sheet.merged_cell_ranges or [], reverse=True)
    active: list[tuple[int, slice, str]] = []  # last row, columns, text
    for number, row in enumerate(rows):
        active = [entry for entry in active if entry[0] >= number]
        while waiting and waiting[-1][0][0] <= number:
            (_, left), (bottom, right) = waiting.pop()
            columns = slice(max(left - first_column, 0), min(right - first_column + 1, len(row)))
            if columns.start < columns.stop:
                active.append((bottom, columns, row[columns.start]))
        for _, columns, text in active:
            row[columns] = [text] * (columns.stop - columns.start)
        yield row


def _write_comments(document: DocumentWriter, section: dict[str, Any]) -> None:
    for note in section.get("elements", []):
        if note["type"] == "endnote" and (text := _text_of_cell(note)):
            document.add_text(f"Comment on {note.get('marker')}: {text}")
