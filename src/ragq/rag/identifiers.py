"""Tell which tokens of a question name one thing only, and whether a text has them: a code, a version, an address."""

from __future__ import annotations

import re
from functools import lru_cache

from ragq.rag.words import LONG_NUMBER, Token, find_tokens, normalize

# What has digits and still names nothing: amounts, dates, times, ranges, measures, ordinals, years in words.
_NO_NAME = re.compile(
    r"""\d{1,3}(?:[.,’']\d{3})+(?:[.,]\d+)? | \d+[.,:/-]\d+ | \d{1,2}:\d{2}:\d{2}
    | \d{4}[-./]\d{1,2}[-./]\d{1,2} | \d{1,2}[-./]\d{1,2}[-./]\d{4}
    | \d+[^\W\d_]{1,3} | \d{1,4}(?:-[^\W\d_]{2,})+ | [a-z]{2,}-(?:1\d|20)\d\ds?""",
    re.VERBOSE,
)
_RUN = re.compile(r"\d+|[^\W\d_]+")
_SEPARATORS = r"[\W_]{0,3}"


def find_identifiers(text: str) -> set[str]:
    """The codes, versions, long numbers, addresses and the like that a text names, in lower case."""
    return {token.text.casefold() for token in find_tokens(text) if _names_one(token)}


def holds_identifier(text: str, identifier: str) -> bool:
    """Whether a text has an identifier, with the same or other separators, and not as a part of a longer number or word.

    Args:
        text: Normalized as by `fold_case`.
        identifier: One of `find_identifiers`.
    """
    return _pattern(identifier).search(text) is not None


def fold_case(text: str) -> str:
    """Bring a text into the form in which identifiers are compared."""
    return normalize(text).casefold()


def _names_one(token: Token) -> bool:
    text = token.text
    if any(sign in text for sign in ("@", "_", "://")):
        return True
    if text.isdigit():
        return len(text) >= LONG_NUMBER
    return any(one.isdigit() for one in text) and not _NO_NAME.fullmatch(text)


@lru_cache(maxsize=1000)
def _pattern(identifier: str) -> re.Pattern[str]:
    runs = _RUN.findall(identifier)
    before, after = ((r"\d" if run.isdigit() else r"[^\W\d_]") for run in (runs[0], runs[-1]))
    return re.compile(rf"(?<!{before}){_SEPARATORS.join(map(re.escape, runs))}(?!{after})")
