"""Check the values of an answer in JSON: each is a statement."""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from dataclasses import replace
from itertools import islice

from ragq.models import Statement
from ragq.rag.citing.check import Evidence
from ragq.rag.citing.cite import Cited, make_citation
from ragq.rag.citing.verdict import Verdict
from ragq.rag.sentences import find_sentences

MAX_VALUES = 500  # of one answer that are checked
MAX_SENTENCES = 20  # of one value
_WORST_FIRST = ("unsupported", "supported", "uncited")
_NOTHING = "It says nothing that could be checked."
_VALUE = re.compile(r'"(?:[^"\\]|\\.)*"(?P<name>\s*:)?|-?\d[\d.eE+-]*|true|false|null')


def cite_values(text: str, evidence: Evidence) -> Generator[None, None, Cited]:
    """Check each value of a JSON answer, in steps of a few milliseconds or less; its text stays as it is.

    Args:
        evidence: Of the sources, read.
    """
    cited = Cited(text, [], [], {})
    values = [match for match in islice(_VALUE.finditer(text), 2 * MAX_VALUES) if not match["name"]][:MAX_VALUES]
    for match in values:
        value = _read(match.group())
        parts = find_sentences(value)[:MAX_SENTENCES] if value else []
        verdicts = [evidence.judge(value[start:end], [], is_whole=len(values) == 1) for start, end in parts]
        worst = min(verdicts, key=lambda one: _WORST_FIRST.index(one.kind), default=Verdict("uncited", _NOTHING))
        if len(verdicts) == 1 and worst.doubt:
            cited.doubts[len(cited.statements)] = worst.doubt
        first = len(cited.citations)
        for found in (one for verdict in verdicts for one in verdict.support):
            quote = make_citation(evidence.sources[found.source], *found.span, index=match.end())
            cited.citations.append(replace(quote, verdict=worst.kind, reason=worst.reason))
        positions = list(range(first, len(cited.citations)))
        cited.statements.append(Statement(*match.span(), worst.kind, worst.reason, positions))
        yield
    return cited


def _read(written: str) -> str:
    """The text of a value; empty for one that is neither a text nor a number."""
    if written[0] == '"':
        try:
            return str(json.loads(written, strict=False))
        except ValueError:
            return written.strip('"')
    return "" if written in ("true", "false", "null") else written
