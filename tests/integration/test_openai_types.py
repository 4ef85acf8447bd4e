"""Every event, response and chat completion held to the types of the openai package: strictly, and the stream to the object."""

from __future__ import annotations

import copy
import json
from typing import Any, get_args

import httpx2
import openai
import pytest
from openai.types import Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.responses.responses_server_event import ResponsesServerEvent
from pydantic import BaseModel
from websockets.asyncio.client import connect

from tests.servers import KEY, Ragq

QUESTION = "How tall is the lighthouse of Quorra?"
FUNCTION = {"name": "tide", "parameters": {"type": "object", "properties": {"hour": {"type": "integer"}}}}
TOOL = {"type": "function", **FUNCTION}
CALLS = """[[fake calls='tide {"hour": 1}; tide {"hour": 2}']]"""
FORM = {
    "type": "json_schema",
    "name": "height",
    "schema": {"type": "object", "properties": {"metres": {"type": "integer"}}, "required": ["metres"]},
}


def search(store_id: str) -> dict[str, Any]:
    return {"type": "file_search", "vector_store_ids": [store_id]}


# Name of a request, its fields, its status, and the types of its output.
REQUESTS: list[tuple[str, dict[str, Any], str, list[str]]] = [
    ("plain", {"input": QUESTION}, "completed", ["message"]),
    ("with a search", {"input": QUESTION, "tools": ["search"]}, "completed", ["file_search_call", "message"]),
    (
        "with results",
        {"input": QUESTION, "tools": ["search"], "include": ["file_search_call.results"]},
        "completed",
        ["file_search_call", "message"],
    ),
    ("in the background", {"input": QUESTION, "background": True, "tools": ["search"]}, "completed", ["file_search_call", "message"]),
    ("without a search", {"input": QUESTION, "tools": ["search"], "tool_choice": "none"}, "completed", ["message"]),
    ("calls", {"input": f"{CALLS} {QUESTION}", "tools": [TOOL]}, "completed", ["function_call", "function_call"]),
    (
        "calls and a search",
        {"input": f"{CALLS} {QUESTION}", "tools": [TOOL, "search"]},
        "completed",
        ["file_search_call", "function_call", "function_call"],
    ),
    ("reasoning", {"input": f"[[fake reasoning='Let me think.']] {QUESTION}"}, "completed", ["reasoning", "message"]),
    (
        "reasoning before calls",
        {"input": f"""[[fake reasoning='Let me think.' calls='tide {{}}']] {QUESTION}""", "tools": [TOOL]},
        "completed",
        ["reasoning", "function_call"],
    ),
    ("a refusal", {"input": f"[[fake refusal='I will not say.']] {QUESTION}"}, "completed", ["message"]),
    ("JSON", {"input": f"""[[fake text='{{"metres": 61}}']] {QUESTION}""", "text": {"format": FORM}}, "completed", ["message"]),
    ("probabilities", {"input": QUESTION, "top_logprobs": 2, "include": ["message.output_text.logprobs"]}, "completed", ["message"]),
    (
        "every field",
        {
            "input": [{"role": "user", "content": [{"type": "input_text", "text": QUESTION}]}],
            "instructions": "Be brief.",
            "metadata": {"a": "b"},
            "temperature": 0.5,
            "top_p": 0.5,
            "max_output_tokens": 100,
            "max_tool_calls": 1,
            "reasoning": {"effort": "low"},
            "service_tier": "priority",
            "truncation": "auto",
            "parallel_tool_calls": True,
            "prompt_cache_key": "key",
            "safety_identifier": "someone",
            "user": "someone",
            "frequency_penalty": 0.5,
            "presence_penalty": 0.5,
            "tool_choice": {"type": "function", "name": "tide"},
            "tools": [TOOL],
        },
        "completed",
        ["message"],
    ),
    ("cut off", {"input": f"[[fake finish=length text='One two']] {QUESTION}"}, "incomplete", ["message"]),
    ("failed", {"input": f"[[fake status=400]] {QUESTION}"}, "failed", []),
    ("failed in the middle", {"input": f"[[fake text='One two three' error_after=1 code=invalid_prompt type=invalid_request_error]] {QUESTION}", "tools": ["search"]}, "failed", []),
]  # fmt: skip

CASES = pytest.mark.parametrize(
    ("fields", "status", "items"), [pytest.param(*case, id=name) for name, *case in REQUESTS]
)


def classes_of(union: Any) -> dict[str, type[BaseModel]]:
    """The classes of a union of events, by the type that each has."""
    members = get_args(get_args(union)[0])
    return {kind: member for member in members for kind in get_args(member.model_fields["type"].annotation)}


EVENTS = classes_of(ResponseStreamEvent)
MESSAGES = classes_of(ResponsesServerEvent)


