"""Say how sure an answer without an LLM is, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ragq.models import SearchResult
from ragq.rag.citing.wording import read_words
from ragq.rag.identifiers import find_identifiers, fold_case, holds_identifier
from ragq.rag.sentences import find_terms

# Logistic regression on the first halves of XQuAD in English, German, Spanish and Hindi: questions with their paragraph
# against the same without it. The lead is how far the best chunk is ahead of the others.
BIAS, COVERAGE, EVIDENCE, LACKING_NAMES, SCORE, LEAD = -5.92, 2.36, 0.214, -1.09, 5.86, 7.1
# Of a question that asks what to do the limits are stricter for an answer and looser for a refusal: tuned on the first half
# of benchmarks/data/how_to.jsonl. A sentence of a manual that has its words is often of another option.
TASK_BIAS, TASK_SLOPE = -0.75, 0.395
FEWEST_OTHERS = 3  # with fewer other chunks, chunks of the usual score are assumed
USUAL_SCORE = 0.15
# A search, or a reranker, seldom gives a chunk more than the first without the question's words, and the second times their
# coverage beside it. Files that come with a question are not searched, and their chunks have the score 1: for these it is the third.
SCORE_WITHOUT_WORDS, SCORE_OF_WORDS, UNSEARCHED_SCORE = 0.3, 1.0, 0.5
USUAL_SENTENCES = 40  # among fewer sentences, rarity is counted as among these

UNCERTAIN = 0.1  # from here on the nearest passages are shown
# Below the first limit a cross-encoder is asked, too: above, it seldom decides. What it says is weighed with the logit of the words,
# which counts between the bounds: fitted on the first half of XQuAD-en, on other articles of SQuAD and on small sets of documents.
SURE_BY_WORDS = 0.8
WORDS, WORDS_BOUNDS, READING, READING_BIAS = 0.5, (-3.0, 3.0), 2.66, 0.67
READING_SCALE = 4.0  # a score of the cross-encoder that says three quarters of all that it can say


class Reading(NamedTuple):
    """What the cross-encoder says of a question and a sentence.

    Attributes:
        score: How well the sentence answers the question: the higher, the better; about −8…8.
        claim: The log-odds that the words that were marked in it are the answer; nothing if there were none.
    """

    score: float
    claim: float


@dataclass(frozen=True, slots=True)
class Confidence:
    """How likely the best sentence answers the question, 0…1, and what speaks against it."""

    value: float
    reason: str


@dataclass(frozen=True, slots=True)
class Fit:
    """How the best sentence fits a question.

    Attributes:
        coverage: Share of the question's terms, weighed by rarity, in it and those around it, 0…1.
        evidence: The rarity of its own terms that the question has, in all: one rare word says more than a common one.
        lacking_names: Share of the question's names and numbers that stand nowhere in its passage, 0…1.
        missing: The question's words that it and those around it lack, the rarest first.
    """

    coverage: float
    evidence: float
    lacking_names: float
    missing: Sequence[str]


def judge(results: Sequence[SearchResult], fit: Fit, *, is_task: bool = False) -> Confidence:
    """Judge an answer from what was found, best first.

    Args:
        is_task: The question asks what to do.
    """
    best, *others = (_bound_score(result, fit.coverage) for result in results)
    padded = [*others, *[USUAL_SCORE] * (FEWEST_OTHERS - len(others))]
    lead = max(0.0, best - sum(padded) / len(padded))
    logit = (
        BIAS
        + COVERAGE * fit.coverage
        + EVIDENCE * fit.evidence
        + LACKING_NAMES * fit.lacking_names
        + SCORE * best
        + LEAD * lead
    )
    if is_task and fit.coverage:
        logit = TASK_BIAS + TASK_SLOPE * logit
    return Confidence(round(1 / (1 + math.exp(-logit)), 3), _explain(fit.coverage, fit.missing))


def is_sure(confidence: Confidence) -> bool:
    """Tell whether the words are enough."""
    return confidence.value >= SURE_BY_WORDS


def weigh_reading(confidence: Confidence, score: float) -> Confidence:
    """Judge an answer again that was judged by its words. That it does not read like one is no reason to show nothing.

    Args:
        score: What the cross-encoder says of the best sentence; the higher, the better it answers.
    """
    words = math.log(max(confidence.value, 1e-3) / max(1 - confidence.value, 1e-3))
    lowest, highest = WORDS_BOUNDS
    logit = WORDS * min(max(words, lowest), highest) + READING * bound_reading(score) + READING_BIAS
    reads = "That sentence reads like an answer." if score > 0 else "That sentence does not read like an answer."
    least = min(confidence.value, UNCERTAIN)
    return Confidence(max(least, round(1 / (1 + math.exp(-logit)), 3)), f"{confidence.reason} {reads}")


def bound_reading(score: float) -> float:
    """How much a score of the cross-encoder says, −1…1."""
    return math.tanh(score / READING_SCALE)


def _bound_score(result: SearchResult, coverage: float) -> float:
    most = UNSEARCHED_SCORE if result.similarity is None else SCORE_OF_WORDS
    return min(result.score, SCORE_WITHOUT_WORDS + most * coverage)


def find_rarity(sentences: int, having: float) -> float:
    """How rare a term is that so many of the sentences have."""
    return math.log(1 + (sentences - having + 0.5) / (having + 0.5))


def find_lacking_names(question: str, passage: set[str]) -> float:
    """The share of the question's names and numbers that a passage lacks; 0 if it has none.

    Args:
        passage: Terms of the passage.
    """
    named = [terms for word in read_words(question) if word.is_exact and (terms := find_terms(word.text))]
    return sum(terms.isdisjoint(passage) for terms in named) / len(named) if named else 0.0


def find_absent(question: str, results: Sequence[SearchResult]) -> str | None:
    """An identifier that the question names and that stands in no chunk found; None if each stands in one."""
    texts = [fold_case(" ".join(filter(None, [one.filename, one.heading, one.text]))) for one in results]
    for identifier in sorted(find_identifiers(question)):
        if not any(holds_identifier(text, identifier) for text in texts):
            return identifier
    return None


def _explain(coverage: float, missing: Sequence[str]) -> str:
    if missing:
        words = ", ".join(f"'{word}'" for word in missing[:3])
        return f"The nearest sentence and those around it do not say {words}."
    if coverage > 0.9:
        return "The nearest sentence has the question's words."
    return "The nearest sentence has most of the question's words."
