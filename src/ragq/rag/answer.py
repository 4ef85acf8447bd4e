"""Answer without an LLM: the sentences of the documents that fit the question best, word for word."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

from ragq.models import Answer, Citation, SearchResult
from ragq.rag.cite import make_citation
from ragq.rag.names import name_document
from ragq.rag.sentences import find_terms
from ragq.rag.support import find_statements
from ragq.tasks import run_through

NO_DOCUMENTS = "No documents were found to answer from. Ingest some first, or name a store that has them."
NO_ANSWER = "The documents do not answer this question."

# Tuned on the first half of XQuAD-en, with MiniLM's similarities and the store's fused scores. Coverage, 0…1, is the
# share of the question's terms, weighed by rarity, that a text holds; the others are weighed against it.
CONTEXT_WEIGHT = 0.25  # terms that stand in the sentences around, or in the heading
HEADING_CHARACTERS = 500  # its end names what is nearest
SCORE_WEIGHT = 1.0
SIMILARITY_WEIGHT = 0.7
SECOND_SHARE = 0.8  # a second sentence needs this share of the first one's score
LINES_CHARACTERS = 300  # a line of a form or a list is quoted with lines near it, up to this
LINES_GAIN = 0.1  # coverage that each must add

# Logistic regression, same half: questions with their paragraph against the same without it. Refuse below zero: one
# in ten of the answerable ones then falls too.
CONFIDENCE_BIAS, CONFIDENCE_SENTENCE, CONFIDENCE_CHUNK, CONFIDENCE_SIMILARITY = -7.48, 5.04, 3.52, 7.72
WORDS_BIAS, WORDS_SENTENCE, WORDS_CHUNK = -3.9, 4.97, 4.83  # without similarities


@dataclass(frozen=True, slots=True)
class _Sentence:
    source: SearchResult
    start: int
    end: int
    terms: set[str]
    context: set[str]  # terms of what stands around it
    chunk: set[str]  # terms of its whole chunk

    @property
    def text(self) -> str:
        return self.source.text[self.start : self.end]


def answer_extractively(question: str, results: list[SearchResult], *, trust_similarity: bool = True) -> Answer:
    """Quote the one or two sentences that answer a question, or say that none does.

    Args:
        results: Best first, as the search gave them.
        trust_similarity: The similarities are MiniLM's, for which refusing is calibrated; else words alone decide.
    """
    return run_through(answer_in_steps(question, results, trust_similarity=trust_similarity))


def answer_in_steps(
    question: str, results: list[SearchResult], *, trust_similarity: bool = True
) -> Generator[None, None, Answer]:
    """Do what `answer_extractively` does, in steps of a few milliseconds or less."""
    if not results:
        return Answer(NO_DOCUMENTS, [], "extractive")
    sentences: list[_Sentence] = []
    for result in results:
        sentences += _read(result)
        yield
    weights = _weigh_terms(question, sentences)
    known = [result.similarity for result in results if result.similarity is not None] if trust_similarity else []
    lowest = min(known, default=0.0)
    scored: list[tuple[float, _Sentence]] = []
    for sentence in sentences:
        source = sentence.source
        similarity = lowest if source.similarity is None or not known else source.similarity
        score = _fit(sentence, weights) + SCORE_WEIGHT * source.score + SIMILARITY_WEIGHT * similarity
        scored.append((score, sentence))
        yield
    scored.sort(key=lambda one: -one[0])
    best = _add_lines(scored[0][1], sentences, weights) if scored else None
    if not best or not _is_confident(best, weights, max(known, default=None)):
        return Answer(NO_ANSWER, [], "extractive")
    return _quote(_drop_overlaps([_add_lines(one, sentences, weights) for one in _choose(scored)]))


def _read(result: SearchResult) -> Iterator[_Sentence]:
    """Read the sentences of a chunk; a question is none, but lends its terms to the sentence that answers it."""
    spans = find_statements(result)
    terms = [find_terms(result.text[start:end]) for start, end in spans]
    chunk = find_terms(result.text)
    about = (result.heading or "")[-HEADING_CHARACTERS:]
    if result.location.unit == "row":  # a row does not say what its table is about
        about += f" {name_document(result.filename, '')}"
    heading = find_terms(about)
    asks = [result.text[start:end].rstrip("*_\"'”’»)").endswith(("?", "？")) for start, end in spans]
    for place, (start, end) in enumerate(spans):
        if asks[place]:
            continue
        own = terms[place] | (terms[place - 1] if place and asks[place - 1] else set())
        context = heading.union(*terms[max(0, place - 1) : place + 2])
        yield _Sentence(result, start, end, own, context, chunk)


def _weigh_terms(question: str, sentences: list[_Sentence]) -> dict[str, float]:
    """Weigh each term of the question by how rare it is among the sentences found; the weights add up to 1."""
    counts = Counter(term for sentence in sentences for term in sentence.terms)
    rarity = {
        term: math.log(1 + (len(sentences) - counts[term] + 0.5) / (counts[term] + 0.5))
        for term in find_terms(question)
    }
    total = sum(rarity.values())
    return {term: weight / total for term, weight in rarity.items()}


def _cover(terms: set[str], weights: dict[str, float]) -> float:
    return math.fsum(weights[term] for term in terms if term in weights)  # the same in any order of the terms


def _fit(sentence: _Sentence, weights: dict[str, float]) -> float:
    return _cover(sentence.terms, weights) + CONTEXT_WEIGHT * _cover(sentence.context - sentence.terms, weights)


def _is_confident(best: _Sentence, weights: dict[str, float], similarity: float | None) -> bool:
    """Tell whether the documents answer the question; `similarity` is that of the chunk nearest to it."""
    sentence = _cover(best.terms | best.context, weights)
    chunk = _cover(best.chunk, weights)
    if similarity is None:
        return WORDS_BIAS + WORDS_SENTENCE * sentence + WORDS_CHUNK * chunk > 0
    return (
        CONFIDENCE_BIAS + CONFIDENCE_SENTENCE * sentence + CONFIDENCE_CHUNK * chunk + CONFIDENCE_SIMILARITY * similarity
        > 0
    )


def _add_lines(sentence: _Sentence, sentences: list[_Sentence], weights: dict[str, float]) -> _Sentence:
    """Let a line of a form or a list grow by the lines near it that add terms of the question: a name, then its number."""
    text = sentence.source.text
    others = [one for one in sentences if one.source is sentence.source]
    while True:
        gain, grown = LINES_GAIN, None
        for other in others:
            start, end = min(sentence.start, other.start), max(sentence.end, other.end)
            added = _cover(other.terms - sentence.terms, weights)
            between = text[min(sentence.end, other.end) : max(sentence.start, other.start)]
            if end - start <= LINES_CHARACTERS and added > gain and "\n" in between:
                within = (one.terms for one in others if start <= one.start and one.end <= end)
                gain, grown = added, replace(sentence, start=start, end=end, terms=set().union(*within))
        if grown is None:
            return sentence
        sentence = grown


def _drop_overlaps(chosen: list[_Sentence]) -> list[_Sentence]:
    """Keep the longer of two quotes that overlap, as they may after both have grown."""
    first = min(chosen, key=lambda one: one.start - one.end)
    return [
        one
        for one in chosen
        if one is first or one.source is not first.source or one.end <= first.start or first.end <= one.start
    ]


def _choose(scored: list[tuple[float, _Sentence]]) -> list[_Sentence]:
    """Take the best sentence and the next best that says something else, in the order of their document."""
    (best_score, best), *others = scored
    for score, second in others:
        if score < SECOND_SHARE * best_score:
            break
        if second.text not in best.text and best.text not in second.text:
            in_order = second.source.file_id != best.source.file_id or best.source.start + best.start <= (
                second.source.start + second.start
            )
            return [best, second] if in_order else [second, best]
    return [best]


def _quote(chosen: list[_Sentence]) -> Answer:
    text, citations = "", list[Citation]()
    for sentence in chosen:
        text += (" " if text else "") + sentence.text
        citations.append(make_citation(sentence.source, sentence.start, sentence.end, index=len(text)))
    return Answer(text, citations, "extractive")
