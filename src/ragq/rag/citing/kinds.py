"""What kind of answer a question asks for: a name, a time or a number. A passage without one cannot answer it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from itertools import takewhile

from ragq.rag.citing.amounts import measures_time
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
_COPULAS = frozenset("is are was were ist sind war waren es son fue era fueron eran".split())
_RELATIVE = frozenset("who whom whose".split())
_ASKING_WHICH = frozenset("what which welche welcher welches welchen welchem qué cuál".split())
_ASKING_HOW = frozenset("how wie".split())
_MEASURES = frozenset(
    "many much long old far tall high large fast big few deep wide viele viel lange alt weit hoch groß".split()
)
_HOW_OFTEN = frozenset(("बार",))  # after "how many"
_BEFORE_OTHERS = frozenset(  # one of these before a noun: a verb stands before it, or another noun
    "the a an this that these those each his her its their of in on at to by for with from about"
    " der die das den dem des ein eine einen von el la los las un una en de del".split()
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
# Of a statement's own words only: in other sentences these are rarely another answer.
_HOURS = frozenset(
    "noon midnight morning afternoon evening night dawn dusk sunrise sunset yesterday tomorrow week weekend"
    " mittag mittags mitternacht morgens abends nachts gestern woche mediodía medianoche mañana noche ayer semana".split()
)
_BEFORE_TIMES = frozenset(
    "in at on by since until till before after from around about circa year years"
    " um ab bis seit vor nach gegen jahr jahre jahren en hasta desde las año".split()
)
_AFTER_TIMES = frozenset("am pm ad bc bce ce o clock hours uhr chr".split())
_CLOCK = re.compile(r"\d{1,2}:\d\d(?::\d\d)?|\d{1,2}h(?:\d\d)?|\d{1,2}(?::\d\d)?[ap]m")
_SHORT = re.compile(r"\d{1,4}|\d{1,2}\.\d\d")
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
            return _ASKING[word] if _HOW_OFTEN.isdisjoint(following[:1]) else None
        if word in _ASKING_HOW and not _MEASURES.isdisjoint(following[:1]):
            return AnswerKind.NUMBER
        if word in _ASKING_WHICH:
            return _read_noun(following, lower[-1])
    return None


def _read_noun(following: Sequence[str], last: str) -> AnswerKind | None:
    """Read the kind from the noun that stands next to "what", or after "is"; what a verb is about is not asked for.

    Args:
        last: The last word: a preposition there asks for something else, as in "What is the king known for?".
    """
    if not _COPULAS.isdisjoint(following[:1]):
        if last in _BEFORE_OTHERS:
            return None
    elif following[:1] != ["of"]:
        following = list(takewhile(lambda one: one not in _BEFORE_OTHERS and one not in _VERBS, following))
    return next((_NOUNS[one] for one in following if one in _NOUNS), None)


def is_of(word: Word, kind: AnswerKind) -> bool:
    """Tell whether a word is of a kind, or a part of something that is."""
    if kind is AnswerKind.NAME:
        return word.kind is Kind.NAME or word.text[0].isupper() or not word.text[0].isascii()
    is_month = word.keys[0].startswith("month ")
    if kind is AnswerKind.NUMBER:
        return (word.kind in (Kind.NUMBER, Kind.COUNT) and not is_month) or word.text.casefold() in _AMOUNTS
    return (
        is_month
        or word.text.casefold() in _PERIODS
        or (word.kind is Kind.NUMBER and bool(_YEAR.fullmatch(word.text.casefold())))
    )


def has_kind(kind: AnswerKind, own: Sequence[Word], texts: Sequence[Sequence[Word]]) -> bool:
    """Tell whether one of a statement's own words is of a kind.

    Args:
        texts: The statement and its passage, by which a number is told to be an hour or a year.
    """
    if any(is_of(word, kind) for word in own):
        return True
    if kind is not AnswerKind.TIME:
        return False
    keys = {key for word in own if word.kind in (Kind.NUMBER, Kind.COUNT) for key in word.keys}
    return any(word.text.casefold() in _HOURS for word in own) or any(
        not keys.isdisjoint(word.keys) and _is_hour_or_year(words, place)
        for words in texts
        for place, word in enumerate(words)
    )


def _is_hour_or_year(words: Sequence[Word], place: int) -> bool:
    """Tell whether a number is an hour, a year or a time, as in "18:30", "79 AD", "in 476" and "14 days", but not in "in 14 towns"."""
    text = words[place].text.casefold()
    if _CLOCK.fullmatch(text):
        return True
    if words[place].kind is not Kind.COUNT and not _SHORT.fullmatch(text):
        return False
    follower = words[place + 1] if place + 1 < len(words) else None
    if follower and (follower.text.casefold() in _AFTER_TIMES or measures_time(follower)):
        return True
    is_after = place > 0 and words[place - 1].text.casefold() in _BEFORE_TIMES
    return is_after and (follower is None or follower.kind in (Kind.STOP, Kind.NAME, Kind.NEGATION))
