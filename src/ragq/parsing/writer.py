"""Write the text of a document with the places, headings and tables in it.

Every reader of a format uses it, so that all formats come out alike: blocks that are set apart by a blank line, headings
with their parents' titles, and tables of which each row is one line that names its columns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import msgspec

from ragq.models import Place, PlaceKind, Table
from ragq.parsing.languages import detect_language
from ragq.parsing.ocr import INSTALL, Ocr
from ragq.parsing.tables import Cells, write_rows
from ragq.parsing.terms import clean, too_long

TITLE_CHARACTERS = 200  # of a heading alone
PATH_CHARACTERS = 300  # of a heading with its parents
MAX_WARNINGS = 20
MAX_ATTACHMENT_DEPTH = 3
MAX_ATTACHMENTS = 200
MAX_PICTURES = 20  # read by OCR, in all that a document holds
BLOCK_GAP = "\n\n"

Progress = Callable[[int, int], None]
"""Called with (what is done, total)."""

_SPACES = re.compile(r"\s+")


class UnreadableError(Exception):
    """The file cannot be read; the message is for the person who uploaded it, the code for programs."""

    def __init__(self, message: str, code: str = "damaged") -> None:
        super().__init__(message)
        self.code = code


class DocumentWriter:
    """The text of a document as it grows, with its structure.

    Attributes:
        title: What the file itself says that it is called.
        encoding: Of a text file, as Python calls it.
        ocr: Reads the text in pictures.
    """

    def __init__(
        self,
        read_attachment: Callable[[bytes, str, DocumentWriter], None],
        *,
        max_characters: int,
        progress: Progress = lambda *_: None,
        ocr: Ocr | None = None,
    ) -> None:
        """Start an empty document.

        Args:
            read_attachment: Writes the document that an attachment is; called with its bytes and its name.
            max_characters: A longer text is refused.
        """
        self.title = ""
        self.encoding = ""
        self.progress = progress
        self.ocr = ocr or Ocr()
        self.max_characters = max_characters
        self.length = 0
        self._read_attachment = read_attachment
        self._parts: list[str] = []
        self._places: list[Place] = []
        self._headings: list[tuple[int, str]] = []
        self._tables: list[Table] = []
        self._warnings: list[str] = []
        self._path: list[tuple[int, str]] = []
        self._within: list[str] = []
        self._attachments = 0
        self._pictures = 0
        self._unread_pictures = 0
        self._has_lines = False

    def warn(self, message: str) -> None:
        """Note what could not be read, in a sentence for people."""
        where = f"attachment {' › '.join(self._within)}: " if self._within else ""
        if len(self._warnings) < MAX_WARNINGS:
            self._warnings.append(clean(where + message))

    def start_place(self, kind: PlaceKind | None, number: int, name: str = "") -> None:
        """Begin a page, slide, sheet or chapter; except for a page, headings before it are not parents of those in it."""
        if kind is not PlaceKind.PAGE:
            self._path = []
        self._add(Place(self._next_start(), kind, number, _squeeze(clean(name))[:TITLE_CHARACTERS], self._attachment))

    def add_heading(self, level: int, title: str) -> None:
        """Write a heading; `level` counts from 1, the highest."""
        title = _squeeze(clean(title))
        if not title:
            return
        self._path = [entry for entry in self._path if entry[0] < level] + [(level, title[:TITLE_CHARACTERS])]
        start = self._next_start()
        self._write_block(title)
        self._headings.append((start, shorten_path(" › ".join(entry[1] for entry in self._path))))

    def add_text(self, text: str, *, is_clean: bool = False) -> None:
        """Write a paragraph, or several; its lines are kept.

        Args:
            is_clean: All of it but the line ends is printable, and no line ends with white space.
        """
        if block := (text if is_clean else "\n".join(map(str.rstrip, clean(text).split("\n")))).strip():
            self._write_block(block)

    def add_table(
        self, rows: Iterable[Cells], *, header_rows: int | None = None, caption: str = "", first_number: int = 1
    ) -> None:
        """Write a table: its caption, then each row as a line "Header: value; Header: value".

        Args:
            rows: Text of each cell, empty cells included, merged cells repeated in each place that they take; read once.
            header_rows: How many of the first rows name the columns; None to tell by what is in them.
            first_number: Number of the first row, as people count it.
        """
        if caption := _squeeze(clean(caption)):
            self._write_block(caption)
        start, offsets = self._next_start(), list[tuple[int, int]]()
        for number, row in write_rows(rows, header_rows=header_rows, first_number=first_number):
            line = clean(row)
            if offsets:
                self._write("\n" + line)
            else:
                self._write_block(line)
            offsets.append((self.length - len(line), number))
        if offsets:
            self._tables.append(Table(start, self.length, tuple(offsets)))

    def add_attachment(self, data: bytes, name: str) -> None:
        """Write a document that this one holds; what of it cannot be read is a warning."""
        self._attachments += 1
        if len(self._within) >= MAX_ATTACHMENT_DEPTH or self._attachments > MAX_ATTACHMENTS:
            self.warn(f"attachment {name!r} was not read: there are too many.")
            return
        with self._attached(name):
            try:
                self._read_attachment(data, name, self)
            except UnreadableError as error:
                self.warn(str(error))

    def add_picture(self, data: bytes, name: str) -> None:
        """Write the text in a picture that this document holds, as OCR finds it; a picture without text leaves nothing.

        `finish` warns of pictures that were not read: OCR is not installed, or they are too many.
        """
        if not self.ocr.is_available or self._pictures >= MAX_PICTURES:
            self._unread_pictures += 1
            return
        self._pictures += 1
        if text := BLOCK_GAP.join(filter(None, self.ocr.read_pages(data))):
            with self._attached(name):
                self.add_text(text)

    def leave_out_pictures(self, count: int) -> None:
        """Note pictures that were not read, since they are too many; `finish` warns of them."""
        self._unread_pictures += count

    def add_verbatim(
        self, text: str, *, headings: Iterable[tuple[int, str]] = (), tables: Iterable[Table] = (), has_lines: bool
    ) -> None:
        """Write text as it is, character for character, with what was found in it; offsets count from its start."""
        start = self._next_start()
        if not self.length:
            self._has_lines = has_lines
        self._write_block(text)
        self._headings += [(start + offset, title) for offset, title in headings]
        for table in tables:
            rows = tuple((start + offset, number) for offset, number in table.rows)
            self._tables.append(Table(start + table.start, start + table.end, rows, table.header))

    def finish(self) -> tuple[str, dict[str, object]]:
        """Return the text, and the structure as JSON can hold it.

        Raises:
            UnreadableError: There is no text.
        """
        self._warn_of_pictures()
        text = "".join(self._parts)
        if not text or text.isspace():
            raise UnreadableError(" ".join(self._warnings) or "No text found in the file.", "no_text")
        return text, {
            "places": msgspec.to_builtins([place for place in self._places if place.start < len(text)]),
            "headings": self._headings,
            "tables": msgspec.to_builtins(self._tables),
            "has_lines": self._has_lines,
            "title": _squeeze(clean(self.title))[:TITLE_CHARACTERS],
            "encoding": self.encoding,
            "language": detect_language(text),
            "warnings": self._warnings,
        }

    @property
    def _attachment(self) -> str:
        return " › ".join(self._within)

    @contextmanager
    def _attached(self, name: str) -> Iterator[None]:
        """Write what follows as an attachment's text."""
        title, encoding = self.title, self.encoding
        self._within.append(_squeeze(clean(name))[:TITLE_CHARACTERS] or "without a name")
        self._path = []
        self._add(Place(self._next_start(), None, 1, "", self._attachment))
        try:
            yield
        finally:
            self._within.pop()
            self.title, self.encoding = title, encoding
        self._path = []
        self._add(Place(self._next_start(), None, 1, "", self._attachment))

    def _warn_of_pictures(self) -> None:
        if count := self._unread_pictures:
            which = "1 picture was" if count == 1 else f"{count:,} pictures were"
            self.warn(f"{which} not read: " + ("there are too many." if self.ocr.is_available else f"{INSTALL}."))

    def _add(self, place: Place) -> None:
        if self._places and self._places[-1].start == place.start:
            self._places.pop()  # nothing was written in it
        self._places.append(place)

    def _next_start(self) -> int:
        return self.length + len(BLOCK_GAP) if self.length else 0

    def _write_block(self, text: str) -> None:
        self._write(BLOCK_GAP + text if self.length else text)

    def _write(self, text: str) -> None:
        if self.length + len(text) > self.max_characters:
            raise UnreadableError(too_long(self.max_characters), "too_large")
        self.length += len(text)
        self._parts.append(text)


def shorten_path(path: str) -> str:
    """Keep the end, which says most: each chunk carries its path, and is embedded with it."""
    return path if len(path) <= PATH_CHARACTERS else f"…{path[1 - PATH_CHARACTERS :]}"


def _squeeze(text: str) -> str:
    return _SPACES.sub(" ", text).strip()
