"""Every field that a client may send, at each endpoint: passed on to the LLM, ignored, or refused by name.

The rule: refused is only what would make the answer untrue, and what that is depends on whether there is an LLM.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.servers import Ragq

FUNCTION = {"name": "get_weather", "parameters": {"type": "object", "properties": {"place": {"type": "string"}}}}
CHAT_TOOL = {"type": "function", "function": FUNCTION}
TOOL = {"type": "function", **FUNCTION}
SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
IMAGE = "data:image/png;base64,iVBORw0KGgo="
PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses"}
IGNORED: dict[str, Any] = {}
"""Accepted, and nothing of it reaches the LLM."""
REFUSED = "refused"


class RecordingLlm(BaseHTTPRequestHandler):
    """Answers every call, in JSON where that is asked for, and keeps what it was sent."""

    protocol_version = "HTTP/1.1"
    received: dict[str, Any]

    def do_POST(self) -> None:
        RecordingLlm.received = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = '{"answer": "61 metres"}' if "response_format" in self.received else "It is 61 metres tall [1]."
        entry = {"token": "It", "logprob": -0.1, "bytes": None, "top_logprobs": []}
        choice = {
            "index": 0,
            "delta": {"role": "assistant", "content": text},
            "logprobs": {"content": [entry]} if self.received.get("logprobs") else None,
            "finish_reason": "stop",
        }
        body = f"data: {json.dumps({'choices': [choice]})}\n\ndata: [DONE]\n\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def services(plain_ragq: Ragq, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[bool, httpx2.Client]]:
    """A client of a service with an LLM, and of one without."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), RecordingLlm)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    folder: Path = tmp_path_factory.mktemp("fields")
    (folder / "harbour.md").write_text("The lighthouse of Quorra is 61 metres tall.\n")
    url = f"http://127.0.0.1:{server.server_port}/v1"
    with_llm = Ragq(
        folder / "data", RAGQ_LLM_BASE_URL=url, RAGQ_LLM_MODEL="m", RAGQ_LLM_TRIES=1, RAGQ_LLM_EXTRA_FIELDS="my_own"
    ).start()
    assert with_llm.run("ingest", str(folder / "harbour.md")).returncode == 0
    clients = {
        has_llm: httpx2.Client(base_url=one.url, timeout=60) for has_llm, one in ((True, with_llm), (False, plain_ragq))
    }
    yield clients
    for client in clients.values():
        client.close()
    assert with_llm.stop() == 0
    server.shutdown()
    server.server_close()


