"""Find the sentences of a source that support a statement."""

from __future__ import annotations

from functools import lru_cache

from ragq.models import SearchResult
from ragq.rag.citing.wording import find_stems
from ragq.rag.sentences import Span, find_rows, find_sentences, find_terms

KEPT = 256  # chunks whose sentences are kept: many questions find the same
MAX_SENTENCES = 200  # of one source; a chunk of prose, as long as chunks may be, has fewer
PAIR_GAIN = 0.3  # a second sentence is quoted when it adds more than this share of the stems


def read_statements(source: SearchResult) -> tuple[tuple[Span, frozenset[str]], ...]:
    """The spans that can be quoted alone, and the terms of each: rows of a table, else sentences."""
    return _read_terms(source.text, is_table=source.location.unit == "row")


def read_sentences(source: SearchResult) -> tuple[tuple[Span, frozenset[str]], ...]:
    """The sentences of a source, and the stems of each; of one without sentences, the whole text."""
    return _read(source.text, is_table=source.location.unit == "row")


def _cut(text: str, *, is_table: bool) -> list[Span]:
    return find_rows(text) if is_table else find_sentences(text)


@lru_cache(maxsize=KEPT)
def _read_terms(text: str, *, is_table: bool) -> tuple[tuple[Span, frozenset[str]], ...]:
    return tuple(((start, end), frozenset(find_terms(text[start:end]))) for start, end in _cut(text, is_table=is_table))


@lru_cache(maxsize=KEPT)
def _read(text: str, *, is_table: bool) -> tuple[tuple[Span, frozenset[str]], ...]:
    spans = _cut(text, is_table=is_table)[:MAX_SENTENCES] or [(0, len(text))]
    return tuple(((start, end), frozenset(find_stems(text[start:end]))) for start, end in spans)


def find_support(source: SearchResult, stems: set[str]) -> tuple[float, Span]:
    """Find the sentence, or two in a row, that hold the largest share of the stems; the shorter of equals."""
    sentences = read_sentences(source)
    spans = [span for span, _ in sentences]
    held = [known & stems for _, known in sentences]
    total = max(1, len(stems))
    singles = [(len(held[place]) / total, spans[place]) for place in range(len(spans))]
    pairs = [
        (len(held[place] | held[place + 1]) / total - PAIR_GAIN, (spans[place][0], spans[place + 1][1]))
        for place in range(len(spans) - 1)
        if held[place] and held[place + 1]  # else one of the two alone is better
    ]
    return max(singles + pairs, key=lambda one: (one[0], one[1][0] - one[1][1]))
