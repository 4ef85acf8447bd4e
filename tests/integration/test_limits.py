"""Limits of tenants and keys: at every door, for all replicas together, and as OpenAI's clients understand them."""

from __future__ import annotations

import io
import itertools
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import openai
import pytest
import redis
from websockets.sync.client import connect

from ragq.accounts.limits import NO_LIMITS, Limits
from ragq.accounts.payer import Payer, paid_by
from ragq.client.rq_client import JobQueue
from ragq.client.valkey_client import ValkeyClient
from ragq.server import PARTS
from tests.queue_steps import enqueue
from tests.servers import KEY, Ragq, stop, wait_until
from tests.tenants import Caller

NUMBERS = itertools.count()
SLOW = "[[fake latency=30]] Which one?"
FRESH_SECONDS = 6.0  # after which every process knows new limits


@pytest.fixture(scope="module")
def root(ragq: Ragq) -> Caller:
    """The operator."""
    return Caller(ragq.url, KEY)


@pytest.fixture(scope="module")
def replica(ragq: Ragq) -> Iterator[str]:
    """Another API process."""
    api, url = ragq.spawn_api()
    yield url
    stop(api)


def make_caller(root: Caller, key_limits: dict[str, Any] | None = None, **limits: Any) -> tuple[str, Caller]:
    """A tenant with limits, and a key of it, which no process knows yet."""
    tenant = f"limited-{next(NUMBERS)}"
    root.post("/v1/admin/tenants", {"id": tenant})
    root.post(f"/v1/admin/tenants/{tenant}/limits", limits)
    body = {"name": "a", "role": "admin", "tenant": tenant, "limits": key_limits or {}}
    return tenant, Caller(root.url, root.post("/v1/admin/keys", body)["value"])


def ask(caller: Caller, text: str = "How tall is it?", **fields: Any) -> httpx2.Response:
    return caller.call("POST", "/v1/responses", json={"model": "ragq", "input": text, **fields})


def error_of(answer: httpx2.Response) -> tuple[int, str, str]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["type"]


# Every door


