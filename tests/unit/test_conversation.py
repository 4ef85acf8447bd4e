"""What is made of the messages of a conversation before an LLM or a search sees them."""

from __future__ import annotations

from typing import Any

import pytest

from ragq.models import AttachedFile, Message
from ragq.rag.conversation import (
    HISTORY_CHARACTERS,
    HISTORY_MESSAGES,
    bound_history,
    bound_text,
    read_conversation,
)


def says(role: str, content: Any, **more: Any) -> Message:
    return {"role": role, "content": content, **more}


def call(id_: str, name: str = "look") -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": "{}"}}


def result(id_: str, content: str = "done") -> Message:
    return says("tool", content, tool_call_id=id_)


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
FILE = {"type": "file", "file": {"file_id": "file-1"}}


def test_rules_history_and_question_are_told_apart() -> None:
    read = read_conversation([
        says("system", "Be kind."), says("user", "Who?"), says("assistant", "Mara."), says("developer", "Be brief."),
        says("user", "When?"),
    ])  # fmt: skip
    assert read
    assert (read.instructions, read.text, read.following) == ("Be kind.\nBe brief.", "When?", [])
    assert read.history == [says("user", "Who?"), says("assistant", "Mara.")]


@pytest.mark.parametrize(
    ("messages", "history", "text"),
    [
        ([says("user", "One."), says("user", "Two?")], [], "One.\n\nTwo?"),
        ([says("assistant", "Hello!"), says("user", "Who?")], [], "Who?"),
        (
            [says("user", "A?"), says("assistant", ""), says("assistant", "B."), says("assistant", "C."), says("user", "D?")],
            [says("user", "A?"), says("assistant", "B.\n\nC.")],
            "D?",
        ),
        ([says("system", "Name it."), says("system", "Make a title.")], [], "Make a title."),
        ([says("user", "A?"), says("assistant", "", tool_calls=[call("1")]), says("user", "B?")], [], "A?\n\nB?"),
        ([says("user", "A?"), result("1"), says("assistant", "B."), says("user", "C?")], [says("user", "A?"), says("assistant", "B.")], "C?"),
    ],
    ids=["two turns of the user", "a greeting first", "empty turns", "rules alone", "a call without result", "a result without call"],
)  # fmt: skip
def test_turns_alternate_and_begin_with_the_user(messages: list[Message], history: list[Message], text: str) -> None:
    read = read_conversation(messages)
    assert read
    assert (read.history, read.text) == (history, text)


@pytest.mark.parametrize("messages", [[], [says("assistant", "Hello!")], [says("user", "")], [says("system", " ")]])
def test_a_conversation_in_which_nobody_asks_is_none(messages: list[Message]) -> None:
    assert read_conversation(messages) is None


def test_calls_and_their_results_follow_the_question_in_their_order() -> None:
    asks = says("assistant", "", tool_calls=[call("1", "look"), call("2", "hear")])
    read = read_conversation([says("user", "What?"), asks, result("2", "noise"), result("1", "light")])
    assert read
    assert (read.text, read.history) == ("What?", [])
    assert read.following == [asks, result("1", "light"), result("2", "noise")]


def test_an_id_that_is_used_again_belongs_to_the_newest_call() -> None:
    first, second = (says("assistant", text, tool_calls=[call("1")]) for text in ("a", "b"))
    read = read_conversation([says("user", "What?"), first, result("1", "x"), second, result("1", "y")])
    assert read
    assert read.following == [first, result("1", "x"), second, result("1", "y")]


def test_images_stay_with_the_question_and_files_are_apart() -> None:
    read = read_conversation([says("user", [{"type": "text", "text": "What is it?"}, IMAGE, FILE])])
    assert read
    assert (read.text, read.media, read.files) == ("What is it?", [IMAGE], [AttachedFile("file-1")])


def test_the_last_messages_are_kept_from_one_of_the_users_on() -> None:
    told = [says(role, str(number)) for number in range(30) for role in ("user", "assistant")]
    assert bound_history(told) == told[-HISTORY_MESSAGES:]
    assert bound_history(told[:-1]) == told[-HISTORY_MESSAGES:-1]
    assert bound_history([]) == []


def test_no_more_characters_are_kept_than_the_bound_and_the_newest_first() -> None:
    half = HISTORY_CHARACTERS // 2
    told = [
        says("user", "a" * (half + 1)),
        says("assistant", "b"),
        says("user", "c" * (half + 1)),
        says("assistant", "d"),
    ]
    assert bound_history(told) == [says("user", "a" * (half - 3)), *told[1:]]


def test_a_bounded_history_has_no_calls() -> None:
    told = [says("user", "A?"), says("assistant", "", tool_calls=[call("1")]), result("1"), says("assistant", "B.")]
    assert bound_history(told) == [told[0], told[-1]]


def test_of_a_long_text_its_beginning_and_end_are_searched_for() -> None:
    text = "What is this? " + "filler " * 5000 + "Who wrote it?"
    bounded = bound_text(text, 1000)
    assert len(bounded) <= 1001
    assert (bounded[:13], bounded[-13:]) == ("What is this?", "Who wrote it?")
    assert bound_text("short", 1000) == "short"
    assert len(bound_text("字" * 5000, 1000)) == 1001
