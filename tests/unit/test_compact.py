from __future__ import annotations

from typing import Any

import pytest

from ragq.errors import InvalidRequestError
from ragq.models import Message
from ragq.rag.compact import SUMMARIZE, SUMMARY_CHARACTERS, TASK, ask_summary, remember, shorten, speak
from ragq.rag.conversation import HISTORY_MESSAGES
from ragq.schemas.compaction import read_content, write_content
from ragq.schemas.messages import InputItem, read_items


def says(role: str, content: Any, **more: Any) -> Message:
    return {"role": role, "content": content, **more}


CALL = {"id": "c1", "type": "function", "function": {"name": "get_height", "arguments": '{"of":"lighthouse"}'}}
TALK = [
    says("system", "Be brief."),
    says("user", [{"type": "text", "text": "How tall?"}, {"type": "image_url", "image_url": {"url": "data:x"}}]),
    says("assistant", "", tool_calls=[CALL]),
    says("tool", "61", tool_call_id="c1"),
    says("assistant", "61 metres."),
]


def test_calls_and_their_results_are_told_as_text_and_rules_and_images_are_left_out() -> None:
    assert speak(TALK) == [
        says("user", "How tall?"),
        says("assistant", 'I called get_height with {"of":"lighthouse"}.'),
        says("assistant", "The call returned: 61"),
        says("assistant", "61 metres."),
    ]


def test_the_llm_is_asked_about_the_whole_conversation_and_searches_nothing() -> None:
    question = ask_summary([*TALK, *TALK * 20], ["You are a sailor."])
    assert question.text == SUMMARIZE
    assert question.vector_store_ids == []
    assert question.instructions == f"{TASK}\n\nYou are a sailor."
    assert len(question.history) == 42
    assert [message["role"] for message in question.history[:3]] == ["user", "assistant", "user"]


def test_a_question_without_an_answer_is_part_of_the_summary() -> None:
    assert ask_summary([says("user", "How tall?")], []).text == f"How tall?\n\n{SUMMARIZE}"


def test_a_summary_outlives_the_messages_that_a_history_keeps() -> None:
    later = [says("user", "a"), says("assistant", "b")] * HISTORY_MESSAGES
    history = [says("user", "x" * 9000 + SUMMARIZE), says("assistant", "It is tall."), *later]
    assert shorten(history) == [*remember("It is tall."), *later[-HISTORY_MESSAGES:]]
    assert shorten(later) == later[-HISTORY_MESSAGES:]
    long = shorten([*remember("y"), says("user", "a"), says("assistant", "b"), *remember("z" * 9000), *later[:2]])
    assert long == [*remember("z" * SUMMARY_CHARACTERS), *later[:2]]


def test_a_compaction_comes_back_in_an_input() -> None:
    content = write_content(remember("Grüße: 61 metres."))
    item = InputItem(type="compaction", encrypted_content=content)
    asked = says("user", "And the ferry?")
    assert read_items([item, InputItem(role="user", content="And the ferry?")]) == [
        *remember("Grüße: 61 metres."),
        asked,
    ]


@pytest.mark.parametrize("content", [None, "", "gAAAAABpM0Yj", "e30=", "eyJyZWNvcmQiOiJjb21wYWN0aW9uLzEifQ==", "ü"])
def test_a_compaction_of_another_service_is_refused(content: str | None) -> None:
    with pytest.raises(InvalidRequestError, match="not made by ragq") as caught:
        read_content(content, "input.0.encrypted_content")
    assert caught.value.param == "input.0.encrypted_content"


def test_no_compaction_brings_text_that_cannot_be_searched_for() -> None:
    with pytest.raises(InvalidRequestError, match=r"U\+0000"):
        read_content(write_content(remember("a \0 b")), "input")
