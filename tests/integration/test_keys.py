"""API keys that were made, their roles, and tenants: what each may do, and that nothing leads from one to another."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import httpx2
import pytest
import redis
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from ragq.accounts.roles import Role
from ragq.http.access import SESSION_ROUTES
from ragq.http.callers import FRESH_SECONDS
from ragq.http.openapi import find_role
from ragq.server import PARTS
from tests.servers import KEY, Ragq, wait_until
from tests.tenants import SECRET, SESSION, Caller, make_objects

UNKNOWN = "0" * 32
OPEN = {"/", "/console", "/web/{name}", *SESSION_ROUTES, "/healthz", "/readyz"}  # to those without a key
OPERATORS = re.compile(r"/(tenants|queues|workers|poison)/")  # of no tenant, or of all
WEBSOCKET = "WS"


@pytest.fixture(scope="module")
def callers(root: Caller) -> dict[str, Caller]:
    """An admin of each of two tenants, and each role of the second."""
    made = {}
    for tenant, role in (("acme", "admin"), ("birch", "admin"), ("birch", "user"), ("birch", "reader")):
        if root.call("GET", f"/v1/admin/tenants/{tenant}").status_code == 404:
            root.post("/v1/admin/tenants", {"id": tenant})
        key = root.post("/v1/admin/keys", {"name": f"of {tenant}", "role": role, "tenant": tenant})
        made[f"{tenant} {role}"] = Caller(root.url, key["value"])
    return made


@pytest.fixture(scope="module")
def acme(callers: dict[str, Caller]) -> Caller:
    return callers["acme admin"]


@pytest.fixture(scope="module")
def ids(acme: Caller) -> dict[str, str]:
    """An object of each kind that acme has, by the names of the routes' parameters."""
    return make_objects(acme)


BODIES: dict[str, dict[str, Any]] = {  # of the routes that need one
    "/v1/vector_stores/{vector_store_id}": {"json": {"name": "another"}},
    "/v1/vector_stores/{vector_store_id}/files": {"json": {"file_id": "file-1"}},
    "/v1/vector_stores/{vector_store_id}/file_batches": {"json": {"file_ids": ["file-1"]}},
    "/v1/vector_stores/{vector_store_id}/search": {"json": {"query": "How tall?"}},
    "/v1/vector_stores/{vector_store_id}/files/{file_id}": {"json": {"attributes": {"a": "b"}}},
    "/v1/conversations/{conversation_id}": {"json": {"metadata": {"a": "b"}}},
    "/v1/conversations/{conversation_id}/items": {
        "json": {"items": [{"type": "message", "role": "user", "content": "Hello"}]}
    },
    "/v1/chat/completions/{completion_id}": {"json": {"metadata": {"a": "b"}}},
    "/v1/responses/{response_id}/feedback": {"json": {"rating": "up"}},
    "/v1/admin/keys/{key_id}/limits": {"json": {"queued": 5}},
    "/v1/admin/keys/{key_id}": {"json": {"groups": ["a"]}},
    "/v1/admin/vector_stores/{vector_store_id}/shares": {"json": {"tenant": "cedar"}},
    "/v1/uploads/{upload_id}/parts": {"files": {"data": ("part", b"abc")}},
    "/v1/uploads/{upload_id}/complete": {"json": {"part_ids": ["part_1"]}},
}
QUERIES = {"/v1/files/{file_id}/passage": "?start=0&end=5", "/v1/files/{file_id}/passage/page": "?start=0&end=5"}


def operations() -> list[tuple[str, str]]:
    """Each route, as method and path."""
    return [
        (method, route.path_format if hasattr(route, "path_format") else route.path)
        for part in PARTS
        for route in part.router.routes
        for method in getattr(route, "methods", None) or [WEBSOCKET]
    ]


