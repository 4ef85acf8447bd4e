"""Write the words of a chunk as PostgreSQL's `tsvector`, in its binary form."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from ragq.models import Chunk
from ragq.rag.titles import find_titles
from ragq.rag.words import index_words

POSITIONS = 255  # of one word; PostgreSQL takes no more
LAST_POSITION = 16_383
# ts_rank counts a word that is repeated up to 1.64 times. So a section ranks above a list of contents with its title.
TITLE_REPEATS = 2


def index_chunk(chunk: Chunk, language: str) -> bytes:
    """The words that a chunk is found by: its own, and those of its context and its headings, whose titles count more."""
    titles = find_titles(chunk) * TITLE_REPEATS
    text = "\n".join(filter(None, [chunk.context, chunk.heading, chunk.text, *titles]))
    return pack_words(index_words(text.replace("\0", " "), language))


def pack_words(words: Iterable[str]) -> bytes:
    """A count, and for each word its bytes, a zero, and its positions from 1."""
    places: dict[str, list[int]] = {}
    for place, word in zip(range(1, LAST_POSITION + 1), words, strict=False):
        known = places.setdefault(word, [])
        if len(known) < POSITIONS:
            known.append(place)
    packed = [struct.pack(">i", len(places))]
    for word, known in places.items():
        packed.append(word.encode("utf-8", "replace") + b"\0" + struct.pack(f">{len(known) + 1}H", len(known), *known))
    return b"".join(packed)
