"""Find the markers in an LLM's answer that name its sources, and tell them from brackets that mean something else.

What a marker or a piece of code may be is bounded, so a stream holds back a few hundred characters at most.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

MAX_UNKNOWN = 20  # a list may name sources up to this number that are not there; with a larger one it is no marker
MAX_RANGE = 10  # sources that `[1-3]` may name

# Code is passed over: `rows[1]` is no citation. A backtick that is open for longer than this, or over lines, opens none.
_FENCE = "```"
_INLINE_CODE = r"`[^`\n]{1,300}`"
# A marker takes the white space before it along, unless that is long.
_SPACES = r"(?:(?<![ \t])[ \t]{1,40})?"
# A marker has a number: "[citation needed]", copied from a source, is text, and a marker after it stands alone.
_GROUP = (
    r"(?:\[(?=[^\[\]\n]*\d)[^\[\]\n]{1,40}\]|［(?=[^［］\n]*\d)[^［］\n]{1,40}］|【(?=[^【】\n]*\d)[^【】\n]{1,40}】%s)"
)
_ROUND = r"|\([\d ,;–-]{1,20}\)"
_OPEN = r"[\[［【(][^\[\]［］【】\n]{0,41}[\]］】)]?"
_WORDS = r"(?:sources?|src|docs?|documents?|refs?|references?|citations?|cite|id|ids|quellen?|fuentes?|स्रोत|出典|来源|no\.?|nr\.?|#|\^)"
_PLACE = r"(?:\s*,\s*(?:pp?|pages?|s|seiten?|págs?|lines?|sections?|chapters?|§)\.?\s*\d{1,5}(?:\s*[-–]\s*\d{1,5})?)?"
_NUMBERS = re.compile(
    rf"\s*(?:{_WORDS}\s*[:.#]?\s*)*(\d{{1,3}}(?:\s*(?:[,;&]|and|und|y|-|–)\s*(?:{_WORDS}\s*:?\s*)?\d{{1,3}})*){_PLACE}\s*",
    re.IGNORECASE,
)
_LENTICULAR = re.compile(r"\s*(?:(\d{1,3}):)?(\d{1,3})\b.*")
_PART = re.compile(r"(\d{1,3})(?:\s*[-–]\s*(\d{1,3}))?")
_EACH = re.compile(r"[\[［【(]([^\[\]［］【】()\n]*)[\]］】)]")
_INDEX_BEFORE = re.compile(r"\[[^\[\]\s]*\]$")  # as in grid[i][1]
_NESTED = re.compile(r"\[\s*(?:\[[^\[\]]*\]\s*[,;]\s*)*$")  # as in [[1, 2], [3, 4]]
_WORD_BEFORE = re.compile(r"([\w.]*)(:?\s*)$")
_ROUND_BEFORE = re.compile(r"(?<!\w)\(+\s*$")  # of a marker in brackets, not of the arguments of a function
_TAG_BEFORE = re.compile(r"</?[a-z][a-z0-9]{0,9}\s{0,3}/?>$", re.IGNORECASE)
_OPERATOR_BEFORE = re.compile(r"(^|\s|\S)([*+/<>])\2*$")

# After one of these, a list of numbers is a value: "the interval [1, 2]", "x = [1]".
_VALUES = frozenset(
    "vector vectors list lists array arrays tuple interval intervals range ranges matrix point points coordinates index indices"
    " set sequence values value shape size dimensions between in is are equals returns return returned gives the a an of to from"
    " with for by at as than or and vektor liste intervall bereich menge werte wert im ist sind gleich von zu lista rango"
    " intervalo conjunto valores valor es son entre de input output use uses using like example bounds span".split()
)
_NAMES = frozenset(
    "args argv arr array list rows row cols columns items item data matrix index idx values keys result results response lines"
    " params nums buf buffer vec vector tokens words parts x y z a b c i j k v m n p q s t u w self df".split()
)


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of an answer: text, code that stands alone, or a marker as it was written, white space before it included."""

    kind: Literal["text", "code", "marker"]
    text: str


