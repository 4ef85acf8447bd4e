"""Tell the language of a document."""

from __future__ import annotations

from collections import Counter
from functools import cache

import gcld3

SAMPLE_CHARACTERS = 1000
SAMPLES = 5  # over the whole document, so that an English title page does not decide
LEAST_CHARACTERS = 20


def detect_language(text: str) -> str:
    """The language of most of a text as an ISO 639-1 code; empty where that cannot be told, as of tables and code."""
    step = max(SAMPLE_CHARACTERS, len(text) // SAMPLES)
    votes = Counter(_detect(text[start : start + SAMPLE_CHARACTERS]) for start in range(0, len(text), step))
    language, count = votes.most_common(1)[0] if votes else ("", 0)
    return language if 2 * count > votes.total() else ""


def _detect(text: str) -> str:
    if len(text.strip()) < LEAST_CHARACTERS:
        return ""
    found = _detector().FindLanguage(text.encode("utf-8", "replace").decode())
    return found.language if found.is_reliable and len(found.language) == 2 else ""


@cache
def _detector() -> gcld3.NNetLanguageIdentifier:
    return gcld3.NNetLanguageIdentifier(min_num_bytes=0, max_num_bytes=4 * SAMPLE_CHARACTERS)
