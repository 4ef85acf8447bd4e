"""Words that occur nowhere else, put into every field that a client may send, and then looked for wherever they must not be.

Of a question with `store: false` nothing may be in PostgreSQL, and nothing in Valkey that does not expire within a minute. Of what is
stored, nothing may be in logs, at the level DEBUG, in metrics or in the audit log, and keys are in clear nowhere.
"""

from __future__ import annotations

import io
import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.sync.client import connect

from ragq.queues.questions import UNSTORED_SECONDS
from tests.servers import KEY, FakeLlm, Ragq, wait_until
from tests.tenants import Caller
from tests.traces import rows_with, valkey_lives

RUN = secrets.token_hex(4)
UNSTORED, STORED = f"ephemeral{RUN}", f"lasting{RUN}"
FAILURES = {
    "refused": "[[fake status=400 message='no' code=bad]]",
    "down": "[[fake status=500 message=down]]",
    "cut": "[[fake cut_after=2]]",
    "filtered": "[[fake finish=content_filter]]",
}


def word(place: str, kind: str = UNSTORED) -> str:
    """A word for this place."""
    return f"{kind}x{re.sub('[^a-z]', '', place.lower())}x"


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory, llm: FakeLlm) -> Iterator[Ragq]:
    """A service that logs everything it can."""
    service = Ragq(
        tmp_path_factory.mktemp("private") / "data",
        RAGQ_API_KEY=KEY,
        RAGQ_LOG_LEVEL="DEBUG",
        RAGQ_LLM_BASE_URL=llm.base_url,
        RAGQ_LLM_MODEL="fake/model",
        RAGQ_LLM_TRIES=1,
        RAGQ_JOB_TRIES=1,
        RAGQ_WEBHOOK_ALLOWED_HOSTS="127.0.0.1",
    ).start()
    yield service
    assert service.stop() == 0


@pytest.fixture(scope="module")
def root(private: Ragq) -> Caller:
    return Caller(private.url, KEY)


@pytest.fixture(scope="module")
def made(root: Caller) -> list[str]:
    """Everything is sent once; returns the values of keys that were made."""
    store_what_lasts(root)
    keys = make_keys(root)
    run_batch(root)
    for ask in (ask_responses, ask_chats, ask_elsewhere, ask_over_websocket, ask_wrongly):
        ask(root)
    return keys


def tool(place: str, kind: str = UNSTORED) -> dict[str, Any]:
    properties = {word(f"{place} argument", kind): {"type": "string", "description": word(f"{place} text", kind)}}
    return {
        "name": word(f"{place} tool", kind),
        "description": word(f"{place} purpose", kind),
        "parameters": {"type": "object", "properties": properties},
    }


def response_fields(place: str, kind: str = UNSTORED) -> dict[str, Any]:
    """A request for a response with a word in each field that takes one."""

    def of(field: str) -> str:
        return word(f"{place} {field}", kind)

    call = {
        "type": "function_call",
        "call_id": of("call"),
        "name": of("called"),
        "arguments": f'{{"a": "{of("value")}"}}',
    }
    return {
        "model": "ragq",
        "input": [
            {"role": "user", "content": f"What is {of('earlier')}?"},
            {"role": "assistant", "content": of("said")},
            call,
            {"type": "function_call_output", "call_id": of("call"), "output": of("output")},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": f"How tall is {of('question')}? [[fake text={of('answer')}]]"},
                    {"type": "input_image", "image_url": f"https://pictures.example.com/{of('picture')}.png"},
                ],
            },
        ],
        "instructions": of("instructions"),
        "metadata": {of("key"): of("value")},
        "user": of("user"),
        "safety_identifier": of("safety"),
        "prompt_cache_key": of("cache"),
        "tools": [{"type": "function", **tool(place, kind)}],
    }


