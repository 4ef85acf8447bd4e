"""What is measured of one question, and of all of them."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

DEPTH = 10
UNSPACED = "\u0e00"  # from here on most scripts write no spaces between words, or are written with few


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure of 0…1, and whether more of it is better."""

    title: str
    more_is_better: bool = True


MEASURES: Mapping[str, Measure] = {
    "recall_at_1": Measure("R@1"),
    "recall_at_5": Measure("R@5"),
    "recall_at_10": Measure("R@10"),
    "mrr_at_10": Measure("MRR@10"),
    "ndcg_at_10": Measure("nDCG@10"),
    "contains_gold": Measure("answers that contain gold"),
    "refused_answerable": Measure("refused though answerable", more_is_better=False),
    "refused_unanswerable": Measure("unanswerable ones refused"),
    "citation_precision": Measure("citation precision"),
    "citation_recall": Measure("citation recall"),
    "quotes_verbatim": Measure("quotes verbatim"),
    "statements_supported": Measure("statements supported"),
    "failed": Measure("failed", more_is_better=False),
}


@dataclass(frozen=True, slots=True)
class SeenAnswer:
    """What of an answer is measured.

    Attributes:
        cited: The name of each cited file, once.
        quotes_verbatim: Of each citation, whether its quote stands in the document where its offsets say.
        supported: The share of its statements that the sources support; None if that was not checked.
        is_certain: False if it says of itself that it is not certain, and shows the nearest passages.
    """

    text: str
    cited: Sequence[str] = ()
    quotes_verbatim: Sequence[bool] = ()
    supported: float | None = None
    is_certain: bool = True
    failed: bool = False


def measure_retrieval(found: Sequence[str], files: Mapping[str, int]) -> dict[str, float]:
    """Measure a ranking of files, best first, against the grades of the right ones.

    Recall is the share of the right files among the first; MRR counts the first right one, nDCG all by their grades.
    """
    ranks = [rank for rank, name in enumerate(found[:DEPTH], 1) if name in files]
    gained = sum(files.get(name, 0) / math.log2(rank + 1) for rank, name in enumerate(found[:DEPTH], 1))
    best = sorted(files.values(), reverse=True)[:DEPTH]
    ideal = sum(grade / math.log2(rank + 1) for rank, grade in enumerate(best, 1))
    recalls = {f"recall_at_{depth}": sum(rank <= depth for rank in ranks) / len(files) for depth in (1, 5, DEPTH)}
    return recalls | {"mrr_at_10": 1 / ranks[0] if ranks else 0.0, "ndcg_at_10": gained / ideal}


def measure_answer(
    answer: SeenAnswer, *, files: Mapping[str, int], contains: Sequence[str], is_unanswerable: bool
) -> dict[str, float]:
    """Measure an answer; what cannot be measured of this question is left out.

    A refusal is an answer that cites nothing and contains no gold: one is asked to say so and cite nothing. Where nothing
    answers, passages that are shown as uncertain are right, too.
    """
    measured: dict[str, float] = {}
    is_right = holds_one(answer.text, contains)
    refused = not answer.failed and not answer.cited and not is_right
    if is_unanswerable:
        measured["refused_unanswerable"] = float(refused or not answer.is_certain)
    else:
        measured["refused_answerable"] = float(refused)
        if contains:
            measured["contains_gold"] = float(is_right)
        if files:
            right = sum(name in files for name in answer.cited)
            measured["citation_recall"] = right / len(files)
            if answer.cited:
                measured["citation_precision"] = right / len(answer.cited)
    if answer.quotes_verbatim:
        measured["quotes_verbatim"] = sum(answer.quotes_verbatim) / len(answer.quotes_verbatim)
    if answer.supported is not None:
        measured["statements_supported"] = answer.supported
    return measured


def holds_one(text: str, words: Iterable[str]) -> bool:
    """Whether a text holds one of the words, whole, whatever the case, the white space and the marks of Markdown."""
    plain = _plain(text)
    return any(re.search(_whole(_plain(one)), plain) for one in words if _plain(one))


def _plain(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.sub(r"[*`]", "", folded).split())


def _whole(words: str) -> str:
    """A pattern for the words with none of their neighbours' letters, in scripts that put spaces between words."""
    before = r"(?<!\w)" if words[0].isalnum() and words[0] < UNSPACED else ""
    after = r"(?!\w)" if words[-1].isalnum() and words[-1] < UNSPACED else ""
    return before + re.escape(words) + after


@dataclass(frozen=True, slots=True)
class Summary:
    """The mean of a measure over the `n` questions that have it."""

    mean: float
    n: int


def summarize(measured: Iterable[Mapping[str, float]]) -> dict[str, Summary]:
    """Sum up each measure that a question has."""
    values: dict[str, list[float]] = {name: [] for name in MEASURES}
    for one in measured:
        for name, value in one.items():
            values[name].append(value)
    return {name: Summary(math.fsum(found) / len(found), len(found)) for name, found in values.items() if found}


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """The 50th, 95th and 99th percentile, each the least value that so many of a hundred do not exceed."""
    ordered = sorted(values)
    return {f"p{share}": ordered[math.ceil(share / 100 * len(ordered)) - 1] for share in (50, 95, 99)} if values else {}
