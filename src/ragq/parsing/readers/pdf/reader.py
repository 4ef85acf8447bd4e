"""PDF, page by page; pages whose text is missing or unreadable are read as pictures."""

from __future__ import annotations

import re

import pypdfium2

from ragq.models import PlaceKind
from ragq.parsing.ocr import INSTALL
from ragq.parsing.readers.pdf.headings import Heading, find_headings, match_outline, read_outline
from ragq.parsing.readers.pdf.margins import find_margins
from ragq.parsing.readers.pdf.pages import PageReader, ReadPage, State
from ragq.parsing.readers.pdf.tables import TableBlock
from ragq.parsing.terms import too_long
from ragq.parsing.writer import DocumentWriter, UnreadableError

_NO_TITLE = re.compile(
    r"untitled|(?:microsoft )?(?:word|powerpoint|excel|publisher) - |.*\.(?:\w{2,4}|indd|pages)$|slide ?\d*$"
    r"|document ?\d*$|\W*$|\d+$",
    re.IGNORECASE,
)
_PICTURE = re.compile(rb"/Subtype\s*/Image\b")  # is never packed, unlike most of a PDF
_UNREADABLE = {
    State.EMPTY: "no text",
    State.GARBLED: "text in unknown characters",
    State.DAMAGED: "damage, and could not be opened",
}
_NAMED_RANGES = 20


def read(data: bytes, filename: str, document: DocumentWriter) -> None:
    """Write the text of each page, without the headers and footers that repeat."""
    del filename
    pdf = _open(data)
    entries = read_outline(pdf)
    first = next(entries, None)
    reader = PageReader(pdf, document.ocr, measures_sizes=not first, has_pictures=bool(_PICTURE.search(data)))
    pages: list[ReadPage] = []
    length = 0
    for index in range(len(pdf)):
        pages.append(reader.read(index))
        length += len(pages[-1].text)
        if length > document.max_characters:
            raise UnreadableError(too_long(document.max_characters), "too_large")
        document.progress(index + 1, len(pdf))
    if not any(page.text for page in pages):
        raise _explain(pages, is_ocr_there=document.ocr.is_available)
    document.leave_out_pictures(reader.unread_pictures)
    title = pdf.get_metadata_value("Title").strip()
    document.title = "" if _NO_TITLE.match(title) else title
    lines = [page.text.split("\n") for page in pages]
    margins = find_margins(lines)
    # pdfium finds the pages of the other entries faster once it has read the pages
    headings = match_outline([first, *entries], lines) if first else find_headings(pages)
    labels = _read_labels(pdf)
    for index, page in enumerate(pages):
        document.start_place(PlaceKind.PAGE, index + 1, labels[index] if labels else "")
        _write_page(page, lines[index], margins[index], headings.get(index, {}), document)
        for picture in page.pictures:
            document.add_text(picture)
    for state, what in _UNREADABLE.items():
        if numbers := [index + 1 for index, page in enumerate(pages) if page.state is state]:
            have = "has" if len(numbers) == 1 else "have"
            advice = "" if document.ocr.is_available or state is State.DAMAGED else f": {INSTALL}"
            document.warn(f"{_name_pages(numbers)} {have} {what}{advice}.")


def _open(data: bytes) -> pypdfium2.PdfDocument:
    try:
        pdf = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        reason = str(error).lower()
        if "password" in reason:
            raise UnreadableError(
                "The PDF is encrypted and needs a password: remove it and try again.", "encrypted"
            ) from error
        if "security" in reason:
            raise UnreadableError(
                "The PDF is protected in a way that is not known: print it to a new PDF and try again.", "encrypted"
            ) from error
        raise UnreadableError("The PDF is damaged: open it in a viewer, save it again, and upload that.") from error
    if not len(pdf):
        raise UnreadableError("The PDF is damaged: it has no pages.")
    return pdf


def _write_page(
    page: ReadPage,
    lines: list[str],
    margins: set[int],
    headings: dict[int, Heading],
    document: DocumentWriter,
) -> None:
    """Write the lines of a page between its headings and tables."""
    if not (page.tables or headings or margins):
        document.add_text(page.text, is_clean=page.is_clean)
        return
    tables = {line: table for table in page.tables for line in table.lines}
    start = 0
    for place in sorted(headings.keys() - margins | tables.keys()):
        if place < start:  # in a heading of several lines
            continue
        document.add_text(_join(lines, start, place, margins), is_clean=page.is_clean)
        if table := tables.get(place):
            _write_table(table, document)
            start = place + 1
        else:
            start = place + headings[place].lines
            document.add_heading(headings[place].level, " ".join(lines[place:start]))
    document.add_text(_join(lines, start, len(lines), margins), is_clean=page.is_clean)


def _join(lines: list[str], start: int, end: int, margins: set[int]) -> str:
    return "\n".join([lines[number] for number in range(start, end) if number not in margins])


def _write_table(table: TableBlock, document: DocumentWriter) -> None:
    document.add_table(table.rows, header_rows=table.header_rows, caption=table.caption)


def _read_labels(pdf: pypdfium2.PdfDocument) -> list[str]:
    """Return what each page is labelled with, where that is not its number; empty if no page has such a label."""
    count = len(pdf)
    if not pdf.get_page_label(0) and not pdf.get_page_label(count - 1):
        return []
    labels = [pdf.get_page_label(index).strip() for index in range(count)]
    return ["" if label == str(index + 1) else label for index, label in enumerate(labels)]


def _explain(pages: list[ReadPage], *, is_ocr_there: bool) -> UnreadableError:
    """Say why a PDF has no text at all."""
    states = {page.state for page in pages}
    where = _name_pages(list(range(1, len(pages) + 1)))
    if states == {State.DAMAGED}:
        return UnreadableError(
            f"{where} of the PDF cannot be opened: it is damaged. Open it in a viewer, save it again, and upload that."
        )
    if State.GARBLED in states:
        what = f"The text of the PDF ({where.lower()}) is in characters that it does not explain"
    elif states == {State.BLANK}:
        return UnreadableError(f"No text found in the PDF ({where.lower()}): its pages are blank.", "no_text")
    else:
        what = f"No text found in the PDF ({where.lower()}): it seems to be scanned"
    advice = (
        "OCR found nothing in it either. Scan it at 300 dpi, or set RAGQ_OCR_LANGUAGES" if is_ocr_there else INSTALL
    )
    return UnreadableError(f"{what}. {advice[0].upper()}{advice[1:]}.", "no_text")


def _name_pages(numbers: list[int]) -> str:
    """Name pages by ranges: "Pages 2–6, 9"."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    named = [f"{first}–{last}" if last > first else str(first) for first, last in ranges[:_NAMED_RANGES]]
    more = [f"and {len(ranges) - _NAMED_RANGES} more ranges"] if len(ranges) > _NAMED_RANGES else []
    return ("Page " if len(numbers) == 1 else "Pages ") + ", ".join(named + more)
