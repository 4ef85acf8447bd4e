"""Find the headers and footers that repeat over the pages of a document."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator

EDGE_LINES = 3  # of the text of a page, at its top and at its bottom
EDGE_SHARE = 4  # of a page with few lines only each fourth, so that never a whole page is taken for its header
NEAR_PAGES = 4  # within which a line must stand again: left and right pages differ, and chapters too
LEAST_PAGES = 3
MAX_CHARACTERS = 150
MAX_NUMBERS = 4
MAX_DIGITS = 7  # longer ones count no pages

_NUMBER = re.compile(r"\d+")


def find_margins(pages: list[list[str]]) -> list[set[int]]:
    """Return for each page the numbers of its lines that are headers or footers.

    They stand among the first or last lines of at least three pages near each other, and are the same but for one number
    that grows as the pages do. The first page with a line that has no such number keeps it: it may say what the document is.
    """
    shown: dict[Hashable, list[tuple[int, int]]] = defaultdict(list)
    for index, lines in enumerate(pages):
        for place, key in _iterate_keys(index, lines):
            shown[key].append((index, place))
    margins: list[set[int]] = [set() for _ in pages]
    for key, found in shown.items():
        if len(found) < LEAST_PAGES:
            continue
        kept = isinstance(key, str)
        indexes = list(dict.fromkeys(index for index, _ in found))
        for index, place in found:
            near = bisect_right(indexes, index + NEAR_PAGES) - bisect_left(indexes, index - NEAR_PAGES)
            if near >= LEAST_PAGES:
                if not kept:
                    margins[index].add(place)
                kept = False
    return margins


def _iterate_keys(index: int, lines: list[str]) -> Iterator[tuple[int, Hashable]]:
    """Yield each line at an edge with what makes it the same on other pages."""
    first = _find_filled(lines, range(len(lines)), EDGE_LINES * EDGE_SHARE)  # more do not make the edge wider
    edge = len(first) // EDGE_SHARE
    last = _find_filled(lines, range(len(lines) - 1, -1, -1), edge)
    for place in dict.fromkeys([*first[:edge], *reversed(last)]):
        if len(lines[place]) > MAX_CHARACTERS:
            continue
        line = " ".join(lines[place].split())
        if not line.isdecimal():
            yield place, line
        spans = [number.span() for number in _NUMBER.finditer(line)]
        if len(spans) <= MAX_NUMBERS:
            for start, end in spans:
                if end - start < MAX_DIGITS:
                    yield place, (line[:start], line[end:], int(line[start:end]) - index)


def _find_filled(lines: list[str], places: Iterable[int], count: int) -> list[int]:
    """Return the first so many of the places whose lines are not empty."""
    found: list[int] = []
    for place in places:
        if len(found) == count:
            break
        if lines[place] and not lines[place].isspace():
            found.append(place)
    return found
