"""Find the headings of a PDF: in its outline, or else by the size of its letters."""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pypdfium2

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


Headings = dict[int, dict[int, Heading]]
"""Index of a page → number of its line → heading."""


def read_outline(pdf: pypdfium2.PdfDocument) -> dict[int, list[tuple[int, str]]]:
    """Return the level and title of what the outline says of each page."""
    outline: dict[int, list[tuple[int, str]]] = defaultdict(list)
    entries: Iterator[pypdfium2.PdfBookmark] = pdf.get_toc(max_depth=MAX_DEPTH)
    for entry in itertools.islice(entries, MAX_ENTRIES):
        target = entry.get_dest()
        index = target.get_index() if target else None
        if index is not None:
            outline[index].append((entry.level + 1, entry.get_title()))
    return outline


def match_outline(outline: dict[int, list[tuple[int, str]]], pages: Sequence[ReadPage]) -> Headings:
    """Find the lines that are the outline's titles, each on its page."""
    headings: Headings = {}
    for index, entries in outline.items():
        if not 0 <= index < len(pages):
            continue
        longest = max(len(title) for _, title in entries) + MORE_CHARACTERS
        lines = [_simplify(line) if len(line) < longest else "" for line in pages[index].text.split("\n")]
        found: dict[int, Heading] = {}
        for level, title in entries:
            wanted = {_simplify(title), _simplify(_NUMBER.sub("", title))} - {""}
            place = _find(lines, wanted, set(found))
            if place:
                found[place[0]] = Heading(level, place[1])
        if found:
            headings[index] = found
    return headings


def _simplify(text: str) -> str:
    return _NO_WORD.sub("", text).lower()


def _find(lines: list[str], wanted: set[str], taken: set[int]) -> tuple[int, int] | None:
    """Find where a title stands: its first line and the number of its lines."""
    for first, line in enumerate(lines):
        if first in taken or not line:
            continue
        joined = ""
        for count, part in enumerate(lines[first : first + JOINED_LINES], start=1):
            joined += part
            if joined in wanted or joined.lstrip("0123456789") in wanted:
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
