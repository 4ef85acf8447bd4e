"""Write amounts of money, dates and hours in one way, and find a number that has another unit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ragq.rag.citing.lexicon import MONTHS

if TYPE_CHECKING:
    from ragq.rag.citing.wording import Word

_CURRENCIES = {
    "€": "euro",
    "eur": "euro",
    "$": "dollar",
    "us$": "dollar",
    "usd": "dollar",
    "£": "pound",
    "gbp": "pound",
}
_CURRENCY = r"(US\$|[€$£]|\b(?:EUR|USD|GBP)\b)"
_SCALE = r"(?:\s?(?:bn|k|m|million|billion|thousand|Mio\.?|Mrd\.?)\b)?"
_MONEY = re.compile(
    rf"{_CURRENCY}\s?(\d[\d.,]{{0,30}}(?<=\d){_SCALE})|(?<![\d.,])(\d[\d.,]{{0,30}}(?<=\d){_SCALE})\s?{_CURRENCY}"
)
_MONTH_FIRST = re.compile(
    rf"\b({'|'.join(month.capitalize() for month in MONTHS if month.isascii())})\b\.?\s(\d{{1,2}})(?:st|nd|rd|th)?\b(?![:.]\d),?"
)
# German "am" before a noun is no hour, as in "Gleis 9 am Bahnhof".
_HALF_DAY = re.compile(
    r"\b(1[0-2]|0?[1-9])(?:[:.]([0-5]\d))?\s?"
    r"(?:([pP])\.?\s?[mM]\b\.?|[aA](?:\.\s?[mM]\b\.?|[mM]\b(?!\s(?!Mon|Tue|Wed|Thu|Fri|Sat|Sun)[A-ZÄÖÜ])))"
)
_UHR = re.compile(r"\b(\d{1,2})(?:[:.](\d\d))?(?=\s?Uhr\b)")
_SIGNS = frozenset("€$£")
_DIGIT = re.compile(r"\d")
_POINT = re.compile(r"(?<![\w.)\]])\.(?=\d)")

# By its word, what a unit measures and its name: "metres" is a length.
UNITS = {
    word: (measured, words.split()[0])
    for measured, rows in {
        "length": "m metre metres meter meters|km kilometre kilometres kilometer kilometers|cm centimetre centimetres|mm|"
        "ft foot feet|mile miles mi|inch inches|yard yards",
        "mass": "kg kilogram kilograms kilo kilos|g gram grams gramm|mg|ton tons tonne tonnes tonnen toneladas|ounce ounces",
        "time": "minute minutes minuten minutos|hour hours stunde stunden hora horas|day days tag tage tagen día días|"
        "week weeks woche wochen semana semanas|month months monat monate monaten mes meses|year years jahr jahre jahren año años|"
        "seconds sekunden segundos",
        "size": "kb kilobytes|mb megabytes|gb gigabytes|tb terabytes",
        "money": "euro euros|dollar dollars|pound pounds|yen|franc francs|rupee rupees|cent cents",
    }.items()
    for words in rows.split("|")
    for word in words.split()
}


def write_plainly(text: str) -> str:
    """Write "€49" as "49 euro", "January 5" as "5 January", "5 pm" as "17:00" and ".5" as "0.5"."""
    if not _DIGIT.search(text):
        return text
    if "." in text:
        text = _POINT.sub("0.", text)
    if not _SIGNS.isdisjoint(text) or "EUR" in text or "USD" in text or "GBP" in text:
        text = _MONEY.sub(_write_money, text)
    text = _MONTH_FIRST.sub(r"\2 \1", text)
    if "m" in text or "M" in text:
        text = _HALF_DAY.sub(_write_hour, text)
    return _UHR.sub(lambda match: f"{match[1]}:{match[2] or '00'}", text) if "Uhr" in text else text


def _write_money(match: re.Match[str]) -> str:
    return f"{match[2] or match[3]} {_CURRENCIES[(match[1] or match[4]).lower()]}"


def _write_hour(match: re.Match[str]) -> str:
    hour = int(match[1]) % 12 + 12 * bool(match[3])
    return f"{hour}:{match[2] or '00'}"


def find_other_unit(said: Sequence[Word], meant: Sequence[Word]) -> str:
    """Find a number that has one unit in a statement and another in the passage, as "49 dollars" for "49 euros"."""
    if all(word.text.casefold() not in UNITS for word in said):
        return ""
    theirs = list(_find_units(meant))
    for keys, measured, unit, text in _find_units(said):
        others = [
            other for key, other_measured, other, _ in theirs if other_measured == measured and not keys.isdisjoint(key)
        ]
        if others and unit not in others:
            return f"Where the answer says '{text}', the source says '{others[0]}'."
    return ""


def measures_time(word: Word) -> bool:
    """Tell whether a word is a unit of time, such as "days"."""
    return UNITS.get(word.text.casefold(), ("", ""))[0] == "time"


def _find_units(words: Sequence[Word]) -> Iterator[tuple[set[str], str, str, str]]:
    """The keys of each number that has a unit, what is measured, the unit's name and its word."""
    for place, word in enumerate(words):
        if word.keys[0][0] != "#":
            continue
        for follower in words[place + 1 : place + 3]:  # "3 million dollars"
            if unit := UNITS.get(follower.text.casefold()):
                yield set(word.keys), *unit, follower.text
                break
