"""Split a document into chunks that fit the embedding model's window."""

from __future__ import annotations

from collections.abc import Iterator

from semantic_text_splitter import MarkdownSplitter, TextSplitter
from tokenizers import Tokenizer

from ragq.models import Chunk, ParsedDocument

Passage = tuple[int, str]  # (offset, text)

_SAMPLES = 16
_SAMPLE_CHARACTERS = 2000
_MAX_CHARACTERS_PER_TOKEN = 6.0  # a run of letters without end counts as one unknown token
_FILL = 0.95  # of the capacity, so that few chunks have to be split again


def split(document: ParsedDocument, tokenizer: Tokenizer, *, max_tokens: int, overlap_tokens: int) -> list[Chunk]:
    """Split at the best boundaries: headings, paragraphs, sentences, words.

    Chunks are cut by characters, at the document's own density of tokens, and counted afterwards; only those that
    came out too long are split by tokens, which is ten times slower. No chunk crosses a page, so its page is right for
    every quote in it.

    Args:
        tokenizer: With truncation and padding off.
        max_tokens: Limit of a chunk, special tokens not counted.
    """
    characters_per_token = _measure_density(document.text, tokenizer)
    capacity = max(1, int(max_tokens * characters_per_token * _FILL))
    overlap = min(int(overlap_tokens * characters_per_token * _FILL), capacity // 2)
    kind = MarkdownSplitter if document.headings else TextSplitter
    by_characters = kind(capacity, overlap=overlap)
    by_tokens = kind.from_callback(  # `from_huggingface_tokenizer` would copy the tokenizer, 11 MB in 30 ms
        lambda text: _count_tokens([text], tokenizer)[0], max_tokens, overlap=min(overlap_tokens, max_tokens // 2)
    )
    passages = [
        (start + offset, text)
        for start, page in _iterate_pages(document)
        for offset, text in by_characters.chunk_indices(page)
        if text.strip()
    ]
    counted: list[tuple[Passage, int]] = []
    for passage, count in zip(passages, _count_tokens([text for _, text in passages], tokenizer), strict=True):
        if count <= max_tokens:
            counted.append((passage, count))
            continue
        parts = [(passage[0] + offset, text) for offset, text in by_tokens.chunk_indices(passage[1])]
        counted += zip(parts, _count_tokens([text for _, text in parts], tokenizer), strict=True)
    return [_make_chunk(document, passage, count) for passage, count in counted]


def _measure_density(text: str, tokenizer: Tokenizer) -> float:
    """Estimate characters per token from samples spread over the text."""
    step = max(_SAMPLE_CHARACTERS, len(text) // _SAMPLES)
    samples = [text[start : start + _SAMPLE_CHARACTERS] for start in range(0, len(text), step)]
    tokens = sum(_count_tokens(samples, tokenizer))
    return min(_MAX_CHARACTERS_PER_TOKEN, sum(map(len, samples)) / max(1, tokens))


def _count_tokens(texts: list[str], tokenizer: Tokenizer) -> list[int]:
    return [len(encoding.ids) for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def _iterate_pages(document: ParsedDocument) -> Iterator[Passage]:
    starts = document.page_starts or (0,)
    for start, end in zip(starts, (*starts[1:], len(document.text)), strict=True):
        yield start, document.text[start:end]


def _make_chunk(document: ParsedDocument, passage: Passage, token_count: int) -> Chunk:
    start, text = passage
    end = start + len(text)
    return Chunk(text, start, end, document.page_at(start), document.heading_at(start), token_count)
