"""What a real LLM answers, through the API: the protocol, not the quality."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import httpx2
import openai
import pytest

from tests.llm.llama import CONTEXT_TOKENS, Counts, LlamaServer

QUESTION = "How tall is the lighthouse of Quorra?"
STEADY: dict[str, Any] = {"temperature": 0}  # the same question has the same answer
SCHEMA = {
    "type": "object",
    "properties": {"metres": {"type": "integer"}, "name": {"type": "string", "maxLength": 20}},
    "required": ["metres", "name"],
    "additionalProperties": False,
}
HOUR = {"type": "object", "properties": {"hour": {"type": "integer"}}, "required": ["hour"]}
TOOLS = [{"type": "function", "function": {"name": "tide", "parameters": HOUR}}]
LIMIT = 16


def check_usage(before: Counts, after: Counts, *, prompt: int, cached: int, output: int) -> None:
    """The usage that ragq reports is the one that the LLM counted."""
    assert (prompt - cached, output) == (after.prompt - before.prompt, after.output - before.output)
    assert prompt > cached >= 0
    assert output > 0


def check_citations(http: httpx2.Client, annotations: Iterable[dict[str, Any]]) -> None:
    """Each citation quotes its file, verbatim and at its place."""
    for citation in annotations:
        text = http.get(f"/v1/vector_stores/default/files/{citation['file_id']}/content").json()["data"][0]["text"]
        assert citation["quote"]
        assert text[citation["start"] : citation["end"]] == citation["quote"]


def test_a_response_has_a_text_the_usage_of_the_server_and_verbatim_citations(
    client: openai.OpenAI, http: httpx2.Client, llm: LlamaServer
) -> None:
    before = llm.counts()
    response = client.responses.create(model="ragq", input=QUESTION, **STEADY)
    assert (response.status, response.error, response.incomplete_details) == ("completed", None, None)
    assert response.output_text.strip()
    assert response.usage
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    check_usage(
        before,
        llm.counts(),
        prompt=response.usage.input_tokens,
        cached=response.usage.input_tokens_details.cached_tokens,
        output=response.usage.output_tokens,
    )
    message = response.to_dict()["output"][-1]
    check_citations(http, message["content"][0]["annotations"])


def test_a_streamed_response_has_its_events_in_order_and_the_text_of_a_whole_one(
    client: openai.OpenAI, llm: LlamaServer
) -> None:
    before = llm.counts()
    events = list(client.responses.create(model="ragq", input=QUESTION, stream=True, **STEADY))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    types = [event.type for event in events]
    assert types[:2] == ["response.created", "response.in_progress"]
    order = ["output_item.added", "content_part.added", "output_text.delta", "output_text.done", "content_part.done"]
    places = [types.index(f"response.{name}") for name in [*order, "completed"]]
    assert places == sorted(places)
    assert types.count("response.output_text.delta") > 1
    (last,) = [event for event in events if event.type == "response.completed"]
    assert last is events[-1]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == last.response.output_text != ""
    usage = last.response.usage
    assert usage
    cached = usage.input_tokens_details.cached_tokens
    check_usage(before, llm.counts(), prompt=usage.input_tokens, cached=cached, output=usage.output_tokens)
    assert client.responses.retrieve(last.response.id).output_text == text


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_chat_completion_ends_by_itself_with_the_usage_of_the_server(
    client: openai.OpenAI, llm: LlamaServer, *, stream: bool
) -> None:
    before = llm.counts()
    asked: Any = {"model": "ragq", "messages": [{"role": "user", "content": QUESTION}], **STEADY}
    if stream:
        chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
        text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
        reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
        usage = chunks[-1].usage
    else:
        done = client.chat.completions.create(**asked)
        text, reasons, usage = done.choices[0].message.content, [done.choices[0].finish_reason], done.usage
    assert text
    assert reasons == ["stop"]
    assert usage
    cached = (usage.prompt_tokens_details and usage.prompt_tokens_details.cached_tokens) or 0
    check_usage(before, llm.counts(), prompt=usage.prompt_tokens, cached=cached, output=usage.completion_tokens)


def test_an_answer_ends_at_its_limit_and_says_so(client: openai.OpenAI) -> None:
    long: Any = {"model": "ragq", "extra_body": {"ignore_eos": True}, **STEADY}
    response = client.responses.create(input=QUESTION, max_output_tokens=LIMIT, **long)
    assert response.status == "incomplete"
    assert response.incomplete_details
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.usage
    assert response.usage.output_tokens == LIMIT
    assert response.output_text
    messages: Any = [{"role": "user", "content": QUESTION}]
    done = client.chat.completions.create(messages=messages, max_completion_tokens=LIMIT, **long)
    assert done.choices[0].finish_reason == "length"
    assert done.usage
    assert done.usage.completion_tokens == LIMIT


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_an_answer_has_the_form_of_a_json_schema(client: openai.OpenAI, *, stream: bool) -> None:
    form: Any = {"format": {"type": "json_schema", "name": "light", "schema": SCHEMA, "strict": True}}
    response: Any = client.responses.create(
        model="ragq", input=f"{QUESTION} Say its name, too.", text=form, stream=stream, **STEADY
    )
    if stream:
        response = list(response)[-1].response
    assert response.status == "completed"
    answer = json.loads(response.output_text)
    assert set(answer) == {"metres", "name"}
    assert isinstance(answer["metres"], int)
    assert isinstance(answer["name"], str)


def earlier_turns() -> list[Any]:
    """A conversation in which the function was called; so small a model does what it finds there."""
    call = {"id": "call_1", "type": "function", "function": {"name": "tide", "arguments": '{"hour": 1}'}}
    return [
        {"role": "user", "content": "Call the function tide with hour 1."},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "It is high."},
        {"role": "assistant", "content": "It is high."},
        {"role": "user", "content": "Call the function tide with hour 2."},
    ]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_tool_is_called_and_its_output_leads_to_an_answer(client: openai.OpenAI, *, stream: bool) -> None:
    messages = earlier_turns()
    asked: Any = {"model": "ragq", "extra_body": {"vector_store_ids": []}, "tools": TOOLS, **STEADY}
    if stream:
        with client.chat.completions.stream(messages=messages, **asked) as chunks:
            done: Any = chunks.until_done().get_final_completion()
    else:
        done = client.chat.completions.create(messages=messages, **asked)
    (choice,) = done.choices
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    assert call.function.name == "tide"
    assert json.loads(call.function.arguments) == {"hour": 2}
    called = {"id": call.id, "type": "function", "function": {"name": "tide", "arguments": call.function.arguments}}
    messages.append({"role": "assistant", "content": None, "tool_calls": [called]})
    messages.append({"role": "tool", "tool_call_id": call.id, "content": "It is low."})
    done = client.chat.completions.create(messages=messages, tool_choice="none", **asked)
    assert done.choices[0].finish_reason == "stop"
    assert done.choices[0].message.content


def test_a_prompt_that_no_context_holds_is_refused_by_its_code(client: openai.OpenAI) -> None:
    long = f"{QUESTION} {'Say it again. ' * CONTEXT_TOKENS}"
    response = client.responses.create(model="ragq", input=long, **STEADY)
    assert response.status == "failed"
    assert response.error
    assert response.error.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as refusal:
        client.chat.completions.create(model="ragq", messages=[{"role": "user", "content": long}], **STEADY)
    assert refusal.value.code == "context_length_exceeded"