def schema(place: str) -> dict[str, Any]:
    """A form of answers, which the fake LLM does not keep to."""
    form = {
        "type": "object",
        "title": word(f"{place} title"),
        "properties": {word(f"{place} property"): {"type": "string"}},
    }
    return {"type": "json_schema", "name": word(f"{place} schema"), "schema": form}


def chat_fields(place: str, kind: str = UNSTORED) -> dict[str, Any]:
    def of(field: str) -> str:
        return word(f"{place} {field}", kind)

    call = {"id": of("call"), "type": "function", "function": {"name": of("called"), "arguments": of("arguments")}}
    return {
        "model": "ragq",
        "messages": [
            {"role": "system", "content": of("system")},
            {"role": "user", "content": of("earlier"), "name": of("name")},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": of("call"), "content": of("output")},
            {"role": "user", "content": f"How tall is {of('question')}? [[fake text={of('answer')}]]"},
        ],
        "metadata": {of("key"): of("value")},
        "user": of("user"),
        "stop": [of("stop")],
        "tools": [{"type": "function", "function": tool(place, kind)}],
    }


def ask_responses(root: Caller) -> None:
    """Responses that are answered, streamed, left by their client, and that fail in every way."""
    headers = {"Authorization": f"Bearer {KEY}", "Idempotency-Key": word("idempotency"), "X-Anything": word("header")}
    with httpx2.Client(base_url=root.url, headers=headers, timeout=60) as client:
        whole = response_fields("whole") | {"store": False}
        answer = client.post(f"/v1/responses?anything={word('query')}", json=whole)
        assert answer.status_code == 200, answer.text
        assert word("whole answer") in answer.text
        assert answer.json()["store"] is False
    assert root.post("/v1/responses", whole)["status"] == "completed"
    streamed = root.call("POST", "/v1/responses", json=response_fields("streamed") | {"store": False, "stream": True})
    assert "response.completed" in streamed.text
    large = f"{word('large')} " * 20_000
    assert root.post("/v1/responses", {"input": large, "store": False})["status"] == "completed"
    for kind, marker in FAILURES.items():
        failed = root.call("POST", "/v1/responses", json={"input": f"{word(kind)} {marker}", "store": False})
        assert failed.json().get("status") in ("failed", "incomplete", "completed"), failed.text
    formed = {"input": word("formed"), "text": {"format": schema("formed")}, "store": False}
    assert root.call("POST", "/v1/responses", json=formed).status_code == 200
    slow = {"input": f"{word('left')} [[fake rate=5 tokens=200]]", "store": False, "stream": True}
    headers = {"Authorization": f"Bearer {KEY}"}
    with (
        httpx2.Client(base_url=root.url, headers=headers, timeout=60) as client,
        client.stream("POST", "/v1/responses", json=slow) as leaving,
    ):
        next(leaving.iter_lines())


def ask_chats(root: Caller) -> None:
    assert word("chat answer") in json.dumps(root.post("/v1/chat/completions", chat_fields("chat")))
    refused = chat_fields("refused chat") | {"store": False}
    refused["messages"][-1]["content"] = f"{word('refused chat question')} {FAILURES['refused']}"
    assert root.call("POST", "/v1/chat/completions", json=refused).status_code >= 400
    streamed = root.call("POST", "/v1/chat/completions", json=chat_fields("chat stream") | {"stream": True})
    assert "[DONE]" in streamed.text
    completion = {
        "model": "ragq",
        "prompt": f"{word('prompt')} [[fake text={word('completed')}]]",
        "user": word("prompter"),
    }
    assert word("completed") in json.dumps(root.post("/v1/completions", completion))


def ask_elsewhere(root: Caller) -> None:
    """Routes that keep nothing whatever is sent."""
    root.post("/v1/responses/input_tokens", response_fields("counted") | {"store": False})
    turns = [
        {"role": "user", "content": f"{word('long ago')} {FAILURES['down']}"},
        {"role": "assistant", "content": word("reply")},
    ]
    root.call(
        "POST", "/v1/responses/compact", json={"model": "ragq", "input": turns, "instructions": word("compacting")}
    )
    root.post("/v1/embeddings", {"model": "ragq", "input": [word("embedded")], "user": word("embedder")})
    root.post("/v1/vector_stores/default/search", {"query": f"Where is {word('searched')}?"})


