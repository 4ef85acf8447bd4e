"""Read the words of a text as they are compared: numbers and dates by value, other words by their stems."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from ragq.rag.citing.amounts import UNITS, write_plainly
from ragq.rag.citing.lexicon import (
    CAPITALS,
    ENGLISH,
    HOURS,
    LANGUAGES,
    LIGHT,
    META,
    MONTHS,
    NEGATIONS,
    NUMBERS,
    SAME,
    SCALES,
)
from ragq.rag.sentences import STOP_WORDS
from ragq.rag.words import pairs

MAX_SHOWN = 40  # characters of a word in a reason
MAX_KEPT = 1000  # characters of a text whose words are kept
MAX_WORDS = 160  # of one sentence; the rest is not compared
_RUN = re.compile(r"(?:\w|[\u0300-\u036f\u0900-\u0963\u0966-\u0fff])+")  # as the terms of `sentences.py`
_ASCII_RUN = re.compile(r"\w+", re.ASCII)
_NOT = re.compile(r"n[’'ʼ]t\b")
_POSSESSIVE = re.compile(r"[’']s\b")
_INITIALS = re.compile(r"\b(?:[A-Z]\.){2,5}")
_ALIASES = re.compile(
    r"\b(?:(United States(?: of America)?|US(?!\$))|(United Kingdom)|(European Union)|(United Nations))\b"
)
_ALIAS_BEGINS = ("United ", "US", "European ")
_SHOUTED_CHARACTERS = 20  # of a text in capital letters, in which "US" may be the pronoun
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
_APOSTROPHES = frozenset("'’ʼ")
_BEGINNINGS = frozenset('.!?:;\n“”"„«»')  # after one of these a sentence or a quote begins
_JOINTS = ".,:/-'’"
_SPACED = " \u00a0\u2009\u202f"
_ISO = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})")
_DAY_FIRST = re.compile(r"(\d{1,2})[./-](\d{1,2})[./-](\d{4})")
_THOUSANDS = re.compile(r"\d{1,3}(?:([.,'’ \u00a0\u2009\u202f])\d{3})(?:\1\d{3})*(?:[.,]\d+)?")
_CLOCK = re.compile(r"([01]?\d|2[0-4]):([0-5]\d)")
_DECIMAL = re.compile(r"(\d+)[.,](\d+)")
_UNIT = re.compile(r"(\d[\d.,]*?)(km|cm|mm|m|kg|g|mg|mb|gb|tb|kb|ghz|mhz|mph|st|nd|rd|th|s|er|e|º|ª|a|o|bn|k)")
_RANGE = re.compile(r"\d+(?:[-/]\d+)+")
_STOPS = (STOP_WORDS | LIGHT) - ENGLISH  # never looked up
_PARTICIPLE = re.compile(r"ge\w{4,}(?:t|en)")  # "gerichtet" of "richten"
_STEM_CHARACTERS = 6
_LOOSE_CHARACTERS = 4


class Kind(StrEnum):
    """How much a word says."""

    STOP = "stop"
    WORD = "word"
    NAME = "name"
    NUMBER = "number"
    COUNT = "count"  # a number in words
    NEGATION = "negation"


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a sentence.

    Attributes:
        text: As it was written.
        keys: What it is compared by; a number may be read in several ways.
        loose: The beginning of the word, which its other forms share.
    """

    text: str
    keys: tuple[str, ...]
    kind: Kind
    loose: str = ""

    @property
    def short(self) -> str:
        """As it is shown in a reason."""
        return self.text[:MAX_SHOWN]

    @property
    def is_content(self) -> bool:
        return self.kind is not Kind.STOP and self.kind is not Kind.NEGATION

    @property
    def says_something(self) -> bool:
        """Whether it is more than a small word, or talk about the sources."""
        return self.is_content and self.text.casefold() not in META

    @property
    def is_exact(self) -> bool:
        """Names and numbers: no other word stands for them."""
        return self.kind is Kind.NAME or self.kind is Kind.NUMBER


def read_words(text: str) -> list[Word]:
    """Read the words of a sentence, at most `MAX_WORDS`; those of a short one are kept."""
    return _read_once(text) if len(text) <= MAX_KEPT else _read_words(text)


@lru_cache(maxsize=2000)  # many questions find the same sentences
def _read_once(text: str) -> list[Word]:
    return _read_words(text)


