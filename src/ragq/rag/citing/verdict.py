"""What was found of a statement in the sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ragq.rag.citing.rivals import Rivalry
from ragq.rag.sentences import Span


@dataclass(frozen=True, slots=True)
class Finding:
    """Where a statement was found, or why it was not.

    Attributes:
        source: Position of the source, from 0.
        span: The passage in its text.
        fault: Why it does not hold the statement; empty if it does.
        weight: The share of the statement's words that it has, weighed by rarity.
        rivalry: If the statement is an answer that it holds: what else may answer the question.
        is_altered: The statement is the passage with other words in the place of some; its clauses are no facts of their own.
    """

    source: int
    span: Span
    fault: str = ""
    weight: float = field(default=0.0, compare=False)
    is_one_sentence: bool = True
    rivalry: Rivalry | None = field(default=None, compare=False)
    is_altered: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of a statement.

    Attributes:
        found: The passage nearest to it, if there is one.
        others: Passages of its further clauses, if they stand apart.
    """

    kind: Literal["supported", "unsupported", "uncited"]
    reason: str = ""
    found: Finding | None = None
    others: Sequence[Finding] = ()

    @property
    def doubt(self) -> Rivalry | None:
        """What to read to know whether a single passage answers the question, if the words do not settle that."""
        rivalry = self.found.rivalry if self.found and self.kind != "uncited" and not self.others else None
        return rivalry if rivalry and rivalry.is_open else None

    @property
    def support(self) -> list[Finding]:
        """The passages that hold the statement, if it is supported."""
        return [self.found, *self.others] if self.kind == "supported" and self.found else []


def decide(findings: list[Finding], named: list[int], count: int) -> Verdict:
    """Judge a statement by the best passage of each source, the best of all first.

    Args:
        named: Positions of the sources that its markers name, from 0.
        count: Number of sources.
    """
    if not findings:
        return Verdict("unsupported", "None of its words are in the sources." if count else "There are no sources.")
    right = [one for one in findings if not one.fault]
    for number in named:
        if one := next((one for one in right if one.source == number), None):
            return Verdict("supported", "", one)
    if right:
        moved = f"Source {named[0] + 1} does not hold this, but source {right[0].source + 1} does." if named else ""
        return Verdict("supported", moved, right[0])
    shown = next((one for one in findings if one.source in named), findings[0])
    return Verdict("unsupported", findings[0].fault, shown)