def check_response(response: dict[str, Any]) -> None:
    """The SDK lists OpenAI's codes of errors; ragq's own, which say more, are the only difference."""
    if response["error"]:
        assert response["error"].keys() == {"code", "message"}
        response = response | {"error": response["error"] | {"code": "server_error"}}
    Response.model_validate(response, strict=True)


def check_events(events: list[dict[str, Any]], classes: dict[str, type[BaseModel]] = EVENTS) -> None:
    for event in events:
        if event["type"] == "response.failed":
            check_response(event["response"])
        else:
            classes[event["type"]].model_validate(event, strict=True)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


def events_of(answer: httpx2.Response) -> list[dict[str, Any]]:
    """The events of a stream, each named as its data is."""
    assert answer.headers["content-type"].startswith("text/event-stream"), answer.text
    blocks = [block.split("\n") for block in answer.text.split("\n\n") if block and not block.startswith(":")]
    events = []
    for block in blocks:
        parts = dict(line.split(": ", 1) for line in block)
        events.append(json.loads(parts["data"]))
        assert (parts["event"], parts["id"]) == (events[-1]["type"], str(events[-1]["sequence_number"]))
    return events


class Accumulated:
    """What a client makes of a stream: the items, put together from their parts."""

    def __init__(self, events: list[dict[str, Any]]) -> None:
        self.items: list[dict[str, Any]] = []
        self.done: set[int] = set()
        for event in copy.deepcopy(events):
            place = event.get("output_index")
            if place is not None and event["type"] != "response.output_item.added":
                assert place not in self.done, event
                assert event.get("item_id", self.items[place]["id"]) == self.items[place]["id"]
            take = getattr(self, event["type"].removeprefix("response.").replace(".", "_"), None)
            if take:
                take(event)
        assert self.done == set(range(len(self.items)))

    def _part(self, event: dict[str, Any]) -> dict[str, Any]:
        part: dict[str, Any] = self.items[event["output_index"]]["content"][event["content_index"]]
        return part

    def output_item_added(self, event: dict[str, Any]) -> None:
        assert event["output_index"] == len(self.items)
        assert len(self.done) == len(self.items)  # one after the other
        self.items.append(event["item"])

    def content_part_added(self, event: dict[str, Any]) -> None:
        content = self.items[event["output_index"]]["content"]
        assert event["content_index"] == len(content)
        content.append(event["part"])

    def output_text_delta(self, event: dict[str, Any]) -> None:
        self._part(event)["text"] += event["delta"]

    def reasoning_text_delta(self, event: dict[str, Any]) -> None:
        self._part(event)["text"] += event["delta"]

    def refusal_delta(self, event: dict[str, Any]) -> None:
        self._part(event)["refusal"] += event["delta"]

    def output_text_annotation_added(self, event: dict[str, Any]) -> None:
        annotations = self._part(event)["annotations"]
        assert event["annotation_index"] == len(annotations)
        annotations.append(event["annotation"])

    def output_text_done(self, event: dict[str, Any]) -> None:
        assert event["text"] == self._part(event)["text"]
        self._part(event)["logprobs"] = event["logprobs"]

    def reasoning_text_done(self, event: dict[str, Any]) -> None:
        assert event["text"] == self._part(event)["text"]

    def refusal_done(self, event: dict[str, Any]) -> None:
        assert event["refusal"] == self._part(event)["refusal"]

    def content_part_done(self, event: dict[str, Any]) -> None:
        assert event["part"] == self._part(event)

    def function_call_arguments_delta(self, event: dict[str, Any]) -> None:
        self.items[event["output_index"]]["arguments"] += event["delta"]

    def function_call_arguments_done(self, event: dict[str, Any]) -> None:
        item = self.items[event["output_index"]]
        assert (event["arguments"], event["name"]) == (item["arguments"], item["name"])

    def output_item_done(self, event: dict[str, Any]) -> None:
        item = self.items[event["output_index"]]
        for name in ("content", "arguments", "call_id", "name", "queries"):
            assert event["item"].get(name) == item.get(name)
        self.items[event["output_index"]] = event["item"]
        self.done.add(event["output_index"])


def with_store(fields: dict[str, Any], store_id: str) -> dict[str, Any]:
    tools = [search(store_id) if tool == "search" else tool for tool in fields.get("tools", [])]
    return fields | ({"tools": tools} if tools else {})


@CASES
def test_a_stream_has_the_types_of_the_sdk_and_adds_up_to_the_stored_object(
    http: httpx2.Client, store_id: str, fields: dict[str, Any], status: str, items: list[str]
) -> None:
    events = events_of(http.post("/v1/responses", json=with_store(fields, store_id) | {"stream": True}))
    check_events(events)
    final = events[-1]["response"]
    assert (events[-1]["type"], final["status"]) == (f"response.{status}", status)
    assert [item["type"] for item in final["output"]] == items
    stored = http.get(f"/v1/responses/{final['id']}").json()
    check_response(stored)
    for name in stored.keys() - {"queue"}:
        assert stored[name] == final[name], name
    shown = Accumulated(events).items
    assert shown == final["output"] or status == "failed"
    assert (
        all(item["status"] == "incomplete" or item["type"] == "file_search_call" for item in shown)
        or status != "failed"
    )
    assert events_of(http.get(f"/v1/responses/{final['id']}", params={"stream": True})) == events


