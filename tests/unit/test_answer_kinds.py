"""What kind of answer a question asks for."""

from __future__ import annotations

import pytest

from ragq.rag.citing.kinds import AnswerKind, has_kind, is_of, read_kind
from ragq.rag.citing.wording import read_words


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("Who built the mill?", AnswerKind.NAME),
        ("By whom was the mill built?", AnswerKind.NAME),
        ("In what year did the mill burn?", AnswerKind.TIME),
        ("When was the mill built?", AnswerKind.TIME),
        ("Wann wurde die Mühle gebaut?", AnswerKind.TIME),
        ("How many people work there?", AnswerKind.NUMBER),
        ("¿Cuántos molinos hay?", AnswerKind.NUMBER),
        ("What is the height of the mill?", AnswerKind.NUMBER),
        ("What did the man who built the mill eat?", None),
        ("The man who built the mill also built what?", None),
        ("When the mill burns, which door should be opened?", None),
        ("How does the mill work?", None),
        ("What company built the mill?", AnswerKind.NAME),
        ("What is the name of the mill?", AnswerKind.NAME),
        ("What did the king eat?", None),
        ("What does the score of the mill mean?", None),
        ("What would the company have built?", None),
        ("What affects the price of flour?", None),
        ("What happened that year?", None),
        ("What kind of company owns the mill?", None),
        ("What was the king accused of?", None),
        ("¿Qué ocurrió el año pasado?", None),
        ("How often does the mill turn?", None),
        ("Wie oft dreht sich die Mühle?", None),
        ("चक्की कितनी बार चलती है?", None),
    ],
)
def test_the_question_word_and_its_noun_say_what_is_asked_for(question: str, kind: AnswerKind | None) -> None:
    assert read_kind(read_words(question)) is kind


@pytest.mark.parametrize(
    ("answer", "kinds"),
    [
        ("1871", {AnswerKind.TIME, AnswerKind.NUMBER}),
        ("in March", {AnswerKind.TIME, AnswerKind.NAME}),
        ("9,000", {AnswerKind.NUMBER}),
        ("twelve", {AnswerKind.NUMBER}),
        ("old Ilse Brandt", {AnswerKind.NAME}),
        ("a fire", set()),
    ],
)
def test_an_answer_is_of_the_kinds_that_one_of_its_words_has(answer: str, kinds: set[AnswerKind]) -> None:
    words = [word for word in read_words(answer) if word.is_content]
    assert {kind for kind in AnswerKind if any(is_of(word, kind) for word in words)} == kinds


@pytest.mark.parametrize(
    "answer",
    [
        "18:30",
        "At 8 pm",
        "at 8 p.m.",
        "In 476",
        "In 79 AD",
        "um 18.30 Uhr",
        "en 476",
        "at noon",
        "at eight o'clock",
        "1871",
    ],
)
def test_hours_and_years_of_a_statement_are_times(answer: str) -> None:
    assert has_time(answer, "")


@pytest.mark.parametrize("answer", ["9,000", "14", "in 14 towns", "by 12 percent", "Ada Kern"])
def test_numbers_that_count_something_are_no_times(answer: str) -> None:
    assert not has_time(answer, "It has 14 arches and lies in 14 towns with 9,000 people.")


def test_a_bare_number_is_a_time_if_it_is_one_in_its_passage() -> None:
    assert has_time("476", "The empire fell in 476 and was divided.")
    assert not has_time("476", "The empire fell with 476 legions.")


def has_time(answer: str, passage: str) -> bool:
    words = read_words(answer)
    own = [word for word in words if word.is_content]
    return has_kind(AnswerKind.TIME, own, (words, read_words(passage)))
