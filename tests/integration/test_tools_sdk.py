"""Tools, files and references, as the official SDK sends them: the answer of one request becomes part of the next."""

from __future__ import annotations

import base64
import json
from typing import Any

import openai
import pytest

from tests.servers import FakeLlm

QUESTION = "How tall is the lighthouse of Quorra?"
CALL = '[[fake calls=\'get_weather {"place": "Quorra"}\' times=0]]'
FUNCTION: dict[str, Any] = {
    "name": "get_weather",
    "description": "The weather at a place.",
    "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
}
TOOL: Any = {"type": "function", **FUNCTION, "strict": False}
CHAT_TOOL: Any = {"type": "function", "function": FUNCTION}


def sent(llm: FakeLlm) -> list[dict[str, Any]]:
    """What the LLM was sent by now."""
    return [json.loads(line) for line in llm.witness.read_text().splitlines()]


@pytest.mark.parametrize("background", [False, True])
def test_a_response_calls_a_function_and_its_output_is_answered(
    client: openai.OpenAI, store_id: str, *, background: bool
) -> None:
    search: Any = {"type": "file_search", "vector_store_ids": [store_id]}
    with client.responses.stream(
        model="ragq", input=f"{CALL} {QUESTION}", tools=[TOOL, search], background=background
    ) as stream:
        kinds = [event.type for event in stream]
        first = stream.get_final_response()
    assert first.status == "completed"
    assert [item.type for item in first.output] == ["file_search_call", "function_call"]
    assert kinds.count("response.function_call_arguments.done") == 1
    call: Any = first.output[1]
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"place": "Quorra"})
    output: Any = {
        "type": "function_call_output",
        "call_id": call.call_id,
        "output": "[[fake calls='' text='Sunny [1].']] Sunny.",
    }
    second = client.responses.create(model="ragq", previous_response_id=first.id, input=[output], tools=[TOOL, search])
    assert second.output_text == "Sunny [1]."
    message: Any = second.output[-1]
    assert message.content[0].annotations[0].filename == "harbour.md"
    whole: list[Any] = [{"role": "user", "content": f"{CALL} {QUESTION}"}, *first.output, output]
    again = client.responses.create(model="ragq", input=whole, tools=[TOOL, search])
    assert again.output_text == "Sunny [1]."


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_calls_functions_and_their_results_are_answered(
    client: openai.OpenAI, store_id: str, *, stream: bool
) -> None:
    messages: list[Any] = [{"role": "user", "content": f"{CALL} {QUESTION}"}]
    extra: Any = {"vector_store_ids": [store_id]}
    if stream:
        with client.chat.completions.stream(
            model="ragq", messages=messages, tools=[CHAT_TOOL], extra_body=extra
        ) as events:
            for _ in events:
                pass
            choice: Any = events.get_final_completion().choices[0]
    else:
        choice = client.chat.completions.create(
            model="ragq", messages=messages, tools=[CHAT_TOOL], extra_body=extra
        ).choices[0]
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    assert json.loads(call.function.arguments) == {"place": "Quorra"}
    messages += [
        choice.message.to_dict(),
        {"role": "tool", "tool_call_id": call.id, "content": "[[fake calls='' text='Sunny [1].']]"},
    ]
    done = client.chat.completions.create(model="ragq", messages=messages, tools=[CHAT_TOOL], extra_body=extra)
    assert done.choices[0].message.content == "Sunny [1]."
    assert done.choices[0].message.annotations


def test_reasoning_is_shown_apart_and_not_sent_back(client: openai.OpenAI, llm: FakeLlm) -> None:
    first = client.responses.create(
        model="ragq", input=f"[[fake reasoning='Let me look closely.' reasoning_in=think]] {QUESTION}"
    )
    assert [item.type for item in first.output] == ["reasoning", "message"]
    thought: Any = first.output[0]
    assert thought.content[0].text.strip() == "Let me look closely."
    assert "closely" not in first.output_text
    assert first.usage
    assert first.usage.output_tokens_details.reasoning_tokens == 4
    client.responses.create(model="ragq", previous_response_id=first.id, input="And how wide?")
    assert not [
        line
        for line in llm.witness.read_text().splitlines()
        if "look closely." in line and "wide" in line and "assistant" in line
    ]


