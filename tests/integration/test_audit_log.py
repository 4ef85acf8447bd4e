"""The audit log: every route that changes something writes an entry in the change's own transaction, and nothing changes an entry."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import psycopg
import pytest

from ragq.errors import ConflictError, NotFoundError, UnavailableError
from ragq.http.audit import MOST_COUNTED, OTHERS, WRITE_SECONDS, Change, Tally
from ragq.http.callers import FRESH_SECONDS
from ragq.storage.database import Database
from ragq.storage.paging import Page
from ragq.storage.tenancy.api_keys import ApiKeys
from ragq.storage.tenancy.audit_log import ACTIONS, SERVICE, UNCONFIRMED, Actor, AuditLog, Entry, EntryFilter
from ragq.storage.tenancy.tenants import Tenants
from tests.servers import Ragq, wait_until
from tests.tenants import SESSION, TEXT, Caller

# Routes that ask, or change a caller's own questions and answers. Reading, asking and their answers are not in the log.
UNRECORDED = {
    "/chat",
    "/v1/batches",
    "/v1/batches/{batch_id}/cancel",
    "/v1/chat/completions",
    "/v1/chat/completions/{completion_id}",
    "/v1/completions",
    "/v1/conversations",
    "/v1/conversations/{conversation_id}",
    "/v1/conversations/{conversation_id}/items",
    "/v1/conversations/{conversation_id}/items/{item_id}",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/responses/compact",
    "/v1/responses/input_tokens",
    "/v1/responses/{response_id}",
    "/v1/responses/{response_id}/cancel",
    "/v1/responses/{response_id}/feedback",
    "/v1/uploads",  # nothing is there to read before the upload is completed
    "/v1/uploads/{upload_id}/cancel",
    "/v1/uploads/{upload_id}/parts",
    "/v1/vector_stores/{vector_store_id}/search",
    "/session/sign-out",
    "/session",  # it changes no row: its sign-ins are counted
}
NEWEST = Page(limit=100)
ANY = EntryFilter()


@pytest.fixture(scope="module")
def admin(root: Caller) -> Caller:
    """An admin of a tenant of these tests."""
    root.post("/v1/admin/tenants", {"id": "trail"})
    return root.with_key(name="chief", role="admin", tenant="trail")


def entries(caller: Caller, query: str = "") -> list[dict[str, Any]]:
    answer = caller.call("GET", f"/v1/admin/audit_log?limit=100&{query}")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def newest(caller: Caller, action: str, resource_id: str) -> dict[str, Any]:
    found = entries(caller, f"event_types={action}&resource_ids={resource_id}")
    assert found, f"no entry {action} of {resource_id}"
    return found[0]


def upload(caller: Caller, content: bytes = TEXT) -> str:
    files, data = {"file": ("harbour.md", content)}, {"purpose": "assistants"}
    file_id: str = caller.call("POST", "/v1/files", files=files, data=data).json()["id"]
    return file_id


def change_documents(admin: Caller) -> list[tuple[str, str]]:
    """Change documents and stores by every route that does; returns what the log should have, as (action, id)."""
    file_id = upload(admin)
    store_id = admin.post("/v1/vector_stores", {"name": "a"})["id"]
    where = f"/v1/vector_stores/{store_id}"
    admin.post(where, {"name": "b"})
    admin.post(f"{where}/files", {"file_id": file_id})
    admin.post(f"{where}/files/{file_id}", {"attributes": {"a": "b"}})
    batch_id = admin.post(f"{where}/file_batches", {"file_ids": [file_id]})["id"]
    admin.post(f"{where}/file_batches/{batch_id}/cancel")
    assert admin.call("DELETE", f"{where}/files/{file_id}").status_code == 200
    shares = f"/v1/admin/vector_stores/{store_id}/shares"
    admin.post(shares, {"tenant": "trail-2"})
    assert admin.call("DELETE", f"{shares}/trail-2").status_code == 200
    assert admin.call("DELETE", where).status_code == 200
    assert admin.call("DELETE", f"/v1/files/{file_id}").status_code == 200
    parts = admin.post("/v1/uploads", {"filename": "a.md", "bytes": 3, "purpose": "assistants"})["id"]
    part = admin.call("POST", f"/v1/uploads/{parts}/parts", files={"data": ("part", b"abc")}).json()["id"]
    completed = admin.post(f"/v1/uploads/{parts}/complete", {"part_ids": [part]})["file"]["id"]
    stores = [("vector_store." + what, store_id) for what in ("created", "updated", "shared", "unshared", "deleted")]
    files = [("vector_store.file." + what, file_id) for what in ("added", "updated", "removed")]
    batches = [("vector_store.file_batch." + what, batch_id) for what in ("created", "cancelled")]
    own = [("file.created", file_id), ("file.deleted", file_id), ("file.created", completed)]
    return [*stores, *files, *batches, *own]


def change_keys(admin: Caller) -> list[tuple[str, str]]:
    """The same of keys and webhooks."""
    key_id = admin.post("/v1/admin/keys", {"name": "new"})["id"]
    admin.post(f"/v1/admin/keys/{key_id}/rotate")
    admin.post(f"/v1/admin/keys/{key_id}/limits", {"queued": 3})
    admin.post(f"/v1/admin/keys/{key_id}", {"groups": ["board"]})
    assert admin.call("DELETE", f"/v1/admin/keys/{key_id}").status_code == 200
    admin.post("/v1/admin/sessions/end", {"subject": "someone"})
    hook_id = admin.post("/v1/webhook_endpoints", {"url": "https://hooks.example.com/?token=of-the-hook"})["id"]
    assert admin.call("DELETE", f"/v1/webhook_endpoints/{hook_id}").status_code == 200
    keys = [("key." + what, key_id) for what in ("created", "rotated", "updated", "limits_updated", "revoked")]
    keys.append(("person.sessions_ended", "someone"))
    return keys + [("webhook_endpoint." + what, hook_id) for what in ("created", "deleted")]


def change_tenants(root: Caller) -> list[tuple[str, str]]:
    """The same of tenants."""
    root.post("/v1/admin/tenants", {"id": "trail-2"})
    root.post("/v1/admin/tenants/trail-2", {"keep_files_days": 3})
    root.post("/v1/admin/tenants/trail-2/limits", {"queued": 3})
    root.post("/v1/admin/tenants/trail-2/suspend")
    root.post("/v1/admin/tenants/trail-2/resume")
    assert root.call("DELETE", "/v1/admin/tenants/trail-2").status_code == 200
    return [
        ("tenant." + what, "trail-2")
        for what in ("created", "updated", "limits_updated", "suspended", "resumed", "deleted")
    ]


def change_jobs(root: Caller, admin: Caller) -> list[tuple[str, str]]:
    """The same of jobs, of an admin."""
    root.post("/v1/admin/queues/queries/pause")
    waiting = [admin.post("/v1/responses", {"input": "Who?", "background": True})["id"] for _ in range(2)]
    admin.post(f"/v1/admin/jobs/{waiting[0]}/cancel")
    admin.post(f"/v1/admin/jobs/{waiting[0]}/retry")
    assert admin.call("DELETE", f"/v1/admin/jobs/{waiting[1]}").status_code == 200
    action_id = admin.post("/v1/admin/job_actions", {"action": "delete", "jobs": {"text": "of no job"}})["id"]
    admin.post(f"/v1/admin/job_actions/{action_id}/stop")
    root.post("/v1/admin/queues/queries/resume")
    jobs = [("job.cancelled", waiting[0]), ("job.retried", waiting[0]), ("job.deleted", waiting[1])]
    return [*jobs, ("job_action.created", action_id), ("job_action.stopped", action_id)]


def change_operation(root: Caller, service: Ragq) -> list[tuple[str, str]]:
    """The same of queues, workers and poison."""
    workers = root.call("GET", "/v1/admin/workers").json()["data"]
    worker = next(one["name"] for one in workers if one["queues"] == ["documents"])
    root.post(f"/v1/admin/workers/{worker}/drain")
    with psycopg.connect(service.services["database_url"]) as connection:
        connection.execute("INSERT INTO poison (sha256, code, reason) VALUES (%s, 'a', 'b')", ["0" * 64])
    root.post(f"/v1/admin/poison/{'0' * 64}/forgive")
    return [
        ("queue.paused", "queries"),
        ("queue.resumed", "queries"),
        ("worker.drained", worker),
        ("poison.forgiven", "0" * 64),
    ]


def test_each_route_that_changes_something_writes_an_entry(root: Caller, admin: Caller, plain_ragq: Ragq) -> None:
    document = root.call("GET", "/openapi.json").json()
    changing = {
        (method, path): operation.get("x-audit-action")
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if method != "get"
    }
    assert {path for (_, path), action in changing.items() if action is None} == UNRECORDED
    done = [(admin, change) for change in (*change_documents(admin), *change_keys(admin))]
    done += [(admin, change) for change in change_jobs(root, admin)]
    done += [(root, change) for change in (*change_tenants(root), *change_operation(root, plain_ragq))]
    for caller, (action, id_) in done:
        entry = newest(caller, action, id_)
        assert (entry["outcome"], entry["actor"]["type"]) == ("done", "api_key" if caller is admin else "operator")
    declared = {action for action in changing.values() if action}
    assert declared == {action for _, (action, _) in done}, "call the new route in this test"
    assert declared <= set(ACTIONS)


def test_what_is_changed_in_the_queue_is_in_the_log_before(root: Caller, admin: Caller, plain_ragq: Ragq) -> None:
    root.post("/v1/admin/queues/queries/pause")
    job_id = admin.post("/v1/responses", {"input": "Who?", "background": True})["id"]
    admin.post(f"/v1/admin/jobs/{job_id}/cancel")

    def is_paused() -> bool:
        queues: dict[str, bool] = {
            one["id"]: one["paused"] for one in root.call("GET", "/v1/admin/queues").json()["data"]
        }
        return queues["queries"]

    url, waiting = plain_ragq.services["database_url"], "wait_event_type = 'Lock' AND query ILIKE '%INTO audit_log%'"
    with (
        psycopg.connect(url) as blocker,
        psycopg.connect(url, autocommit=True) as observer,
        ThreadPoolExecutor() as pool,
    ):
        blocker.execute("LOCK TABLE audit_log IN ACCESS EXCLUSIVE MODE")
        retried = pool.submit(admin.post, f"/v1/admin/jobs/{job_id}/retry")
        resumed = pool.submit(root.post, "/v1/admin/queues/queries/resume")
        counted = f"SELECT count(*) FROM pg_stat_activity WHERE {waiting}"
        wait_until(lambda: observer.execute(counted).fetchone() == (2,), what="both wait for the log")
        assert is_paused()
        assert admin.call("GET", f"/v1/admin/jobs/{job_id}").json()["state"] == "canceled"
        blocker.rollback()
        assert retried.result()["action"] == "retry"
        assert not resumed.result()["paused"]
    assert not is_paused()


def test_an_entry_says_who_from_where_and_no_text_or_secret(root: Caller, admin: Caller) -> None:
    key = admin.post("/v1/admin/keys", {"name": "a laptop", "role": "reader"})
    change_keys(admin)
    entry = newest(admin, "key.created", key["id"])
    assert entry["actor"] | {"id": "key_"} == {
        "type": "api_key",
        "id": "key_",
        "name": "chief",
        "role": "admin",
        "tenant": "trail",
        "ip_address": "127.0.0.1",
    }
    assert (entry["tenant"], entry["data"]) == ("trail", {"name": "a laptop", "role": "reader"})
    upload(admin, b"Nobody may read this in a log.")
    shown = json.dumps(entries(admin))
    for secret in ("Nobody may", "harbour.md", "of-the-hook", key["value"], admin.key):
        assert secret not in shown
    by_operator = root.post("/v1/admin/keys", {"name": "x", "tenant": "trail"})
    hidden = {"type": "operator", "id": None, "name": None, "role": "operator", "tenant": "default", "ip_address": None}
    assert newest(admin, "key.created", by_operator["id"])["actor"] == hidden
    assert newest(root, "key.created", by_operator["id"])["actor"] == hidden | {"ip_address": "127.0.0.1"}


def test_an_admin_reads_its_own_tenants_entries_and_the_operator_all(root: Caller, admin: Caller) -> None:
    change_tenants_first = root.post("/v1/vector_stores", {"name": "of the operator"})["id"]
    own = admin.post("/v1/vector_stores", {"name": "of trail"})["id"]
    assert {entry["tenant"] for entry in entries(admin)} == {"trail"}
    assert {own, change_tenants_first} <= {entry["resource_id"] for entry in entries(root)}
    assert {entry["tenant"] for entry in entries(root, "tenant=trail")} == {"trail"}
    refused = admin.call("GET", "/v1/admin/audit_log?tenant=default")
    assert refused.json()["error"]["code"] == "insufficient_role"


def test_entries_are_filtered_and_paged_newest_first(admin: Caller) -> None:
    ids = [admin.post("/v1/vector_stores", {"name": str(n)})["id"] for n in range(3)]
    query = "event_types[]=vector_store.created&event_types[]=key.created"
    first = admin.call("GET", f"/v1/admin/audit_log?limit=2&{query}").json()
    assert [entry["resource_id"] for entry in first["data"]] == [ids[2], ids[1]]
    second = admin.call("GET", f"/v1/admin/audit_log?limit=2&{query}&after={first['last_id']}").json()
    assert second["data"][0]["resource_id"] == ids[0]
    actor, at = first["data"][0]["actor"]["id"], first["data"][0]["effective_at"]
    assert {entry["actor"]["id"] for entry in entries(admin, f"actor_ids={actor}")} == {actor}
    assert not entries(admin, "actor_ids=key_unknown")
    assert not entries(admin, f"effective_at[gte]={at + 3600}")
    assert ids[2] in {entry["resource_id"] for entry in entries(admin, f"effective_at[lt]={at + 3600}")}
    assert admin.call("GET", "/v1/admin/audit_log?event_types=all").json()["error"]["param"] == "event_types"


def count(caller: Caller, query: str, code: str | None) -> int:
    return sum(entry["count"] for entry in entries(caller, query) if entry["code"] == code)


def test_what_is_refused_is_counted(root: Caller, admin: Caller) -> None:
    key = admin.post("/v1/admin/keys", {"name": "a reader", "role": "reader"})
    reader = Caller(root.url, key["value"])
    wrong_before = count(root, "event_types=access.refused", "invalid_api_key")
    for _ in range(3):
        assert reader.call("GET", "/v1/admin/keys").status_code == 403
        assert reader.call("POST", "/v1/vector_stores", json={"name": "x"}).status_code == 403
        assert admin.call("DELETE", "/v1/files/file-unknown").status_code == 404
    assert Caller(root.url, "ragq-guessed").call("GET", "/v1/files").status_code == 401
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
    call = {"name": "add_document", "arguments": {"name": "a.md", "text": "Anything"}}
    headers = {"Accept": "application/json, text/event-stream", "Authorization": f"Bearer {reader.key}"}
    SESSION.post(f"{root.url}/mcp", json=message | {"params": call}, headers=headers)
    headers["Authorization"] = f"Bearer {admin.key}"
    SESSION.post(f"{root.url}/mcp?vector_store_id=vs_unknown", json=message | {"params": call}, headers=headers)
    assert SESSION.post(f"{root.url}/session", json={"key": admin.key}).status_code == 204

    of_reader = f"actor_ids={key['id']}&event_types="
    for caller, query, code, times in (
        (root, "event_types=access.refused", "invalid_api_key", wrong_before + 1),
        (admin, "event_types=session.created", None, 1),
        (admin, of_reader + "access.refused", "insufficient_role", 3),
        (admin, of_reader + "vector_store.file.added", "insufficient_role", 1),  # over MCP
        (admin, "event_types=vector_store.file.added", "not_found", 1),  # over MCP, into no store
        (admin, of_reader + "vector_store.created", "insufficient_role", 3),
        (admin, "event_types=file.deleted", "not_found", 3),
    ):
        wait_until(lambda: count(caller, query, code) == times, seconds=3 * WRITE_SECONDS, what=query)  # noqa: B023
    unknown = next(entry for entry in entries(root, "event_types=access.refused") if entry["code"] == "invalid_api_key")
    assert unknown["actor"] == {
        "type": "unknown",
        "id": None,
        "name": None,
        "role": None,
        "tenant": "default",
        "ip_address": "127.0.0.1",
    }


def test_what_is_refused_before_its_route_is_counted(root: Caller, admin: Caller) -> None:
    root.post("/v1/admin/tenants", {"id": "trail-3"})
    suspended = root.with_key(name="x", role="user", tenant="trail-3")
    with httpx2.Client(base_url=root.url, timeout=60) as foreign, httpx2.Client(base_url=root.url) as browser:
        assert foreign.post("/session", json={"key": admin.key}).status_code == 204
        assert browser.post("/session", json={"key": suspended.key}).status_code == 204
        forged = foreign.post("/v1/vector_stores", json={"name": "x"}, headers={"Sec-Fetch-Site": "cross-site"})
        assert forged.json()["error"]["code"] == "cross_site_request"
        before = count(root, "event_types=access.refused", "tenant_suspended")
        root.post("/v1/admin/tenants/trail-3/suspend")
        wait_until(lambda: suspended.call("GET", "/v1/files").status_code == 403, seconds=2 * FRESH_SECONDS)
        assert browser.get("/v1/files").status_code == 403
    for caller, code, times in ((admin, "cross_site_request", 1), (root, "tenant_suspended", before + 2)):
        wait_until(
            lambda: count(caller, "event_types=access.refused", code) == times,  # noqa: B023
            seconds=3 * WRITE_SECONDS,
            what=code,
        )


def test_who_takes_a_tenants_data_away_is_in_the_log(root: Caller, admin: Caller) -> None:
    assert admin.call("GET", "/v1/admin/export?part=files").status_code == 200
    entry = newest(admin, "tenant.exported", "trail")
    assert (entry["actor"]["name"], entry["data"]) == ("chief", {"part": "files"})
    assert root.call("GET", "/v1/admin/export?part=responses&tenant=trail").status_code == 200
    entry = newest(admin, "tenant.exported", "trail")
    assert (entry["actor"]["type"], entry["data"]) == ("operator", {"part": "responses"})


def test_a_document_that_comes_over_mcp_is_in_the_log(root: Caller, admin: Caller) -> None:
    call = {"name": "add_document", "arguments": {"name": "a.md", "text": "Over MCP"}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
    headers = {"Accept": "application/json, text/event-stream", "Authorization": f"Bearer {admin.key}"}
    answer = SESSION.post(f"{root.url}/mcp", json=message, headers=headers)
    assert answer.status_code == 200
    added = entries(admin, "event_types=vector_store.file.added")[0]
    assert newest(admin, "file.created", added["resource_id"])["actor"]["name"] == "chief"


def test_the_command_line_shows_the_log(plain_ragq: Ragq, root: Caller, admin: Caller) -> None:
    key_id = admin.post("/v1/admin/keys", {"name": "seen"})["id"]

    def run(*arguments: str) -> str:
        done = plain_ragq.run("audit-log", *arguments, RAGQ_URL=root.url, RAGQ_API_KEY=admin.key)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert key_id in run("--action", "key.created", "--since", "2026-01-01")
    found = json.loads(run("--json", "--limit", "1"))["data"]
    assert [entry["resource_id"] for entry in found] == [key_id]
    assert key_id not in run("--since", "2200-01-01")


def test_what_is_refused_on_its_way_is_no_action_in_the_log(admin: Caller, plain_ragq: Ragq) -> None:
    job_id = admin.post("/v1/responses", {"input": "Who?"})["id"]
    with psycopg.connect(plain_ragq.services["database_url"], autocommit=True) as connection:
        wait_until(
            lambda: connection.execute(
                "UPDATE jobs SET state = 'failed' WHERE id = %s RETURNING id", [job_id]
            ).fetchone(),
            what="the job is archived",
        )  # so that it passes the first check, and the queue refuses it
    refused = admin.call("POST", f"/v1/admin/jobs/{job_id}/retry")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "job_gone")
    entry = newest(admin, "job.retried", job_id)
    assert (entry["outcome"], entry["code"]) == ("refused", "job_gone")
    assert len(entries(admin, f"resource_ids={job_id}")) == 1


@pytest.fixture
def log(database: Database) -> AuditLog:
    return AuditLog(database)


def entry_of(object_id: str) -> Entry:
    return Entry(Actor("operator", "default"), "key.created", "default", object_id)


async def has(log: AuditLog, object_id: str) -> bool:
    return bool(await log.list_entries(None, NEWEST, EntryFilter(objects=[object_id])))


async def test_neither_a_change_nor_its_entry_is_without_the_other(database: Database, log: AuditLog) -> None:
    tenants, keys = Tenants(database), ApiKeys(database)

    async def create_key_then_fail() -> None:
        async with log.recorded(entry_of("first")):
            await keys.create("default", name="of a failed change", role="user", expires_at=None)
            await tenants.create("default")

    with pytest.raises(ConflictError):
        await create_key_then_fail()
    assert not await has(log, "first")
    assert "of a failed change" not in {key.name for key in await keys.list_keys("default", NEWEST)}
    broken = entry_of("second")
    broken.data = {"a": "\0"}  # PostgreSQL's jsonb refuses it, so the entry cannot be written
    with pytest.raises(Exception, match=r"0000|NUL"):
        async with log.recorded(broken):
            await keys.create("default", name="of a failed entry", role="user", expires_at=None)
    assert "of a failed entry" not in {key.name for key in await keys.list_keys("default", NEWEST)}
    async with log.recorded(entry_of("third")):
        await keys.create("default", name="of a good change", role="user", expires_at=None)
    assert await has(log, "third")
    assert "of a good change" in {key.name for key in await keys.list_keys("default", NEWEST)}


CHANGE = Actor("operator", "default")


async def outcome(log: AuditLog, object_id: str) -> str | None:
    (entry,) = await log.list_entries(None, NEWEST, EntryFilter(objects=[object_id]))
    return entry.code


async def test_an_entry_that_is_written_before_its_action_says_how_that_ended(log: AuditLog) -> None:
    change = Change(log, CHANGE, "queue.paused")
    async with change.outside("default", "done"):
        assert await outcome(log, "done") == UNCONFIRMED
    assert await outcome(log, "done") is None
    for error, code in ((ConflictError("No.", code="busy"), "busy"), (UnavailableError("Away."), UNCONFIRMED)):
        with pytest.raises(type(error)):
            async with change.outside("default", f"{code} one"):
                raise error
        assert await outcome(log, f"{code} one") == code
        assert error.is_recorded is (code == "busy")


async def test_an_end_of_an_action_that_cannot_be_written_fails_no_request_and_stays_open(
    log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> None:
        raise UnavailableError("Away.")

    monkeypatch.setattr(AuditLog, "settle", fail)
    async with Change(log, CHANGE, "queue.paused").outside("default", "open"):
        pass
    assert await outcome(log, "open") == UNCONFIRMED


async def test_an_end_is_set_once(log: AuditLog) -> None:
    entry_id = await log.add(Entry(CHANGE, "queue.paused", "default", "once", UNCONFIRMED))
    assert entry_id
    await log.settle(entry_id, "busy")
    await log.settle(entry_id, None)
    assert await outcome(log, "once") == "busy"


def test_a_refusal_that_has_an_entry_is_not_counted() -> None:
    tally, error = Tally(), NotFoundError("It is gone.")
    tally.count_error(CHANGE, "worker.drained", error)
    assert len(tally._counts) == 1
    error.is_recorded = True
    tally.count_error(Actor("operator", "other"), "worker.drained", error)
    assert len(tally._counts) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_log SET code = 'unconfirmed'",
        "UPDATE audit_log SET action = 'nothing'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "TRUNCATE tenants CASCADE",
    ],
)
async def test_an_entry_is_neither_changed_nor_deleted(database: Database, log: AuditLog, statement: str) -> None:
    await log.add(entry_of("kept"))
    with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
        async with database.for_all().connection() as connection, connection.transaction():
            await connection.execute(statement)
    assert await has(log, "kept")


async def test_old_entries_expire_and_a_tenant_may_keep_its_own_for_less(database: Database, log: AuditLog) -> None:
    async with database.for_all().connection() as connection:
        await connection.execute("INSERT INTO tenants (id) VALUES ('brief') ON CONFLICT DO NOTHING")
        await connection.execute("UPDATE tenants SET keep_logs_days = 1 WHERE id = 'brief'")
        for tenant, days in (("default", 2), ("default", 400), ("brief", 2), ("brief", 0)):
            await connection.execute(
                """INSERT INTO audit_log VALUES (%s, %s, now() - make_interval(days => %s), 'key.created', %s, NULL, 1,
                                                 'service', '', '', '', 'default', '', '{}')""",
                [f"{tenant}-{days}", tenant, days, f"{tenant}-{days}"],
            )
    assert await log.expire(365 * 86_400) == 2
    kept = {entry.object_id for entry in await log.list_entries(None, NEWEST, ANY)}
    assert {"default-2", "brief-0"} <= kept
    assert kept.isdisjoint({"default-400", "brief-2"})
    assert await log.expire(365 * 86_400) == 0


async def test_a_flood_of_refusals_is_a_bounded_number_of_entries(database: Database, log: AuditLog) -> None:
    tally = Tally()
    for number in range(3 * MOST_COUNTED):
        tally.count_wrong_key(f"10.0.{number // 256}.{number % 256}", "flooded")
    async with database.transaction():
        await tally.write(log)
    async with database.for_all().connection() as connection:
        query = (
            "SELECT count(*), sum(count), count(*) FILTER (WHERE address = %s) FROM audit_log WHERE code = 'flooded'"
        )
        row = await (await connection.execute(query, [OTHERS])).fetchone()
    assert row == (MOST_COUNTED + 1, 3 * MOST_COUNTED, 1)
    await tally.write(log)
    await log.add(Entry(SERVICE, "key.created", "a tenant that is gone"))
    assert not await log.list_entries("a tenant that is gone", NEWEST, ANY)
