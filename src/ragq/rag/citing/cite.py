"""Turn an LLM's answer into one whose statements are checked, each with exact quotes of its sources.

An LLM's answer is input like any other: the work is linear in its length, and each part of it has a bound. A stream of it
takes nothing back: what is shown of an answer while it comes is the beginning of what is shown in the end.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ragq.models import Citation, SearchResult, Statement
from ragq.rag.citing.check import Evidence
from ragq.rag.citing.markers import MarkerReader, read_marker
from ragq.rag.citing.rivals import Rivalry
from ragq.rag.citing.statements import Cut, StatementCutter
from ragq.rag.citing.support import find_support
from ragq.rag.citing.verdict import Verdict
from ragq.rag.citing.wording import find_stems
from ragq.tasks import run_through

PIECE_CHARACTERS = 500  # read at a time
BURST_CHARACTERS = 4000  # a longer piece is not shown before the end: checking it would keep others waiting
MAX_STATEMENTS = 2000  # of one answer that are checked; a marker after the last of them stays, without a citation
MAX_QUOTED_CHARACTERS = 500_000  # in all citations of one answer
LINE_CHARACTERS = 60  # before a marker, by which it is told from an index or a value
_ROUND = re.compile(r"\(1\)|parenthes[ei]s|round brackets|runden? Klammern|paréntesis", re.IGNORECASE)


class Cited(NamedTuple):
    """An answer as it is shown; every quote is verbatim.

    Attributes:
        doubts: What to read to know, by the positions of the statements whose words leave it in doubt.
    """

    text: str
    citations: list[Citation]
    statements: list[Statement]
    doubts: dict[int, Rivalry]


@dataclass(frozen=True, slots=True)
class Checked:
    """A statement that has ended, with its citations."""

    statement: Statement
    citations: list[Citation] = field(default_factory=list)
    doubt: Rivalry | None = None


def cite(text: str, sources: list[SearchResult], question: str = "") -> Cited:
    """Check each statement of an answer, and find what it rests on.

    Markers are the only words that change: those that name no source are taken out, and those of a source that does not
    hold the statement name the one that does. A statement without a marker is cited if a source clearly holds it.

    Args:
        sources: In the order of their numbers, from 1.
        question: What was asked; its words need not be in the sources.
    """
    evidence = Evidence(question, sources)
    run_through(evidence.read())
    return run_through(cite_in_steps(text, evidence))


def cite_in_steps(text: str, evidence: Evidence, *, has_round: bool = False) -> Generator[None, None, Cited]:
    """Do what `cite` does, in steps of a few milliseconds or less.

    Args:
        evidence: Of the sources, read.
    """
    reader = _CitedReader(evidence, has_round=has_round)
    shown: list[str] = []
    cited = Cited("", [], [], {})
    for start in range(0, len(text) + 1, PIECE_CHARACTERS):
        piece = text[start : start + PIECE_CHARACTERS]
        for one in reader.feed(piece, is_last=start + PIECE_CHARACTERS > len(text)):
            if isinstance(one, Checked):
                if one.doubt:
                    cited.doubts[len(cited.statements)] = one.doubt
                cited.citations.extend(one.citations)
                cited.statements.append(one.statement)
            else:
                shown.append(one)
            yield
        yield
    return cited._replace(text="".join(shown))


def asks_for_round(*texts: str | None) -> bool:
    """Tell whether the user asks for markers in round brackets."""
    return any(text and _ROUND.search(text) for text in texts)


class CitedStream:
    """Shows an LLM's text while it comes, as `cite` will show it in the end, and each statement as it ends.

    Args:
        evidence: Of the sources, read.
    """

    def __init__(self, evidence: Evidence, *, has_round: bool = False) -> None:
        self._reader = _CitedReader(evidence, has_round=has_round)
        self._is_burst = False

    def add(self, piece: str) -> list[str | Checked]:
        """Take a piece of text; returns what more can be shown, since nothing to come changes it."""
        self._is_burst |= len(piece) > BURST_CHARACTERS
        return [] if self._is_burst else list(self._reader.feed(piece))


class _CitedReader:
    """Yields the text of an answer as it is shown, and each of its statements after its text."""

    def __init__(self, evidence: Evidence, *, has_round: bool) -> None:
        self._evidence = evidence
        self._count = len(evidence.sources)
        self._markers = MarkerReader(has_round=has_round)
        self._cutter = StatementCutter()
        self._line = ""  # the end of what was read
        self._statements = self._citations = self._quoted = 0
        self._judged: tuple[tuple[str, list[int], list[int]], Verdict] = (("", [], []), Verdict("uncited"))

    def feed(self, piece: str, *, is_last: bool = False) -> Iterator[str | Checked]:
        """Take a piece of the answer."""
        for part in self._markers.feed(piece, is_last=is_last):
            if not part.text:
                continue
            if part.kind == "code":
                yield part.text
                yield from self._check(self._cutter.skip(len(part.text)))
            elif part.kind == "marker" and (named := read_marker(part.text, self._line, self._count)) is not None:
                if named:
                    yield from self._check(self._cutter.begin_mark())
                    yield self._mark(part.text, named)
            else:
                yield part.text
                yield from self._check(self._cutter.add(part.text))
            self._line = (self._line + part.text)[-LINE_CHARACTERS:]
        if is_last:
            yield from self._check(self._cutter.end())

    def _mark(self, written: str, named: list[int]) -> str:
        """Write a marker as it is shown: it names the source that holds the statement, if those that it names do not."""
        reason, said = "", self._cutter.unmarked.strip()
        if said and not self._are_full:
            verdict = self._judge(said, [number - 1 for number in named])
            if verdict.kind == "supported" and verdict.found and verdict.found.source + 1 not in named:
                named, reason = [verdict.found.source + 1], verdict.reason
        shown = " " * (written[0] in " \t") + "".join(f"[{number}]" for number in named)
        self._cutter.mark(shown, named, reason)
        return shown

    @property
    def _are_full(self) -> bool:
        return (
            self._statements >= MAX_STATEMENTS
            or self._citations >= MAX_STATEMENTS
            or self._quoted >= MAX_QUOTED_CHARACTERS
        )

    def _judge(self, text: str, named: list[int], marks: Sequence[int] = ()) -> Verdict:
        text = text.rstrip(" .!?")
        given = (text, named, [mark for mark in marks if 0 < mark < len(text)])
        if self._judged[0] != given:
            self._judged = (given, self._evidence.judge(text, named, marks=given[2]))
        return self._judged[1]

    def _check(self, cuts: Iterator[Cut]) -> Iterator[Checked]:
        for cut in cuts:
            if not self._are_full:
                self._statements += 1
                yield self._check_one(cut)

    def _check_one(self, cut: Cut) -> Checked:
        named = list(dict.fromkeys(number - 1 for mark in cut.marks for number in mark.sources))
        verdict = self._judge(cut.text, named, [mark.place for mark in cut.marks])
        moved = next((mark.reason for mark in cut.marks if mark.reason), "")
        reason = moved if verdict.kind == "supported" else verdict.reason
        citations: list[Citation] = []
        first = self._citations
        for one in self._cite(cut, verdict):
            if self._quoted >= MAX_QUOTED_CHARACTERS or self._citations >= MAX_STATEMENTS:
                break
            citations.append(replace(one, verdict=verdict.kind, reason=reason))
            self._citations += 1
            self._quoted += len(one.quote)
        positions = list(range(first, self._citations))
        return Checked(Statement(cut.start, cut.end, verdict.kind, reason, positions), citations, verdict.doubt)

    def _cite(self, cut: Cut, verdict: Verdict) -> Iterator[Citation]:
        """Quote what each marker names, for the words up to it; without markers, the passages that hold the statement."""
        sources = self._evidence.sources
        found = verdict.support
        if not cut.marks:
            yield from (make_citation(sources[one.source], *one.span, index=cut.end) for one in found)
        shown = last = 0
        start = cut.end - len(cut.text) - sum(mark.length for mark in cut.marks)
        for mark in cut.marks:
            shown += mark.length
            index = start + mark.place + shown
            if len(found) == len(cut.marks) == 1 and found[0].is_one_sentence and mark.sources == [found[0].source + 1]:
                yield make_citation(sources[found[0].source], *found[0].span, index)
                continue
            stems = find_stems(cut.text[last : mark.place]) or find_stems(cut.text[: mark.place] or cut.text)
            last = mark.place
            for number in mark.sources:
                yield self._quote(number - 1, stems, index)

    def _quote(self, place: int, stems: set[str], index: int) -> Citation:
        """Quote the sentences of a source that have most of the stems; the whole chunk when they have none."""
        source = self._evidence.sources[place]
        share, span = find_support(source, stems)
        return make_citation(source, *(span if share else (0, len(source.text))), index)


def make_citation(source: SearchResult, start: int, end: int, index: int) -> Citation:
    """Cite `source.text[start:end]` at `index` of an answer; no chunk crosses a page, so its page is the quote's."""
    return Citation(
        index=index,
        file_id=source.file_id,
        filename=source.filename,
        page=source.page,
        quote=source.text[start:end],
        start=source.start + start,
        end=source.start + end,
        location=str(source.location.narrow(source.text, start, end)),
    )
