"""Turn the source numbers in an LLM's answer into exact quotes.

An LLM's answer is input like any other: the work is linear in its length, and each part of it has a bound. What a marker
or a piece of code may be is bounded as well, so a stream holds back a few hundred characters at most and takes nothing
back.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator

from ragq.models import Citation, SearchResult
from ragq.rag.sentences import find_sentences, find_terms
from ragq.rag.support import Support
from ragq.tasks import run_through

STRONG_SUPPORT = 0.6  # share of a statement's terms that a sentence must hold to be cited unasked
STATEMENT_CHARACTERS = (300, 1000)  # before a marker, in which its statement is looked for: the second if it takes that
PART_CHARACTERS = 2000  # of an answer without markers, read at a time
MAX_STATEMENTS = 2000  # of one answer that are cited; a marker after the last of them stays, without a citation
MAX_QUOTED_CHARACTERS = 500_000  # in all citations of one answer

# Code is passed over: `rows[1]` is no citation. A backtick that is open for longer than this, or over lines, opens none.
_FENCE = "```"
_INLINE_CODE = r"`[^`\n]{1,300}`"
# A marker takes the white space before it along, unless that is long. The second form is what some models write: 【1†source】.
_SPACES = r"(?:(?<![ \t])[ \t]{1,40})?"
_MARKER = (
    _SPACES + r"(?:\[(?=[\d\s,;]{1,200}\])(?P<numbers>\s*\d{1,3}(?:\s*[,;]\s*\d{1,3})*\s*)\](?!\()"
    r"|【\s{0,40}(?P<number>\d{1,3})\b[^】\n]{0,40}】)"
)
_BEGUN = (
    r"`{1,2}\Z|`[^`\n]{1,300}\Z|(?<![ \t])[ \t]{1,40}\Z|"
    + _SPACES
    + r"(?:\[[\d\s,;]{0,200}\]?\Z|【\s{0,40}(?:\d{1,3}[^】\n]{0,40})?\Z)"
)
_CODE_OR_MARKER = re.compile(rf"(?P<code>{_FENCE}.*?(?:{_FENCE}|\Z)|{_INLINE_CODE})|{_MARKER}", re.DOTALL)
_NEXT = re.compile(rf"(?P<begun>{_BEGUN})|(?P<fence>{_FENCE})|(?P<code>{_INLINE_CODE})|{_MARKER}")


def cite(text: str, sources: list[SearchResult]) -> tuple[str, list[Citation]]:
    """Find what each cited statement rests on.

    Markers that name no source are taken out of the text. An answer without any marker gets the sentences that
    support each of its statements, where some clearly do.

    Args:
        sources: In the order of their numbers, from 1.

    Returns:
        The text, and its citations by place; every quote is verbatim.
    """
    return run_through(cite_in_steps(text, sources))


def cite_in_steps(text: str, sources: list[SearchResult]) -> Generator[None, None, tuple[str, list[Citation]]]:
    """Do what `cite` does, in steps of a millisecond or less."""
    supports = [Support(source) for source in sources]
    citations = _Citations()
    kept: list[str] = []
    length, statement = 0, ""
    for start, piece, marker, known in _split_at_markers(text, len(sources)):
        kept += [piece, marker]
        length += len(piece) + len(marker)
        if known and not citations.are_full:
            if piece.strip(" \t.,;:") or not statement:
                statement = _find_statement(text, start)
            terms = find_terms(statement)
            for number in known:
                citations.add(_cite_source(supports[number - 1], terms, length))
        elif piece.strip(" \t.,;:"):
            statement = ""
        yield
    whole = "".join(kept)
    if not citations.found:
        yield from _cite_unasked(whole, supports, citations)
    return whole, citations.found


class _Citations:
    """The citations of one answer, as many as it may have."""

    def __init__(self) -> None:
        self.found: list[Citation] = []
        self._characters = 0

    @property
    def are_full(self) -> bool:
        return len(self.found) >= MAX_STATEMENTS or self._characters >= MAX_QUOTED_CHARACTERS

    def add(self, citation: Citation) -> None:
        if not self.are_full:
            self.found.append(citation)
            self._characters += len(citation.quote)


def _split_at_markers(text: str, count: int) -> Iterator[tuple[int, str, str, list[int]]]:
    """Yield each marker's place, the text before it, the marker as it is shown, and the sources it names.

    Where no marker is for long, and at the end, the text so far comes without one.
    """
    reader, place, last = _Reader(), 0, 0
    for start in range(0, len(text) + 1, PART_CHARACTERS):
        part = text[start : start + PART_CHARACTERS]
        is_last = start + PART_CHARACTERS > len(text)
        for before, match in reader.feed(part, is_last=is_last):
            place += len(before)
            if match:
                marker, known = _read_marker(match, count)
                yield place, text[last:place], marker, known
                place += len(match.group())
                last = place
        yield place, text[last:place], "", []
        last = place


def _read_marker(match: re.Match[str], count: int) -> tuple[str, list[int]]:
    """Read which sources a marker names, and write it as it is shown: not at all when it names none."""
    numbers = [int(number) for number in re.findall(r"\d+", match["numbers"] or match["number"])]
    known = [number for number in dict.fromkeys(numbers) if 1 <= number <= count]
    if not known:
        return "", []
    return " " * (match.group()[0] in " \t") + "".join(f"[{number}]" for number in known), known


class _Reader:
    """Finds the markers of a text that comes in pieces; each costs as much as it is long."""

    def __init__(self) -> None:
        self._held = ""  # what may still become a marker or code
        self._before = ""  # the character before it
        self._in_fence = False

    def feed(self, piece: str, *, is_last: bool = False) -> Iterator[tuple[str, re.Match[str] | None]]:
        """Take a piece; yields text, code included, and the marker after it, as far as nothing to come changes them."""
        text, place = self._before + self._held + piece, len(self._before)
        is_settled = True
        while is_settled:
            start = place
            if self._in_fence:
                place, is_settled = self._leave_fence(text, start)
                yield text[start:place], None
                continue
            match = _NEXT.search(text, start)
            is_settled = bool(match and match["begun"] is None)
            if match and is_settled:
                place = match.end()
                self._in_fence = bool(match["fence"])
                is_code = match["fence"] or match["code"]
                yield (text[start:place], None) if is_code else (text[start : match.start()], match)
            else:
                place = match.start() if match else len(text)
                yield text[start:place], None
        if is_last:
            for match in _CODE_OR_MARKER.finditer(text, place):
                if not match["code"]:
                    yield text[place : match.start()], match
                    place = match.end()
            yield text[place:], None
        self._before, self._held = text[place - 1 : place], text[place:]

    def _leave_fence(self, text: str, start: int) -> tuple[int, bool]:
        """Find up to where a block of code is settled, and whether it has ended there."""
        end = text.find(_FENCE, start)
        if end >= 0:
            self._in_fence = False
            return end + len(_FENCE), True
        ticks = len(text) - max(start, len(text.rstrip("`")))
        return len(text) - ticks, False


class CitedStream:
    """Shows an LLM's text while it comes, as `cite` will show it in the end.

    Args:
        count: Number of sources.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._reader = _Reader()

    def add(self, piece: str) -> str:
        """Take a piece of text; returns what more can be shown, since nothing to come changes it."""
        shown: list[str] = []
        for text, match in self._reader.feed(piece):
            shown += [text, _read_marker(match, self._count)[0] if match else ""]
        return "".join(shown)


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


