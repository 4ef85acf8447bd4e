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
from ragq.parsing.readers.pdf.tables import TableBlock, find_tables

DOTS_PER_INCH = 300
MAX_PIXELS = 16_000_000  # of a rendered page: A3 at 300 dots per inch
GARBLED_SHARE = 0.05  # of unreadable characters: such a page is read as a picture, where that is possible
LOST_SHARE = 0.2  # such a page has no text that is worth keeping
FEW_CHARACTERS, LEAST_COVERED = (
    100,
    0.5,
)  # so little text beside pictures that cover so much of the page: it may be scanned
HARDLY_ANY, LEAST_PICTURE, LEAST_PATHS = 10, 0.02, 50  # no text: it may be in a picture, or drawn as curves
LOOKED_AT_OBJECTS = 2000
MAX_MEASURED_LINES = 40
SHORT_LINE, LONG_LINE = 120, 60

# pdfium puts U+FFFE or 0x02 where a hyphen ended a line.
_LINE_END_HYPHEN = re.compile(r"[\ufffe\x02](?:\r?\n)?(?P<next>.?)")
_TABLE = "\ufffc"  # stands in the text for a table
_SPACE = re.compile(r"\s+")
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
    """

    text: str = ""
    state: State = State.READ
    heights: dict[str, float] = field(default_factory=dict)
    tables: list[TableBlock] = field(default_factory=list)
    is_recognized: bool = False


class PageReader:
    """Reads the pages of a PDF one by one."""

    def __init__(self, pdf: pypdfium2.PdfDocument, ocr: Ocr, *, measures_sizes: bool) -> None:
        self._pdf = pdf
        self._ocr = ocr
        self._measures_sizes = measures_sizes
        self._box = pdfium.FS_RECTF()

    def read(self, index: int) -> ReadPage:
        """Read a page."""
        try:
            page = self._pdf[index]
            text_page = page.get_textpage()
        except pypdfium2.PdfiumError:
            return ReadPage(state=State.DAMAGED)
        raw, is_indexed = _read_text(text_page)
        read = ReadPage(clean_pdf_text(raw))
        characters = len(read.text) - read.text.count(" ") - read.text.count("\n")
        garbled = _count_garbled(read.text, raw) / max(1, characters)
        if garbled > GARBLED_SHARE:
            self._recognize(page, read, State.GARBLED)
            if read.state is State.GARBLED and garbled > LOST_SHARE:
                read.text = ""
        elif characters < FEW_CHARACTERS:
            self._recognize_picture(page, read, characters)
        if is_indexed and read.state is State.READ and not read.is_recognized:
            if tables := find_tables(page, text_page, raw):
                _replace(read, raw.split("\r\n"), tables)
            if self._measures_sizes:
                read.heights = self._measure(text_page, raw)
        text_page.close()
        page.close()
        return read

    def _recognize_picture(self, page: pypdfium2.PdfPage, read: ReadPage, characters: int) -> None:
        covered, paths = _measure_pictures(page)
        if characters < HARDLY_ANY:
            if covered > LEAST_PICTURE or paths >= LEAST_PATHS:
                self._recognize(page, read, State.EMPTY)
            elif not read.text:
                read.state = State.BLANK
        elif covered > LEAST_COVERED:
            self._recognize(page, read, State.READ)

    def _recognize(self, page: pypdfium2.PdfPage, read: ReadPage, otherwise: State) -> None:
        """Read the page as a picture, and keep that if it is more than its text; else it is what `otherwise` says."""
        pages = self._ocr.read_pages(_render(page)) if self._ocr.is_available else []
        text = pages[0] if pages else ""
        if text and (otherwise is State.GARBLED or len(text) > len(read.text)):
            read.text, read.is_recognized = text, True
        elif not (read.text and otherwise is State.EMPTY):
            read.state = otherwise

    def _measure(self, text_page: pypdfium2.PdfTextPage, raw: str) -> dict[str, float]:
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


def _read_text(text_page: pypdfium2.PdfTextPage) -> tuple[str, bool]:
    """Return the text within the page's box, and whether each of its characters has its own index in pdfium.

    pdfium's text within a box may lack line ends: the whole text is better, unless more of it is outside the box.
    """
    count = text_page.count_chars()
    page: pypdfium2.PdfPage = text_page.page
    left, bottom, right, top = page.get_bbox()
    buffer = (c_ushort * (count + 1))()
    length = pdfium.FPDFText_GetBoundedText(text_page, left, top, right, bottom, buffer, count + 1)
    bounded = memoryview(buffer)[:length].tobytes().decode("utf-16-le", "ignore")
    if len(bounded) == count:
        return bounded, True
    whole = text_page.get_text_range() if count else ""
    if len(bounded) < len(whole) and len(_SPACE.sub("", bounded)) < len(_SPACE.sub("", whole)):
        return bounded, False
    return whole, len(whole) == count


def clean_pdf_text(raw: str) -> str:
    """Join words hyphenated at line ends and remove what is no text: NULs, lone surrogates, carriage returns."""

    def join(match: re.Match[str]) -> str:
        following = match["next"]
        return ("" if following.islower() else "-") + following if following else "-"

    has_hyphens = "\ufffe" in raw or "\x02" in raw
    text = _LINE_END_HYPHEN.sub(join, raw) if has_hyphens else raw
    text = text.replace("\x00", "").replace("\r\n", "\n").replace("\r", "\n")
    text = text if text.isascii() else text.encode("utf-8", "ignore").decode("utf-8")
    return "\n".join(map(str.rstrip, text.split("\n"))).strip()


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


def _count_garbled(text: str, raw: str) -> int:
    """Count the unreadable characters: controls, those of private use, and U+FFFD."""
    return 0 if text.replace("\n", "").isprintable() else len(_NO_CHARACTER.findall(raw))


def _measure_pictures(page: pypdfium2.PdfPage) -> tuple[float, int]:
    """Return which share of the page pictures cover, and how many curves are drawn on it."""
    width, height = page.get_size()
    covered, paths = 0.0, 0
    for place in range(min(pdfium.FPDFPage_CountObjects(page), LOOKED_AT_OBJECTS)):
        drawn = pdfium.FPDFPage_GetObject(page, place)
        match pdfium.FPDFPageObj_GetType(drawn):
            case pdfium.FPDF_PAGEOBJ_PATH:
                paths += 1
            case pdfium.FPDF_PAGEOBJ_IMAGE | pdfium.FPDF_PAGEOBJ_FORM:
                left, bottom, right, top = (pdfium.FS_FLOAT() for _ in range(4))
                if pdfium.FPDFPageObj_GetBounds(drawn, left, bottom, right, top):
                    covered += abs(right.value - left.value) * abs(top.value - bottom.value)
    return covered / max(1.0, width * height), paths


def _render(page: pypdfium2.PdfPage) -> bytes:
    """Draw a page in shades of grey, as a PNM file."""
    width, height = page.get_size()
    scale = min(DOTS_PER_INCH / 72, (MAX_PIXELS / max(1.0, width * height)) ** 0.5)
    try:
        bitmap = page.render(scale=scale, grayscale=True, may_draw_forms=False)
    except pypdfium2.PdfiumError:
        return b""
    pixels = memoryview(bitmap.buffer).cast("B")
    rows = (pixels[start : start + bitmap.width] for start in range(0, bitmap.height * bitmap.stride, bitmap.stride))
    return b"P5 %d %d 255\n" % (bitmap.width, bitmap.height) + b"".join(rows)
