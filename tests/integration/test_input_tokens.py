"""The estimate of a question's tokens, with the official SDK."""

from __future__ import annotations

from typing import Any

import httpx2
import openai
import pytest

from ragq.client.embedding_client import load_tokenizer
from ragq.queues.token_count import MESSAGE_TOKENS

QUESTION = "How tall is the lighthouse?"
TOOL: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a place, as it is now.",
    "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    "strict": False,
}


def count(client: openai.OpenAI, **fields: Any) -> int:
    counted = client.responses.input_tokens.count(
        **{"model": "ragq", "input": QUESTION, "extra_body": {"vector_store_ids": []}} | fields
    )
    assert counted.object == "response.input_tokens"
    return counted.input_tokens


def words(text: str) -> int:
    return len(load_tokenizer().encode(text, add_special_tokens=False).ids)


def test_each_text_counts_what_it_has_and_each_message_a_little_more(client: openai.OpenAI) -> None:
    assert count(client) == words(QUESTION) + MESSAGE_TOKENS
    rules = "Answer in the words of a sailor, and in one sentence."
    assert count(client, instructions=rules) == count(client) + words(rules) + MESSAGE_TOKENS
    earlier: Any = [
        {"role": "user", "content": "Where is it?"},
        {"role": "assistant", "content": "It stands in Quorra."},
        {"role": "user", "content": QUESTION},
    ]
    said = words("Where is it?") + words("It stands in Quorra.")
    assert count(client, input=earlier) == count(client) + said + 2 * MESSAGE_TOKENS


def test_the_conversation_tools_and_the_form_of_the_answer_count(client: openai.OpenAI) -> None:
    first = client.responses.create(input="Where is the lighthouse of Quorra?")
    assert count(client, previous_response_id=first.id) > count(client) + words(first.output_text)
    declared = words(f"{TOOL['name']} {TOOL['description']}")
    assert count(client, tools=[TOOL]) > count(client) + declared
    form: Any = {"format": {"type": "json_schema", "name": "a", "schema": {"type": "object", "properties": {"height": {"type": "string"}}}}}  # fmt: skip
    assert count(client, text=form) > count(client) + 10


def test_a_search_adds_the_rules_for_its_sources_but_not_the_sources(client: openai.OpenAI) -> None:
    assert len({count(client, extra_body=None) for _ in range(8)}) == 1
    assert count(client) + 50 < count(client, extra_body=None) < count(client) + 200


@pytest.mark.parametrize("text", ["QmFzZTY0" * 5000, "word " * 40_000])
def test_a_long_text_and_one_long_word_count_for_their_length(client: openai.OpenAI, text: str) -> None:
    assert len(text) / 6 < count(client, input=text) < len(text) / 2


def test_nothing_is_asked_and_what_a_response_refuses_is_refused(http: httpx2.Client, client: openai.OpenAI) -> None:
    before = http.get("/status").json()["queues"]
    count(client)
    assert http.get("/status").json()["queues"][0]["finished"] == before[0]["finished"]
    with pytest.raises(openai.NotFoundError):
        count(client, model="another")
    with pytest.raises(openai.BadRequestError) as caught:
        count(client, input="  ")
    assert caught.value.code == "empty_question"
