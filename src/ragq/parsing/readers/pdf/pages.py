"""Read one page of a PDF: its text, or what OCR finds in its picture if the text is missing or unreadable."""

from __future__ import annotations

import re
from ctypes import byref, c_ushort
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import groupby

import pypdfium2
import pypdfium2.raw as pdfium

from ragq.parsing.ocr import Ocr
from ragq.parsing.readers.pdf.pictures import Drawing, find_pictures, measure_pictures
from ragq.parsing.readers.pdf.tables import TableBlock, find_tables

GARBLED_SHARE = 0.05  # of unreadable characters: such a page is read as a picture, where that is possible
LOST_SHARE = 0.2  # such a page has no text that is worth keeping
FEW_CHARACTERS, LEAST_COVERED = (
    100,
    0.5,
)  # so little text beside pictures that cover so much of the page: it may be scanned
HARDLY_ANY, LEAST_PICTURE, LEAST_PATHS = 10, 0.02, 50  # no text: it may be in a picture, or drawn as curves
MAX_PICTURES = 20  # of a document that are read by OCR, on pages with text
MAX_MEASURED_LINES = 40
SHORT_LINE, LONG_LINE = 120, 60

_HYPHEN = "\ufffe"  # pdfium puts it, or 0x02, where a hyphen ended a line
_TABLE = "\ufffc"  # stands in the text for a table
_NO_CHARACTER = re.compile(r"[\x00\x01\x03-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd\ue000-\uf8ff]")
_SENTENCE_END = (".", ",", ";", ":", "?", "!", "-", "\ufffe", "\x02")


class State(StrEnum):
    """How well a page could be read."""

    READ = "read"
    BLANK = "blank"  # nothing is drawn on it that could be text
    EMPTY = "empty"
    GARBLED = "garbled"
    DAMAGED = "damaged"


@dataclass(slots=True)
class ReadPage:
    """The text of a page.

    Attributes:
        heights: Of some lines, how high their letters are.
        tables: Which of its lines are tables.
        is_recognized: Its text is what OCR found.
        pictures: What OCR found in each picture beside the text.
        is_clean: All of its text but the line ends is printable, and no line ends with white space.
    """

    text: str = ""
    state: State = State.READ
    heights: dict[str, float] = field(default_factory=dict)
    tables: list[TableBlock] = field(default_factory=list)
    is_recognized: bool = False
    pictures: list[str] = field(default_factory=list)
    is_clean: bool = False


class PageReader:
    """Reads the pages of a PDF one by one.

    Attributes:
        unread_pictures: How many pictures beside text were left out, since there are too many.
    """

    def __init__(
        self, pdf: pypdfium2.PdfDocument, ocr: Ocr, *, measures_sizes: bool, has_pictures: bool = False
    ) -> None:
        """Read from a PDF.

        Args:
            measures_sizes: Whether headings are to be found by their sizes.
            has_pictures: Whether to look for pictures on pages that have text.
        """
        self._pdf = pdf
        self.unread_pictures = 0
        self._has_pictures = has_pictures and ocr.is_available
        self._seen: set[bytes] = set()  # digests of pictures
        self._ocr = ocr
        self._measures_sizes = measures_sizes
        self._box = pdfium.FS_RECTF()
        self._text = _TextBuffer()

    def read(self, index: int) -> ReadPage:
        """Read a page. This calls pdfium itself: its Python objects cost a twentieth of the whole reading."""
        page = pdfium.FPDF_LoadPage(self._pdf, index)
        text_page = pdfium.FPDFText_LoadPage(page) if page else None
        try:
            return self._read(index, page, text_page) if text_page else ReadPage(state=State.DAMAGED)
        finally:
            if text_page:
                pdfium.FPDFText_ClosePage(text_page)
            if page:
                pdfium.FPDF_ClosePage(page)

    def _read(self, index: int, page: pdfium.FPDF_PAGE, text_page: pdfium.FPDF_TEXTPAGE) -> ReadPage:
        raw, is_indexed = self._text.read(page, text_page)
        read = ReadPage(clean_pdf_text(raw))
        characters = _count_characters(read.text)
        read.is_clean = read.text.replace("\n", "").isprintable()
        garbled = 0 if read.is_clean else len(_NO_CHARACTER.findall(raw)) / max(1, characters)
        if garbled > GARBLED_SHARE:
            self._recognize(index, read, State.GARBLED)
            if read.state is State.GARBLED and garbled > LOST_SHARE:
                read.text = ""
        elif characters < FEW_CHARACTERS:
            self._recognize_picture(index, page, read, characters)
        if is_indexed and read.state is State.READ and not read.is_recognized:
            if tables := find_tables(page, text_page, raw):
                _replace(read, raw.split("\r\n"), tables)
                read.is_clean = False
            if self._measures_sizes:
                read.heights = self._measure(text_page, raw)
        if self._has_pictures and read.state is State.READ and not read.is_recognized:
            self._read_pictures(index, page, text_page, read)
        return read

    def _read_pictures(
        self, index: int, page: pdfium.FPDF_PAGE, text_page: pdfium.FPDF_TEXTPAGE, read: ReadPage
    ) -> None:
        """Read the pictures beside the text, as where a scan was pasted in; one that is on many pages is read once."""
        drawing: Drawing | None = None
        for picture in find_pictures(page, text_page):
            if picture.digest in self._seen:
                continue
            self._seen.add(picture.digest)
            if len(self._seen) > MAX_PICTURES:
                self.unread_pictures += 1
                continue
            drawing = drawing or Drawing(self._pdf[index])
            read.pictures += filter(None, [drawing.read(self._ocr, picture.box)])

    def _recognize_picture(self, index: int, page: pdfium.FPDF_PAGE, read: ReadPage, characters: int) -> None:
        covered, paths = measure_pictures(page)
        if characters < HARDLY_ANY:
            if covered > LEAST_PICTURE or paths >= LEAST_PATHS:
                self._recognize(index, read, State.EMPTY)
            elif not read.text:
                read.state = State.BLANK
        elif covered > LEAST_COVERED:
            self._recognize(index, read, State.READ)

    def _recognize(self, index: int, read: ReadPage, otherwise: State) -> None:
        """Read the page as a picture, and keep that if it is more than its text; else it is what `otherwise` says."""
        text = Drawing(self._pdf[index]).read(self._ocr) if self._ocr.is_available else ""
        if text and (otherwise is State.GARBLED or len(text) > len(read.text)):
            read.text, read.is_recognized, read.is_clean = text, True, False
        elif not (read.text and otherwise is State.EMPTY):
            read.state = otherwise

    def _measure(self, text_page: pdfium.FPDF_TEXTPAGE, raw: str) -> dict[str, float]:
        """Measure the letters of lines that may be headings, and of a few long ones to compare with."""
        heights: dict[str, float] = {}
        offset = 0
        for line in raw.split("\r\n"):
            start, offset = offset, offset + len(line) + 2
            text = line.strip()
            is_short = 3 <= len(text) <= SHORT_LINE and not text.endswith(_SENTENCE_END)
            if (is_short or len(text) > LONG_LINE) and text[0].isalnum() and text not in heights:
                start += len(line) - len(line.lstrip())
                if pdfium.FPDFText_GetLooseCharBox(text_page, start, byref(self._box)):
                    heights[text] = round(abs(self._box.top - self._box.bottom), 1)
                if len(heights) == MAX_MEASURED_LINES:
                    break
        return heights


