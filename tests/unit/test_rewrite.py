"""How the last question of a conversation is made to stand alone."""

from __future__ import annotations

import pytest

from ragq.models import Question
from ragq.rag.prompt import build_messages
from ragq.rag.rewrite import build_rewriting, depends, join_questions, stands_alone

HISTORY = [
    {"role": "user", "content": "Who built the lighthouse?"},
    {"role": "assistant", "content": "Mara Venn built it [1]."},
]
FOLLOW_UP = Question("When?", ["vs_1"], history=HISTORY)


def test_a_conversation_stands_between_the_rules_and_the_question() -> None:
    messages, _ = build_messages(FOLLOW_UP, [], budget_tokens=100)
    assert messages[1:3] == HISTORY
    assert [messages[0]["role"], messages[3]["role"]] == ["system", "user"]
    assert messages[3]["content"].endswith("Question: When?")
    assert "earlier answers" in messages[0]["content"]
    assert "earlier answers" not in build_messages(Question("When?", ["vs_1"]), [], budget_tokens=100)[0][0]["content"]


def test_a_rewriting_asks_with_the_whole_conversation_and_the_last_question() -> None:
    rules, asked = build_rewriting(FOLLOW_UP)
    assert "Rewrite" in rules["content"]
    assert asked["content"].startswith("user: Who built the lighthouse?\n\nassistant: Mara Venn")
    assert asked["content"].endswith("Last question: When?")


def test_without_an_llm_a_question_is_put_after_the_last_one_that_stands_alone() -> None:
    assert join_questions(FOLLOW_UP) == "Who built the lighthouse?\nWhen?"
    assert join_questions(Question("When?", [], history=HISTORY[1:])) == "When?"
    chain = [*HISTORY, {"role": "user", "content": "When was she born?"}, {"role": "assistant", "content": "1850."}]
    assert join_questions(Question("And where?", [], history=chain)) == "Who built the lighthouse?\nAnd where?"
    assert join_questions(Question("What is the capital of Peru?", [], history=chain)) == "What is the capital of Peru?"


@pytest.mark.parametrize(
    "text",
    [
        "When?",
        "And in 1920?",
        "How tall is it?",
        "What about Germany?",
        "Where did he study?",
        "What was the result of that?",
        "Wann wurde er geboren?",
        "Und in Spanien?",
        "¿Y en Francia?",
        "¿Cuándo murió ella?",
        "उसका जन्म कब हुआ?",
    ],
)
def test_a_question_that_points_back_depends(text: str) -> None:
    assert depends(text)
    assert not stands_alone(text)


@pytest.mark.parametrize(
    "text",
    [
        "Who designed the Harvard stadium?",
        "How do I start more workers?",
        "What did Luther say about his translation of the Bible?",
        "What is photosynthesis?",
        "Wie starten Sie mehr Worker?",
        "¿Cuál es la capital de España?",
        "भारत की राजधानी क्या है?",
        "What does RAGQ_PORT do?",
    ],
)
def test_a_question_that_says_all_does_not_depend(text: str) -> None:
    assert not depends(text)


def test_only_a_question_that_names_something_in_a_known_language_is_not_rewritten() -> None:
    assert stands_alone("Who designed the Harvard stadium?")
    assert not stands_alone("How many people were killed?")
    assert not stands_alone("Quand Harvard fut-elle construite?")
