"""Which of what was found are the sources of an answer."""

from __future__ import annotations

import pytest

from ragq.models import SearchResult
from ragq.rag.sources import choose_sources
from tests.unit.test_answer import make_result


def in_file(name: str, text: str, score: float = 1.0) -> SearchResult:
    return make_result(text, file_id=name, filename=f"{name}.txt", score=score)


def prose(*changes: tuple[int, str]) -> str:
    """A text of a hundred different words; `changes` puts others in their places."""
    words = [f"{'abcdefghij'[number % 10]}{'klmnopqrst'[number // 10]}" for number in range(100)]
    for place, word in changes:
        words[place] = word
    return " ".join(words)


# Near-duplicates


def test_nearly_the_same_text_is_given_once_and_the_next_takes_its_place() -> None:
    found = [
        in_file("a", prose(), 0.9),
        in_file("b", prose((0, "New")).replace(" ", "\n"), 0.8),
        in_file("c", prose((20, "x"), (60, "y"), (80, "z")), 0.7),
        in_file("d", "Dogs bark at night.", 0.6),
    ]
    assert choose_sources("What?", found, limit=2) == [found[0], found[2]]


@pytest.mark.parametrize("text", ["港口是开放的，冬天除外。" * 9, "Dogs.", "कुत्ते भौंकते हैं।"])
def test_texts_of_any_script_and_length_are_told_apart(text: str) -> None:
    found = [in_file("a", text), in_file("b", text), in_file("c", f"{text[::-1]} {text[::-1]}")]
    assert choose_sources("What?", found, limit=3) == [found[0], found[2]]


def test_nearly_the_same_is_told_where_words_are_not_spaced() -> None:
    clauses = [f"{chr(0x4E00 + number)}港口在冬天不开放" for number in range(60)]
    changed = [*clauses[:30], "船要等到春天", *clauses[31:]]
    found = [in_file("a", "，".join(clauses)), in_file("b", "，".join(changed)), in_file("c", "，".join(clauses[:50]))]
    assert choose_sources("港口", found, limit=3) == [found[0], found[2]]


def test_texts_with_other_numbers_are_not_the_same() -> None:
    found = [in_file("a", prose((50, "100"))), in_file("b", prose((50, "120")))]
    assert choose_sources("What?", found, limit=2) == found


def test_what_is_given_anyway_is_not_repeated() -> None:
    found = [in_file("a", prose()), in_file("b", "Dogs bark.")]
    assert choose_sources("What?", found, limit=2, beside=[in_file("file", prose())]) == [found[1]]


# Diversity


def many(file: str, count: int, score: float) -> list[SearchResult]:
    return [in_file(file, f"{file} says {number} about it.", score - number / 100) for number in range(count)]


def test_a_comparison_gets_the_best_of_each_document_that_scores_reasonably_first() -> None:
    found = [*many("north", 6, 0.9), *many("south", 3, 0.6), *many("east", 2, 0.3)]
    chosen = choose_sources("Compare the two harbours.", found, limit=4)
    assert [one.file_id for one in chosen] == ["north", "south", "north", "north"]
    assert chosen[:2] == [found[0], found[6]]
    assert choose_sources("Describe the harbours.", found, limit=4) == found[:4]


def test_documents_named_in_the_question_come_first_however_they_score() -> None:
    found = [*many("west", 4, 0.9), *many("PPR-9087 north", 2, 0.2), *many("annual report", 2, 0.1)]
    chosen = choose_sources("What do PPR-9087 and the annual report say?", found, limit=4)
    assert [one.file_id for one in chosen] == ["west", "PPR-9087 north", "annual report", "west"]


def test_a_comparison_sees_both_versions_of_a_text() -> None:
    found = [in_file("old", prose(), 0.9), in_file("new", prose((50, "changed")), 0.8), in_file("copy", prose(), 0.7)]
    assert choose_sources("What does it say?", found, limit=3) == found[:1]
    assert choose_sources("What is the difference between both?", found, limit=3) == found[:2]


def test_nothing_found_is_nothing_chosen() -> None:
    assert choose_sources("Compare them.", [], limit=3) == []