def call_tool(caller: Caller, tool: str, arguments: dict[str, Any]) -> str:
    """Call a tool of the MCP server; returns the error's text, empty if there is none."""
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
    headers = {
        "Authorization": f"Bearer {caller.key}",
        "Accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2025-06-18",
    }
    answer = httpx2.post(f"{caller.url}/mcp", json=message, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    result = json.loads(answer.text.partition("data: ")[2] or answer.text)["result"]
    return result["content"][0]["text"] if result.get("isError") else ""


def take_turn(caller: Caller) -> str:
    """Ask over a WebSocket; returns the code of the error, empty if there is none."""
    address = caller.url.replace("http", "ws", 1) + "/v1/responses"
    with connect(address, additional_headers={"Authorization": f"Bearer {caller.key}"}) as socket:
        socket.send(json.dumps({"type": "response.create", "model": "ragq", "input": "How tall?"}))
        event = json.loads(socket.recv())
    return str(event["error"]["code"]) if event["type"] == "error" else ""


def posts(path: str, **options: Any) -> Callable[[Caller], str]:
    def post(caller: Caller) -> str:
        answer = caller.call("POST", path, **options)
        return "" if answer.status_code == 200 else str(answer.json()["error"]["code"])

    return post


MESSAGES = [{"role": "user", "content": "How tall?"}]
QUESTION_DOORS: dict[str, Callable[[Caller], str]] = {
    "/chat": posts("/chat", json={"query": "How tall?"}),
    "/v1/responses": posts("/v1/responses", json={"input": "How tall?"}),
    "/v1/responses in the background": posts("/v1/responses", json={"input": "How tall?", "background": True}),
    "/v1/responses as a stream": posts("/v1/responses", json={"input": "How tall?", "stream": True}),
    "/v1/responses, large": posts("/v1/responses", json={"input": 10_000 * "How tall? "}),
    "/v1/responses/compact": posts("/v1/responses/compact", json={"model": "ragq", "input": "How tall?"}),
    "/v1/chat/completions": posts("/v1/chat/completions", json={"model": "ragq", "messages": MESSAGES}),
    "/v1/completions": posts("/v1/completions", json={"model": "ragq", "prompt": "How tall?"}),
    "/v1/embeddings": posts("/v1/embeddings", json={"model": "all-MiniLM-L6-v2", "input": "How tall?"}),
    "/v1/vector_stores/{vector_store_id}/search": posts("/v1/vector_stores/default/search", json={"query": "Tall?"}),
    "/mcp ask": lambda caller: call_tool(caller, "ask", {"question": "How tall?"}),
    "/mcp search": lambda caller: call_tool(caller, "search", {"query": "How tall?"}),
    "WebSocket": take_turn,
}
FILE = {"files": {"file": ("a.md", b"Some text.")}, "data": {"purpose": "assistants"}}
UPLOAD = {"filename": "b.md", "bytes": 10, "purpose": "assistants", "mime_type": "text/markdown"}
DOCUMENT_DOORS: dict[str, Callable[[Caller], str]] = {
    "/v1/files": posts("/v1/files", **FILE),
    "/v1/uploads": posts("/v1/uploads", json=UPLOAD),
    "/mcp add_document": lambda caller: call_tool(caller, "add_document", {"name": "c.md", "text": "Some text."}),
}
BY_OTHER_TESTS = {"/v1/batches", "/v1/uploads/{upload_id}/complete"}
# They neither ask a model nor store a file: what they put into a store is stored already.
NO_DOORS = {
    "/session/sign-out",
    "/session",
    "/v1/responses/input_tokens",
    "/v1/responses/{response_id}/cancel",
    "/v1/responses/{response_id}/feedback",
    "/v1/chat/completions/{completion_id}",
    "/v1/conversations",
    "/v1/conversations/{conversation_id}",
    "/v1/conversations/{conversation_id}/items",
    "/v1/batches/{batch_id}/cancel",
    "/v1/uploads/{upload_id}/parts",
    "/v1/uploads/{upload_id}/cancel",
    "/v1/vector_stores",
    "/v1/vector_stores/{vector_store_id}",
    "/v1/vector_stores/{vector_store_id}/files",
    "/v1/vector_stores/{vector_store_id}/files/{file_id}",
    "/v1/vector_stores/{vector_store_id}/file_batches",
    "/v1/vector_stores/{vector_store_id}/file_batches/{batch_id}/cancel",
    "/v1/webhook_endpoints",
}


def test_every_route_that_takes_something_is_known() -> None:
    posted = {
        getattr(route, "path_format", route.path)
        for part in PARTS
        for route in part.router.routes
        if "POST" in (getattr(route, "methods", None) or ())
    }
    tested = {name.split()[0].rstrip(",") for name in (*QUESTION_DOORS, *DOCUMENT_DOORS)} - {"WebSocket"}
    assert {path for path in posted if "/admin/" not in path} == tested | NO_DOORS | BY_OTHER_TESTS


def test_no_door_lets_a_question_past_the_limit_and_none_leaves_anything(ragq: Ragq, root: Caller) -> None:
    tenant, caller = make_caller(root, requests_per_minute=1)
    assert ask(caller).status_code == 200
    before = traces_of(ragq, tenant)
    for name, door in QUESTION_DOORS.items():
        assert "rate_limit_exceeded" in door(caller) or "Rate limit reached" in door(caller), name
    assert traces_of(ragq, tenant) == before


def traces_of(ragq: Ragq, tenant: str) -> tuple[set[bytes], set[str]]:
    """The tenant's jobs in Valkey, and the blobs of large requests."""
    with redis.Redis.from_url(ragq.services["valkey_url"]) as valkey:
        jobs = {key for key in valkey.scan_iter("ragq:job:*") if valkey.hget(key, "tenant") == tenant.encode()}
    return jobs, {path.name for path in ragq.folder.rglob("requests/*")}


def test_no_door_lets_a_document_past_the_limit(root: Caller) -> None:
    _, caller = make_caller(root, documents=0)
    for name, door in DOCUMENT_DOORS.items():
        refusal = door(caller)
        assert "insufficient_quota" in refusal or "may store 0 documents" in refusal, name
    assert caller.call("GET", "/v1/files").json()["data"] == []


def test_a_refused_question_leaves_its_conversation_as_it_was(root: Caller) -> None:
    _, caller = make_caller(root, requests_per_minute=1)
    conversation = caller.post("/v1/conversations")["id"]
    assert ask(caller).status_code == 200
    assert ask(caller, conversation=conversation).status_code == 429
    assert caller.call("GET", f"/v1/conversations/{conversation}/items").json()["data"] == []


def test_the_lines_of_a_batch_count_and_wait(root: Caller) -> None:
    _, caller = make_caller(root, requests_per_minute=2)
    body = {"model": "ragq", "input": "How tall?"}
    lines = [{"custom_id": str(n), "method": "POST", "url": "/v1/responses", "body": body} for n in range(5)]
    sdk = openai.OpenAI(base_url=f"{caller.url}/v1", api_key=caller.key, max_retries=0)
    file = sdk.files.create(file=("in.jsonl", io.BytesIO("\n".join(map(json.dumps, lines)).encode())), purpose="batch")
    batch = sdk.batches.create(input_file_id=file.id, endpoint="/v1/responses", completion_window="24h")

    def completed() -> int:
        counts = sdk.batches.retrieve(batch.id).request_counts
        assert counts
        assert counts.failed == 0
        return counts.completed

    wait_until(lambda: completed() == 2, seconds=30)
    assert ask(caller).status_code == 429
    assert completed() == 2
    sdk.batches.cancel(batch.id)


def test_a_large_request_counts_once(root: Caller) -> None:
    _, caller = make_caller(root, requests_per_minute=2)
    many = [f"text {number}" for number in range(200)]  # four jobs
    first = caller.call("POST", "/v1/embeddings", json={"model": "all-MiniLM-L6-v2", "input": many})
    assert first.status_code == 200
    assert first.headers["x-ratelimit-remaining-requests"] == "1"


# Requests a minute


def test_the_headers_say_what_is_left_as_openai_does(root: Caller) -> None:
    _, caller = make_caller(root, {"requests_per_minute": 3}, requests_per_minute=30, tokens_per_day=1_000_000)
    first, second = ask(caller), ask(caller)
    assert first.headers["x-ratelimit-limit-requests"] == "3"
    assert [one.headers["x-ratelimit-remaining-requests"] for one in (first, second)] == ["2", "1"]
    assert first.headers["x-ratelimit-reset-requests"] == "20s"
    assert first.headers["x-ratelimit-limit-tokens"] == "1000000"
    used = 1_000_000 - int(second.headers["x-ratelimit-remaining-tokens"])
    assert used == first.json()["usage"]["total_tokens"]
    assert not [name for name in caller.call("GET", "/v1/models").headers if name.startswith("x-ratelimit")]


def test_without_limits_there_are_no_headers_and_no_keys(ragq: Ragq, root: Caller) -> None:
    tenant, caller = make_caller(root)
    for one in (ask(caller), ask(root)):
        assert one.status_code == 200
        assert not [name for name in one.headers if name.startswith("x-ratelimit")]
    with redis.Redis.from_url(ragq.services["valkey_url"]) as valkey:
        assert not list(valkey.scan_iter(f"ragq:limit:*{tenant}"))


def test_replicas_share_one_count(root: Caller, replica: str) -> None:
    _, caller = make_caller(root, requests_per_minute=20)
    doors = [caller, Caller(replica, caller.key)]

    def try_it(number: int) -> int:
        return ask(doors[number % 2], background=True).status_code

    started = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        codes = list(pool.map(try_it, range(60)))
    assert set(codes) == {200, 429}
    assert 20 <= codes.count(200) <= 20 + 1 + (time.monotonic() - started) / 3


def test_openais_client_waits_as_it_is_told(root: Caller) -> None:
    _, caller = make_caller(root, requests_per_minute=30)
    for _ in range(30):
        assert ask(caller, background=True).status_code == 200
    refused = ask(caller)
    assert error_of(refused) == (429, "rate_limit_exceeded", "rate_limit_error")
    assert 0 < int(refused.headers["retry-after-ms"]) <= 2000
    with openai.OpenAI(base_url=f"{caller.url}/v1", api_key=caller.key, max_retries=1) as sdk:
        assert sdk.responses.create(model="ragq", input="How tall?").output_text
    with (
        openai.OpenAI(base_url=f"{caller.url}/v1", api_key=caller.key, max_retries=0) as sdk,
        pytest.raises(openai.RateLimitError, match="30 requests a minute"),
    ):
        sdk.responses.create(model="ragq", input="How tall?")


def test_a_repeat_is_not_counted(root: Caller) -> None:
    _, caller = make_caller(root, requests_per_minute=1)
    headers = {"Authorization": f"Bearer {caller.key}", "Idempotency-Key": "one"}
    ids = [
        httpx2.post(f"{caller.url}/v1/responses", json={"input": "How tall?"}, headers=headers, timeout=60).json()["id"]
        for _ in range(3)
    ]
    assert len(set(ids)) == 1


@pytest.mark.parametrize("limits", [NO_LIMITS, Limits(requests_per_minute=1000, queued=1000, tokens_per_day=1000)])
async def test_an_accept_is_one_command_for_valkey_with_limits_and_without(
    queue: JobQueue, monkeypatch: pytest.MonkeyPatch, limits: Limits
) -> None:
    await enqueue(queue, "first")  # which loads the script
    sent, send = [], ValkeyClient.call

    async def call(client: ValkeyClient, *command: Any) -> Any:
        sent.append(command[0])
        return await send(client, *command)

    monkeypatch.setattr(ValkeyClient, "call", call)
    for number in range(10):
        with paid_by(Payer("default", "key_1", limits)):
            assert await enqueue(queue, f"j{number}")
    assert sent == ["EVALSHA"] * 10


# Questions queued


def test_so_many_questions_are_queued_at_once_and_each_end_makes_room(root: Caller) -> None:
    _, caller = make_caller(root, queued=3)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(caller, SLOW, background=True), range(8)))
    taken = [one.json()["id"] for one in answers if one.status_code == 200]
    assert len(taken) == 3
    refused = next(one for one in answers if one.status_code == 429)
    assert "3 questions queued at once" in refused.text
    assert float(refused.headers["retry-after-ms"]) >= 1000
    assert caller.call("POST", f"/v1/responses/{taken[0]}/cancel").status_code == 200
    assert caller.call("DELETE", f"/v1/responses/{taken[1]}").status_code == 200
    left = [ask(caller, SLOW, background=True).status_code for _ in range(3)]
    assert left == [200, 200, 429]


