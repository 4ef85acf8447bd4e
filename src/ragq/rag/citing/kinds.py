"""What kind of answer a question asks for: a name, a time or a number. A passage without one cannot answer it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum

from ragq.rag.citing.wording import Kind, Word

MEASURED = 3  # words after "what" or "how" among which the one is that says what is asked for


class AnswerKind(StrEnum):
    """What a question asks for."""

    NAME = "name"
    TIME = "time"
    NUMBER = "number"


_ASKING = {
    **dict.fromkeys("who whom whose where quién quiénes dónde".split(), AnswerKind.NAME),
    **dict.fromkeys("when wann cuándo कब".split(), AnswerKind.TIME),
    **dict.fromkeys("wieviel wieviele cuánto cuánta cuántos cuántas कितने कितनी कितना".split(), AnswerKind.NUMBER),
}
_JOINING = frozenset("when where wann".split())
_VERBS = frozenset(
    "is are was were do does did has have had will would can could should may might must"
    " ist sind war waren wird wurde wurden hat haben hatte kann soll muss".split()
)
_RELATIVE = frozenset("who whom whose".split())
_ASKING_WHICH = frozenset("what which welche welcher welches welchen welchem qué cuál".split())
_ASKING_HOW = frozenset("how wie".split())
_MEASURES = frozenset(
    "many much long old far tall high large fast often big few deep wide viele viel lange alt weit hoch groß oft".split()
)
_NOUNS = {
    **dict.fromkeys("year years date day month century decade jahr jahren año años".split(), AnswerKind.TIME),
    **dict.fromkeys(
        "percentage percent fraction number amount temperature size population distance speed rate ratio score length"
        " height cost price prozentsatz porcentaje".split(),
        AnswerKind.NUMBER,
    ),
    **dict.fromkeys(
        "name person player company team city country nation leader king president university party newspaper".split(),
        AnswerKind.NAME,
    ),
}
_PERIODS = frozenset(
    "century centuries decade era period epoch spring summer autumn winter monday tuesday wednesday thursday friday saturday"
    " sunday ago today"
    " jahrhundert siglo".split()
)
_AMOUNTS = frozenset(
    "once twice thrice half quarter third hundreds dozen dozens thousand thousands million millions billion billions none"
    " several many every all hälfte einmal zweimal mitad".split()
)
_YEAR = re.compile(r"(?:1\d|20)\d\ds?|\d{1,2}(?:st|nd|rd|th)|\d{4}[-–/]\d.*|\d+[./-]\d+[./-]\d+")


def read_kind(asked: Sequence[Word]) -> AnswerKind | None:
    """Read what a question asks for from its first question word; None if it may be anything.

    A word such as "who" in "the man who …" asks for nothing, and neither does "when" without a verb after it.
    """
    lower = [word.text.casefold() for word in asked]
    for place, word in enumerate(lower):
        following = lower[place + 1 : place + 1 + MEASURED]
        if word in _JOINING and _VERBS.isdisjoint(following[:1]):
            continue
        if word in _ASKING and not (word in _RELATIVE and place and asked[place - 1].is_content):
            return _ASKING[word]
        if word in _ASKING_HOW and not _MEASURES.isdisjoint(following[:1]):
            return AnswerKind.NUMBER
        if word in _ASKING_WHICH:
            return next((_NOUNS[one] for one in following if one in _NOUNS), None)
    return None


def is_of(word: Word, kind: AnswerKind) -> bool:
    """Tell whether a word is of a kind, or a part of something that is."""
    if kind is AnswerKind.NAME:
        return word.kind is Kind.NAME or word.text[0].isupper() or not word.text[0].isascii()
    if kind is AnswerKind.NUMBER:
        return word.kind in (Kind.NUMBER, Kind.COUNT) or word.text.casefold() in _AMOUNTS
    return (
        word.keys[0].startswith("month ")
        or word.text.casefold() in _PERIODS
        or (word.kind is Kind.NUMBER and bool(_YEAR.fullmatch(word.text.casefold())))
    )