def _read_words(text: str) -> list[Word]:
    if not _APOSTROPHES.isdisjoint(text):
        text = _POSSESSIVE.sub("", _NOT.sub(" not", text))
    if "." in text:
        text = _INITIALS.sub(lambda match: match.group().replace(".", ""), text)
    text = write_plainly(_write_aliases(text))
    runs = list(_join_numbers(text))[: MAX_WORDS + 1]
    language = language_of([run.casefold() for run, _ in runs])
    may_be_names = not _is_shouted(text)
    words: list[Word] = []
    for place, (run, is_first) in enumerate(runs):
        if may_be_names and _is_name_in_capitals(run, language):
            words.append(Word(run, (_stem(run.casefold()),), Kind.NAME))
            continue
        follower = runs[place + 1][0] if place + 1 < len(runs) else ""
        words += _read(run, _matters(run, follower), is_first, language)
    return words[:MAX_WORDS]


def _is_name_in_capitals(run: str, language: str) -> bool:
    """Tell whether a word in capital letters is a name, though in small ones it is a common word: "the UN", "the WHO"."""
    lower = run.casefold()
    if lower not in CAPITALS or not run.isupper():
        return False
    return language == "en" or lower not in LANGUAGES.get(language, ())


def find_stems(text: str) -> set[str]:
    """The stems of a text's words, and the parts of its numbers: what is looked up before the words are read."""
    return find_word_stems(write_plainly(_write_aliases(text)))


def _write_aliases(text: str) -> str:
    """Write "the United States" and "the US", which is no pronoun, as "the USA"."""
    if not any(begin in text for begin in _ALIAS_BEGINS) or _is_shouted(text):
        return text
    return _ALIASES.sub(lambda match: ("USA", "UK", "EU", "UN")[(match.lastindex or 1) - 1], text)


def _is_shouted(text: str) -> bool:
    return len(text) > _SHOUTED_CHARACTERS and text.isupper()


def find_word_stems(text: str) -> set[str]:
    """The same of a word, or of a text in which amounts are written in one way."""
    if text.isascii():
        return set(map(_stem, {*_ASCII_RUN.findall(text.lower())} - _STOPS))
    stems: set[str] = set()
    for run in {*_RUN.findall(text.casefold())} - _STOPS:
        if run.isascii() or not _CJK.search(run):
            stems.add(_stem(run))
        else:
            stems.update(pairs(run))
    return stems


@lru_cache(maxsize=20_000)
def _stem(lower: str) -> str:
    word = SAME.get(lower, lower)
    return word[:_STEM_CHARACTERS].rstrip("s") or word


def language_of(words: list[str]) -> str:
    """The language most of whose common words are there; empty if none are."""
    counts = {language: len(common.intersection(words)) for language, common in LANGUAGES.items()}
    best = max(counts, key=lambda language: counts[language])
    return best if counts[best] else ""


def is_english(*texts: str) -> bool:
    """Tell whether texts are in English, or in no language that is known."""
    return all(language_of(text.casefold().split()) in ("en", "") for text in texts)


def _join_numbers(text: str) -> Iterator[tuple[str, bool]]:
    """Yield runs of letters and digits, numbers whole, and whether a sentence or a quote begins there."""
    held, end, is_first = "", 0, True
    for match in _RUN.finditer(text):
        between, run = text[end : match.start()], match.group()
        if held and held[-1].isdigit() and _is_one_number(held, between, run):
            held += between + run
        else:
            if held:
                yield held, is_first
            is_first = not end or (between != " " and not _BEGINNINGS.isdisjoint(between))
            held = run
        end = match.end()
    if held:
        yield held, is_first


def _is_one_number(held: str, between: str, run: str) -> bool:
    """Tell whether a run goes on with the number at whose end what is held ends."""
    if len(between) != 1 or len(held) > 40 or not run[0].isdigit():
        return False
    if between in _SPACED:
        return len(run) == 3 and run.isdigit() and len(re.split(r"\D", held)[0]) <= 3 and held[0] != "0"
    return between in _JOINTS


def _matters(run: str, follower: str) -> str:
    """What of the next word decides how a run is read: of a number its scale, else whether it has a capital letter."""
    if not run.isalpha() and any(map(str.isdigit, run)):
        return follower.casefold() if follower.casefold() in SCALES else ""
    return "A" if follower[:1].isupper() else ""


