"""Answer without an LLM: the sentences of the documents that fit the question best, word for word."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from ragq.models import Answer, Citation, SearchResult
from ragq.rag.cite import make_citation
from ragq.rag.sentences import find_sentences, find_terms

NO_DOCUMENTS = "No documents were found to answer from. Ingest some first, or name a store that has them."
NO_ANSWER = "The documents do not answer this question."

# Tuned on the first half of XQuAD-en; see benchmarks/README.md.
CHUNK_WEIGHT = 0.5  # of how well the whole chunk fits, against the sentence itself
RANK_WEIGHT = 0.4  # of the chunk's place in the search's ranking
SECOND_SHARE = 0.6  # a second sentence needs this share of the first one's score
CONFIDENCE = 0.45  # below it the question is refused; mean of coverage and similarity, 0…1


@dataclass(frozen=True, slots=True)
class _Candidate:
    source: SearchResult
    start: int
    end: int
    score: float


def answer_extractively(question: str, results: list[SearchResult]) -> Answer:
    """Quote the one or two sentences that answer a question, or say that none does.

    Args:
        results: Best first, as the search gave them.
    """
    if not results:
        return Answer(NO_DOCUMENTS, [], "extractive")
    weights = _weigh_terms(question, results)
    candidates = _score_sentences(weights, results)
    if not candidates or _confidence(weights, results) < CONFIDENCE:
        return Answer(NO_ANSWER, [], "extractive")
    chosen = _choose(candidates)
    text, citations = "", list[Citation]()
    for candidate in chosen:
        text += (" " if text else "") + candidate.source.text[candidate.start : candidate.end]
        citations.append(make_citation(candidate.source, candidate.start, candidate.end, index=len(text)))
    return Answer(text, citations, "extractive")


def _weigh_terms(question: str, results: list[SearchResult]) -> dict[str, float]:
    """Weigh each term of the question by how rare it is among the sentences found."""
    sentences = [result.text[slice(*span)] for result in results for span in find_sentences(result.text)]
    counts = Counter(term for sentence in sentences for term in find_terms(sentence))
    return {term: math.log(1 + len(sentences) / (1 + counts[term])) for term in find_terms(question)}


def _coverage(text: str, weights: dict[str, float]) -> float:
    """Share of the question's weight whose terms a text holds, 0…1."""
    return sum(weights[term] for term in find_terms(text) & weights.keys()) / (sum(weights.values()) or 1)


def _confidence(weights: dict[str, float], results: list[SearchResult]) -> float:
    return max((_coverage(result.text, weights) + max(0.0, result.similarity or 0.0)) / 2 for result in results)


def _score_sentences(weights: dict[str, float], results: list[SearchResult]) -> list[_Candidate]:
    candidates = []
    for rank, result in enumerate(results):
        prior = CHUNK_WEIGHT * _coverage(result.text, weights) + RANK_WEIGHT / (1 + rank)
        for start, end in find_sentences(result.text):
            score = prior + _coverage(result.text[start:end], weights)
            candidates.append(_Candidate(result, start, end, score))
    return sorted(candidates, key=lambda one: -one.score)


def _choose(candidates: list[_Candidate]) -> list[_Candidate]:
    """Take the best sentence and the next best that says something else, in the order of the document."""
    best, *others = candidates
    taken = best.source.text[best.start : best.end]
    second = [
        one
        for one in others
        if one.score >= SECOND_SHARE * best.score and one.source.text[one.start : one.end] not in taken
    ][:1]
    return sorted([best, *second], key=lambda one: (one.source is not best.source, one.source.start + one.start))