@CASES
def test_a_response_without_a_stream_has_the_type_of_the_sdk(
    http: httpx2.Client, store_id: str, fields: dict[str, Any], status: str, items: list[str]
) -> None:
    shown = http.post("/v1/responses", json=with_store(fields, store_id)).json()
    check_response(shown)
    if not fields.get("background"):
        assert (shown["status"], [item["type"] for item in shown["output"]]) == (status, items)


@CASES
async def test_a_websocket_sends_events_of_the_types_of_the_sdk(
    ragq: Ragq, store_id: str, fields: dict[str, Any], status: str, items: list[str]
) -> None:
    if "background" in fields:
        fields = {name: value for name, value in fields.items() if name != "background"}
    url = ragq.url.replace("http", "ws", 1) + "/v1/responses"
    async with connect(url, additional_headers={"Authorization": f"Bearer {KEY}"}) as socket:
        await socket.send(json.dumps({"type": "response.create"} | with_store(fields, store_id)))
        events: list[dict[str, Any]] = []
        while not events or events[-1]["type"] != f"response.{status}":
            events.append(json.loads(await socket.recv()))
        check_events(events, MESSAGES)
        assert [item["type"] for item in events[-1]["response"]["output"]] == items
        await socket.send("{}")
        MESSAGES["error"].model_validate_json(await socket.recv(), strict=True)


def test_the_sdks_own_stream_ends_with_the_stored_object(client: openai.OpenAI, store_id: str) -> None:
    tool: Any = search(store_id)
    with client.responses.stream(model="ragq", input=QUESTION, tools=[tool]) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[-1] == "response.completed"
    assert final.output_text == client.responses.retrieve(final.id).output_text


# Chat completions

CHATS: list[tuple[str, dict[str, Any], str]] = [
    (QUESTION, {}, "stop"),
    (f"{CALLS} {QUESTION}", {"tools": [{"type": "function", "function": FUNCTION}]}, "tool_calls"),
    (f"[[fake reasoning='Let me think.']] {QUESTION}", {}, "stop"),
    (f"[[fake refusal='I will not say.']] {QUESTION}", {}, "stop"),
    (f"[[fake finish=length text='One two']] {QUESTION}", {}, "length"),
    (QUESTION, {"logprobs": True, "top_logprobs": 2}, "stop"),
    (QUESTION, {"stream_options": {"include_usage": True}}, "stop"),
]


@pytest.mark.parametrize(("question", "fields", "reason"), CHATS)
def test_chunks_have_the_type_of_the_sdk_and_add_up_to_the_chat_completion(
    http: httpx2.Client, question: str, fields: dict[str, Any], reason: str
) -> None:
    asked = {"model": "ragq", "messages": [{"role": "user", "content": question}], **fields}
    whole = http.post("/v1/chat/completions", json=asked).json()
    ChatCompletion.model_validate(whole, strict=True)
    *lines, end = [
        line[6:]
        for line in http.post("/v1/chat/completions", json=asked | {"stream": True}).text.splitlines()
        if line.startswith("data: ")
    ]
    chunks = [json.loads(line) for line in lines]
    assert end == "[DONE]"
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk, strict=True)
    assert len({chunk["id"] for chunk in chunks}) == 1
    if "stream_options" in fields:
        assert chunks.pop()["usage"] == whole["usage"]
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + [reason]
    message = whole["choices"][0]["message"]
    for name in ("content", "refusal", "reasoning_content"):
        assert "".join(choice["delta"].get(name) or "" for choice in choices) == (message.get(name) or ""), name
    calls = [call for choice in choices for call in choice["delta"].get("tool_calls", ())]
    assert [{name: call[name] for name in ("id", "type", "function")} for call in calls] == message.get(
        "tool_calls", []
    )
    assert [call["index"] for call in calls] == list(range(len(calls)))
    assert choices[-1]["delta"].get("annotations", []) == message["annotations"]
    assert choices[-1]["logprobs"] == whole["choices"][0]["logprobs"]


def test_completions_and_embeddings_have_the_types_of_the_sdk(http: httpx2.Client) -> None:
    shown = http.post("/v1/completions", json={"model": "ragq", "prompt": QUESTION}).json()
    completion = Completion.model_validate(shown, strict=True)
    assert "61 metres" in completion.choices[0].text
    vectors = http.post("/v1/embeddings", json={"model": "ragq", "input": [QUESTION, "Why?"]}).json()
    embedded = CreateEmbeddingResponse.model_validate(vectors, strict=True)
    assert [len(one.embedding) for one in embedded.data] == [384, 384]