def test_an_answered_question_is_not_queued_any_more(root: Caller) -> None:
    _, caller = make_caller(root, queued=1)
    assert [ask(caller).status_code for _ in range(3)] == [200, 200, 200]
    failed = ask(caller, "[[fake status=400]] Which?")
    assert failed.json()["status"] == "failed"
    assert ask(caller).status_code == 200


# Tokens


def test_tokens_of_a_day_end_with_the_day(root: Caller) -> None:
    _, caller = make_caller(root, {"tokens_per_day": 10}, tokens_per_day=1_000_000)
    assert ask(caller).status_code == 200
    refused = ask(caller)
    assert error_of(refused)[:2] == (429, "rate_limit_exceeded")
    assert "for this key: 10 tokens a day" in refused.text
    day_left = 86_400 - time.time() % 86_400
    assert abs(int(refused.headers["retry-after"]) - day_left) < 10
    assert refused.headers["x-should-retry"] == "false"
    assert refused.headers["x-ratelimit-remaining-tokens"] == "0"
    assert caller.call("POST", "/v1/vector_stores/default/search", json={"query": "Tall?"}).status_code == 200


def test_openais_client_does_not_try_again_in_vain(root: Caller) -> None:
    _, caller = make_caller(root, tokens_per_day=1)
    assert ask(caller).status_code == 200
    answers: list[int] = []
    http_client = openai.DefaultHttpxClient(event_hooks={"response": [lambda one: answers.append(one.status_code)]})
    with (
        openai.OpenAI(base_url=f"{caller.url}/v1", api_key=caller.key, max_retries=2, http_client=http_client) as sdk,
        pytest.raises(openai.RateLimitError, match="1 tokens a day"),
    ):
        sdk.responses.create(model="ragq", input="How tall?")
    assert answers == [429]


