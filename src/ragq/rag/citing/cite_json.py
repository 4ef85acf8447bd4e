"""Find what in the sources supports the values of an answer in JSON."""

from __future__ import annotations

import re
from collections.abc import Generator
from itertools import islice

from ragq.models import Citation, SearchResult
from ragq.rag.citing.cite import STRONG_SUPPORT, make_citation
from ragq.rag.citing.support import Support
from ragq.rag.sentences import find_terms

MAX_VALUES = 500  # of one answer, for which sources are looked for
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"(\s*:)?')


def cite_values(text: str, sources: list[SearchResult]) -> Generator[None, None, list[Citation]]:
    """Find the sentences that support the texts in a JSON answer, in steps of a millisecond or less.

    A sentence must hold most of a value's words, and all of them if it has one or two.
    """
    supports = [Support(source) for source in sources]
    citations: list[Citation] = []
    values = (match for match in _STRING.finditer(text) if not match[2])  # the others are names
    for match in islice(values, MAX_VALUES):
        terms = find_terms(match[1])
        least = STRONG_SUPPORT if len(terms) > 2 else 1.0
        if terms:
            found = [(*one.find(terms), one.source) for one in supports if one.bound(terms) >= least]
            share, span, source = max(found, key=lambda one: one[0], default=(0.0, (0, 0), None))
            if source and share >= least:
                citations.append(make_citation(source, *span, index=match.end()))
        yield
    return citations