def _find_statement(text: str, end: int) -> str:
    """Find the statement that ends where a marker is, without the markers in it."""
    plain = ""
    for size in STATEMENT_CHARACTERS:
        before = text[max(0, end - size) : end]
        plain = _CODE_OR_MARKER.sub(lambda match: match["code"] or "", before).rstrip()
        spans = find_sentences(plain)
        if len(spans) > 1 or (spans and (len(before) < size or size == STATEMENT_CHARACTERS[-1])):
            return plain[slice(*spans[-1])]
    return plain


def _cite_source(support: Support, terms: set[str], index: int) -> Citation:
    """Quote the sentences of a source that support a statement best; the whole chunk when no word is shared."""
    share, (start, end) = support.find(terms)
    if not share:
        start, end = 0, len(support.source.text)
    return make_citation(support.source, start, end, index)


def _cite_unasked(text: str, supports: list[Support], citations: _Citations) -> Iterator[None]:
    statements = 0
    for first, last in _iterate_parts(text):
        yield  # also between parts without a sentence
        for start, end in find_sentences(text[first:last]):
            statements += 1
            if statements > MAX_STATEMENTS or citations.are_full:
                return
            terms = find_terms(text[first + start : first + end])
            if len(terms) > 2:
                strong = [one for one in supports if one.bound(terms) >= STRONG_SUPPORT]
                found = [(*one.find(terms), one.source) for one in strong]
                share, span, source = max(found, key=lambda one: one[0], default=(0.0, (0, 0), None))
                if source and share >= STRONG_SUPPORT:
                    citations.add(make_citation(source, *span, index=first + end))
            yield


def _iterate_parts(text: str) -> Iterator[tuple[int, int]]:
    """Cut a text where a paragraph or at least a line ends, or anywhere where none does for long."""
    start = 0
    while start < len(text):
        end = len(text)
        if end - start > 2 * PART_CHARACTERS:
            window = (start + PART_CHARACTERS, start + 2 * PART_CHARACTERS)
            found = (text.find(mark, *window) for mark in ("\n\n", "\n", ". ", " "))
            end = next((place + 1 for place in found if place >= 0), window[1])
        yield start, end
        start = end
