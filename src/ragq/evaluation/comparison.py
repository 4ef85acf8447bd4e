"""Compare two runs question by question, and tell which differences are real."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import click

from ragq.errors import ConfigurationError
from ragq.evaluation.asking import Result
from ragq.evaluation.dataset import Question
from ragq.evaluation.measures import MEASURES, Measure
from ragq.evaluation.report import Report
from ragq.evaluation.significance import p_value

_NONE_IN_COMMON = "The two runs have no question in common, so there is nothing to compare."
LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Difference:
    """What became of a measure over the `n` questions that both runs measured by it."""

    measure: Measure
    before: float
    after: float
    n: int
    better: int
    worse: int
    p: float

    @property
    def verdict(self) -> str:
        """`gain` or `loss` if the difference is significant, else empty."""
        if self.p >= LEVEL:
            return ""
        return "gain" if (self.after > self.before) == self.measure.more_is_better else "loss"


def check_common(before: Report, questions: Sequence[Question]) -> None:
    """Refuse, before the questions are asked, a report that has none of them.

    Raises:
        ConfigurationError: It has none.
    """
    known = {(result.id, result.question) for result in before.questions}
    if known.isdisjoint((question.id, question.text) for question in questions):
        raise ConfigurationError(_NONE_IN_COMMON)


def compare(before: Report, after: Report) -> list[Difference]:
    """Compare two reports by the questions that both have: the same id and the same words.

    Raises:
        ConfigurationError: They have none in common.
    """
    known = {(result.id, result.question): result for result in before.questions}
    pairs = [(known[key], result) for result in after.questions if (key := (result.id, result.question)) in known]
    if not pairs:
        raise ConfigurationError(_NONE_IN_COMMON)
    differences = [_compare_measure(name, measure, pairs) for name, measure in MEASURES.items()]
    return [difference for difference in differences if difference.n]


def _compare_measure(name: str, measure: Measure, pairs: Sequence[tuple[Result, Result]]) -> Difference:
    both = [
        (one.measures[name], two.measures[name]) for one, two in pairs if {name} <= one.measures.keys() & two.measures
    ]
    before, after = [one for one, _ in both], [two for _, two in both]
    more, less = sum(two > one for one, two in both), sum(two < one for one, two in both)
    return Difference(
        measure,
        before=math.fsum(before) / max(1, len(both)),
        after=math.fsum(after) / max(1, len(both)),
        n=len(both),
        better=more if measure.more_is_better else less,
        worse=less if measure.more_is_better else more,
        p=p_value(before, after),
    )


def format_comparison(differences: Sequence[Difference]) -> str:
    """Format differences as a table."""
    columns = f"{'before':>8}{'after':>8}{'questions':>11}{'better':>8}{'worse':>7}{'p':>8}"
    lines = [click.style(f"{'compared':30}{columns}", bold=True)]
    for one in differences:
        counts = f"{one.n:>11}{one.better:>8}{one.worse:>7}{one.p:>8.3f}"
        line = f"{one.measure.title:30}{one.before:>8.3f}{one.after:>8.3f}{counts}  {one.verdict}".rstrip()
        lines.append(click.style(line, fg={"gain": "green", "loss": "red"}.get(one.verdict)))
    return "\n".join(lines)
