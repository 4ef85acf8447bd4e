"""Weigh the terms of a question, and how well a sentence fits them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from ragq.models import SearchResult
from ragq.rag.confidence import USUAL_SENTENCES, Fit, find_lacking_names, find_rarity
from ragq.rag.sentences import find_terms
from ragq.rag.synonyms.near import NEAR, NearTerms
from ragq.rag.words import find_tokens

# Coverage, 0…1, is the share of the question's terms, weighed by rarity, that a text holds. Tuned on the first half of XQuAD-en.
CONTEXT_WEIGHT = 0.25  # of terms that stand in the sentences around, or in the heading


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of a chunk found, from `start` to `end` of its text."""

    source: SearchResult
    start: int
    end: int
    terms: set[str]
    context: set[str]  # terms of what stands around it

    @property
    def text(self) -> str:
        return self.source.text[self.start : self.end]


def weigh_terms(question: str, sentences: list[Sentence], near: NearTerms) -> dict[str, float]:
    """Weigh each term of the question by how rare it is among the sentences found; the weights add up to 1.

    A term that others mean the same as shares its weight with its mark.
    """
    asked = {term: near.spread(term) for term in find_terms(question)}
    counts = _count({one for spread in asked.values() for one in spread}, sentences)
    weights: dict[str, float] = {}
    for term, spread in asked.items():
        having = math.fsum(share * counts[one] for one, share in spread.items())
        rarity = find_rarity(len(sentences), having) * near.emphasis(term)
        weights |= {one: share * rarity for one, share in spread.items()}
    total = sum(weights.values())
    return {term: weight / total for term, weight in weights.items()}


def _count(terms: set[str], sentences: list[Sentence]) -> Counter[str]:
    """In how many sentences each term stands."""
    return Counter(term for sentence in sentences for term in terms & sentence.terms)


def cover(terms: set[str], weights: dict[str, float]) -> float:
    return math.fsum(weights[term] for term in terms if term in weights)  # the same in any order of the terms


def fit(sentence: Sentence, weights: dict[str, float]) -> float:
    return cover(sentence.terms, weights) + CONTEXT_WEIGHT * cover(sentence.context - sentence.terms, weights)


def fit_best(
    question: str, best: Sentence, sentences: list[Sentence], weights: dict[str, float], near: NearTerms
) -> Fit:
    held = best.terms | best.context
    passage = held | near.mark(find_terms(best.source.text))
    counts = _count(best.terms & weights.keys(), sentences)
    among = max(USUAL_SENTENCES, len(sentences))
    return Fit(
        coverage=cover(held, weights),
        evidence=math.fsum(find_rarity(among, count) * near.share(term) for term, count in counts.items()),
        lacking_names=find_lacking_names(question, passage),
        missing=_missing(question, held, weights),
    )


def _missing(question: str, held: set[str], weights: dict[str, float]) -> list[str]:
    """The words of the question that a sentence and those around it lack, the rarest first."""
    lacking = {
        token.text: max(weights.get(term, 0.0) for term in terms)
        for token in find_tokens(question)
        if (terms := find_terms(token.text)) and not (terms | {NEAR + one for one in terms}) & held
    }
    return sorted(lacking, key=lambda word: -lacking[word])
