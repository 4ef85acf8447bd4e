"""Split a document into chunks that fit the embedding model's window."""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from ragq.models import Chunk, Location, ParsedDocument, PlaceKind, Table

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Passage = tuple[int, str]  # (offset, text)

WHOLE_ROW = 4  # a row is not cut unless it is this many times as long as a chunk: no model reads such a one whole

CELL_GAP = "; "  # between the cells of a row
FIRST_CELL_CHARACTERS = 200  # of a row's first cell, with which the other parts of a very long row are searched

_CELL_GAP = re.compile(re.escape(CELL_GAP))
_SAMPLES = 16
_SAMPLE_CHARACTERS = 500
_MAX_CHARACTERS_PER_TOKEN = 6.0  # a run of letters without end counts as one unknown token
_FILL = 0.95  # of the capacity, so that few chunks have to be cut again
_PART_CHARACTERS = 100_000  # cut at once: the time for a part grows with its square, on text without any words
_LINE_END = re.compile(r"\r\n|\r|\n")
_COUNTED_TEXTS = 256  # at once: a token takes a hundred bytes meanwhile


def split(
    document: ParsedDocument,
    tokenizer: Tokenizer,
    *,
    max_tokens: int,
    overlap_tokens: int,
    context: str = "",
    is_wanted: Callable[[], bool] = lambda: True,
) -> list[Chunk]:
    """Split at the best boundaries: headings, paragraphs, sentences, words.

    Chunks are cut by characters, at the document's own density of tokens, and counted afterwards; those that came out
    too long are cut again, at their own density. No chunk crosses a page, a sheet or the like, or the end of a table, so
    its location is right for every quote in it. A table's rows are kept whole, unless one is very long.

    Args:
        tokenizer: With truncation and padding off.
        max_tokens: Limit of a chunk, special tokens not counted.
        context: What the document is called; searched with each chunk.
        is_wanted: Asked now and then; when it says no, what is there by then is returned.
    """
    characters_per_token = _measure_density(document.text, tokenizer) * _FILL
    capacity = max(1, int(max_tokens * characters_per_token))
    is_markdown = bool(document.headings) and document.has_lines
    chunks = []
    locator = _Locator(document)
    for passages in _iterate_parts(document):
        if not is_wanted():
            break
        for passage, count in _cut(passages, capacity, tokenizer, max_tokens, overlap_tokens, is_markdown=is_markdown):
            start, end = passage[0], passage[0] + len(passage[1])
            chunks.append(_make_chunk(document, passage, count, locator.find(start, end), context))
    for table in document.tables:
        if is_wanted():
            chunks += _split_table(document, table, tokenizer, locator, max_tokens, context)
    return sorted(chunks, key=lambda chunk: chunk.start)


def _split_table(
    document: ParsedDocument, table: Table, tokenizer: Tokenizer, locator: _Locator, max_tokens: int, context: str
) -> Iterator[Chunk]:
    about = " ".join(filter(None, [context, table.header]))
    for first, last, count in _pack_rows(document.text, table, tokenizer, max_tokens):
        start, numbers = table.rows[first][0], tuple(number for _, number in table.rows[first:last])
        end = table.rows[last][0] if last < len(table.rows) else table.end
        text = document.text[start:end].rstrip("\r\n")
        location = locator.find_rows(start, start + len(text), numbers)
        parts = [((start, text), count)]
        if count > WHOLE_ROW * max_tokens:
            parts = list(_cut_row((start, text), tokenizer, max_tokens))
        first_cell = text.partition(CELL_GAP)[0][:FIRST_CELL_CHARACTERS]
        for place, (passage, tokens) in enumerate(parts):
            yield _make_chunk(document, passage, tokens, location, f"{about} {first_cell}".strip() if place else about)


def _cut_row(row: Passage, tokenizer: Tokenizer, max_tokens: int) -> Iterator[tuple[Passage, int]]:
    """Cut a very long row between its cells, so that each value stays with its column's name; and a cell that is too long."""
    offset, text = row
    starts = [0, *(match.end() for match in _CELL_GAP.finditer(text)), len(text)]
    counts = _count_tokens([text[start:end] for start, end in itertools.pairwise(starts)], tokenizer)
    first = total = 0
    for place, count in enumerate([*counts, max_tokens + 1]):
        if place > first and total + count > max_tokens:
            part = text[starts[first] : starts[place]].rstrip(CELL_GAP)
            capacity = WHOLE_ROW * max_tokens if total > max_tokens else len(part)
            yield from _cut([(offset + starts[first], part)], capacity, tokenizer, max_tokens, 0)
            first, total = place, 0
        total += count


def _make_chunk(
    document: ParsedDocument, passage: Passage, token_count: int, location: Location, context: str
) -> Chunk:
    start, text = passage
    page = location.number if location.kind is PlaceKind.PAGE else None
    return Chunk(text, start, start + len(text), page, document.heading_at(start), token_count, location, context)


def _pack_rows(text: str, table: Table, tokenizer: Tokenizer, max_tokens: int) -> Iterator[tuple[int, int, int]]:
    """Yield as many whole rows as fit into a chunk: the first, the one after the last, and their tokens."""
    borders = [*(start for start, _ in table.rows), table.end]
    rows = [text[start:end] for start, end in itertools.pairwise(borders)]
    room = max_tokens - sum(_count_tokens([table.header], tokenizer))
    first = total = 0
    for place, count in enumerate(_count_tokens(rows, tokenizer)):
        if place > first and total + count > room:
            yield first, place, total
            first, total = place, 0
        total += count
    yield first, len(rows), total