def ask_over_websocket(root: Caller) -> None:
    address = root.url.replace("http", "ws") + f"/v1/responses?anything={word('socket query')}"
    with connect(address, additional_headers={"Authorization": f"Bearer {KEY}"}) as socket:
        for marker in ("", FAILURES["refused"]):
            question = {
                "input": f"{word('socket')} {marker}",
                "instructions": word("socket instructions"),
                "store": False,
            }
            socket.send(json.dumps({"type": "response.create", "model": "ragq", **question}))
            while json.loads(socket.recv())["type"] not in ("response.completed", "response.failed", "error"):
                pass
        socket.send(f'{{"type": "{word("socket type")}"')
        assert json.loads(socket.recv())["type"] == "error"


def ask_wrongly(root: Caller) -> None:
    """Requests that are refused."""
    for path, body in (
        ("/v1/responses", {"input": "Who?", "model": word("wrong model"), "store": False}),
        ("/v1/responses", {"input": {"a": word("wrong input")}, "store": False}),
        ("/v1/responses", {"input": "Who?", "previous_response_id": word("wrong previous"), "store": False}),
        ("/v1/chat/completions", {"messages": [{"role": word("wrong role"), "content": word("wrong message")}]}),
        ("/v1/responses", {"input": f"{word('surrogate')} \ud800", "store": False}),
    ):
        assert 400 <= root.call("POST", path, content=json.dumps(body)).status_code < 500
    assert root.call("POST", "/v1/responses", content=f'{{"input": "{word("cut body")}').status_code == 400
    assert root.call("GET", f"/v1/responses/{word('unknown id')}").status_code == 404
    assert root.call("GET", f"/{word('unknown path')}").status_code == 404
    assert Caller(root.url, f"ragq-{word('wrong key')}").call("GET", "/v1/files").status_code == 401


