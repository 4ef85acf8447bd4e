"""Choose the sources of an answer among what was found.

Nearly the same text is given once, and a question that compares documents gets sources of more than one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice

from ragq.models import SearchResult
from ragq.rag.comparison import compares, find_named

SHINGLE_WORDS = 5
NEARLY_SAME = 0.9  # Jaccard similarity of the shingles of two texts, from which one of them is enough
COMMON_WORDS = 0.8  # share of their words that such texts have in common, at least
UNSPACED_CHARACTERS = 20  # in a word on average, from which a text has no spaces between words
REASONABLE = 0.5  # share of the best score that a document needs to be compared with the best one
_CLAUSE = re.compile(r"\w+")
_NUMBER = re.compile(r"\d")


def choose_sources(
    question: str, found: list[SearchResult], *, limit: int, beside: Iterable[SearchResult] = ()
) -> list[SearchResult]:
    """Choose at most `limit` sources: the best, without those that say the same as a better one.

    Args:
        found: Best first; more than `limit`, so that others can take the places of what is left out.
        beside: Sources that are given anyway, and so not repeated.
    """
    named = find_named(question, {result.filename for result in found})
    if len(named) < 2 and not compares(question):
        return list(islice(_drop_repeats(found, beside), limit))
    # Two versions of a document differ in a few words, and those are what such a question is about.
    sources = list(_drop_copies(found, beside))
    spread = _spread(sources, named, most=limit) if len(named) > 1 else _spread(sources, set(), most=max(2, limit // 2))
    return spread[:limit]


class _Text:
    """A text that others may repeat."""

    def __init__(self, text: str) -> None:
        self._words, self._run = text.split(), SHINGLE_WORDS
        if len(text) > UNSPACED_CHARACTERS * len(self._words):
            self._words, self._run = _CLAUSE.findall(text), 1
        self.vocabulary = set(self._words)

    @cached_property
    def _shingles(self) -> set[tuple[str, ...]]:
        """All runs of five words; where words are not spaced, what stands between marks."""
        if len(self._words) < self._run:
            return {tuple(self._words)}
        return set(zip(*(self._words[start:] for start in range(self._run)), strict=False))

    def may_repeat(self, vocabulary: set[str]) -> bool:
        """Whether it has so many of these words that it may be nearly the same as a text that has them."""
        return len(self.vocabulary & vocabulary) >= COMMON_WORDS * len(self.vocabulary)

    def repeats(self, other: _Text) -> bool:
        """Whether it is nearly the same: the Jaccard similarity of both texts' shingles is high, and no number differs."""
        if self._words == other._words:
            return True
        if not self.may_repeat(other.vocabulary) or any(map(_NUMBER.search, self.vocabulary ^ other.vocabulary)):
            return False
        both = len(self._shingles & other._shingles)
        return both >= NEARLY_SAME * (len(self._shingles) + len(other._shingles) - both)


def _drop_copies(found: Iterable[SearchResult], beside: Iterable[SearchResult]) -> Iterator[SearchResult]:
    known = {result.text for result in beside}
    for result in found:
        if result.text not in known:
            known.add(result.text)
            yield result


def _drop_repeats(found: Iterable[SearchResult], beside: Iterable[SearchResult]) -> Iterator[SearchResult]:
    known = [_Text(result.text) for result in beside]
    vocabulary = set[str]().union(*(text.vocabulary for text in known))
    for result in found:
        text = _Text(result.text)
        if not (text.may_repeat(vocabulary) and any(map(text.repeats, known))):
            known.append(text)
            vocabulary |= text.vocabulary
            yield result


def _spread(sources: list[SearchResult], named: set[str], *, most: int) -> list[SearchResult]:
    """Put the best source of each document first: of those that are named, else of those that score reasonably.

    The best of all stays the first.
    """
    leading: dict[str, int] = {}
    for place, source in enumerate(sources):
        is_compared = source.filename in named if named else source.score >= REASONABLE * sources[0].score
        if place == 0 or (is_compared and len(leading) < most):
            leading.setdefault(source.file_id, place)
    first = set(leading.values())
    return [sources[place] for place in sorted(range(len(sources)), key=lambda place: place not in first)]
