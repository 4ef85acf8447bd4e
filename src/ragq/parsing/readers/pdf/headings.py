"""Find the headings of a PDF: in its outline, or else by the size of its letters."""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from ctypes import addressof, create_string_buffer
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import pypdfium2
import pypdfium2.raw as pdfium

from ragq.parsing.readers.pdf.pages import ReadPage

MAX_ENTRIES = 20_000  # of an outline
MAX_DEPTH = 6
MORE_CHARACTERS = 20  # that a heading's line may have than its title in the outline, such as a number
JOINED_LINES = 3  # over which a heading may run
LEAST_TIMES_LARGER = 1.15  # than the text
MAX_SHARE = 0.15  # of the measured lines; where more are large, size says nothing
MAX_LEVELS = 4

_NO_WORD = re.compile(r"[\W_]+")
_NUMBER = re.compile(r"^(?:chapter|appendix|section)?\s*[\divxlc]+(?:\.\d+)*\.?\s+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading: so many lines of its page."""

    level: int
    lines: int = 1


class Entry(NamedTuple):
    """An entry of an outline: the index of a page, a level from 1, and a title."""

    page: int
    level: int
    title: str


Headings = dict[int, dict[int, Heading]]
"""Index of a page → number of its line → heading."""


def read_outline(pdf: pypdfium2.PdfDocument) -> Iterator[Entry]:
    """Yield what the outline says of pages."""
    title = _TitleReader()
    for bookmark, level in itertools.islice(_iterate_outline(pdf), MAX_ENTRIES):
        target = pdfium.FPDFBookmark_GetDest(pdf, bookmark)
        index = pdfium.FPDFDest_GetDestPageIndex(pdf, target) if target else -1
        if index >= 0:
            yield Entry(index, level, title.read(bookmark))


def _iterate_outline(pdf: pypdfium2.PdfDocument) -> Iterator[tuple[pdfium.FPDF_BOOKMARK, int]]:
    """Yield each bookmark once, with its level from 1. pypdfium2's own iterator takes twice the time."""
    seen: set[int] = set()
    parents: list[pdfium.FPDF_BOOKMARK] = []
    bookmark = pdfium.FPDFBookmark_GetFirstChild(pdf, None)
    while bookmark or parents:
        address = addressof(bookmark.contents) if bookmark else 0
        if not address or address in seen:  # the end of a level, or a damaged outline that leads back to itself
            if not parents:
                return
            bookmark = pdfium.FPDFBookmark_GetNextSibling(pdf, parents.pop())
            continue
        seen.add(address)
        yield bookmark, len(parents) + 1
        child = pdfium.FPDFBookmark_GetFirstChild(pdf, bookmark) if len(parents) < MAX_DEPTH - 1 else None
        if child:
            parents.append(bookmark)
        bookmark = child or pdfium.FPDFBookmark_GetNextSibling(pdf, bookmark)


class _TitleReader:
    """Reads the titles of bookmarks into memory that grows with the longest."""

    def __init__(self) -> None:
        self._buffer = create_string_buffer(1024)

    def read(self, bookmark: pdfium.FPDF_BOOKMARK) -> str:
        size = pdfium.FPDFBookmark_GetTitle(bookmark, self._buffer, len(self._buffer))
        if size > len(self._buffer):
            self._buffer = create_string_buffer(size)
            pdfium.FPDFBookmark_GetTitle(bookmark, self._buffer, size)
        return str(memoryview(self._buffer)[: max(0, size - 2)], "utf-16-le", "ignore")


def match_outline(outline: Iterable[Entry], pages: Sequence[list[str]]) -> Headings:
    """Find the lines that are the outline's titles, each on its page.

    Args:
        pages: The lines of each page.
    """
    headings: Headings = {}
    by_page: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for entry in outline:
        by_page[entry.page].append((entry.level, entry.title))
    for index, entries in by_page.items():
        if not 0 <= index < len(pages):
            continue
        longest = max(len(title) for _, title in entries) + MORE_CHARACTERS
        wanted = [{_simplify(title), _simplify(_NUMBER.sub("", title))} - {""} for _, title in entries]
        starts = {title[0] for titles in wanted for title in titles}
        begins = {first for first in {line[:1] for line in pages[index]} if _may_begin(first, starts)}
        lines = [number for number, line in enumerate(pages[index]) if line[:1] in begins]
        found: dict[int, Heading] = {}
        for (level, _), titles in zip(entries, wanted, strict=True):
            free = [number for number in lines if number not in found]
            if place := _find(pages[index], free, longest, titles):
                found[place[0]] = Heading(level, place[1])
        if found:
            headings[index] = found
    return headings


@lru_cache(1000)  # the lines of a page, which are compared with each of its titles
def _simplify(text: str) -> str:
    return _NO_WORD.sub("", text).lower()


def _may_begin(first: str, starts: set[str]) -> bool:
    """Whether a line with this first letter may begin a title: a title does, or it is a number or sign before it."""
    return not first.isalpha() or first.lower() in starts


def _find(lines: list[str], numbers: list[int], longest: int, titles: set[str]) -> tuple[int, int] | None:
    """Find a title that begins in one of the lines with these numbers: its first line and the number of its lines."""
    for first in numbers:
        joined = ""
        for count, part in enumerate(lines[first : first + JOINED_LINES], start=1):
            joined += _simplify(part) if len(part) < longest else ""
            if not joined:
                break
            if joined in titles or joined.lstrip("0123456789") in titles:
                return first, count
    return None


def find_headings(pages: Sequence[ReadPage]) -> Headings:
    """Find lines whose letters are clearly larger than the text's."""
    sizes: Counter[float] = Counter()
    measured = 0
    for page in pages:
        for line, height in page.heights.items():
            sizes[height] += len(line)
            measured += 1
    if not sizes:
        return {}
    usual = sizes.most_common(1)[0][0]
    found = [
        (index, line, height)
        for index, page in enumerate(pages)
        for line, height in page.heights.items()
        if height >= usual * LEAST_TIMES_LARGER and any(character.isalpha() for character in line)
    ]
    if len(found) > max(3, measured * MAX_SHARE):
        return {}
    levels = _rank([height for _, _, height in found])
    headings: Headings = defaultdict(dict)
    for index, group in itertools.groupby(found, key=lambda entry: entry[0]):
        large = {line: height for _, line, height in group}
        last: tuple[int, float] | None = None
        for number, text in enumerate(pages[index].text.split("\n")):
            height = large.get(text.strip(), 0.0)
            if not height:
                last = None
            elif last and last[1] == height and headings[index][last[0]].lines < JOINED_LINES:
                headings[index][last[0]] = Heading(levels[height], headings[index][last[0]].lines + 1)
            else:
                headings[index][number] = Heading(levels[height])
                last = (number, height)
    return headings


def _rank(heights: list[float]) -> dict[float, int]:
    """Give each height its level, from 1 for the largest; sizes that hardly differ share one."""
    levels: dict[float, int] = {}
    level, last = 0, 0.0
    for height in sorted(set(heights), reverse=True):
        if not level or height < last / 1.05:
            level, last = min(MAX_LEVELS, level + 1), height
        levels[height] = level
    return levels
