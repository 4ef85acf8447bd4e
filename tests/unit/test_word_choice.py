"""By which words of a question chunks are looked up."""

from __future__ import annotations

import pytest

from ragq.rag.synonyms.task import LITTLE_EMPHASIS
from ragq.rag.words import Word, question_words
from ragq.storage.search.word_choice import (
    IDENTIFIER_EMPHASIS,
    MATCHES,
    NEAR_EMPHASIS,
    RANKED_WORDS,
    WordShares,
    choose_words,
)

CHUNKS = 100 * MATCHES
SHARES = WordShares({"year": 0.5, "long": 0.25, "time": 0.1, "tower": 0.005, "varn": 0.003}, rare=0.001)


@pytest.mark.parametrize(
    ("words", "chunks", "query"),
    [
        ([], CHUNKS, ""),
        (["year", "tower", "long"], MATCHES, "'tower' | 'long' | 'year'"),
        (["year", "tower", "varn", "zorb"], CHUNKS, "'zorb' | 'varn' | 'tower'"),
        (["year", "long", "zorb"], CHUNKS, "'zorb'"),
        (["year", "long", "time"], CHUNKS, "'time' & 'long' & 'year'"),
        (["year", "time", "long"], 10 * MATCHES, "'time'"),
        (["year", "long"], 10 * MATCHES, "'long' & 'year'"),
        (["year"], CHUNKS, "'year'"),
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
    assert choose_words(as_words(words), SHARES, chunks).found_by == query


def test_stop_words_count_only_in_a_question_of_nothing_else() -> None:
    chosen = choose_words(question_words("What are the clades?", ("en",)), WordShares(), CHUNKS, ("en",))
    assert chosen.found_by == "'clade'"
    assert chosen.ranking == ["'clade'", "", "", ""]
    assert chosen.forms == [1, 0, 0, 0]
    assert chosen.finds == [True, False, False, False]
    assert chosen.shares == [None] * 4
    assert (
        choose_words(question_words("Who are you?", ("en",)), WordShares(), 10, ("en",)).found_by
        == "'are' | 'who' | 'you'"
    )


def test_a_word_has_the_share_of_all_its_forms() -> None:
    chosen = choose_words([Word(("time", "zeit")), Word(("zorb", "tower"))], SHARES, CHUNKS)
    assert chosen.ranking[:2] == ["('zorb' | 'tower')", "('time' | 'zeit')"]
    assert chosen.forms[:2] == [2, 2]
    assert chosen.shares[:2] == [0.006, 0.101]


def test_of_a_long_question_the_rarest_words_rank() -> None:
    words = as_words(["year", *(f"rare{n}" for n in range(100)), "varn"])
    chosen = choose_words(words, SHARES, 100)
    assert len(chosen.ranking) == RANKED_WORDS
    assert "'year'" not in chosen.ranking


def as_words(forms: list[str]) -> list[Word]:
    return [Word((form,)) for form in forms]


@pytest.mark.parametrize(
    ("question", "ranking", "emphasis"),
    [
        ("Who paid 20260122?", ["'20260122'", "'paid'", "", ""], [IDENTIFIER_EMPHASIS, 1, 0, 0]),
        ("Who paid INC-417?", ["'417'", "'inc'", "('inc-417' | 'inc417')", "'paid'"], [1, 1, IDENTIFIER_EMPHASIS, 1]),
        ("Who paid BSkyB?", ["'b'", "'bskyb'", "'paid'", "'sky'"], [1, 1, 1, 1]),
    ],
    ids=["a long number", "a code, not its parts", "a name in two cases is none"],
)
def test_an_identifier_weighs_more_than_a_word_as_rare(
    question: str, ranking: list[str], emphasis: list[float]
) -> None:
    chosen = choose_words(question_words(question, ("en",)), WordShares(), 10, ("en",))
    assert (chosen.ranking, chosen.emphasis) == (ranking, emphasis)


def test_words_that_mean_the_same_rank_and_find_beside_their_own() -> None:
    chosen = choose_words([Word(("zorb",), near=("varn", "tower")), Word(("time",))], SHARES, 100)
    assert chosen.found_by == "('zorb' | 'varn' | 'tower') | 'time'"
    assert chosen.ranking == ["'zorb'", "'time'", "('varn' | 'tower')", ""]
    assert chosen.heads == [1, 2, 1, 4]
    assert chosen.emphasis == [1.0, 1.0, NEAR_EMPHASIS, 0.0]
    assert chosen.finds == [True, True, True, False]
    assert chosen.has_near


def test_in_a_large_store_common_words_that_mean_the_same_only_rank() -> None:
    chosen = choose_words([Word(("zorb",), near=("year", "tower"))], SHARES, CHUNKS)
    assert chosen.found_by == "'zorb'"
    assert chosen.ranking[:2] == ["'zorb'", "('year' | 'tower')"]
    assert chosen.finds[:2] == [True, False]


def test_words_that_say_little_weigh_less() -> None:
    chosen = choose_words([Word(("zorb",), says_little=True), Word(("tower",))], SHARES, 100)
    assert chosen.emphasis[:2] == [LITTLE_EMPHASIS, 1.0]


def test_where_all_words_are_common_others_that_mean_the_same_find_nothing() -> None:
    chosen = choose_words([Word(("year",), near=("tower",)), Word(("long",))], SHARES, 10 * MATCHES)
    assert chosen.found_by == "'long' & 'year'"
    assert "'tower'" in chosen.ranking