def test_items_of_an_earlier_response_can_be_named(client: openai.OpenAI, llm: FakeLlm) -> None:
    first = client.responses.create(model="ragq", input=f"[[fake text='It is as tall as Xanadu.']] {QUESTION}")
    names: list[Any] = [{"type": "item_reference", "id": f"fs_{first.id[5:]}"}]
    names += [{"type": "item_reference", "id": item.id} for item in first.output]
    before: Any = {"role": "user", "content": QUESTION}
    second = client.responses.create(model="ragq", input=[before, *names, {"role": "user", "content": "And wide?"}])
    assert second.status == "completed"
    assert "Xanadu" in llm.witness.read_text().splitlines()[-2]  # the rewriting has the conversation
    assert [item.type for item in client.responses.input_items.list(second.id)] == ["message"] * 3
    with pytest.raises(openai.NotFoundError) as unknown:
        client.responses.create(model="ragq", input=[{"type": "item_reference", "id": f"msg_{'0' * 32}"}])
    assert unknown.value.param == "input.0.id"


@pytest.mark.parametrize("by_id", [True, False])
def test_a_file_that_comes_with_a_question_is_a_source_of_it(client: openai.OpenAI, *, by_id: bool) -> None:
    content = b"# Marrow\n\nThe captain of the Marrow is Ilse Brandt.\n"
    if by_id:
        file: Any = {"file_id": client.files.create(file=("marrow.md", content), purpose="user_data").id}
    else:
        data = f"data:text/markdown;base64,{base64.b64encode(content).decode()}"
        file = {"file_data": data, "filename": "marrow.md"}
    parts: Any = [{"type": "input_text", "text": "Who is the captain of the Marrow?"}, {"type": "input_file", **file}]
    asked: Any = {"role": "user", "content": parts}
    answer: Any = client.responses.create(model="ragq", input=[asked])
    citation = answer.output[-1].content[0].annotations[0]
    assert (citation.filename, citation.quote) == ("marrow.md", "The captain of the Marrow is Ilse Brandt.")
    chat: Any = {"type": "file", "file": file}
    said: Any = [{"role": "user", "content": [{"type": "text", "text": "Who is the captain?"}, chat]}]
    completion: Any = client.chat.completions.create(model="ragq", messages=said)
    assert completion.choices[0].message.annotations[0].citation["filename"] == "marrow.md"


def test_of_a_long_file_the_chunks_nearest_to_the_question_are_read(client: openai.OpenAI) -> None:
    filler = "\n\n".join(f"Paragraph {number} is about ropes, sails and the price of tar." for number in range(600))
    content = f"{filler}\n\nThe harbour master's cat is called Quince.\n\n{filler}".encode()
    data = base64.b64encode(content).decode()
    parts: Any = [
        {"type": "input_text", "text": "What is the harbour master's cat called?"},
        {"type": "input_file", "file_data": data, "filename": "long.txt"},
    ]
    asked: Any = {"role": "user", "content": parts}
    answer: Any = client.responses.create(model="ragq", input=[asked], include=["file_search_call.results"])
    assert "Quince" in answer.output[0].results[0].text
    assert answer.output[0].results[0].filename == "long.txt"


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ({"file_id": "file-unknown"}, "file_id"),
        ({"file_url": "http://example.com/a.pdf"}, "input"),
        ({"file_data": "?", "filename": "a.md"}, "input"),
    ],
)
def test_a_file_that_cannot_be_had_is_named(client: openai.OpenAI, file: dict[str, str], named: str) -> None:
    asked: Any = {"role": "user", "content": [{"type": "input_text", "text": "Hi?"}, {"type": "input_file", **file}]}
    with pytest.raises((openai.BadRequestError, openai.NotFoundError)) as refused:
        client.responses.create(model="ragq", input=[asked])
    assert refused.value.param == named


def test_a_file_of_a_chat_with_a_number_for_its_content_is_named(client: openai.OpenAI) -> None:
    said: Any = [{"role": "user", "content": [{"type": "file", "file": {"file_data": 5}}]}]
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="ragq", messages=said)
    assert refused.value.param == "messages.0.content.0.file.file_data"


def test_json_that_does_not_fit_its_schema_is_no_answer(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"metres": {"type": "integer"}}, "required": ["metres"]}
    form: Any = {"format": {"type": "json_schema", "name": "height", "schema": schema}}
    right = client.responses.create(model="ragq", input=f"[[fake text='{{\"metres\": 61}}']] {QUESTION}", text=form)
    assert json.loads(right.output_text) == {"metres": 61}
    wrong = client.responses.create(model="ragq", input=f"[[fake text='{{\"metres\": true}}']] {QUESTION}", text=form)
    assert wrong.status == "failed"
    assert wrong.error
    assert "metres" in wrong.error.message
