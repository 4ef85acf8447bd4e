"""Keys that are limited to stores, and documents that have readers: what each caller is shown by each door of the service."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import openai
import pytest
from websockets.sync.client import connect

from ragq.http.callers import FRESH_SECONDS
from tests.servers import Ragq, wait_until
from tests.tenants import SESSION, Caller


@dataclass(frozen=True)
class Document:
    """A document in a store; `found_by` asks for it, and `secret` is only in its text.

    Attributes:
        opened_by: Names of the callers who may read it.
    """

    file_id: str
    store_id: str
    found_by: str
    secret: str
    opened_by: tuple[str, ...]


@pytest.fixture(scope="module")
def stores(root: Caller) -> dict[str, str]:
    """The stores of a tenant, by name."""
    for tenant in ("delta", "maple"):
        root.post("/v1/admin/tenants", {"id": tenant})
    admin = root.with_key(name="x", role="admin", tenant="delta")
    return {name: admin.post("/v1/vector_stores", {"name": name})["id"] for name in ("papers", "plans")}


@pytest.fixture(scope="module")
def callers(root: Caller, stores: dict[str, str]) -> dict[str, Caller]:
    """Callers of the tenant `delta`, and an admin of another one."""
    keys: dict[str, dict[str, Any]] = {
        "admin": {"role": "admin"},
        "lawyer": {"groups": ["legal", "staff"]},
        "clerk": {"groups": ["staff"]},
        "guest": {"vector_store_ids": [stores["papers"]]},
        "stranger": {"role": "admin", "tenant": "maple"},
    }
    made = {name: root.post("/v1/admin/keys", {"name": name, "tenant": "delta"} | key) for name, key in keys.items()}
    return {name: Caller(root.url, key["value"]) for name, key in made.items()}


@pytest.fixture(scope="module")
def documents(callers: dict[str, Caller], stores: dict[str, str]) -> dict[str, Document]:
    """An open document in each of two stores, and one with readers."""
    members = ("admin", "lawyer", "clerk")
    return {
        "open": put(callers["lawyer"], stores["papers"], "Quorra", "61 metres", (*members, "guest")),
        "restricted": put(
            callers["lawyer"], stores["papers"], "Brandt", "9,000 ducats", members[:2], readers=["legal"]
        ),
        "elsewhere": put(callers["admin"], stores["plans"], "Mirabel", "seven arches", members),
    }


def put(caller: Caller, store: str, name: str, secret: str, opened_by: tuple[str, ...], **how: Any) -> Document:
    """Put a document into a store, and wait until it can be searched."""
    text = f"The ledger of {name} names {secret}.\n".encode()
    file = caller.call("POST", "/v1/files", files={"file": (f"{name}.md", text)}, data={"purpose": "assistants"}).json()
    caller.post(f"/v1/vector_stores/{store}/files", {"file_id": file["id"], **how})
    path = f"/v1/vector_stores/{store}/files/{file['id']}"
    wait_until(lambda: caller.call("GET", path).json()["status"] == "completed", what="it is ingested")
    return Document(file["id"], store, f"What does the ledger of {name} name?", secret, opened_by)


def over_mcp(caller: Caller, document: Document, tool: str, **arguments: Any) -> str:
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
    headers = {"Accept": "application/json, text/event-stream", "Authorization": f"Bearer {caller.key}"}
    path = f"{caller.url}/mcp?vector_store_id={document.store_id}"
    return SESSION.post(path, json=message, headers=headers).text


def over_websocket(caller: Caller, document: Document) -> str:
    address = caller.url.replace("http", "ws") + "/v1/responses"
    with connect(address, additional_headers={"Authorization": f"Bearer {caller.key}"}) as socket:
        socket.send(
            json.dumps({"type": "response.create", "model": "ragq", "input": document.found_by, **in_store(document)})
        )
        messages = [str(socket.recv())]
        while json.loads(messages[-1])["type"] not in ("response.completed", "error"):
            messages.append(str(socket.recv()))
    return "".join(messages)


def in_store(document: Document) -> dict[str, Any]:
    return {
        "tools": [{"type": "file_search", "vector_store_ids": [document.store_id]}],
        "include": ["file_search_call.results"],
    }


def with_file(document: Document) -> list[Any]:
    parts = [{"type": "input_file", "file_id": document.file_id}, {"type": "input_text", "text": document.found_by}]
    return [{"role": "user", "content": parts}]


def of_batch(caller: Caller, document: Document) -> str:
    """Answer a question by a batch; returns its output."""
    sdk = openai.OpenAI(base_url=f"{caller.url}/v1", api_key=caller.key, max_retries=0)
    body = {"model": "ragq", "input": document.found_by, **in_store(document)}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": body}
    file = sdk.files.create(file=("in.jsonl", json.dumps(line).encode()), purpose="batch")
    made = sdk.batches.create(input_file_id=file.id, endpoint="/v1/responses", completion_window="24h")
    wait_until(lambda: sdk.batches.retrieve(made.id).status == "completed", what="it ends")
    return sdk.files.content(sdk.batches.retrieve(made.id).output_file_id or "").text


def get(path: str) -> Callable[[Caller, Document], str]:
    def call(caller: Caller, document: Document) -> str:
        return caller.call("GET", path.format(file=document.file_id, store=document.store_id)).text

    return call


def post(path: str, body: Callable[[Document], dict[str, Any]]) -> Callable[[Caller, Document], str]:
    def call(caller: Caller, document: Document) -> str:
        return caller.call("POST", path.format(store=document.store_id), json=body(document)).text

    return call


IN_STORE = "/v1/vector_stores/{store}/files/{file}"
CONTENT: dict[
    str, Callable[[Caller, Document], str]
] = {  # what each shows has the document's secret, or it is not shown
    "download": get("/v1/files/{file}/content"),
    "passage": get("/v1/files/{file}/passage?start=0&end=99"),
    "text": get(IN_STORE + "/content"),
    "search": post("/v1/vector_stores/{store}/search", lambda one: {"query": one.found_by}),
    "response": post("/v1/responses", lambda one: {"model": "ragq", "input": one.found_by, **in_store(one)}),
    "response with the file": post("/v1/responses", lambda one: {"model": "ragq", "input": with_file(one)}),
    "chat completion": post(
        "/v1/chat/completions",
        lambda one: {
            "model": "ragq",
            "messages": [{"role": "user", "content": one.found_by}],
            "vector_store_ids": [one.store_id],
        },
    ),
    "websocket": over_websocket,
    "batch": of_batch,
    "MCP fetch": lambda caller, one: over_mcp(caller, one, "fetch", id=one.file_id),
    "MCP ask": lambda caller, one: over_mcp(caller, one, "ask", question=one.found_by),
}
NAMES: dict[str, Callable[[Caller, Document], str]] = {  # the same, with the file's id
    "file": get("/v1/files/{file}"),
    "files": get("/v1/files"),
    "document": get(IN_STORE),
    "documents": get("/v1/vector_stores/{store}/files"),
    "MCP search": lambda caller, one: over_mcp(caller, one, "search", query=one.found_by),
    "MCP list": lambda caller, one: over_mcp(caller, one, "list_documents"),
}
CALLERS = ("admin", "lawyer", "clerk", "guest", "stranger")
DOCUMENTS = ("open", "restricted", "elsewhere")


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("who", CALLERS)
@pytest.mark.parametrize("door", [*CONTENT, *NAMES])
def test_each_door_shows_a_document_to_its_readers_alone(
    callers: dict[str, Caller], documents: dict[str, Document], door: str, who: str, name: str
) -> None:
    document = documents[name]
    if door in CONTENT:
        is_shown = document.secret in CONTENT[door](callers[who], document)
    else:
        shown = NAMES[door](callers[who], document)
        is_shown = f'"{document.file_id}"' in shown.replace("\\", "") and "No " not in shown
    assert is_shown is (who in document.opened_by)


CHANGES = [
    ("POST", IN_STORE, {"attributes": {"a": "b"}}),
    ("POST", IN_STORE, {"readers": None}),
    ("POST", "/v1/vector_stores/{store}/files", {"file_id": "{file}"}),
    ("POST", "/v1/vector_stores/{store}/file_batches", {"file_ids": ["{file}"]}),
    ("DELETE", IN_STORE, None),
    ("DELETE", "/v1/files/{file}", None),
]


@pytest.mark.parametrize(("method", "path", "body"), CHANGES, ids=str)
def test_what_is_not_shown_is_not_changed_and_is_as_unknown(
    callers: dict[str, Caller], documents: dict[str, Document], method: str, path: str, body: Any
) -> None:
    def answer(caller: Caller, document: Document, file_id: str) -> tuple[int, str]:
        filled = json.loads(json.dumps(body).replace("{file}", file_id))
        found = caller.call(method, path.format(file=file_id, store=document.store_id), json=filled)
        return found.status_code, found.text.replace(file_id, "ID")

    for who, name in (("clerk", "restricted"), ("guest", "restricted"), ("guest", "elsewhere"), ("stranger", "open")):
        document = documents[name]
        refused = answer(callers[who], document, document.file_id)
        assert refused[0] == 404, (who, name)
        assert refused == answer(callers[who], document, "file-" + "0" * 32)
    restricted = callers["admin"].call(
        "GET", IN_STORE.format(file=documents["restricted"].file_id, store=documents["restricted"].store_id)
    )
    assert (restricted.json()["readers"], restricted.json()["attributes"]) == (["legal"], {})


def test_counts_leave_out_what_is_not_shown(
    callers: dict[str, Caller], documents: dict[str, Document], stores: dict[str, str]
) -> None:
    def count(who: str) -> list[int]:
        shown = callers[who].call("GET", "/v1/vector_stores").json()["data"]
        return sorted(store["file_counts"]["total"] for store in shown if store["id"] in stores.values())

    assert documents
    assert {who: count(who) for who in CALLERS} == {
        "admin": [1, 2],
        "lawyer": [1, 2],
        "clerk": [1, 1],
        "guest": [1],
        "stranger": [],
    }


def is_answered(caller: Caller, path: str) -> bool:
    return bool(caller.call("GET", path).json()["result"])


def test_a_question_without_a_store_is_about_the_stores_of_the_key(
    callers: dict[str, Caller], documents: dict[str, Document]
) -> None:
    guest = callers["guest"]
    for name, is_found in (("open", True), ("elsewhere", False)):
        document = documents[name]
        answer = guest.post("/v1/responses", {"model": "ragq", "input": document.found_by})
        assert (document.secret in json.dumps(answer)) is is_found
        path = f"/job-status?job_id={guest.call('POST', '/chat', params={'query': document.found_by}).json()['job_id']}"
        wait_until(partial(is_answered, guest, path), what="it is answered")
        assert (document.secret in guest.call("GET", path).text) is is_found
    assert guest.post("/v1/vector_stores/default/search", {"query": "ledger"})["data"]


def test_a_limited_key_makes_no_store_and_opens_its_own_uploads(callers: dict[str, Caller]) -> None:
    guest = callers["guest"]
    made = guest.call("POST", "/v1/vector_stores", json={"name": "mine"})
    assert (made.status_code, made.json()["error"]["code"]) == (403, "limited_key")
    own = guest.call("POST", "/v1/files", files={"file": ("own.md", b"Mine.")}, data={"purpose": "assistants"}).json()
    assert guest.call("GET", f"/v1/files/{own['id']}").status_code == 200
    assert callers["clerk"].call("GET", f"/v1/files/{own['id']}").status_code == 404
    assert callers["admin"].call("DELETE", f"/v1/files/{own['id']}").status_code == 200


def make_answers(caller: Caller, question: str) -> list[str]:
    """Make an answer of each kind; returns the paths that show them."""
    sdk = openai.OpenAI(base_url=f"{caller.url}/v1", api_key=caller.key, max_retries=0)
    conversation = sdk.conversations.create(items=[{"type": "message", "role": "user", "content": question}])
    response = sdk.responses.create(model="ragq", input=question, conversation=conversation.id)
    chat = sdk.chat.completions.create(model="ragq", store=True, messages=[{"role": "user", "content": question}])
    item = sdk.conversations.items.list(conversation.id).data[0].id or ""
    return [
        f"/v1/conversations/{conversation.id}",
        f"/v1/conversations/{conversation.id}/items",
        f"/v1/conversations/{conversation.id}/items/{item}",
        f"/v1/responses/{response.id}",
        f"/v1/responses/{response.id}/input_items",
        f"/job-status?job_id={response.id}",
        f"/v1/chat/completions/{chat.id}",
        f"/v1/chat/completions/{chat.id}/messages",
    ]


def test_answers_are_those_of_the_key_that_asked(callers: dict[str, Caller], documents: dict[str, Document]) -> None:
    paths = make_answers(callers["lawyer"], documents["restricted"].found_by)
    for who, status in (("lawyer", 200), ("admin", 200), ("clerk", 404), ("guest", 404), ("stranger", 404)):
        assert {path: callers[who].call("GET", path).status_code for path in paths} == dict.fromkeys(paths, status), who
    chats = callers["clerk"].call("GET", "/v1/chat/completions").json()["data"]
    assert not [chat for chat in chats if chat["id"] in " ".join(paths)]
    response_id, conversation_id = paths[3].split("/")[-1], paths[0].split("/")[-1]
    for who, sees in (("lawyer", True), ("admin", True), ("clerk", False), ("stranger", False)):
        listed = callers[who].call("GET", "/v1/conversations").json()["data"]
        assert (conversation_id in {one["id"] for one in listed}) is sees, who
    for body in ({"previous_response_id": response_id}, {"conversation": conversation_id}):
        asked = {"model": "ragq", "input": "And what else?", **body}
        assert callers["clerk"].call("POST", "/v1/responses", json=asked).status_code == 404
        assert callers["lawyer"].call("POST", "/v1/responses", json=asked).status_code == 200


def test_a_repeat_of_anothers_request_is_not_answered_with_the_others_answer(
    callers: dict[str, Caller], documents: dict[str, Document]
) -> None:
    document = documents["restricted"]
    asked = {"model": "ragq", "input": document.found_by, **in_store(document)}
    headers = {"Idempotency-Key": "the-same", "x-stainless-retry-count": "1"}
    for sent in (headers, {"x-stainless-retry-count": "1"}):
        for who, is_shown in (("lawyer", True), ("clerk", False)):
            caller = callers[who]
            answer = SESSION.post(
                f"{caller.url}/v1/responses", json=asked, headers={"Authorization": f"Bearer {caller.key}", **sent}
            )
            assert answer.status_code == 200
            assert (document.secret in answer.text) is is_shown


def test_readers_and_groups_change(root: Caller, callers: dict[str, Caller], stores: dict[str, str]) -> None:
    lawyer, clerk = callers["lawyer"], callers["clerk"]
    document = put(lawyer, stores["papers"], "Oriel", "a brass key", ("admin", "lawyer"), readers=["legal"])
    path, search = IN_STORE.format(file=document.file_id, store=document.store_id), CONTENT["search"]
    refused = clerk.call(
        "POST", f"/v1/vector_stores/{stores['papers']}/files", json={"file_id": "x", "readers": ["legal"]}
    )
    assert refused.json()["error"]["code"] == "not_among_readers"
    assert lawyer.post(path, {"readers": ["staff", "legal"]})["readers"] == ["legal", "staff"]
    assert document.secret in search(clerk, document)
    lawyer.post(path, {"readers": ["legal"]})
    assert document.secret not in search(clerk, document)
    made = root.post("/v1/admin/keys", {"name": "temp", "tenant": "delta", "groups": ["legal"]})
    temp = Caller(root.url, made["value"])
    assert document.secret in search(temp, document)
    told = temp.post("/v1/responses", {"model": "ragq", "input": document.found_by, **in_store(document)})
    changed = root.post(f"/v1/admin/keys/{made['id']}?tenant=delta", {"groups": []})
    assert (changed["groups"], changed["vector_store_ids"]) == ([], None)
    time.sleep(FRESH_SECONDS)
    assert document.secret not in search(temp, document)
    assert document.secret in temp.call("GET", f"/v1/responses/{told['id']}").text, "what was told stays told"
    assert document.secret not in CONTENT["passage"](temp, document), "but the citation opens nothing"
    root.post(f"/v1/admin/keys/{made['id']}?tenant=delta", {"vector_store_ids": [stores["plans"]]})
    wait_until(lambda: temp.call("GET", path).status_code == 404, seconds=2 * FRESH_SECONDS, what="it is limited")


def test_a_batch_of_files_shows_and_counts_those_that_may_be_read(
    callers: dict[str, Caller], stores: dict[str, str]
) -> None:
    lawyer, ids = callers["lawyer"], []
    for name in ("one", "two", "three"):
        upload = {"file": (f"{name}.md", f"The ledger {name}.".encode())}
        ids.append(lawyer.call("POST", "/v1/files", files=upload, data={"purpose": "assistants"}).json()["id"])
    files = [{"file_id": ids[0]}, {"file_id": ids[1], "readers": ["legal"]}, {"file_id": ids[2], "readers": ["staff"]}]
    batch = lawyer.post(f"/v1/vector_stores/{stores['plans']}/file_batches", {"files": files})
    path = f"/v1/vector_stores/{stores['plans']}/file_batches/{batch['id']}"
    for who, seen in (("lawyer", ids), ("clerk", [ids[0], ids[2]])):
        assert callers[who].call("GET", path).json()["file_counts"]["total"] == len(seen)
        assert {one["id"] for one in callers[who].call("GET", f"{path}/files").json()["data"]} == set(seen)
    alike = lawyer.post(
        f"/v1/vector_stores/{stores['plans']}/file_batches", {"file_ids": ids[:1], "readers": ["legal"]}
    )
    assert callers["clerk"].call("GET", f"/v1/files/{ids[0]}").status_code == 404
    assert callers["clerk"].call("GET", path.replace(batch["id"], alike["id"])).json()["file_counts"]["total"] == 0


def test_deleting_a_file_takes_it_out_of_the_stores_that_are_seen(
    callers: dict[str, Caller], stores: dict[str, str]
) -> None:
    admin, guest = callers["admin"], callers["guest"]
    document = put(admin, stores["papers"], "Wren", "a silver bell", ())
    admin.post(f"/v1/vector_stores/{stores['plans']}/files", {"file_id": document.file_id})
    made = guest.call("DELETE", f"/v1/files/{document.file_id}")
    assert made.json()["deleted"]
    assert guest.call("GET", f"/v1/files/{document.file_id}").status_code == 404
    assert admin.call("GET", IN_STORE.format(store=stores["papers"], file=document.file_id)).status_code == 404
    assert admin.call("GET", IN_STORE.format(store=stores["plans"], file=document.file_id)).status_code == 200


def test_a_file_that_replaces_another_gets_its_readers(callers: dict[str, Caller], stores: dict[str, str]) -> None:
    lawyer, clerk, store = callers["lawyer"], callers["clerk"], stores["plans"]
    put(lawyer, store, "Tamsin", "the first will", ("lawyer",), readers=["legal"])

    def replace(caller: Caller, secret: str) -> Document:
        upload = {"file": ("Tamsin.md", f"The ledger of Tamsin names {secret}.".encode())}
        file = caller.call("POST", "/v1/files", files=upload, data={"purpose": "assistants"}).json()
        shown = caller.post(f"/v1/vector_stores/{store}/files", {"file_id": file["id"], "replace_same_name": True})
        path = f"/v1/vector_stores/{store}/files/{file['id']}"
        wait_until(lambda: caller.call("GET", path).json()["status"] == "completed", what="it is ingested")
        return Document(
            file["id"], store, "What does the ledger of Tamsin name?", secret, tuple(shown["readers"] or ())
        )

    by_clerk = replace(clerk, "a forgery")
    assert by_clerk.opened_by == ()
    shown = CONTENT["search"](lawyer, by_clerk)
    assert "the first will" in shown, "one who cannot read a document does not replace it"
    by_lawyer = replace(lawyer, "the last will")
    assert by_lawyer.opened_by == ("legal",)
    shown = CONTENT["search"](lawyer, by_lawyer)
    assert "the last will" in shown
    assert "the first will" not in shown
    assert "will" not in CONTENT["search"](clerk, by_lawyer).replace("a forgery", "")


def test_what_is_ingested_with_readers_is_theirs(plain_ragq: Ragq, callers: dict[str, Caller], tmp_path: Path) -> None:
    (tmp_path / "charter.md").write_text("The ledger of Sorrel names a stone heron.\n")
    admin = callers["admin"]
    command = ("ingest", str(tmp_path), "--readers", "legal, board", "--url", admin.url)
    done = plain_ragq.run(*command, RAGQ_API_KEY=admin.key)
    assert done.returncode == 0, done.stderr
    shown = {
        who: callers[who].call("GET", "/v1/vector_stores/default/files").json()["data"] for who in ("lawyer", "clerk")
    }
    assert [one["readers"] for one in shown["lawyer"]] == [["board", "legal"]]
    assert shown["clerk"] == []


def test_an_admins_key_is_not_limited(root: Caller, stores: dict[str, str]) -> None:
    for reach in ({"groups": ["legal"]}, {"vector_store_ids": [stores["papers"]]}):
        made = root.call("POST", "/v1/admin/keys", json={"name": "x", "role": "admin", "tenant": "delta", **reach})
        assert made.status_code == 400
    unknown = {"name": "x", "tenant": "maple", "vector_store_ids": [stores["papers"]]}
    assert root.call("POST", "/v1/admin/keys", json=unknown).status_code == 404
