"""Cut a statement into clauses: each may stand in a place of its own, as in "The mill was built in 1841, and the bridge in 1902"."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ragq.rag.citing.wording import Kind, read_words

LEAST_WORDS = 2  # of a clause that say something; of what a marker stands behind, one
_OTHERS = r"but|while|whereas|aber|während|wohingegen|pero|mientras(?:\s+que)?|लेकिन|जबकि"
_AND = r"and|und|y|और"
# Before one of these "and" mostly joins clauses, and else two words of one.
_BEGIN = (
    r"(?:the|an?|its|their|his|her|it|he|she|they|this|that|these|those|in|on|at|der|die|das|ein|eine|er|sie|es|seine|ihre|diese[rs]?"
    r"|im|am|el|la|los|las|un|una|en|su|sus|se|est[aeo]s?|यह|ये|वह|वे|इस|इन|उस|उन)\b"
)
_JOINT = re.compile(
    rf"\s*;\s+|[,，]\s+(?:{_AND}|{_OTHERS})\s+|\s+(?:{_OTHERS})\s+|\s+(?:{_AND})\s+(?={_BEGIN})", re.IGNORECASE
)
_ANY_JOINT = re.compile(rf"\s*;\s+|[,，]?\s+(?:{_AND}|{_OTHERS})\s+", re.IGNORECASE)
_AFTER_MARK = re.compile(rf"\s*(?:[,;，]|(?:{_AND}|{_OTHERS})\s)", re.IGNORECASE)
_GOES_ON = re.compile(
    rf"[,;，\s]*(?:(?:{_AND}|{_OTHERS})\s+)?(?:by|of|with|from|for|to|in|at|on|von|mit|aus|für|im|am|por|de|con|en|para)\s",
    re.IGNORECASE,
)
_SIGNS = " \t\n,;，"


class _Part(NamedTuple):
    start: int
    end: int
    is_marked: bool  # a marker stands before it


def cut_clauses(text: str, marks: Sequence[int] = (), *, eagerly: bool = False) -> list[str]:
    """Cut a statement at words such as "and", and at its markers, where a clause stands on both sides.

    Args:
        marks: Offsets of the markers.
        eagerly: It is cut at each "and", also where that seems to join two words of one clause.
    """
    parts = _join(text, _cut(text, _Part(0, len(text), False), marks, _JOINT))
    if eagerly:
        parts = [one for part in parts for one in _join(text, _cut(text, part, (), _ANY_JOINT))]
    return [text[one.start : one.end].strip(_SIGNS) for one in parts]


def _cut(text: str, part: _Part, marks: Sequence[int], joint: re.Pattern[str]) -> Iterator[_Part]:
    marked = {mark for mark in marks if _AFTER_MARK.match(text, mark)}
    start, is_marked = part.start, part.is_marked
    spans = [match.span() for match in joint.finditer(text, part.start, part.end)]
    for first, last in sorted(spans + [(mark, mark) for mark in marked]):
        if start < first:
            yield _Part(start, first, is_marked)
            is_marked = False
        is_marked |= first in marked
        start = max(start, last)
    if start < part.end:
        yield _Part(start, part.end, is_marked)


def _join(text: str, parts: Iterable[_Part]) -> list[_Part]:
    """Leave each part that is no clause with what is before it, and what follows one that is none with it."""
    clauses: list[_Part] = []
    for part in parts:
        least = 1 if part.is_marked else LEAST_WORDS
        both = (text[one.start : one.end] for one in (*clauses[-1:], part))
        if clauses and not all(_is_clause(one, least) for one in both):
            clauses[-1] = clauses[-1]._replace(end=part.end)
        else:
            clauses.append(part)
    return clauses


def _is_clause(text: str, least: int) -> bool:
    """Tell whether a part says enough to be checked alone: "in 1841", "by Anna Reis" or a name does not."""
    words = [word for word in read_words(text) if word.says_something]
    kinds = {word.kind for word in words}
    if len(words) < least:
        return False
    return Kind.WORD in kinds or (not _GOES_ON.match(text) and (least == 1 or len(kinds) > 1))
