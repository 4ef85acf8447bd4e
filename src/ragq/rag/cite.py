"""Turn the source numbers in an LLM's answer into exact quotes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ragq.models import Citation, SearchResult
from ragq.rag.sentences import Span, find_sentences, find_terms

# Code is passed over: `rows[1]` is no citation. The second group is what some models write: 【1†source】.
_CODE_OR_MARKER = re.compile(
    r"(?P<code>```.*?(?:```|\Z)|`[^`\n]+`)"
    r"|[ \t]*(?:\[(?P<numbers>\s*\d{1,3}(?:\s*[,;]\s*\d{1,3})*\s*)\](?!\()|【\s*(?P<number>\d{1,3})\b[^】\n]{0,40}】)",
    re.DOTALL,
)
_INLINE_CODE = re.compile(r"`[^`\n]+`")
_MARKER_BEGUN = re.compile(r"[ \t]*(?:\[[\d\s,;]{0,40}\]?|【[^】\n]{0,60})?$")
MAX_CODE_CHARACTERS = 300  # a backtick that is open for longer is none
STRONG_SUPPORT = 0.6  # share of a statement's terms that a sentence must hold to be cited unasked
PAIR_GAIN = 0.3  # a second sentence is quoted when it adds more than this share of the terms
MAX_STATEMENT_CHARACTERS = 1000


def cite(text: str, sources: list[SearchResult]) -> tuple[str, list[Citation]]:
    """Find what each cited statement rests on.

    Markers that name no source are taken out of the text. An answer without any marker gets the sentences that
    support each of its statements, where some clearly do.

    Args:
        sources: In the order of their numbers, from 1.

    Returns:
        The text, and its citations by place; every quote is verbatim.
    """
    kept: list[str] = []
    citations: list[Citation] = []
    length, statement = 0, ""
    for start, piece, marker, known in _split_at_markers(text, len(sources)):
        if piece.strip(" \t.,;:") or not statement:
            statement = _last_statement(text[max(0, start - MAX_STATEMENT_CHARACTERS) : start])
        kept += [piece, marker]
        length += len(piece) + len(marker)
        citations += [_cite_source(sources[number - 1], statement, length) for number in known]
    whole = "".join(kept)
    return whole, citations or _cite_unasked(whole, sources)


def _split_at_markers(text: str, count: int) -> Iterator[tuple[int, str, str, list[int]]]:
    """Yield each marker's place, the text before it, the marker as it is shown, and the sources it names; then the rest."""
    last = 0
    for match in _CODE_OR_MARKER.finditer(text):
        if match["code"]:
            continue
        known = [number for number in _read_numbers(match) if 1 <= number <= count]
        marker = " " * (match.group()[0] in " \t") + "".join(f"[{number}]" for number in known) if known else ""
        yield match.start(), text[last : match.start()], marker, known
        last = match.end()
    yield len(text), text[last:], "", []


class CitedStream:
    """Shows an LLM's text while it comes, as `cite` will show it in the end.

    Args:
        count: Number of sources.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._text = ""
        self._shown = ""

    def add(self, piece: str) -> str:
        """Take a piece of text; returns what more can be shown, since nothing to come changes it."""
        self._text += piece
        settled = self._text[: _find_unsettled(self._text)]
        shown = "".join(
            part for _, before, marker, _ in _split_at_markers(settled, self._count) for part in (before, marker)
        )
        more = shown[len(self._shown) :]
        self._shown = shown
        return more


def _find_unsettled(text: str) -> int:
    """Find where a text begins that may still become a marker, or code in which markers are none."""
    end = len(text) - len(text.rstrip("`"))
    if text.count("```") % 2:
        return len(text) - end
    start = text.rfind("\n") + 1
    line = _INLINE_CODE.sub(lambda match: "x" * len(match.group()), text[start:])
    tick = line.find("`")
    if tick >= 0 and len(line) - tick < MAX_CODE_CHARACTERS:
        return start + tick
    match = _MARKER_BEGUN.search(line)
    return start + match.start() if match else len(text)


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
    )


def _read_numbers(match: re.Match[str]) -> list[int]:
    numbers = [int(number) for number in re.findall(r"\d+", match["numbers"] or match["number"])]
    return list(dict.fromkeys(numbers))


def _last_statement(text: str) -> str:
    plain = _CODE_OR_MARKER.sub(lambda match: match["code"] or "", text).rstrip()
    spans = find_sentences(plain)
    return plain[slice(*spans[-1])] if spans else plain


def _cite_source(source: SearchResult, statement: str, index: int) -> Citation:
    """Quote the sentences of a source that support a statement best; the whole chunk when no word is shared."""
    support, (start, end) = _find_support(source, find_terms(statement))
    if not support:
        start, end = 0, len(source.text)
    return make_citation(source, start, end, index)


def _find_support(source: SearchResult, terms: set[str]) -> tuple[float, Span]:
    """Find the sentence, or two in a row, that hold the largest share of the terms; the shorter of equals."""
    spans = find_sentences(source.text) or [(0, len(source.text))]
    held = [find_terms(source.text[start:end]) & terms for start, end in spans]
    total = max(1, len(terms))
    singles = [(len(held[place]) / total, spans[place]) for place in range(len(spans))]
    pairs = [
        (len(held[place] | held[place + 1]) / total - PAIR_GAIN, (spans[place][0], spans[place + 1][1]))
        for place in range(len(spans) - 1)
    ]
    return max(singles + pairs, key=lambda one: (one[0], one[1][0] - one[1][1]))


def _cite_unasked(text: str, sources: list[SearchResult]) -> list[Citation]:
    citations = []
    for start, end in find_sentences(text):
        terms = find_terms(text[start:end])
        found = [(*_find_support(source, terms), source) for source in sources]
        support, span, source = max(found, key=lambda one: one[0], default=(0.0, (0, 0), None))
        if source and len(terms) > 2 and support >= STRONG_SUPPORT:
            citations.append(make_citation(source, *span, index=end))
    return citations
