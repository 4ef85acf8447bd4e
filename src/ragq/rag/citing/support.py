"""Find the sentences of a source that support a statement."""

from __future__ import annotations

from functools import cached_property

from ragq.models import SearchResult
from ragq.rag.sentences import Span, find_rows, find_sentences, find_terms

MAX_SENTENCES = 200  # of one source; a chunk of prose, as long as chunks may be, has fewer
PAIR_GAIN = 0.3  # a second sentence is quoted when it adds more than this share of the terms


def find_statements(source: SearchResult) -> list[Span]:
    """The spans that can be quoted alone: rows of a table, else sentences."""
    return find_rows(source.text) if source.location.unit == "row" else find_sentences(source.text)


class Support:
    """The sentences of one source, read once for all statements of an answer."""

    def __init__(self, source: SearchResult) -> None:
        self.source = source

    @cached_property
    def _sentences(self) -> list[tuple[Span, set[str]]]:
        text = self.source.text
        spans = find_statements(self.source)[:MAX_SENTENCES] or [(0, len(text))]
        return [((start, end), find_terms(text[start:end])) for start, end in spans]

    @cached_property
    def _terms(self) -> set[str]:
        return set().union(*(terms for _, terms in self._sentences))

    def bound(self, terms: set[str]) -> float:
        """The share of the terms that the whole source holds: no sentence of it holds a larger one."""
        return len(self._terms & terms) / max(1, len(terms))

    def find(self, terms: set[str]) -> tuple[float, Span]:
        """Find the sentence, or two in a row, that hold the largest share of the terms; the shorter of equals."""
        spans = [span for span, _ in self._sentences]
        held = [known & terms for _, known in self._sentences]
        total = max(1, len(terms))
        singles = [(len(held[place]) / total, spans[place]) for place in range(len(spans))]
        pairs = [
            (len(held[place] | held[place + 1]) / total - PAIR_GAIN, (spans[place][0], spans[place + 1][1]))
            for place in range(len(spans) - 1)
            if held[place] and held[place + 1]  # else one of the two alone is better
        ]
        return max(singles + pairs, key=lambda one: (one[0], one[1][0] - one[1][1]))
