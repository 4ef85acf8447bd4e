"""A whole service in which one tenant's documents hold all places of the worker, and another adds a page."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.endpoints import serve
from tests.receiver import eventually
from tests.servers import KEY, Ragq
from tests.tenants import Caller

PLACES = 2
MODEL = {"RAGQ_EMBEDDING_MODEL": "tiny", "RAGQ_EMBEDDING_DIMENSIONS": 8, "RAGQ_EMBEDDING_TIMEOUT_SECONDS": 600}


def embed(call: dict[str, Any], _: int) -> web.Response:
    return web.json_response({"data": [{"index": n, "embedding": [1] * 8} for n in range(len(call["input"]))]})


def open_store(operator: Caller, tenant: str) -> tuple[Caller, str]:
    """Make a tenant; returns one of its callers, and a store."""
    operator.post("/v1/admin/tenants", {"id": tenant})
    key = operator.post("/v1/admin/keys", {"name": tenant, "tenant": tenant})["value"]
    caller = Caller(operator.url, key)
    return caller, f"/v1/vector_stores/{caller.post('/v1/vector_stores')['id']}/files"


def add_page(caller: Caller, files: str, text: str) -> str:
    """Put a page into a store; returns the path that tells its status."""
    given: dict[str, Any] = {"files": {"file": ("a.md", text.encode())}, "data": {"purpose": "assistants"}}
    file_id = caller.call("POST", "/v1/files", **given).json()["id"]
    caller.post(files, {"file_id": file_id})
    return f"{files}/{file_id}"


def status(caller: Caller, path: str) -> str:
    return str(caller.call("GET", path).json()["status"])


async def test_a_page_is_searchable_though_a_flood_holds_all_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    options = {"RAGQ_DOCUMENT_CONCURRENCY": PLACES, "RAGQ_API_KEY": KEY, "RAGQ_SHUTDOWN_GRACE_SECONDS": 0}
    async with serve(embed, "/embeddings") as endpoint:
        endpoint.delay = 600
        ragq = Ragq(tmp_path / "data", "--query-workers", "0", RAGQ_EMBEDDING_BASE_URL=endpoint.url, **MODEL, **options)
        await asyncio.to_thread(ragq.start)
        try:
            operator = Caller(ragq.url, KEY)
            (loud, flood), (quiet, files) = [
                await asyncio.to_thread(open_store, operator, name) for name in ("loud", "quiet")
            ]
            held = [await asyncio.to_thread(add_page, loud, flood, f"Page {n}.") for n in range(2 * PLACES)]

            async def all_places_are_taken() -> bool:
                return len(endpoint.calls) == PLACES

            await eventually(all_places_are_taken)
            endpoint.delay = 0
            page = await asyncio.to_thread(add_page, quiet, files, "A page of another.")

            async def is_searchable() -> bool:
                return await asyncio.to_thread(status, quiet, page) == "completed"

            await eventually(is_searchable)
            assert {await asyncio.to_thread(status, loud, path) for path in held} == {"in_progress"}
        finally:
            await asyncio.to_thread(ragq.stop)