@lru_cache(maxsize=20_000)  # most words of a sentence stand in others, too
def _read(run: str, follower: str, is_first: bool, language: str) -> list[Word]:
    lower = run.casefold()
    if any(map(str.isdigit, lower)):
        return _read_number(run, follower)
    if _CJK.search(lower):
        return [Word(pair, (pair,), Kind.WORD) for pair in pairs(lower)]
    is_other = language in ("en", "") and lower in ENGLISH
    special = None if is_other else _read_special(run, lower)
    return [special or _read_word(run, lower, follower, is_first=is_first, language=language)]


def _read_special(run: str, lower: str) -> Word | None:
    """Read a word with a role of its own."""
    if lower in MONTHS and (lower not in ("may", "mar", "march") or run[0].isupper()):
        return Word(run, (f"month {MONTHS[lower]}",), Kind.NUMBER)
    if lower in HOURS:
        return Word(run, (lower, *_read_clock(HOURS[lower], "00")), Kind.WORD)
    if lower in NEGATIONS:
        return Word(run, ("not",), Kind.NEGATION)
    if lower in NUMBERS:
        return Word(run, (f"#{NUMBERS[lower]}",), Kind.COUNT)
    if lower in STOP_WORDS or lower in LIGHT or (len(lower) == 1 and lower.isascii()):
        return Word(run, (lower,), Kind.STOP)
    return None


def _read_word(run: str, lower: str, follower: str, *, is_first: bool, language: str) -> Word:
    key = _stem(lower)
    is_name = (
        run[0].isupper() and language != "de" and (not is_first or run[1:] != run[1:].lower() or follower[:1].isupper())
    )
    form = lower[2:] if language == "de" and _PARTICIPLE.fullmatch(lower) else lower
    loose = form[:_LOOSE_CHARACTERS] if len(form) > _LOOSE_CHARACTERS else ""
    return Word(run, (key,), Kind.NAME if is_name else Kind.WORD, loose)


def _read_number(run: str, follower: str) -> list[Word]:
    text = "".join(str(int(one)) if one.isdecimal() else one for one in run.casefold())
    if parts := _read_date(run, text):
        return parts
    unit: list[Word] = []
    if glued := _UNIT.fullmatch(text):
        text = glued[1]
        if glued[2] in SAME or glued[2] in UNITS:
            unit = [Word(glued[2], (SAME.get(glued[2], glued[2]),), Kind.WORD)]
    if _RANGE.fullmatch(text):
        whole = re.sub(r"[-/]", "", text)  # as a telephone number may be written
        return [Word(run, (f"#{part}", f"#{whole}"), Kind.NUMBER) for part in re.split(r"[-/]", text)]
    if clock := _CLOCK.fullmatch(text):
        return [Word(run, _read_clock(int(clock[1]), clock[2]), Kind.NUMBER)]
    readings = {text}
    if glued and glued[2] == "s" and text.endswith("00"):
        readings.add(str(int(text) // 100 + 1))  # the 1700s are the 18th century
    if match := _THOUSANDS.fullmatch(text):
        whole, _, rest = text.partition("." if match[1] == "," else ",")
        plain = whole.replace(match[1], "") + (f".{rest}" if rest else "")
        readings = (
            {plain} if text.count(match[1]) > 1 or match[1] not in ".," or rest else {plain, text.replace(",", ".")}
        )
    elif match := _DECIMAL.fullmatch(text):
        readings = {f"{match[1]}.{match[2]}".rstrip("0").rstrip(".")}
    if scale := SCALES.get(follower):
        readings |= {_scale(one, scale) for one in readings}
    return [Word(run, tuple(f"#{one}" for one in sorted(readings)), Kind.NUMBER), *unit]


def _read_clock(hour: int, minutes: str) -> tuple[str, ...]:
    """What an hour is compared by: "17:00" is "17 Uhr", too."""
    return (f"#{hour}:{minutes}", f"#{hour}") if minutes == "00" else (f"#{hour}:{minutes}",)


def _scale(number: str, scale: int) -> str:
    try:
        return f"{float(number) * scale:.0f}"
    except ValueError:
        return number


def _read_date(run: str, text: str) -> list[Word]:
    """Read the day, month and year of a date in digits; empty if it is none."""
    if date := _ISO.fullmatch(text):
        year, month, day = date.groups()
    elif date := _DAY_FIRST.fullmatch(text):
        day, month, year = date.groups()
        if int(month) > 12:
            day, month = month, day
    else:
        return []
    if not 1 <= int(month) <= 12 or not 1 <= int(day) <= 31:
        return [Word(run, (f"#{run}",), Kind.NUMBER)]
    return [Word(run, (key,), Kind.NUMBER) for key in (f"#{int(day)}", f"month {int(month)}", f"#{year}")]
