"""How the last question of a conversation is made to stand alone."""

from __future__ import annotations

from ragq.models import Question
from ragq.rag.prompt import build_messages
from ragq.rag.rewrite import build_rewriting, join_questions

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


def test_without_an_llm_the_previous_question_is_put_before_the_last() -> None:
    assert join_questions(FOLLOW_UP) == "Who built the lighthouse?\nWhen?"
    assert join_questions(Question("When?", [], history=HISTORY[1:])) == "When?"
