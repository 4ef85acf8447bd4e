"""Guessed ids, and whether the time of an answer could tell another tenant's id from one that nobody has.

Times are too noisy for a test. What decides them is compared instead: which statements PostgreSQL runs and how many rows each returns,
and which commands Valkey runs and how long their replies are. `make bench-guesses` measures the times.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any

import httpx2
import psycopg
import pytest

from ragq.client.valkey_client import ValkeyClient
from ragq.http import callers
from ragq.server import create_app
from ragq.settings import Settings
from tests.guesses import guess_ids
from tests.integration.test_keys import BODIES, FOREIGN, QUERIES, fill
from tests.servers import Ragq
from tests.tenants import Caller, make_objects

Trace = list[tuple[str, Callable[[], int]]]

GUESSES = 1000  # `make bench-guesses` sends 10,000
# What the connection that a request gets was used for before decides whether there is such a statement, not the id. The pool
# sends an empty one to see whether an idle connection is alive.
OF_THE_CONNECTION = ("SELECT set_config(", "RESET ", "SET plan_cache_mode")
_trace: ContextVar[Trace | None] = ContextVar("trace", default=None)


def admin_of(root: Caller, tenant: str) -> Caller:
    root.post("/v1/admin/tenants", {"id": tenant})
    return root.with_key(name="x", role="admin", tenant=tenant)


@pytest.fixture(scope="module")
def ids(root: Caller) -> dict[str, str]:
    """An object of each kind that the tenant rowan has."""
    return make_objects(admin_of(root, "rowan"))


@pytest.fixture(scope="module")
def stranger(root: Caller) -> Caller:
    return admin_of(root, "heath")


@pytest.fixture
async def traced(
    plain_ragq: Ragq, stranger: Caller, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx2.AsyncClient]:
    """The stranger as a client of an application in this process, whose statements and commands are recorded."""
    execute, send = psycopg.AsyncCursor.execute, ValkeyClient.call_all

    async def record_statement(cursor: Any, query: Any, *arguments: Any, **options: Any) -> Any:
        done = await execute(cursor, query, *arguments, **options)
        if query and not str(query).startswith(OF_THE_CONNECTION):
            note(str(query), lambda: cursor.rowcount)  # which in a pipeline is known at its end
        return done

    async def record_commands(client: ValkeyClient, commands: Any) -> Any:
        commands = list(commands)
        replies = await send(client, commands)
        note(repr(commands), lambda: len(repr(replies)))
        return replies

    monkeypatch.setattr(psycopg.AsyncCursor, "execute", record_statement)
    monkeypatch.setattr(ValkeyClient, "call_all", record_commands)
    monkeypatch.setattr(callers, "FRESH_SECONDS", 600.0)  # so that no request looks the key up again
    settings = Settings(_env_file=None, data_dir=plain_ragq.folder)
    app = create_app(settings, **plain_ragq.services)

    async def with_state(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "state": {}}, receive, send)  # as uvicorn does

    transport, headers = httpx2.ASGITransport(app=with_state), {"Authorization": f"Bearer {stranger.key}"}
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as client,
    ):
        await client.get("/v1/files")  # the key is known from here on
        yield client


def note(what: str, size: Callable[[], int]) -> None:
    """Record a step of the request whose context this is; the housekeeping has none."""
    trace = _trace.get()
    if trace is not None:
        trace.append((re.sub(r"[0-9a-f]{32,}", "ID", what), size))


async def trace_of(client: httpx2.AsyncClient, method: str, path: str, route: str) -> tuple[int, list[tuple[str, int]]]:
    trace: Trace = []
    token = _trace.set(trace)
    try:
        body = BODIES.get(route, {}) if method == "POST" else {}
        answer = await client.request(method, path + QUERIES.get(route, ""), **body)
    finally:
        _trace.reset(token)
    return answer.status_code, [(what, size()) for what, size in trace]


async def test_another_tenants_id_costs_what_an_unknown_one_does(
    traced: httpx2.AsyncClient, ids: dict[str, str]
) -> None:
    differing, steps = [], 0
    for method, route in FOREIGN:
        foreign = await trace_of(traced, method, fill(route, ids), route)
        unknown = await trace_of(traced, method, fill(route, ids, unknown=True), route)
        assert foreign[0] == unknown[0] == 404, route
        steps += len(foreign[1])
        if foreign != unknown:
            differing.append((method, route, foreign[1], unknown[1]))
    assert differing == []
    assert steps > len(FOREIGN), "the statements and commands were recorded"


async def test_the_trace_tells_an_own_object(traced: httpx2.AsyncClient, ids: dict[str, str]) -> None:
    store = (await traced.post("/v1/vector_stores", json={"name": "own"})).json()["id"]
    own = await trace_of(traced, "GET", f"/v1/vector_stores/{store}", "")
    assert own[0] == 200
    assert own != await trace_of(traced, "GET", f"/v1/vector_stores/{ids['vector_store_id']}", "")


def test_guessed_ids_hit_nothing(stranger: Caller, ids: dict[str, str]) -> None:
    for guessed, (method, route) in zip(
        itertools.islice(guess_ids(ids), GUESSES), itertools.cycle(FOREIGN), strict=False
    ):
        body = BODIES.get(route, {}) if method == "POST" else {}
        answer = stranger.call(method, fill(route, guessed) + QUERIES.get(route, ""), **body)
        assert answer.status_code == 404, (method, route, guessed, answer.text)
