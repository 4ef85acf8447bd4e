"""Find the headers and footers that repeat over the pages of a document."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Hashable, Iterator
from itertools import islice

EDGE_LINES = 3  # of the text of a page, at its top and at its bottom
EDGE_SHARE = 4  # of a page with few lines only each fourth, so that never a whole page is taken for its header
NEAR_PAGES = 4  # within which a line must stand again: left and right pages differ, and chapters too
LEAST_PAGES = 3
MAX_CHARACTERS = 150
MAX_NUMBERS = 4

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
    filled = (place for place, line in enumerate(lines) if line and not line.isspace())
    first = list(
        islice(filled, EDGE_LINES * EDGE_SHARE)
    )  # no more of them are needed to know how many count as an edge
    edge = len(first) // EDGE_SHARE
    last = islice(
        (place for place in range(len(lines) - 1, -1, -1) if lines[place] and not lines[place].isspace()), edge
    )
    for place in dict.fromkeys([*first[:edge], *reversed(list(last))]):
        if len(lines[place]) > MAX_CHARACTERS:
            continue
        line = " ".join(lines[place].split())
        numbers = list(_NUMBER.finditer(line))
        if not line.isdecimal():
            yield place, line
        if len(numbers) <= MAX_NUMBERS:
            for number in numbers:
                if len(number.group()) < 7:
                    yield place, (line[: number.start()], line[number.end() :], int(number.group()) - index)
