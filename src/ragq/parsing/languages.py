"""Tell the language of a document."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

import gcld3

SAMPLE_CHARACTERS = 1000
SAMPLES = 5  # over the whole document, so that an English title page does not decide
LEAST_CHARACTERS = 20  # that are letters
LEAST_LETTERS = 0.3  # of a text: where there are fewer, as in tables of figures, the detector guesses
LEAST_WORDS = 10  # that differ

_WORD = re.compile(r"\b[^\W\d_]{2,}\b")


def detect_language(text: str) -> str:
    """The language of most of a text as an ISO 639-1 code; empty where that cannot be told, as of numbers and code."""
    step = max(SAMPLE_CHARACTERS, len(text) // SAMPLES)
    samples = [text[start : start + SAMPLE_CHARACTERS] for start in range(0, len(text), step)]
    votes: Counter[str] = Counter()
    for sample in samples:
        language = _detect(sample)
        votes[language] += 1
        if language and 2 * votes[language] > len(samples):
            return language
    return _detect_by_words(samples)


def _detect_by_words(samples: list[str]) -> str:
    """The language of words, each taken once: a table repeats its headers and values, and names more numbers than words."""
    words = dict.fromkeys(_WORD.findall(" ".join(samples)))
    return _detect(" ".join(words)) if len(words) >= LEAST_WORDS else ""


def _detect(text: str) -> str:
    letters = sum(map(str.isalpha, text))
    if letters < max(LEAST_CHARACTERS, LEAST_LETTERS * len(text)):
        return ""
    found = _detector().FindLanguage(text.encode("utf-8", "replace").decode())
    return found.language if found.is_reliable and len(found.language) == 2 else ""


@cache
def _detector() -> gcld3.NNetLanguageIdentifier:
    return gcld3.NNetLanguageIdentifier(min_num_bytes=0, max_num_bytes=4 * SAMPLE_CHARACTERS)