def test_a_new_limit_of_tokens_counts_what_the_day_has_used(root: Caller) -> None:
    tenant, caller = make_caller(root)
    used = ask(caller).json()["usage"]["total_tokens"]
    wait_until(lambda: tokens_of(root, tenant) == used)
    root.post(f"/v1/admin/tenants/{tenant}/limits", {"tokens_per_day": used})
    wait_until(lambda: ask(caller).status_code == 429, seconds=FRESH_SECONDS)
    assert "tokens" in ask(caller).json()["error"]["message"]


def tokens_of(root: Caller, tenant: str) -> int:
    buckets = root.call("GET", f"/v1/admin/usage?tenant={tenant}").json()["data"]
    return sum(one["input_tokens"] + one["output_tokens"] for bucket in buckets for one in bucket["results"])


# Storage


def test_documents_and_bytes_are_limited_also_when_they_come_at_once(root: Caller) -> None:
    _, caller = make_caller(root, documents=3, bytes=1000)

    def put(number: int, text: bytes = b"A short text.") -> httpx2.Response:
        form = {"files": {"file": (f"{number}.md", text)}, "data": {"purpose": "assistants"}}
        return caller.call("POST", "/v1/files", **form)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(put, range(8)))
    kept = [one.json()["id"] for one in answers if one.status_code == 200]
    assert len(kept) == 3
    refused = next(one for one in answers if one.status_code == 429)
    assert error_of(refused) == (429, "insufficient_quota", "insufficient_quota")
    assert "retry-after" not in refused.headers
    assert refused.headers["x-should-retry"] == "false"
    same = next(number for number, one in enumerate(answers) if one.status_code == 200)
    assert put(same).status_code == 200  # it is there already
    assert caller.call("DELETE", f"/v1/files/{kept[0]}").status_code == 200
    assert put(9, 1000 * b"x").status_code == 429
    assert put(9).status_code == 200


