"""Deleting a document: its words are looked for in everything that PostgreSQL, Valkey and the blob store hold."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Ragq, wait_until
from tests.tenants import Caller
from tests.traces import rows_with, valkey_lives

ANSWERS = {"public.responses", "public.conversation_items"}


@pytest.fixture(scope="module")
def admin(root: Caller) -> Caller:
    """An admin of a tenant of these tests."""
    root.post("/v1/admin/tenants", {"id": "jasmin"})
    return root.with_key(name="x", role="admin", tenant="jasmin")


def blobs_with(ragq: Ragq, word: str) -> list[Path]:
    files = [path for path in (ragq.folder / "files").rglob("*") if path.is_file()]
    return [path for path in files if word.encode() in path.read_bytes()]


def put_document(caller: Caller, word: str, place: str) -> str:
    """Put a document in parts into two stores, with its word in each field; returns its id."""
    content = f"# Harbour {word}\n\nThe lighthouse of {place} is 61 metres tall, says {word}.\n".encode()
    body = {"filename": f"{word}.md", "bytes": len(content), "purpose": "assistants"}
    upload = caller.post("/v1/uploads", body)["id"]
    part = caller.call("POST", f"/v1/uploads/{upload}/parts", files={"data": ("part", content)}).json()["id"]
    file_id: str = caller.post(f"/v1/uploads/{upload}/complete", {"part_ids": [part]})["file"]["id"]
    for store in ("default", caller.post("/v1/vector_stores", {"name": "another"})["id"]):
        where = f"/v1/vector_stores/{store}/file_batches"
        batch = caller.post(where, {"file_ids": [file_id], "attributes": {"word": word}})["id"]
        wait_until(lambda: caller.call("GET", f"{where}/{batch}").json()["status"] == "completed", seconds=60)  # noqa: B023
    return file_id


def ask(caller: Caller, place: str) -> list[dict[str, Any]]:
    """Ask of it, in every way whose answer is kept; the questions do not have the word."""
    question = f"How tall is the lighthouse of {place}?"
    conversation = caller.post("/v1/conversations")["id"]
    asked = [
        caller.post("/v1/responses", {"input": question, "include": ["file_search_call.results"]}),
        caller.post("/v1/responses", {"input": question, "conversation": conversation}),
        caller.post("/v1/chat/completions", {"messages": [{"role": "user", "content": question}], "store": True}),
    ]
    items = caller.call("GET", f"/v1/conversations/{conversation}/items").json()["data"]
    assert len(items) > 1
    return asked


@pytest.mark.parametrize("purge", [False, True])
def test_nothing_of_a_deleted_document_is_left(plain_ragq: Ragq, admin: Caller, *, purge: bool) -> None:
    word, other, place = f"w{secrets.token_hex(6)}", f"v{secrets.token_hex(6)}", f"q{secrets.token_hex(4)}"
    database_url, valkey_url = plain_ragq.services["database_url"], plain_ragq.services["valkey_url"]
    file_id = put_document(admin, word, place)
    put_document(admin, other, f"z{place}")
    for answer in ask(admin, place):
        assert word in str(answer)
    elsewhere = admin.post("/v1/responses", {"input": "Where is nothing?", "vector_store_ids": []})["id"]
    wait_until(lambda: rows_with(database_url, word).keys() >= ANSWERS, what="the answers are archived")
    found = rows_with(database_url, word)
    assert found.keys() >= {"public.files", "public.chunks", "public.vector_store_files", "public.uploads"}
    assert blobs_with(plain_ragq, word)

    assert admin.call("DELETE", f"/v1/files/{file_id}?purge={purge}").status_code == 200

    assert rows_with(database_url, word).keys() == (set() if purge else ANSWERS)
    assert (valkey_lives(valkey_url, word) == {}) is purge
    assert blobs_with(plain_ragq, word) == []
    assert rows_with(database_url, other).keys() >= {"public.files", "public.chunks"}, "the other one is there"
    assert admin.call("GET", f"/v1/responses/{elsewhere}").status_code == 200
    found = admin.post("/v1/vector_stores/default/search", {"query": f"lighthouse {place}"})
    assert word not in str(found)