class MarkerReader:
    """Finds the markers of a text that comes in pieces; each costs as much as it is long.

    Args:
        has_round: Numbers in round brackets are markers, too.
    """

    def __init__(self, *, has_round: bool = False) -> None:
        group = _GROUP % (_ROUND if has_round else "")
        openings = _OPEN if has_round else _OPEN.replace("(", "", 1)
        marker = rf"(?P<marker>{_SPACES}{group}(?:[ \t]?{group}){{0,9}}(?![(\[])(?!(?<=\^\d\]):)(?!(?<=\^\d\d\]):))"
        begun = (
            r"`{1,2}\Z|`[^`\n]{1,300}\Z|(?<![ \t])[ \t]{1,40}\Z|"
            rf"{_SPACES}(?:{group}[ \t]?){{0,10}}(?:{openings})?\Z"
        )
        self._next = re.compile(
            rf"(?P<begun>(?=[`\s\[［【(])(?:{begun}))|(?P<fence>{_FENCE})|(?P<code>{_INLINE_CODE})|{marker}"
        )
        self._last = re.compile(rf"(?P<fence>{_FENCE}.*?(?:{_FENCE}|\Z))|(?P<code>{_INLINE_CODE})|{marker}", re.DOTALL)
        self._opening = re.compile(r"[`\[［【(]" if has_round else r"[`\[［【]")
        self._held = ""  # what may still become a marker or code
        self._before = ""  # the character before it
        self._in_fence = False

    def feed(self, piece: str, *, is_last: bool = False) -> Iterator[Piece]:
        """Take a piece; yields what nothing to come changes."""
        text, place = self._before + self._held + piece, len(self._before)
        is_settled = True
        while is_settled:
            start = place
            if self._in_fence:
                place, is_settled = self._leave_fence(text, start)
                yield Piece("code", text[start:place])
                continue
            match = self._next.search(text, self._skip_text(text, start))
            is_settled = bool(match and match["begun"] is None)
            if match and is_settled:
                place = match.end()
                self._in_fence = bool(match["fence"])
                yield from _cut(text[start : match.start()], match)
            else:
                place = match.start() if match else len(text)
                yield Piece("text", text[start:place])
        if is_last:
            for match in self._last.finditer(text, place):
                yield from _cut(text[place : match.start()], match)
                place = match.end()
            yield Piece("text", text[place:])
            place = len(text)
        self._before, self._held = text[place - 1 : place], text[place:]

    def _skip_text(self, text: str, start: int) -> int:
        """Where the white space begins before the next character that could open a marker or code, or before the end."""
        opening = self._opening.search(text, start)
        return max(start, len(text[: opening.start() if opening else len(text)].rstrip(" \t")))

    def _leave_fence(self, text: str, start: int) -> tuple[int, bool]:
        """Find up to where a block of code is settled, and whether it has ended there."""
        end = text.find(_FENCE, start)
        if end >= 0:
            self._in_fence = False
            return end + len(_FENCE), True
        ticks = len(text) - max(start, len(text.rstrip("`")))
        return len(text) - ticks, False


def _cut(before: str, match: re.Match[str]) -> Iterator[Piece]:
    if match["code"]:
        yield Piece("text", before + match.group())
        return
    yield Piece("text", before)
    yield Piece("code" if match["fence"] else "marker", match.group())


def read_marker(written: str, before: str, count: int) -> list[int] | None:
    """Read which sources a marker names, from 1; None if the brackets are no marker, an empty list if it names none.

    Args:
        before: What stands before it, as much as there is of the line.
        count: Number of sources.
    """
    numbers: list[int] = []
    for inner in _EACH.findall(written):
        found = _LENTICULAR.fullmatch(inner) if "【" in written else None
        named = [int(found[2])] if found else _read_numbers(inner, count)
        if named is None:
            return None
        numbers += named
    is_list = any(mark in written for mark in ",;-–")
    if _is_value(written, before, is_list=is_list):
        return None
    known = [number for number in dict.fromkeys(numbers) if 1 <= number <= count]
    if is_list and not known:
        return None
    return known


def _read_numbers(inner: str, count: int) -> list[int] | None:
    match = _NUMBERS.fullmatch(inner)
    if not match:
        return None
    numbers: list[int] = []
    parts = _PART.findall(match[1])
    for first, last in parts:
        if last and not int(first) < int(last) <= min(count, int(first) + MAX_RANGE):
            return None
        numbers += range(int(first), int(last or first) + 1)
    if len(parts) > 1 and not all(1 <= number <= max(count, MAX_UNKNOWN) for number in numbers):
        return None
    return numbers


def _is_value(written: str, before: str, *, is_list: bool) -> bool:
    """Tell whether brackets are an index or a value, by what stands before them."""
    is_apart = written[:1].isspace()
    before = _ROUND_BEFORE.sub("", before)
    if _is_operand(before, is_apart=is_apart) or (is_list and _NESTED.search(before)):
        return True
    found = _WORD_BEFORE.search(before)
    word = found[1] if found else ""
    if before and not before[-1:].isspace() and not is_apart:  # as in args[0]
        if _INDEX_BEFORE.search(before):
            return True
        return word in _NAMES or "_" in word or "." in word.strip(".") or any(one.isupper() for one in word[1:2])
    return is_list and word.casefold().strip(".") in _VALUES and not before.rstrip().endswith(".")


def _is_operand(before: str, *, is_apart: bool) -> bool:
    """Tell whether an operator stands before, which "**1841** [1]", "C++ [1]" and "<b>1841</b>[1]" have none of.

    Args:
        is_apart: White space is between.
    """
    before = before.rstrip()
    if before.endswith(("=", "(", "{", "∈", '":')):
        return True
    operator = _OPERATOR_BEFORE.search(before)
    return bool(operator and is_apart == (not operator[1].strip()) and not _TAG_BEFORE.search(before))
