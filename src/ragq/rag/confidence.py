"""Say how sure an answer without an LLM is, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ragq.models import SearchResult
from ragq.rag.identifiers import find_identifiers, fold_case, holds_identifier

# Logistic regression on the first halves of XQuAD in English, German, Spanish and Hindi: questions with their paragraph
# against the same without it. `coverage` is the share of the question's terms, weighed by rarity, in the best sentence and
# those around it; `lead` is how far the best chunk is ahead of the others.
BIAS, COVERAGE, SIMILARITY, SCORE, LEAD = -6.72, 4.3, 1.4, 6.5, 10.3
WORDS_BIAS, WORDS_COVERAGE, WORDS_SCORE, WORDS_LEAD = -6.3, 4.3, 6.9, 10.3  # without MiniLM's similarities
# Of a question that asks what to do the limits are stricter for an answer and looser for a refusal: tuned on the first half
# of benchmarks/data/how_to.jsonl. A sentence of a manual that has its words is often of another option.
TASK_BIAS, TASK_SLOPE = -1.11, 0.32
FEWEST_OTHERS = 3  # with fewer other chunks, chunks of the usual score are assumed
USUAL_SCORE = 0.15
# Files that come with a question are not searched, and their chunks have the score 1. What a search gives to a chunk without
# the question's words, and to one that has them all, is seldom more than this.
SCORE_WITHOUT_WORDS, SCORE_OF_WORDS = 0.3, 0.5

UNCERTAIN = 0.1  # from here on the nearest passages are shown


@dataclass(frozen=True, slots=True)
class Confidence:
    """How likely the best sentence answers the question, 0…1, and what speaks against it."""

    value: float
    reason: str


def judge(
    results: Sequence[SearchResult],
    coverage: float,
    missing: Sequence[str],
    *,
    trust_similarity: bool,
    asks_what_to_do: bool = False,
) -> Confidence:
    """Judge an answer from what was found, best first.

    Args:
        coverage: Of the best sentence with what stands around it, 0…1.
        missing: The question's words that they lack, the rarest first.
        trust_similarity: The similarities are MiniLM's.
        asks_what_to_do: As `blocks.asks_what_to_do` tells.
    """
    highest = SCORE_WITHOUT_WORDS + SCORE_OF_WORDS * coverage
    best, *others = (min(result.score, highest) for result in results)
    padded = [*others, *[USUAL_SCORE] * (FEWEST_OTHERS - len(others))]
    lead = max(0.0, best - sum(padded) / len(padded))
    known = [result.similarity for result in results if result.similarity is not None] if trust_similarity else []
    if known:
        logit = BIAS + COVERAGE * coverage + SIMILARITY * max(known) + SCORE * best + LEAD * lead
    else:
        logit = WORDS_BIAS + WORDS_COVERAGE * coverage + WORDS_SCORE * best + WORDS_LEAD * lead
    if asks_what_to_do and coverage:
        logit = TASK_BIAS + TASK_SLOPE * logit
    return Confidence(round(1 / (1 + math.exp(-logit)), 3), _explain(coverage, missing))


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
