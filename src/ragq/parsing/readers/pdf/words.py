"""Words of a PDF's page with their boxes, turned so that text runs to the right and lines go down."""

from __future__ import annotations

import re
from collections.abc import Callable
from ctypes import byref
from dataclasses import dataclass

import pypdfium2.raw as pdfium

GLUED_GAP = 0.25  # of a letter's height: letters further apart are two words, even if pdfium saw no space
MAX_CHARACTERS = 20_000

WIDE_LETTER = 0.55  # of a letter's height: runs that are wider in the mean may be several words
SAMPLED_RUNS = 100

_RUN = re.compile(r"\S+")

Turn = Callable[[float, float], tuple[float, float]]


def _keep_upright(x: float, y: float) -> tuple[float, float]:
    return x, -y


@dataclass(slots=True)
class Word:
    """A word; `top` is less than `bottom`. `line` is the number of its line in pdfium's text."""

    text: str
    left: float
    top: float
    right: float
    bottom: float
    line: int

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def middle(self) -> float:
        return (self.top + self.bottom) / 2


def read_words(text_page: pdfium.FPDF_TEXTPAGE, lines: list[str]) -> tuple[list[Word], Turn]:
    r"""Return the words, and what turns a point of the page as the words are turned.

    Args:
        lines: The page's text, line by line; each character has its index in pdfium, and "\r\n" stands between lines.
    """
    reader = _Reader(text_page)
    runs: list[tuple[int, str, int]] = []
    offset = 0
    for number, line in enumerate(lines):
        runs += ((number, match.group(), offset + match.start()) for match in _RUN.finditer(line))
        offset += len(line) + 2
    turn = reader.find_turn(runs)
    words: list[Word] = []
    for number, text, start in runs:
        first, last = reader.read(start, turn), reader.read(start + len(text) - 1, turn)
        height = max(first[3] - first[1], last[3] - last[1])
        if len(text) > 1 and last[2] - first[0] > (WIDE_LETTER * len(text) + GLUED_GAP) * height:
            letters = [reader.read(start + place, turn) for place in range(len(text))]
            words += _split(text, letters, number)
        else:
            words.append(_make_word(text, first, last, number))
    return words, turn


_Box = tuple[float, float, float, float]  # left, top, right, bottom


class _Reader:
    """Reads where letters stand."""

    def __init__(self, text_page: pdfium.FPDF_TEXTPAGE) -> None:
        self._page = text_page
        self._box = pdfium.FS_RECTF()
        self._pointer = byref(self._box)

    def read(self, index: int, turn: Turn) -> _Box:
        """Read the box of a letter, turned."""
        pdfium.FPDFText_GetLooseCharBox(self._page, index, self._pointer)
        a, b = turn(self._box.left, self._box.top)
        c, d = turn(self._box.right, self._box.bottom)
        return (min(c, a)), (min(d, b)), (max(a, c)), (max(b, d))

    def find_turn(self, runs: list[tuple[int, str, int]]) -> Turn:
        """Tell from how letters follow each other in which direction text runs."""
        right = down = 0.0
        for _, text, start in runs[:SAMPLED_RUNS]:
            first, last = self.read(start, _keep_upright), self.read(start + len(text) - 1, _keep_upright)
            right += last[0] - first[0]
            down += last[1] - first[1]
        if abs(right) >= abs(down):
            return _keep_upright if right >= 0 else lambda x, y: (-x, y)
        return (lambda x, y: (y, x)) if down < 0 else lambda x, y: (-y, -x)


def _split(text: str, letters: list[_Box], line: int) -> list[Word]:
    """Split letters that stand apart, though pdfium saw no space between them."""
    words: list[Word] = []
    start = 0
    for place in range(1, len(text) + 1):
        is_end = place == len(text)
        if is_end or letters[place][0] - letters[place - 1][2] > GLUED_GAP * (letters[place][3] - letters[place][1]):
            words.append(_make_word(text[start:place], letters[start], letters[place - 1], line))
            start = place
    return words


def _make_word(text: str, first: _Box, last: _Box, line: int) -> Word:
    return Word(text, first[0], min(first[1], last[1]), last[2], max(first[3], last[3]), line)