def run_batch(root: Caller) -> None:
    """A batch of chat completions, which are not stored; its files are deleted at the end, since they are the client's own."""
    bad = {"messages": [{"role": "user", "content": f"{word('bad line')} {FAILURES['refused']}"}]}
    lines = [
        {"custom_id": word(f"custom {'ab'[n]}"), "method": "POST", "url": "/v1/chat/completions", "body": body}
        for n, body in enumerate((chat_fields("batch"), bad))
    ]
    content = "\n".join(json.dumps(line) for line in lines).encode()
    uploaded = root.call(
        "POST", "/v1/files", files={"file": ("in.jsonl", io.BytesIO(content))}, data={"purpose": "batch"}
    )
    input_id = uploaded.json()["id"]
    body = {"input_file_id": input_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    batch_id = root.post("/v1/batches", body)["id"]
    batch = wait_until(
        lambda: (found := root.call("GET", f"/v1/batches/{batch_id}").json())["status"] == "completed" and found,
        seconds=60,
    )
    output = root.call("GET", f"/v1/files/{batch['output_file_id']}/content").text
    assert word("batch answer") in output
    for file_id in {input_id, batch["output_file_id"], batch["error_file_id"]} - {None}:
        assert root.call("DELETE", f"/v1/files/{file_id}").status_code == 200


def store_what_lasts(root: Caller) -> None:
    """Documents, stores, conversations, answers and webhooks: what is kept, but must not be logged."""

    def of(place: str) -> str:
        return word(place, STORED)

    text = f"# {of('heading')}\n\nThe lighthouse of {of('document')} is 61 metres tall.\n".encode()
    for name, content in (
        (of("file name") + ".md", text),
        (of("damaged") + ".pdf", b"%PDF-1.4 " + of("broken").encode()),
    ):
        files = {"file": (name, io.BytesIO(content))}
        file_id = root.call("POST", "/v1/files", files=files, data={"purpose": "assistants"}).json()["id"]
        body = {"file_id": file_id, "attributes": {of("attribute"): of("attribute value")}}
        root.post("/v1/vector_stores/default/files", body)
        where = f"/v1/vector_stores/default/files/{file_id}"
        wait_until(lambda: root.call("GET", where).json()["status"] != "in_progress", seconds=60)  # noqa: B023
    store = {"name": of("store"), "description": of("description"), "metadata": {of("store key"): of("store value")}}
    root.post("/v1/vector_stores", store)
    root.post(
        "/v1/webhook_endpoints", {"url": f"http://127.0.0.1:9/hook?token={of('webhook')}", "description": of("hook")}
    )
    items = [{"type": "message", "role": "user", "content": of("item")}]
    conversation = root.post("/v1/conversations", {"items": items, "metadata": {of("topic"): of("topic value")}})
    stored = {"conversation": conversation["id"]} | response_fields("stored", STORED)
    assert root.post("/v1/responses", stored)["status"] == "completed"
    root.post("/v1/chat/completions", chat_fields("stored chat", STORED) | {"store": True})
    for kind, marker in FAILURES.items():
        root.call("POST", "/v1/responses", json={"input": f"{of(kind)} {marker}"})
    root.call("POST", "/chat", json={"query": of("tutorial")})


def make_keys(root: Caller) -> list[str]:
    made = root.post("/v1/admin/keys", {"name": "a laptop"})
    changed = root.post(f"/v1/admin/keys/{made['id']}/rotate")
    for key in (made["value"], changed["value"]):
        assert Caller(root.url, key).call("GET", "/v1/files").status_code == 200
    return [KEY, made["value"], changed["value"]]


def logs_of(private: Ragq) -> str:
    """What all processes have written, the embedded servers' logs included."""
    return private.log() + "".join(
        path.read_text(errors="replace") for path in sorted((private.folder / "logs").iterdir())
    )


def test_nothing_of_an_unstored_question_is_in_postgresql(private: Ragq, made: list[str]) -> None:
    assert made
    database_url = private.services["database_url"]
    assert rows_with(database_url, UNSTORED) == {}
    assert word("document", STORED) in rows_with(database_url, STORED)["public.chunks"], (
        "the search finds what is there"
    )


def test_what_valkey_has_of_an_unstored_question_is_gone_within_a_minute(private: Ragq, made: list[str]) -> None:
    assert made
    url = private.services["valkey_url"]
    wait_until(lambda: -1 not in valkey_lives(url, UNSTORED).values(), what="every job has ended")
    lives = valkey_lives(url, UNSTORED)
    assert lives
    assert max(lives.values()) <= UNSTORED_SECONDS


@pytest.mark.parametrize("kind", [UNSTORED, STORED], ids=["unstored", "stored"])
def test_logs_metrics_and_the_audit_log_have_no_word_of_anyone(
    private: Ragq, root: Caller, made: list[str], kind: str
) -> None:
    assert made
    written = logs_of(private)
    assert "[debug" in written
    assert "job_failed" in written
    assert set(re.findall(rf".*{kind}.*", written)) == set()
    assert kind not in root.call("GET", "/metrics").text
    assert kind not in root.call("GET", "/status").text
    assert kind not in root.call("GET", "/v1/admin/audit_log?limit=100").text


def test_no_key_is_anywhere_in_clear(private: Ragq, made: list[str]) -> None:
    files = [path for path in private.folder.rglob("*") if path.is_file()]
    assert made
    assert files
    for key in made:
        assert rows_with(private.services["database_url"], key) == {}
        assert valkey_lives(private.services["valkey_url"], key) == {}
        assert key not in logs_of(private)
        assert [path for path in files if has(path, key)] == []


def has(path: Path, text: str) -> bool:
    try:
        return text.encode() in path.read_bytes()
    except FileNotFoundError:  # PostgreSQL and Valkey write meanwhile
        return False
