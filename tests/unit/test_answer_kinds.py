"""What kind of answer a question asks for."""

from __future__ import annotations

import pytest

from ragq.rag.citing.kinds import AnswerKind, is_of, read_kind
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
