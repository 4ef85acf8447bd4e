"""Cut the text of an answer into statements while it comes, the same wherever the pieces are cut."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ragq.rag.sentences import STOP, ends_sentence

MAX_CHARACTERS = 1000  # of one statement
LOOK_AHEAD = 3  # characters after a full stop, by which it is told from an abbreviation's
_BREAK = re.compile(rf"(?P<line>\n\s*)|(?P<stop>{STOP.pattern})")
_TAIL = " \t\n.!?…\"'”’»)]*_[0123456789「」』）"  # of which a stop may still become one
_SHELL = re.compile(r"[ \t>]*(?:#{1,6}[ \t]+)?(?:(?:[-*+•▪‣◦–]|\(?\d{1,3}[.)])[ \t]+)?")
_NO_STATEMENT = re.compile(r"\s*(?:#{1,6}\s.*|[\s|:=*_\-–—.]*)", re.DOTALL)  # a heading or a rule
_BOLD_LINE = re.compile(r"\s*(\*\*|__)[^*_\n\d]{1,80}\1:?[ \t]*\n\s*")  # a heading, too, if more follows
_TABLE_RULE = re.compile(r"\|?\s*[:-]")  # begins the line after the names of a table's columns


@dataclass(slots=True)
class Mark:
    """A marker in a statement.

    Attributes:
        place: Offset in the statement's text, which has no markers.
        length: Characters of it as it is shown.
        sources: The numbers of the sources, from 1.
    """

    place: int
    length: int
    sources: list[int]
    reason: str = ""


@dataclass(slots=True)
class Cut:
    """A statement.

    Attributes:
        start: Offset in the shown text, as of `end`.
        text: Without markers.
    """

    start: int
    end: int
    text: str
    marks: list[Mark] = field(default_factory=list)


class StatementCutter:
    """Takes the text and the markers of an answer in their order, and yields each statement that has ended."""

    def __init__(self) -> None:
        self._text = ""  # of the statement that has begun, and what follows it
        self._marks: list[Mark] = []
        self._start = 0  # where it begins in the shown text
        self._seen = 0  # how far ends were looked for

    @property
    def unmarked(self) -> str:
        """What of the statement is there by now, from its last marker on."""
        return self._text[self._marks[-1].place if self._marks else 0 :]

    def add(self, text: str) -> Iterator[Cut]:
        """Take text."""
        self._text += text
        yield from self._cut(is_last=False)

    def begin_mark(self) -> Iterator[Cut]:
        """Make ready for a marker: it belongs to the statement before it, if that is in its line."""
        if "\n" in self._text[len(self._text.rstrip()) :]:
            yield from self._end(len(self._text))

    def mark(self, shown: str, sources: list[int], reason: str = "") -> None:
        """Take a marker as it is shown."""
        self._marks.append(Mark(len(self._text), len(shown), sources, reason))

    def skip(self, length: int) -> Iterator[Cut]:
        """Pass over text that states nothing, such as a block of code."""
        yield from self._cut(is_last=True)
        self._start += length

    def end(self) -> Iterator[Cut]:
        """Take the end of the answer."""
        yield from self._cut(is_last=True)

    def _cut(self, *, is_last: bool) -> Iterator[Cut]:
        while (end := self._find_end(is_last=is_last)) is not None:
            yield from self._end(end)
        if is_last:
            yield from self._end(len(self._text))

    def _find_end(self, *, is_last: bool) -> int | None:
        """Find the end of the first statement that has ended for certain."""
        while match := _BREAK.search(self._text, self._seen):
            after = self._text[match.end() : match.end() + LOOK_AHEAD]
            if match.end() > MAX_CHARACTERS or (len(after) < LOOK_AHEAD and not is_last):
                break
            if after and self._is_end(match, after):
                return match.end()
            self._seen = match.end()
        else:
            self._seen = max(self._seen, len(self._text.rstrip(_TAIL)))
        if len(self._text) <= MAX_CHARACTERS + LOOK_AHEAD:
            return None
        space = self._text.rfind(" ", 1, MAX_CHARACTERS)
        return space + 1 if space > 0 else MAX_CHARACTERS

    def _is_end(self, match: re.Match[str], after: str) -> bool:
        if match["line"]:
            return match.group().count("\n") > 1 or not after[:1].islower()
        stop = STOP.match(self._text, match.start("stop"))
        return bool(stop and ends_sentence(self._text, 0, stop))

    def _end(self, end: int) -> Iterator[Cut]:
        text, marks = self._text[:end], [mark for mark in self._marks if mark.place <= end]
        start, length = self._start, end + sum(mark.length for mark in marks)
        self._text, self._start, self._seen = self._text[end:], start + length, 0
        self._marks = [
            Mark(mark.place - end, mark.length, mark.sources, mark.reason) for mark in self._marks[len(marks) :]
        ]
        shell = _SHELL.match(text)
        first, last = shell.end() if shell else 0, len(text.rstrip())
        says_nothing = _NO_STATEMENT.fullmatch(text) or self._is_heading(text)
        if first < last and (marks or not says_nothing):
            shown = last + sum(mark.length for mark in marks)
            for mark in marks:
                mark.place = min(max(mark.place - first, 0), last - first)
            begin = start if marks and not marks[0].place else start + first
            yield Cut(begin, start + shown, text[first:last], marks)

    def _is_heading(self, text: str) -> bool:
        """Tell whether a line names what follows it: a line in bold letters, or the first one of a table."""
        after = self._text[:LOOK_AHEAD]
        return bool(after and (_BOLD_LINE.fullmatch(text) or ("|" in text and _TABLE_RULE.match(after))))