MEANT_FOR_OTHERS: list[dict[str, Any]] = [
    {"tool_choice": "none"},
    {"parallel_tool_calls": False},
    {"parallel_tool_calls": False, "tools": [{"type": "web_search"}]},
]
"""Servers refuse these without functions in `tools`."""
# endpoint, fields, what the LLM is sent of them, the field named without an LLM (empty: accepted there, too)
FIELDS: list[tuple[str, dict[str, Any], dict[str, Any] | str, str]] = [
    *(("chat", {name: None}, IGNORED, "") for name in ("tools", "tool_choice", "stop", "logit_bias", "frequency_penalty", "seed", "response_format", "stream_options", "max_tokens", "audio", "functions", "metadata", "n", "store")),
    *(("chat", {name: value}, {name: value}, "") for name, value in {
        "seed": 7, "stop": ["END"], "logit_bias": {"50256": -100}, "frequency_penalty": 0.5, "presence_penalty": -0.5,
        "reasoning_effort": "low", "verbosity": "low", "top_k": 40, "min_p": 0.05, "repeat_penalty": 1.1, "num_ctx": 8192,
        "chat_template_kwargs": {"enable_thinking": False}, "prediction": {"type": "content", "content": "x"},
        "temperature": 0.3, "top_p": 0.9, "user": "u-1", "reasoning": {"effort": "low"},
        "prompt_cache_key": "k", "safety_identifier": "s", "my_own": 1,
    }.items()),
    *(("chat", {name: value}, IGNORED, "") for name, value in {
        "tools": [], "tool_choice": "auto", "stop": [], "logit_bias": {}, "user": "", "metadata": {"a": "b"}, "frequency_penalty": 0, "presence_penalty": 0,
        "logprobs": False, "parallel_tool_calls": True, "store": True, "n": 1, "modalities": ["text"], "functions": [],
        "response_format": {"type": "text"}, "stream_options": {"include_usage": True}, "service_tier": "scale",
        "web_search_options": {}, "frobnicate": 1, "max_tokens": -1, "audio": {"voice": "alloy"},
    }.items()),
    *(("chat", fields, IGNORED, "") for fields in MEANT_FOR_OTHERS),
    ("chat", {"metadata": {"a": "b"}, "store": True}, IGNORED, ""),
    ("chat", {"top_logprobs": 2}, IGNORED, ""),
    ("chat", {"top_logprobs": 2, "logprobs": False}, IGNORED, ""),
    ("chat", {"max_completion_tokens": 50}, {"max_tokens": 50}, ""),
    ("chat", {"tools": [CHAT_TOOL], "tool_choice": "auto"}, {"tools": [CHAT_TOOL]}, ""),
    ("chat", {"tools": [CHAT_TOOL], "tool_choice": "none"}, {"tools": [CHAT_TOOL], "tool_choice": "none"}, ""),
    ("chat", {"tools": [CHAT_TOOL], "parallel_tool_calls": False}, {"tools": [CHAT_TOOL], "parallel_tool_calls": False}, ""),
    ("chat", {"tools": [CHAT_TOOL], "tool_choice": "required"}, {"tool_choice": "required"}, "tool_choice"),
    ("chat", {"tools": [CHAT_TOOL], "tool_choice": {"type": "function", "function": {"name": "get_weather"}}}, {"tool_choice": {"type": "function", "function": {"name": "get_weather"}}}, "tool_choice"),
    ("chat", {"tools": [{"type": "web_search"}]}, IGNORED, ""),
    ("chat", {"tools": [{"type": "web_search"}], "tool_choice": "required"}, REFUSED, "tool_choice"),
    ("chat", {"tools": [CHAT_TOOL], "tool_choice": {"type": "function", "function": {"name": "x"}}}, REFUSED, "tool_choice"),
    ("chat", {"response_format": {"type": "json_object"}}, {"response_format": {"type": "json_object"}}, "response_format"),
    ("chat", {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}}, {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}}, "response_format"),
    ("chat", {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "objekt"}}}}, REFUSED, "response_format.json_schema.schema"),
    ("chat", {"response_format": {"type": "xml"}}, REFUSED, "response_format.type"),
    ("chat", {"logprobs": True, "top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}, "logprobs"),
    ("chat", {"n": 2}, REFUSED, "n"),
    ("chat", {"modalities": ["text", "audio"]}, REFUSED, "modalities.1"),
    ("chat", {"functions": [FUNCTION]}, REFUSED, "functions"),
    ("chat", {"max_tokens": 0}, REFUSED, "max_tokens"),
    *(("responses", {name: None}, IGNORED, "") for name in ("conversation", "prompt", "reasoning", "stream_options", "top_logprobs", "tools", "tool_choice", "metadata", "text", "include", "instructions", "previous_response_id", "max_tool_calls")),
    *(("responses", {name: value}, {name: value}, "") for name, value in {
        "seed": 7, "stop": "END", "frequency_penalty": 0.5, "top_k": 40, "temperature": 0.3, "user": "u-1",
        "prompt_cache_key": "k", "safety_identifier": "s", "my_own": 1,
    }.items()),
    *(("responses", {name: value}, IGNORED, "") for name, value in {
        "reasoning": {}, "max_tool_calls": 3, "top_logprobs": 0, "service_tier": "scale", "truncation": "auto",
        "include": ["reasoning.encrypted_content", "web_search_call.action.sources"], "stream_options": {"x": 1},
        "context_management": [], "parallel_tool_calls": True, "text": {}, "frobnicate": 1, "store": False,
        "prompt_cache_retention": "24h", "metadata": {"n": 1},
    }.items() if name != "prompt_cache_retention"),
    *(("responses", fields, IGNORED, "") for fields in MEANT_FOR_OTHERS),
    ("responses", {"parallel_tool_calls": False, "tools": [{"type": "file_search", "vector_store_ids": ["default"]}]}, IGNORED, ""),
    ("responses", {"vector_store_ids": []}, IGNORED, ""),
    ("responses", {"tools": [TOOL], "parallel_tool_calls": False}, {"tools": [CHAT_TOOL], "parallel_tool_calls": False}, ""),
    ("responses", {"tools": [{"type": "file_search", "vector_store_ids": ["default"]}], "vector_store_ids": []}, REFUSED, "vector_store_ids"),
    ("responses", {"reasoning": {"effort": "low"}}, {"reasoning_effort": "low"}, ""),
    ("responses", {"text": {"verbosity": "low"}}, {"verbosity": "low"}, ""),
    ("responses", {"max_output_tokens": 10}, {"max_tokens": 10}, ""),
    ("responses", {"include": ["message.output_text.logprobs"]}, {"logprobs": True}, "logprobs"),
    ("responses", {"text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA, "strict": True}}}, {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA, "strict": True}}}, "text.format"),
    ("responses", {"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}, "text.format"),
    ("responses", {"text": {"format": {"type": "json_schema", "name": "a"}}}, REFUSED, "text.format.schema"),
    ("responses", {"tools": [TOOL]}, {"tools": [CHAT_TOOL]}, ""),
    ("responses", {"tools": [TOOL], "tool_choice": "required"}, {"tool_choice": "required"}, "tool_choice"),
    ("responses", {"tools": [TOOL], "tool_choice": {"type": "function", "name": "get_weather"}}, {"tool_choice": {"type": "function", "function": {"name": "get_weather"}}}, "tool_choice"),
    ("responses", {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [TOOL]}}, {"tools": [CHAT_TOOL]}, ""),
    ("responses", {"tools": [TOOL, {"type": "file_search", "vector_store_ids": ["default"]}], "tool_choice": "required"}, {"tools": [CHAT_TOOL]}, ""),
    *(("responses", {"tools": [{"type": kind}]}, IGNORED, "") for kind in ("web_search", "web_search_preview", "code_interpreter", "mcp", "computer_use_preview", "image_generation")),
    ("responses", {"tools": [{"type": "web_search"}], "tool_choice": "required"}, REFUSED, "tool_choice"),
    ("responses", {"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}}, REFUSED, "tool_choice"),
    ("responses", {"tools": [{"type": "file_search", "vector_store_ids": ["default"], "ranking_options": {"ranker": "default-2024-11-15", "score_threshold": None, "hybrid_search": {}}, "filters": None, "max_num_results": None}]}, IGNORED, ""),
    ("responses", {"tools": [{"type": "file_search", "vector_store_ids": ["default"]}] * 2}, IGNORED, ""),
    ("responses", {"tools": [{"type": "file_search"}]}, REFUSED, "tools.0.vector_store_ids"),
    ("responses", {"instructions": [{"role": "developer", "content": "Be brief."}]}, IGNORED, ""),
    ("responses", {"prompt": {"id": "pmpt_1"}}, REFUSED, "prompt"),
    ("responses", {"temperature": 9}, REFUSED, "temperature"),
]  # fmt: skip


def ids(rows: list[Any]) -> list[str]:
    return [f"{row[0]} {json.dumps(row[1])[:70]}" for row in rows]


def ask(client: httpx2.Client, endpoint: str, **fields: Any) -> httpx2.Response:
    question = "How tall is the lighthouse of Quorra?"
    body = {"input": question} if endpoint == "responses" else {"messages": [{"role": "user", "content": question}]}
    return client.post(PATHS[endpoint], json=body | fields)


@pytest.mark.parametrize(("endpoint", "fields", "sent", "named"), FIELDS, ids=ids(FIELDS))
@pytest.mark.parametrize("has_llm", [True, False], ids=["LLM", "extractive"])
def test_a_field_is_passed_on_ignored_or_refused(
    services: dict[bool, httpx2.Client],
    endpoint: str,
    fields: dict[str, Any],
    sent: dict[str, Any] | str,
    named: str,
    *,
    has_llm: bool,
) -> None:
    RecordingLlm.received = {}
    answer = ask(services[has_llm], endpoint, **fields)
    if sent == REFUSED or (named and not has_llm):
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["param"] == named
        return
    assert answer.status_code == 200, answer.text
    if has_llm:
        assert isinstance(sent, dict)
        known = {"model", "messages", "stream", "stream_options"} | sent.keys()
        if sent is IGNORED:
            assert set(RecordingLlm.received) <= known
        assert {name: RecordingLlm.received.get(name) for name in sent} == sent


def message(role: str, content: Any = None, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


USER = message("user", "How tall is the lighthouse?")
CALLED = message(
    "assistant", None, tool_calls=[{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
)
# endpoint, messages, the roles that the LLM sees after the rules (empty: refused), the field named
MESSAGES: list[tuple[str, list[dict[str, Any]], list[str], str]] = [
    ("chat", [USER | {"name": "ann", "id": "m1"}], ["user"], ""),
    ("chat", [message("user", [{"type": "text", "text": "Hi?", "cache_control": {"type": "ephemeral"}}])], ["user"], ""),
    ("chat", [USER, message("assistant", None), USER], ["user"], ""),
    ("chat", [USER, message("assistant", "", refusal=None, audio=None, tool_calls=None, reasoning_content="Hm."), USER], ["user"], ""),
    ("chat", [USER, message("assistant", "<think>Hm.</think>Tall."), USER], ["user", "assistant", "user"], ""),
    ("chat", [USER, USER], ["user"], ""),
    ("chat", [message("assistant", "Hello!"), USER], ["user"], ""),
    ("chat", [message("system", "Make a title.")], ["user"], ""),
    ("chat", [USER, message("system", "Be brief.")], ["user"], ""),
    ("chat", [USER, CALLED, message("tool", "61", tool_call_id="c1")], ["user", "assistant", "tool"], ""),
    ("chat", [USER, message("assistant", "It is")], ["user", "assistant"], ""),
    ("chat", [message("user", [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": IMAGE}}])], ["user"], ""),
    ("chat", [message("user", "x" * 40_000)], ["user"], ""),
    ("chat", [message("user", [{"type": "video", "video": "x"}])], [], "messages.0.content.0.type"),
    ("chat", [message("user", 7)], [], "messages.0.content"),
    ("chat", [message("wizard", "Hi")], [], "messages.0.role"),
    ("chat", [message("assistant", "Hi.")], [], "messages"),
    ("responses", [USER | {"phase": "final_answer", "status": None}], ["user"], ""),
    ("responses", [message("user", [{"type": "text", "text": "Hi?"}])], ["user"], ""),
    ("responses", [USER, message("assistant", [{"type": "refusal", "refusal": "No."}]), USER], ["user", "assistant", "user"], ""),
    ("responses", [USER, {"type": "reasoning", "id": "rs_1", "summary": []}, message("assistant", "Tall."), USER], ["user", "assistant", "user"], ""),
    ("responses", [USER, {"type": "web_search_call", "id": "ws_1", "status": "completed"}, USER], ["user"], ""),
    ("responses", [USER, {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}, {"type": "function_call_output", "call_id": "c1", "output": "61"}], ["user", "assistant", "tool"], ""),
    ("responses", [USER, {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}, {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "61"}]}], ["user", "assistant", "tool"], ""),
    ("responses", [message("user", [{"type": "input_text", "text": "What?"}, {"type": "input_image", "image_url": IMAGE, "detail": "auto"}])], ["user"], ""),
    ("responses", [USER, message("assistant", "It is")], ["user", "assistant"], ""),
    ("responses", [], [], "input"),
    ("responses", [{"type": "message", "content": "Hi"}], [], "input.0.role"),
    ("responses", [message("user", [{"type": "input_image"}])], [], "input.0.content.0"),
    ("responses", [message("user", [{"type": "input_video"}])], [], "input.0.content.0.type"),
    ("responses", [{"type": "item_reference", "id": "msg_unknown"}], [], "input.0.id"),
]  # fmt: skip


@pytest.mark.parametrize(("endpoint", "messages", "roles", "named"), MESSAGES, ids=ids(MESSAGES))
@pytest.mark.parametrize("has_llm", [True, False], ids=["LLM", "extractive"])
def test_a_message_is_read_or_refused_with_its_place(
    services: dict[bool, httpx2.Client],
    endpoint: str,
    messages: list[dict[str, Any]],
    roles: list[str],
    named: str,
    *,
    has_llm: bool,
) -> None:
    RecordingLlm.received = {}
    answer = ask(services[has_llm], endpoint, **{"input" if endpoint == "responses" else "messages": messages})
    if named:
        assert answer.status_code in (400, 404), answer.text
        error = answer.json()["error"]
        assert error["param"] == named
        assert "function-after" not in error["message"]
        return
    assert answer.status_code == 200, answer.text
    if has_llm:
        seen = [one["role"] for one in RecordingLlm.received["messages"]]
        assert seen == ["system", *roles]
        assert "Hm." not in json.dumps(RecordingLlm.received)


SEARCH = {"type": "file_search", "vector_store_ids": ["default"]}
FORM = {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}}
RESULTS = ["file_search_call.results"]
# endpoint, fields, whether the LLM is sent sources, the types of a response's output
SEARCHES: list[tuple[str, dict[str, Any], bool, list[str]]] = [
    ("responses", {"tool_choice": "none"}, True, ["message"]),
    ("responses", {"tool_choice": "none", "text": FORM}, True, ["message"]),
    ("responses", {"tool_choice": "none", "tools": [TOOL]}, True, ["message"]),
    ("responses", {"tool_choice": "none", "include": RESULTS}, True, ["file_search_call", "message"]),
    ("responses", {"tool_choice": "none", "tools": [SEARCH]}, False, ["message"]),
    ("responses", {"tool_choice": "none", "tools": [SEARCH, TOOL], "include": RESULTS}, False, ["message"]),
    ("responses", {"vector_store_ids": []}, False, ["message"]),
    ("responses", {"vector_store_ids": [], "include": RESULTS}, False, ["message"]),
    ("responses", {"vector_store_ids": ["default"], "include": RESULTS}, True, ["file_search_call", "message"]),
    ("responses", {"vector_store_ids": None}, True, ["message"]),
    ("chat", {"tool_choice": "none"}, True, []),
    ("chat", {"tool_choice": "none", "tools": [CHAT_TOOL]}, True, []),
    ("chat", {"vector_store_ids": []}, False, []),
]


@pytest.mark.parametrize(("endpoint", "fields", "has_sources", "output"), SEARCHES, ids=ids(SEARCHES))
def test_a_search_is_stopped_by_what_asked_for_it_alone(
    services: dict[bool, httpx2.Client], endpoint: str, fields: dict[str, Any], has_sources: bool, output: list[str]
) -> None:
    answer = ask(services[True], endpoint, **fields)
    assert answer.status_code == 200, answer.text
    assert ("61 metres" in json.dumps(RecordingLlm.received["messages"])) == has_sources
    assert [item["type"] for item in answer.json().get("output", [])] == output
    streamed = ask(services[True], endpoint, **fields, stream=True).text
    assert ("response.file_search_call.completed" in streamed) == ("file_search_call" in output)


def test_an_image_reaches_the_llm_beside_the_question(services: dict[bool, httpx2.Client]) -> None:
    parts = [
        {"type": "input_text", "text": "What is it?"},
        {"type": "input_image", "image_url": IMAGE, "detail": "low"},
    ]
    ask(services[True], "responses", input=[message("user", parts)])
    text, image = RecordingLlm.received["messages"][-1]["content"]
    assert text["text"].endswith("Question: What is it?")
    assert image == {"type": "image_url", "image_url": {"url": IMAGE, "detail": "low"}}


def test_an_answer_in_json_has_its_citations_beside_it(services: dict[bool, httpx2.Client]) -> None:
    form = {"type": "json_schema", "name": "a", "schema": SCHEMA}
    body = ask(services[True], "responses", text={"format": form}).json()
    (part,) = body["output"][-1]["content"]
    assert json.loads(part["text"]) == {"answer": "61 metres"}
    assert part["annotations"][0]["quote"] == "The lighthouse of Quorra is 61 metres tall."


def test_what_was_ignored_is_told(services: dict[bool, httpx2.Client]) -> None:
    for endpoint, tool in (("chat", CHAT_TOOL), ("responses", TOOL)):
        body = ask(services[False], endpoint, tools=[tool, {"type": "web_search"}]).json()
        assert ["web_search" in note or "function" in note for note in body["notes"]] == [True, True]
