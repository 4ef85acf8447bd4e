"""By which words of a question chunks are looked up."""

from __future__ import annotations

import pytest

from ragq.storage.word_choice import MATCHES, WordShares, choose_words

CHUNKS = 100 * MATCHES
SHARES = WordShares({"the": 0.5, "long": 0.25, "time": 0.1, "tower": 0.005, "varn": 0.003}, rare=0.001)


@pytest.mark.parametrize(
    ("words", "chunks", "query"),
    [
        ([], CHUNKS, ""),
        (["the", "tower", "long"], MATCHES, "'tower' | 'long' | 'the'"),
        (["the", "tower", "varn", "zorb"], CHUNKS, "'zorb' | 'varn' | 'tower'"),
        (["the", "long", "zorb"], CHUNKS, "'zorb'"),
        (["the", "long", "time"], CHUNKS, "'time' & 'long' & 'the'"),
        (["the", "time", "long"], 10 * MATCHES, "'time'"),
        (["the", "long"], 10 * MATCHES, "'long' & 'the'"),
        (["the"], CHUNKS, "'the'"),
        (["it's", "a\\b", "x | y"], CHUNKS, "'a\\\\b' | 'it''s' | 'x | y'"),
    ],
    ids=[
        "no words",
        "a small store: any word",
        "the rarest together match few",
        "one rare word is enough",
        "all are common: all of them",
        "a word that matches few alone",
        "as many as it takes",
        "one common word",
        "signs are quoted",
    ],
)
def test_a_large_store_is_searched_by_the_rarest_words(words: list[str], chunks: int, query: str) -> None:
    assert choose_words(words, SHARES, chunks) == query


def test_any_word_is_taken_while_nothing_is_known_of_words() -> None:
    assert choose_words(["the", "long"], WordShares(), CHUNKS) == "'long' | 'the'"