def _cut(
    passages: list[Passage],
    capacity: int,
    tokenizer: Tokenizer,
    max_tokens: int,
    overlap_tokens: int,
    *,
    is_markdown: bool = False,
) -> Iterator[tuple[Passage, int]]:
    """Yield chunks, each with its number of tokens."""
    from semantic_text_splitter import MarkdownSplitter, TextSplitter  # noqa: PLC0415  (only the processes that need it pay for it)

    kind = MarkdownSplitter if is_markdown else TextSplitter
    to_cut = [(passage, capacity) for passage in passages]
    while to_cut:
        parts = [
            (start + offset, part)
            for (start, text), limit in to_cut
            for offset, part in kind(
                limit, overlap=min(limit * overlap_tokens // max_tokens, limit // 2)
            ).chunk_indices(text)
            if part.strip()
        ]
        to_cut = []
        for passage, count in zip(parts, _count_tokens([text for _, text in parts], tokenizer), strict=True):
            length = len(passage[1])
            if count > max_tokens and length > 1:
                to_cut.append((passage, max(1, int(length * max_tokens / count * _FILL))))
            else:
                yield passage, count


def _measure_density(text: str, tokenizer: Tokenizer) -> float:
    """Estimate characters per token from samples spread over the text."""
    step = max(_SAMPLE_CHARACTERS, len(text) // _SAMPLES)
    samples = [text[start : start + _SAMPLE_CHARACTERS] for start in range(0, len(text), step)]
    tokens = sum(_count_tokens(samples, tokenizer))
    return min(_MAX_CHARACTERS_PER_TOKEN, sum(map(len, samples)) / max(1, tokens))


def _count_tokens(texts: list[str], tokenizer: Tokenizer) -> list[int]:
    return [
        len(encoding.ids)
        for start in range(0, len(texts), _COUNTED_TEXTS)
        for encoding in tokenizer.encode_batch_fast(texts[start : start + _COUNTED_TEXTS], add_special_tokens=False)
    ]


def _iterate_parts(document: ParsedDocument) -> Iterator[list[Passage]]:
    """Yield passages, several at a time: what stands between the tables of each place; a long one in several parts."""
    part, size = list[Passage](), 0
    for start, end in _iterate_spans(document):
        while start < end:
            until = _find_end(document.text, start, end)
            part.append((start, document.text[start:until]))
            size += until - start
            start = until  # noqa: PLW2901  (what is left of the span)
            if size >= _PART_CHARACTERS // 2:
                yield part
                part, size = [], 0
    yield part


def _iterate_spans(document: ParsedDocument) -> Iterator[tuple[int, int]]:
    """Yield where text stands that is no table, cut at places."""
    starts = [place.start for place in document.places]
    borders = [0, *starts, len(document.text)]
    for start, end in itertools.pairwise(borders):
        for table in _between(document.tables, start, end):
            yield start, table.start
            start = table.end  # noqa: PLW2901  (what is left of the place)
        yield start, end


def _between(tables: tuple[Table, ...], start: int, end: int) -> Iterable[Table]:
    first = bisect_left(tables, start, key=lambda table: table.start)
    return tables[first : bisect_left(tables, end, key=lambda table: table.start)]


def _find_end(text: str, start: int, end: int) -> int:
    limit = start + _PART_CHARACTERS
    if limit >= end:
        return end
    for boundary in ("\n\n", "\n", " "):
        if (found := text.rfind(boundary, start + _PART_CHARACTERS // 2, limit)) >= 0:
            return found + len(boundary)
    return limit


class _Locator:
    """Tells where passages of a document stand."""

    def __init__(self, document: ParsedDocument) -> None:
        self._document = document
        self._line_starts = [0] if document.has_lines and not document.headings else []
        if self._line_starts:
            self._line_starts += (match.end() for match in _LINE_END.finditer(document.text))

    def find(self, start: int, end: int) -> Location:
        """The location of `text[start:end]`: its place, else its heading, else its first and last line."""
        place, heading = self._document.place_at(start), self._document.heading_at(start)
        location = Location()
        if self._line_starts:
            numbers = (bisect_right(self._line_starts, start), bisect_right(self._line_starts, end - 1))
            location = Location(unit="line", numbers=numbers)
        if place:
            location = replace(place.locate(), unit=location.unit, numbers=location.numbers)
        sections = self._find_sections(start, end)
        if (heading or sections) and location.kind is None:
            location = replace(location, kind=PlaceKind.SECTION, name=heading or "", sections=sections)
        return location

    def _find_sections(self, start: int, end: int) -> tuple[tuple[int, str], ...]:
        headings = self._document.headings
        first = bisect_right(headings, start, key=lambda one: one[0])
        last = bisect_left(headings, end, key=lambda one: one[0])
        return tuple((offset - start, title) for offset, title in headings[first:last])

    def find_rows(self, start: int, end: int, numbers: tuple[int, ...]) -> Location:
        """The location of rows of a table; a table among sections is small, so there its rows are not numbered."""
        location = self.find(start, end)
        return replace(location, unit="row", numbers=() if location.kind is PlaceKind.SECTION else numbers)


class Searched(Protocol):
    """What a chunk is searched by."""

    @property
    def context(self) -> str | None: ...
    @property
    def heading(self) -> str | None: ...
    @property
    def text(self) -> str: ...


def searched_text(chunk: Searched) -> str:
    """What is embedded for a chunk: its context and heading before its text. Words are searched in the same."""
    return "\n".join(filter(None, [chunk.context, chunk.heading, chunk.text]))