def fill(path: str, ids: dict[str, str], *, unknown: bool = False) -> str:
    """Put ids into a path; unknown ones have the same form."""

    def find(match: re.Match[str]) -> str:
        name = match[1]
        known = ids.get(f"vector_store_id {name}" if "vector_store_id" in path else name) or ids[name]
        return re.sub(r"[0-9a-f]{32}$", UNKNOWN, known) if unknown else known

    return re.sub(r"\{(\w+)\}", find, path)


def ask_for(caller: Caller, method: str, path: str, ids: dict[str, str], **given: bool) -> tuple[int, str]:
    """Call a route with ids in its path; returns the status, and the body without ids."""
    body = BODIES.get(path, {}) if method == "POST" else {}
    answer = caller.call(method, fill(path, ids, **given) + QUERIES.get(path, ""), **body)
    return answer.status_code, re.sub(r"[0-9a-f]{32}", "ID", answer.text)


FOREIGN = [
    (method, path)
    for method, path in operations()
    if "{" in path and path not in OPEN and "{model" not in path and not OPERATORS.search(path)
]


@pytest.mark.parametrize(("method", "path"), FOREIGN, ids=lambda one: one)
def test_another_tenants_ids_are_as_unknown_ones(
    callers: dict[str, Caller], ids: dict[str, str], method: str, path: str
) -> None:
    stranger = callers["birch admin"]
    foreign = ask_for(stranger, method, path, ids)
    assert foreign[0] == 404
    assert foreign == ask_for(stranger, method, path, ids, unknown=True)
    if method == "GET" and not path.endswith("/page"):  # which only a PDF has
        assert ask_for(callers["acme admin"], method, path, ids)[0] == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", {"input": "Who?", "previous_response_id": "{response_id}"}),
        ("/v1/responses", {"input": "Who?", "conversation": "{conversation_id}"}),
        (
            "/v1/responses",
            {"input": "Who?", "tools": [{"type": "file_search", "vector_store_ids": ["{vector_store_id}"]}]},
        ),
        ("/v1/responses", {"input": [{"type": "item_reference", "id": "{item_id}"}]}),
        ("/v1/responses", {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "{file_id}"}]}]}),
        ("/v1/responses/compact", {"model": "ragq", "previous_response_id": "{response_id}"}),
        ("/v1/responses/input_tokens", {"input": "Who?", "conversation": "{conversation_id}"}),
        ("/v1/vector_stores", {"file_ids": ["{file_id}"]}),
        ("/v1/vector_stores/default/files", {"file_id": "{file_id}"}),
        ("/v1/vector_stores/default/file_batches", {"file_ids": ["{file_id}"]}),
        ("/v1/batches", {"input_file_id": "{file_id}", "endpoint": "/v1/responses", "completion_window": "24h"}),
        ("/v1/admin/keys", {"name": "x", "tenant": "{tenant_id}"}),
    ],
    ids=lambda one: one if isinstance(one, str) else next(iter(re.findall(r"\{(\w+)\}", json.dumps(one)))),
)
def test_another_tenants_ids_in_a_body_are_as_unknown_ones(
    callers: dict[str, Caller], ids: dict[str, str], path: str, body: dict[str, Any]
) -> None:
    text = json.dumps(body)

    def answer(caller: Caller, *, unknown: bool) -> tuple[int, str]:
        filled = re.sub(r"\{(\w+)\}", lambda match: fill(match[0], ids, unknown=unknown), text)
        found = caller.call("POST", path, json=json.loads(filled))
        return found.status_code, re.sub(r"[0-9a-f]{32}", "ID", found.text)

    foreign = answer(callers["birch admin"], unknown=False)
    assert foreign[0] in (400, 403, 404)
    assert SECRET not in foreign[1]
    assert foreign == answer(callers["birch admin"], unknown=True)


