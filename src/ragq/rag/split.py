"""Split a document into chunks that fit the embedding model's window."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from semantic_text_splitter import MarkdownSplitter, TextSplitter
from tokenizers import Tokenizer

from ragq.models import Chunk, ParsedDocument

Passage = tuple[int, str]  # (offset, text)

_SAMPLES = 16
_SAMPLE_CHARACTERS = 500
_MAX_CHARACTERS_PER_TOKEN = 6.0  # a run of letters without end counts as one unknown token
_FILL = 0.95  # of the capacity, so that few chunks have to be cut again
_PART_CHARACTERS = 100_000  # cut at once: the time for a part grows with its square, on text without any words
_COUNTED_TEXTS = 256  # at once: a token takes a hundred bytes meanwhile


def split(
    document: ParsedDocument,
    tokenizer: Tokenizer,
    *,
    max_tokens: int,
    overlap_tokens: int,
    is_wanted: Callable[[], bool] = lambda: True,
) -> list[Chunk]:
    """Split at the best boundaries: headings, paragraphs, sentences, words.

    Chunks are cut by characters, at the document's own density of tokens, and counted afterwards; those that came out
    too long are cut again, at their own density. No chunk crosses a page, so its page is right for every quote in it.

    Args:
        tokenizer: With truncation and padding off.
        max_tokens: Limit of a chunk, special tokens not counted.
        is_wanted: Asked now and then; when it says no, what is there by then is returned.
    """
    characters_per_token = _measure_density(document.text, tokenizer) * _FILL
    capacity = max(1, int(max_tokens * characters_per_token))
    kind = MarkdownSplitter if document.headings else TextSplitter
    chunks = []
    for passages in _iterate_parts(document):
        if not is_wanted():
            break
        for passage, count in _cut(passages, capacity, kind, tokenizer, max_tokens, overlap_tokens):
            chunks.append(_make_chunk(document, passage, count))
    return sorted(chunks, key=lambda chunk: chunk.start)


def _cut(
    passages: list[Passage],
    capacity: int,
    kind: type[MarkdownSplitter | TextSplitter],
    tokenizer: Tokenizer,
    max_tokens: int,
    overlap_tokens: int,
) -> Iterator[tuple[Passage, int]]:
    """Yield chunks, each with its number of tokens."""
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
    """Yield passages, several at a time: the pages; a very long one in parts that end with a paragraph, line or word."""
    part, size = list[Passage](), 0
    starts = document.page_starts or (0,)
    for start, end in zip(starts, (*starts[1:], len(document.text)), strict=True):
        while start < end:
            until = _find_end(document.text, start, end)
            part.append((start, document.text[start:until]))
            size += until - start
            start = until  # noqa: PLW2901  (what is left of the page)
            if size >= _PART_CHARACTERS // 2:
                yield part
                part, size = [], 0
    yield part


def _find_end(text: str, start: int, end: int) -> int:
    limit = start + _PART_CHARACTERS
    if limit >= end:
        return end
    for boundary in ("\n\n", "\n", " "):
        if (found := text.rfind(boundary, start + _PART_CHARACTERS // 2, limit)) >= 0:
            return found + len(boundary)
    return limit


def _make_chunk(document: ParsedDocument, passage: Passage, token_count: int) -> Chunk:
    start, text = passage
    end = start + len(text)
    return Chunk(text, start, end, document.page_at(start), document.heading_at(start), token_count)