def test_begun_uploads_count_and_become_files_within_the_limit(root: Caller) -> None:
    _, caller = make_caller(root, documents=1)
    upload = caller.post("/v1/uploads", UPLOAD)["id"]
    assert caller.call("POST", "/v1/files", **FILE).status_code == 429
    part = caller.call("POST", f"/v1/uploads/{upload}/parts", files={"data": ("part", b"Ten bytes.")}).json()["id"]
    assert caller.call("POST", f"/v1/uploads/{upload}/complete", json={"part_ids": [part]}).status_code == 200
    assert caller.call("POST", "/v1/files", **FILE).status_code == 429


# Who sets them


def test_an_admin_sets_limits_of_its_keys_and_only_the_operator_those_of_tenants(root: Caller) -> None:
    tenant, caller = make_caller(root, requests_per_minute=5)
    key_id = caller.call("GET", "/v1/admin/keys").json()["data"][0]["id"]
    caller.post(f"/v1/admin/keys/{key_id}/limits", {"requests_per_minute": 100, "queued": 7})
    caller.post(f"/v1/admin/keys/{key_id}/limits", {"requests_per_minute": None})
    shown = caller.call("GET", "/v1/admin/limits").json()
    assert shown["requests_per_minute"] == 5
    assert shown["keys"] == {key_id: {"requests_per_minute": None, "queued": 7, "tokens_per_day": None}}
    assert caller.call("POST", f"/v1/admin/tenants/{tenant}/limits", json={"queued": None}).status_code == 403
    assert root.call("POST", "/v1/admin/tenants/nobody/limits", json={}).status_code == 404
    bad = root.call("POST", f"/v1/admin/tenants/{tenant}/limits", json={"requests_per_minute": 0})
    assert bad.json()["error"]["param"] == "requests_per_minute"


def test_a_higher_limit_of_a_key_gives_nothing_more_than_its_tenants(root: Caller) -> None:
    _, caller = make_caller(root, {"requests_per_minute": 100}, requests_per_minute=1)
    assert [ask(caller).status_code for _ in range(2)] == [200, 429]


@pytest.mark.parametrize("_round", range(5))
def test_changes_at_once_of_limits_or_of_a_key_are_all_kept(root: Caller, _round: int) -> None:
    tenant, caller = make_caller(root)
    key_id = caller.post("/v1/admin/keys", {"name": "b"})["id"]
    store_id = caller.post("/v1/vector_stores", {"name": "a store"})["id"]
    of_tenant: dict[str, Any] = {
        "requests_per_minute": 7000,
        "queued": 7,
        "tokens_per_day": 70,
        "documents": 700,
        "bytes": 7,
    }
    of_key: dict[str, Any] = {"requests_per_minute": 6000, "queued": 6, "tokens_per_day": 60}
    reach: dict[str, Any] = {"vector_store_ids": [store_id], "groups": ["staff"]}
    changes = [(root, f"/v1/admin/tenants/{tenant}/limits", {name: value}) for name, value in of_tenant.items()]
    changes += [(caller, f"/v1/admin/keys/{key_id}/limits", {name: value}) for name, value in of_key.items()]
    changes += [(caller, f"/v1/admin/keys/{key_id}", {name: value}) for name, value in reach.items()]
    with ThreadPoolExecutor(len(changes)) as pool:
        list(pool.map(lambda change: change[0].post(change[1], change[2]), changes))
    limits, key = caller.call("GET", "/v1/admin/limits").json(), caller.call("GET", f"/v1/admin/keys/{key_id}").json()
    assert {name: limits[name] for name in of_tenant} == of_tenant
    assert limits["keys"][key_id] == of_key
    assert {name: key[name] for name in reach} == reach
