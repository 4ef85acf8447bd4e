"""Turn the source numbers in an LLM's answer into exact quotes."""

from __future__ import annotations

import re

from ragq.models import Citation, SearchResult
from ragq.rag.sentences import find_sentences, find_terms

_MARKER = re.compile(r"[ \t]*(?:\[\s*\d{1,3}(?:\s*[,;]\s*\d{1,3})*\s*\]|【\s*\d{1,3}[^】]{0,20}】)")
_NUMBER = re.compile(r"\d{1,3}")
STRONG_SUPPORT = 0.6  # share of a statement's terms that a sentence must hold to be cited unasked


def cite(text: str, sources: list[SearchResult]) -> tuple[str, list[Citation]]:
    """Find what each cited statement rests on.

    Markers that name no source are taken out of the text. An answer without any marker gets the sentence that
    supports each of its statements, where one clearly does.

    Args:
        sources: In the order of their numbers, from 1.

    Returns:
        The text, and its citations by place; every quote is verbatim.
    """
    kept: list[str] = []
    citations: list[Citation] = []
    length, last = 0, 0
    for match in _MARKER.finditer(text):
        numbers = [int(number) for number in _NUMBER.findall(match.group())]
        known = [number for number in numbers if 1 <= number <= len(sources)]
        piece = text[last : match.start()]
        marker = " " * (match.group()[0] in " \t") + "".join(f"[{number}]" for number in known) if known else ""
        kept += [piece, marker]
        length += len(piece) + len(marker)
        statement = _last_statement("".join(kept[:-1]))
        citations += [_quote(sources[number - 1], statement, length) for number in known]
        last = match.end()
    kept.append(text[last:])
    text = "".join(kept)
    return text, citations or _cite_unasked(text, sources)


def _last_statement(text: str) -> str:
    spans = find_sentences(text)
    return text[slice(*spans[-1])] if spans else text


def _support(sentence: str, terms: set[str]) -> float:
    return len(find_terms(sentence) & terms) / max(1, len(terms))


def _best_sentence(source: SearchResult, terms: set[str]) -> tuple[float, tuple[int, int]]:
    """Score each sentence of a source; the shorter of two equals wins."""
    spans = find_sentences(source.text) or [(0, len(source.text))]
    return max(
        ((_support(source.text[slice(*span)], terms), span) for span in spans),
        key=lambda one: (one[0], one[1][0] - one[1][1]),
    )


def _quote(source: SearchResult, statement: str, index: int) -> Citation:
    _, (start, end) = _best_sentence(source, find_terms(statement))
    return make_citation(source, start, end, index)


def _cite_unasked(text: str, sources: list[SearchResult]) -> list[Citation]:
    citations = []
    for start, end in find_sentences(text):
        terms = find_terms(text[start:end])
        best = max(
            ((*_best_sentence(source, terms), source) for source in sources), key=lambda one: one[0], default=None
        )
        if best and len(terms) > 1 and best[0] >= STRONG_SUPPORT:
            citations.append(make_citation(best[2], *best[1], index=end))
    return citations


def make_citation(source: SearchResult, start: int, end: int, index: int) -> Citation:
    """Cite `source.text[start:end]` at `index` of an answer."""
    return Citation(
        index=index,
        file_id=source.file_id,
        filename=source.filename,
        page=source.page,
        quote=source.text[start:end],
        start=source.start + start,
        end=source.start + end,
    )