def test_lists_and_searches_show_a_tenant_its_own_data_alone(callers: dict[str, Caller], ids: dict[str, str]) -> None:
    stranger = callers["birch admin"]
    theirs = [id_ for id_ in ids.values() if "_" in id_ or "-" in id_]
    for path in (
        "files",
        "vector_stores",
        "batches",
        "chat/completions",
        "webhook_endpoints",
        "vector_stores/default/files",
    ):
        shown = stranger.call("GET", f"/v1/{path}")
        assert shown.status_code == 200
        assert not [id_ for id_ in theirs if id_ in shown.text], path
    assert {key["tenant"] for key in stranger.call("GET", "/v1/admin/keys").json()["data"]} == {"birch"}
    stranger.call(
        "POST", "/v1/files", files={"file": ("own.md", b"The dam of Birch holds.")}, data={"purpose": "assistants"}
    )
    found = stranger.post("/v1/vector_stores/default/search", {"query": f"lighthouse {SECRET}"})
    assert SECRET not in json.dumps(found["data"])
    assert stranger.call("GET", f"/job-status?job_id={ids['job_id']}").status_code == 404
    answer = stranger.post("/v1/responses", {"model": "ragq", "input": f"How tall is the lighthouse of {SECRET}?"})
    assert "61" not in json.dumps(answer["output"][-1]["content"])  # which has no id


def test_each_route_declares_the_least_role_for_it() -> None:
    undeclared = {
        getattr(route, "path_format", None) or route.path
        for part in PARTS
        for route in part.router.routes
        if find_role(route) is None
    }
    assert undeclared == OPEN


ROLES = [
    (method, route.path_format if hasattr(route, "path_format") else route.path, role)
    for part in PARTS
    for route in part.router.routes
    if (role := find_role(route)) and "{model" not in getattr(route, "path_format", "")
    for method in getattr(route, "methods", None) or []
]


@pytest.mark.parametrize(("method", "path", "least"), ROLES, ids=str)
def test_a_route_refuses_lower_roles_than_its_own(
    callers: dict[str, Caller], ids: dict[str, str], method: str, path: str, least: Role
) -> None:
    unknown = {name: re.sub(r"[0-9a-f]{32}$", UNKNOWN, id_) for name, id_ in ids.items()} | {"tenant_id": "nobody"}
    for name in ("reader", "user", "admin"):
        answer = callers[f"birch {name}"].call(method, fill(path, unknown), **BODIES.get(path, {}))
        is_refused = answer.status_code == 403
        assert is_refused is (Role(name).rank < least.rank), (name, answer.text)
        if is_refused:
            assert answer.json()["error"]["code"] == "insufficient_role"