class _TextBuffer:
    """Reads the text of pages into memory that grows with the longest."""

    def __init__(self) -> None:
        self._box = pdfium.FS_RECTF()
        self._reserve(4096)

    def read(self, page: pdfium.FPDF_PAGE, text_page: pdfium.FPDF_TEXTPAGE) -> tuple[str, bool]:
        """Return the text within the page's box, and whether each of its characters has its own index in pdfium.

        pdfium's text within a box may lack line ends: the whole text is better, unless more of it is outside the box.
        """
        count = pdfium.FPDFText_CountChars(text_page)
        if count <= 0:
            return "", True
        if count >= self._size:
            self._reserve(2 * count)
        pdfium.FPDF_GetPageBoundingBox(page, byref(self._box))
        box = self._box.left, self._box.top, self._box.right, self._box.bottom
        whole = self._decode(pdfium.FPDFText_GetText(text_page, 0, count, self._buffer) - 1)
        if pdfium.FPDFText_GetBoundedText(text_page, *box, None, 0) >= count:  # so on most pages, and no copy is needed
            return whole, len(whole) == count
        bounded = self._decode(pdfium.FPDFText_GetBoundedText(text_page, *box, self._buffer, count + 1))
        if len(bounded) == count:
            return bounded, True
        if len(bounded) < len(whole) and len("".join(bounded.split())) < len("".join(whole.split())):
            return bounded, False
        return whole, len(whole) == count

    def _reserve(self, size: int) -> None:
        self._size = size
        self._buffer = (c_ushort * (size + 1))()
        self._bytes = memoryview(self._buffer).cast("B")

    def _decode(self, length: int) -> str:
        return str(self._bytes[: 2 * length], "utf-16-le", "ignore") if length > 0 else ""


def clean_pdf_text(raw: str) -> str:
    """Join words hyphenated at line ends and remove what is no text: NULs, carriage returns, white space at line ends."""
    text = raw.replace("\x00", "").replace("\r\n", "\n").replace("\r", "\n").replace("\x02", _HYPHEN)
    if _HYPHEN in text:
        first, *others = text.split(_HYPHEN)
        text = first + "".join(map(_continue, others))
    return "\n".join(map(str.rstrip, text.split("\n"))).strip()


def _continue(text: str) -> str:
    """Go on after a hyphen at a line's end: it divides a word if a small letter follows."""
    text = text.removeprefix("\n")
    return text if text[:1].islower() else f"-{text}"


def _replace(read: ReadPage, raw: list[str], tables: list[TableBlock]) -> None:
    """Put a line in the place of each table, so that what stands around it keeps its order."""
    first = {min(table.lines): table for table in tables}
    taken = frozenset[int]().union(*(table.lines for table in tables))
    parts: list[str] = []
    for is_table, lines in groupby(range(len(raw)), key=lambda line: first.get(line) or line in taken):
        if isinstance(is_table, TableBlock):
            read.tables.append(replace(is_table, lines=frozenset([len(parts)])))
            parts.append(_TABLE)
        elif not is_table and (text := clean_pdf_text("\n".join(raw[line] for line in lines))):
            parts += text.split("\n")
    read.text = "\n".join(parts)


def _count_characters(text: str) -> int:
    """Count the characters that can be seen."""
    return len(text) - text.count(" ") - text.count("\n")