def test_a_reader_asks_over_mcp_and_a_websocket_and_adds_nothing(callers: dict[str, Caller]) -> None:
    reader = callers["birch reader"]
    call = {"name": "add_document", "arguments": {"name": "a.md", "text": "Anything"}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
    headers = {"Accept": "application/json, text/event-stream", "Authorization": f"Bearer {reader.key}"}
    answer = SESSION.post(f"{reader.url}/mcp", json=message, headers=headers)
    assert "needs a key with the role 'user'" in answer.text
    address = reader.url.replace("http", "ws") + "/v1/responses"
    with connect(address, additional_headers={"Authorization": f"Bearer {reader.key}"}) as socket:
        socket.send(json.dumps({"type": "response.create", "model": "ragq", "input": "Who?"}))
        assert json.loads(socket.recv())["type"] == "response.created"
    with pytest.raises(InvalidStatus, match="401"):
        connect(address, additional_headers={"Authorization": "Bearer ragq-unknown"})


def test_a_websocket_ends_with_the_key_that_opened_it(callers: dict[str, Caller]) -> None:
    admin = callers["birch admin"]
    key = admin.post("/v1/admin/keys", {"name": "a socket", "role": "reader"})
    question = json.dumps({"type": "response.create", "model": "ragq", "input": "Who?"})
    address = admin.url.replace("http", "ws") + "/v1/responses"
    with connect(address, additional_headers={"Authorization": f"Bearer {key['value']}"}) as socket:
        socket.send(question)
        while json.loads(socket.recv())["type"] != "response.completed":
            pass
        admin.call("DELETE", f"/v1/admin/keys/{key['id']}")
        time.sleep(FRESH_SECONDS)
        socket.send(question)
        assert json.loads(socket.recv())["error"]["code"] == "invalid_api_key"


def test_the_state_of_the_system_is_the_operators(root: Caller, callers: dict[str, Caller]) -> None:
    assert {"queues", "workers"} <= root.call("GET", "/status").json().keys()
    assert callers["acme admin"].call("GET", "/status").json().keys() == {"version", "answers"}
    operator = root.post("/v1/admin/keys", {"name": "an operator", "role": "admin"})
    assert Caller(root.url, operator["value"]).call("GET", "/metrics").status_code == 200


def test_a_key_is_shown_once_rotated_with_a_grace_and_revoked(root: Caller, acme: Caller) -> None:
    made = acme.post("/v1/admin/keys", {"name": "CI", "role": "reader", "expires_in_seconds": 3600})
    old = Caller(root.url, made["value"])
    assert old.call("GET", "/v1/files").status_code == 200
    shown = acme.call("GET", f"/v1/admin/keys/{made['id']}").json()
    assert "value" not in shown
    assert shown["redacted_value"] == f"ragq-…{made['value'][-4:]}"
    assert shown["expires_at"] - shown["created_at"] == 3600
    assert shown["last_used_at"]
    new = Caller(root.url, acme.post(f"/v1/admin/keys/{made['id']}/rotate", {"grace_seconds": 600})["value"])
    time.sleep(FRESH_SECONDS)  # a key that was found is used for so long without asking again
    assert [one.call("GET", "/v1/files").status_code for one in (old, new)] == [200, 200]
    acme.post(f"/v1/admin/keys/{made['id']}/rotate", {"grace_seconds": 0})
    assert acme.call("DELETE", f"/v1/admin/keys/{made['id']}").json()["deleted"]
    wait_until(lambda: new.call("GET", "/v1/files").status_code == 401, seconds=2 * FRESH_SECONDS, what="it is revoked")
    assert old.call("GET", "/v1/files").json()["error"]["code"] == "invalid_api_key"


def test_an_expired_key_opens_nothing(root: Caller, acme: Caller) -> None:
    made = acme.post("/v1/admin/keys", {"name": "short", "expires_in_seconds": 3})
    late = Caller(root.url, made["value"])
    assert late.call("GET", "/v1/files").status_code == 200
    wait_until(lambda: late.call("GET", "/v1/files").status_code == 401, seconds=3 * FRESH_SECONDS, what="it expires")
    assert late.call("GET", "/v1/files").json()["error"]["code"] == "invalid_api_key"


def test_an_admin_makes_no_key_for_another_tenant_and_does_not_lock_itself_out(
    root: Caller, callers: dict[str, Caller], ids: dict[str, str]
) -> None:
    acme = callers["acme admin"]
    for method, path, body in (
        ("POST", "/v1/admin/keys", {"name": "x", "tenant": "birch"}),
        ("GET", "/v1/admin/keys?tenant=birch", None),
        ("DELETE", f"/v1/admin/keys/{ids['key_id']}?tenant=birch", None),
    ):
        answer = acme.call(method, path, json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_role"), path
    own = next(key for key in acme.call("GET", "/v1/admin/keys").json()["data"] if key["name"] == "of acme")
    assert acme.call("DELETE", f"/v1/admin/keys/{own['id']}").json()["error"]["code"] == "own_key"
    assert {key["tenant"] for key in root.call("GET", "/v1/admin/keys?tenant=birch").json()["data"]} == {"birch"}


def test_a_suspended_tenant_is_shut_out_until_it_goes_on(root: Caller) -> None:
    root.post("/v1/admin/tenants", {"id": "cedar"})
    key = root.post("/v1/admin/keys", {"name": "x", "tenant": "cedar"})
    cedar = Caller(root.url, key["value"])
    assert cedar.call("GET", "/v1/files").status_code == 200
    assert root.post("/v1/admin/tenants/cedar/suspend")["status"] == "suspended"
    wait_until(lambda: cedar.call("GET", "/v1/files").status_code == 403, seconds=2 * FRESH_SECONDS, what="suspended")
    assert cedar.call("GET", "/v1/files").json()["error"]["code"] == "tenant_suspended"
    assert root.post("/v1/admin/tenants/cedar/resume")["status"] == "active"
    wait_until(lambda: cedar.call("GET", "/v1/files").status_code == 200, seconds=2 * FRESH_SECONDS, what="resumed")
    assert root.call("POST", "/v1/admin/tenants/default/suspend").status_code == 400
    again = root.call("POST", "/v1/admin/tenants", json={"id": "cedar"})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "tenant_exists")


def test_weights_are_set_kept_and_restored_to_a_valkey_that_lost_them(plain_ragq: Ragq, root: Caller) -> None:
    root.post("/v1/admin/tenants", {"id": "elm"})
    path = "/v1/admin/tenants/elm"
    assert root.post(path, {"weight": 3, "max_running": 7})["max_running"] == 7
    changed = root.post(path, {"weight": 0.5})
    assert (changed["weight"], changed["max_running"]) == (0.5, 7)
    for bad in ({"weight": 0}, {"weight": 101}, {"max_running": 0}):
        assert root.call("POST", path, json=bad).status_code == 400, bad
    assert root.call("POST", "/v1/admin/tenants/nobody", json={"weight": 2}).status_code == 404
    with redis.Redis.from_url(plain_ragq.services["valkey_url"]) as valkey:
        assert valkey.hget("ragq:shares", "elm") == b"0.5:7"
        valkey.delete("ragq:shares")
        wait_until(lambda: valkey.hget("ragq:shares", "elm") == b"0.5:7", seconds=30, what="restored")
        assert root.post(path, {"weight": 1, "max_running": None})["max_running"] is None
        assert valkey.hget("ragq:shares", "elm") is None


def test_a_browsers_session_is_that_of_the_key_which_opened_it(root: Caller, callers: dict[str, Caller]) -> None:
    reader = callers["birch reader"]
    with httpx2.Client(base_url=root.url, headers={"Sec-Fetch-Site": "same-origin"}) as browser:
        nobody = {"is_open": False, "role": None, "tenant": None, "person": None, "sign_in_url": None}
        assert browser.get("/session").json() == {"object": "session", "key_required": True, **nobody}
        assert browser.post("/session", json={"key": reader.key}).status_code == 204
        assert browser.get("/session").json()["is_open"]
        assert browser.get("/v1/files").status_code == 200
        refused = browser.post("/v1/files", files={"file": ("a.md", b"text")}, data={"purpose": "assistants"})
        assert refused.json()["error"]["code"] == "insufficient_role"


def test_the_command_line_makes_tenants_and_keys(plain_ragq: Ragq, root: Caller) -> None:
    def run(*arguments: str, key: str = KEY) -> str:
        done = plain_ragq.run(*arguments, RAGQ_URL=root.url, RAGQ_API_KEY=key)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "Tenant dune is there" in run("tenants", "create", "dune")
    admin = run("keys", "create", "first admin", "--role", "admin", "--tenant", "dune").split()[0]
    user = json.loads(run("keys", "create", "a laptop", "--expires-in-days", "30", "--json", key=admin))
    listed = run("keys", "list", key=admin)
    assert "first admin" in listed
    assert "a laptop" in listed
    assert user["value"] not in listed
    assert run("keys", "rotate", user["id"], "--grace-hours", "0", key=admin).startswith("ragq-")
    assert "is revoked" in run("keys", "revoke", user["id"], key=admin)
    changed = run("tenants", "set", "dune", "--weight", "2.5", "--max-running", "4")
    assert changed == "Tenant dune: weight 2.5, max running 4.\n"
    assert run("tenants", "set", "dune", "--max-running", "0") == "Tenant dune: max running none.\n"
    assert "2.5" in run("tenants", "list")
    assert "is suspended" in run("tenants", "suspend", "dune")
    assert "suspended" in run("tenants", "list")
    assert "goes on" in run("tenants", "resume", "dune")
