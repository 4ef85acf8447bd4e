"""Files, vector stores and file batches through the official SDK, sync and async, against a whole `ragq up`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import openai
import psycopg
import pytest

from tests.documents import write_long_pdf
from tests.servers import Ragq, wait_until

DAY = 86_400


def upload(client: openai.OpenAI, name: str) -> str:
    file = (f"{name}.txt", f"The tower of {name} is tall.".encode())
    return client.files.create(file=file, purpose="assistants").id


@pytest.fixture(scope="module")
def store_id(client: openai.OpenAI) -> str:
    """A store of three towers, each with attributes of its own."""
    store = client.vector_stores.create(name="towers")
    files = [
        {"file_id": upload(client, "Quorra"), "attributes": {"year": 1840, "city": "Quorra"}},
        {"file_id": upload(client, "Varn"), "attributes": {"year": 1999, "city": "Varn"}},
        {"file_id": upload(client, "Nowhere")},
    ]
    batch = client.vector_stores.file_batches.create_and_poll(store.id, files=files)  # type: ignore[arg-type]
    assert (batch.status, batch.file_counts.completed, batch.file_counts.total) == ("completed", 3, 3)
    return store.id


def names(page: Any) -> set[str]:
    return {result.filename for result in page.data}


def test_a_search_keeps_to_the_files_that_its_filter_matches(client: openai.OpenAI, store_id: str) -> None:
    def search(filters: Any) -> set[str]:
        return names(client.vector_stores.search(store_id, query="How tall is the tower?", filters=filters))

    old = {"type": "lt", "key": "year", "value": 1900}
    assert search(old) == {"Quorra.txt"}
    assert search({"type": "or", "filters": [old, {"type": "in", "key": "city", "value": ["Varn"]}]}) == {
        "Quorra.txt",
        "Varn.txt",
    }
    assert search({"type": "ne", "key": "city", "value": "Varn"}) == {"Quorra.txt", "Nowhere.txt"}
    page = client.vector_stores.search(store_id, query=["tower", "tall"], rewrite_query=True)
    assert names(page) == {"Quorra.txt", "Varn.txt", "Nowhere.txt"}
    assert page.model_extra
    assert page.model_extra["search_query"] == ["tower", "tall"]


async def test_the_async_sdk_does_the_same(async_client: openai.AsyncOpenAI) -> None:
    stores = async_client.vector_stores
    store = await stores.create(name="async", expires_after={"anchor": "last_active_at", "days": 7})
    polled = await stores.files.upload_and_poll(
        vector_store_id=store.id, file=("one.txt", b"The first words."), attributes={"n": 1}
    )
    assert (polled.status, polled.attributes) == ("completed", {"n": 1})
    uploads = [(f"async {n}.txt", f"Words number {n}.".encode()) for n in range(5)]
    batch = await stores.file_batches.upload_and_poll(store.id, files=uploads, file_ids=[polled.id])
    assert (batch.status, batch.file_counts.completed) == ("completed", 6)
    listed = [file.id async for file in stores.file_batches.list_files(batch.id, vector_store_id=store.id, limit=2)]
    assert len(set(listed)) == len(listed) == 6
    found = await stores.search(store.id, query="words", filters={"type": "eq", "key": "n", "value": 1})
    assert names(found) == {"one.txt"}
    again = await stores.file_batches.create_and_poll(store.id, file_ids=listed[:2], attributes={"n": 2})
    assert again.file_counts.total == 2
    cancelled = await stores.file_batches.cancel(again.id, vector_store_id=store.id)
    assert cancelled.status == "completed"  # it had ended
    with pytest.raises(openai.NotFoundError):
        await stores.file_batches.retrieve("vsfb_unknown", vector_store_id=store.id)
    await stores.delete(store.id)
    with pytest.raises(openai.NotFoundError):
        await stores.retrieve(store.id)


def test_uploads_become_one_batch_and_are_listed_by_status(client: openai.OpenAI, tmp_path: Path) -> None:
    store = client.vector_stores.create()
    broken = (tmp_path / "broken.pdf", b"%PDF-1.7 and no more")
    files = [("good one.txt", b"Good."), ("good two.txt", b"Better."), (broken[0].name, broken[1])]
    batch = client.vector_stores.file_batches.upload_and_poll(store.id, files=files)
    assert (batch.status, batch.file_counts.completed, batch.file_counts.failed) == ("completed", 2, 1)
    (failed,) = client.vector_stores.file_batches.list_files(batch.id, vector_store_id=store.id, filter="failed")
    assert failed.last_error
    assert failed.last_error.code == "invalid_file"
    chunking: Any = {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 50}}
    good = client.vector_stores.files.list(store.id, filter="completed").data[0]
    batch = client.vector_stores.file_batches.create_and_poll(store.id, file_ids=[good.id], chunking_strategy=chunking)
    shown = client.vector_stores.files.retrieve(good.id, vector_store_id=store.id)
    assert shown.chunking_strategy
    assert shown.chunking_strategy.to_dict() == chunking


def count_running(http: httpx2.Client) -> int:
    queues = http.get("/status").json()["queues"]
    return sum(queue["in_flight"] for queue in queues if queue["name"].startswith("documents"))


def test_a_canceled_batch_stops_and_a_later_one_ingests_its_files(
    http: httpx2.Client, client: openai.OpenAI, tmp_path: Path
) -> None:
    store = client.vector_stores.create()
    wide = [(f"cancel {n}.txt", f"Word {n}.".encode() + b"\n" * 100_000) for n in range(3)]  # they pass no others
    ids = [client.files.create(file=one, purpose="assistants").id for one in wide]
    for number in range(2):  # as many as the worker reads at once
        path = write_long_pdf(tmp_path / f"long {number}.pdf", pages=200 + number, facts={})
        ids.append(client.files.create(file=path, purpose="assistants").id)
    batches = client.vector_stores.file_batches
    created = batches.create(store.id, file_ids=ids[3:])
    wait_until(lambda: count_running(http) == 2)
    waiting = batches.create(store.id, file_ids=ids[:3])
    assert created.status == waiting.status == "in_progress"
    for batch in (waiting, created):
        cancelled = batches.cancel(batch.id, vector_store_id=store.id)
        assert cancelled.status == "cancelled"
        assert cancelled.file_counts.in_progress == 0
        assert cancelled.file_counts.cancelled > 0
    wait_until(lambda: count_running(http) == 0, seconds=5)
    assert batches.poll(created.id, vector_store_id=store.id).status == "cancelled"
    done = batches.create_and_poll(store.id, file_ids=ids[:3])
    assert (done.status, done.file_counts.completed) == ("completed", 3)


def test_a_page_passes_long_texts_and_they_end_when_their_store_is_deleted(
    http: httpx2.Client, client: openai.OpenAI
) -> None:
    store, other = client.vector_stores.create(), client.vector_stores.create()
    for number in range(3):  # one more than the worker reads at once
        text = " ".join(f"Paragraph {number} {n} of a text that is long." for n in range(75_000))
        file = client.files.create(file=(f"long {number}.txt", text.encode()), purpose="assistants")
        assert file.bytes > 3_000_000
        client.vector_stores.files.create(store.id, file_id=file.id)
    wait_until(lambda: count_running(http) == 2)
    began = time.monotonic()
    client.vector_stores.files.create(other.id, file_id=upload(client, "Page"))
    wait_until(lambda: client.vector_stores.retrieve(other.id).file_counts.completed == 1, seconds=10)
    assert names(client.vector_stores.search(other.id, query="tower")) == {"Page.txt"}
    assert time.monotonic() - began < 10
    assert client.vector_stores.retrieve(store.id).file_counts.in_progress == 3
    client.vector_stores.delete(store.id)
    wait_until(lambda: count_running(http) == 0, seconds=4, what="their ingests end within 2 s, and /status shows it")


def test_a_file_that_is_put_in_again_gets_what_differs(client: openai.OpenAI) -> None:
    store = client.vector_stores.create()
    file_id = upload(client, "again")
    files, batches = client.vector_stores.files, client.vector_stores.file_batches
    files.create_and_poll(file_id, vector_store_id=store.id, attributes={"n": 1})
    again = files.create(store.id, file_id=file_id, attributes={"n": 2})
    assert (again.status, again.attributes) == ("completed", {"n": 2})
    batches.create_and_poll(store.id, file_ids=[file_id], attributes={"n": 3})
    assert files.retrieve(file_id, vector_store_id=store.id).attributes == {"n": 3}
    chunking: Any = {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 0}}
    shown = files.create_and_poll(file_id, vector_store_id=store.id, chunking_strategy=chunking)
    assert shown.chunking_strategy
    assert (shown.status, shown.attributes, shown.chunking_strategy.to_dict()) == ("completed", {"n": 3}, chunking)
    kept = files.create(store.id, file_id=file_id)
    assert kept.chunking_strategy
    assert (kept.status, kept.chunking_strategy.to_dict()) == ("completed", chunking)
    newer = client.files.create(file=("again.txt", b"Newer words."), purpose="assistants").id
    files.create_and_poll(newer, vector_store_id=store.id)
    replacing: Any = [{"file_id": file_id, "replace_same_name": True}]
    batches.create_and_poll(store.id, files=replacing)
    assert [file.id for file in files.list(store.id)] == [file_id]


def test_files_and_stores_show_when_they_expire(client: openai.OpenAI) -> None:
    file = client.files.create(
        file=("brief.txt", b"Soon gone."),
        purpose="user_data",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert file.expires_at == file.created_at + 3600
    assert client.files.retrieve(file.id).expires_at == file.expires_at
    assert client.files.retrieve(upload(client, "lasting")).expires_at is None
    store = client.vector_stores.create(expires_after={"anchor": "last_active_at", "days": 3}, metadata={"a": "b"})
    assert store.expires_after
    assert store.expires_after.days == 3
    assert store.last_active_at
    assert store.expires_at == store.last_active_at + 3 * DAY
    changed = client.vector_stores.update(store.id, name="other", expires_after={"anchor": "last_active_at", "days": 9})
    assert (changed.name, changed.metadata) == ("other", {"a": "b"})
    assert changed.expires_at
    assert changed.expires_at > store.expires_at + 5 * DAY
    plain = client.vector_stores.update(store.id, expires_after=None, metadata=None)
    assert (plain.name, plain.metadata, plain.expires_after, plain.expires_at) == ("other", {}, None, None)


def test_every_list_is_paged_to_its_end_and_back(client: openai.OpenAI, store_id: str) -> None:
    made = [upload(client, f"page {n}") for n in range(5)]
    listed = [file.id for file in client.files.list(limit=2, purpose="assistants", order="asc")]
    assert [file_id for file_id in listed if file_id in made] == made
    assert len(set(listed)) == len(listed)
    files = [file.id for file in client.vector_stores.files.list(store_id, limit=1)]
    assert len(files) == 3
    back = client.vector_stores.files.list(store_id, limit=1, before=files[2])
    assert ([file.id for file in back.data], back.has_more) == ([files[1]], True)
    stores = [store.id for store in client.vector_stores.list(limit=1)]
    assert store_id in stores
    first = client.vector_stores.list(limit=100, before=stores[-1])
    assert [store.id for store in first.data] == stores[:-1]


BAD: list[tuple[type[openai.APIStatusError], str, str, dict[str, Any], str | None]] = [
    (openai.BadRequestError, "POST", "/vector_stores/{store}/search", {"query": "x", "filters": {}}, "filters"),
    (
        openai.BadRequestError,
        "POST",
        "/vector_stores/{store}/search",
        {"query": "x", "filters": {"type": "gt", "key": "year", "value": True}},
        "filters.value",
    ),
    (openai.BadRequestError, "POST", "/vector_stores/{store}/file_batches", {}, None),
    (openai.BadRequestError, "POST", "/vector_stores/{store}/file_batches", {"file_ids": []}, "file_ids"),
    (openai.BadRequestError, "POST", "/vector_stores/{store}/file_batches", {"file_ids": ["x"] * 2001}, "file_ids"),
    (openai.NotFoundError, "POST", "/vector_stores/{store}/file_batches", {"file_ids": ["file-unknown"]}, "file_id"),
    (openai.NotFoundError, "POST", "/vector_stores/vs_unknown/file_batches", {"file_ids": ["x"]}, "vector_store_id"),
    (openai.NotFoundError, "POST", "/vector_stores/{store}/file_batches/vsfb_unknown/cancel", {}, "batch_id"),
    (
        openai.BadRequestError,
        "POST",
        "/vector_stores",
        {"expires_after": {"anchor": "x", "days": 1}},
        "expires_after.anchor",
    ),
    (
        openai.BadRequestError,
        "POST",
        "/vector_stores/default",
        {"expires_after": {"anchor": "last_active_at", "days": 1}},
        "expires_after",
    ),
    (openai.BadRequestError, "POST", "/vector_stores", {"name": "a\0b"}, "name"),
    (openai.BadRequestError, "POST", "/vector_stores", {"metadata": {"a": "a\0b"}}, "metadata.a"),
    (openai.BadRequestError, "GET", "/files/%00", {}, None),
    (openai.BadRequestError, "GET", "/files?after=file-unknown", {}, "after"),
    (openai.BadRequestError, "GET", "/vector_stores/{store}/files?before=file-unknown", {}, "before"),
]


@pytest.mark.parametrize(("kind", "method", "path", "body", "field"), BAD)
def test_what_is_wrong_raises_the_sdks_exception_with_the_field(
    client: openai.OpenAI,
    store_id: str,
    kind: type[openai.APIStatusError],
    method: str,
    path: str,
    body: dict[str, Any],
    field: str | None,
) -> None:
    call = client.get if method == "GET" else partial(client.post, body=body)
    with pytest.raises(kind) as caught:
        call(path.format(store=store_id), cast_to=httpx2.Response)
    assert caught.value.param == field


@pytest.mark.parametrize("seconds", [3599, 2_592_001])
def test_a_files_expiry_out_of_range_is_refused(client: openai.OpenAI, seconds: int) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.files.create(
            file=("a.txt", b"words"),
            purpose="assistants",
            expires_after={"anchor": "created_at", "seconds": seconds},
        )
    assert caught.value.param == "expires_after[seconds]"


def test_a_batch_of_2000_files_is_taken_and_canceled_in_seconds(client: openai.OpenAI, ragq: Ragq) -> None:
    store = client.vector_stores.create()
    with many_files(ragq, 2000) as ids:
        started = time.monotonic()
        batch = client.vector_stores.file_batches.create(store.id, file_ids=ids)
        taken = time.monotonic() - started
        cancelled = client.vector_stores.file_batches.cancel(batch.id, vector_store_id=store.id)
        done = time.monotonic() - started - taken
    assert batch.file_counts.total == cancelled.file_counts.total == 2000
    assert cancelled.file_counts.in_progress == 0
    assert taken < 30
    assert done < 30


@contextmanager
def many_files(ragq: Ragq, count: int) -> Iterator[list[str]]:
    """Record files straight in PostgreSQL, all of the same bytes, for the time of a `with`; gives their ids."""
    with psycopg.connect(ragq.services["database_url"], autocommit=True) as connection:
        rows = connection.execute(
            """INSERT INTO files (id, tenant_id, filename, purpose, bytes, sha256)
               SELECT 'file-many' || n, 'default', n || '.txt', 'assistants', 1, 'nothing' FROM generate_series(1, %s) n
               RETURNING id""",
            [count],
        ).fetchall()
        yield [str(row[0]) for row in rows]
        connection.execute("DELETE FROM files WHERE sha256 = 'nothing'")


def test_fields_of_other_services_and_nulls_change_nothing(http: httpx2.Client, store_id: str) -> None:
    query = {"query": "How tall is the lighthouse?"}
    extra: dict[str, Any] = {"max_num_results": None, "filters": None, "ranking_options": None, "rewrite_query": None}
    extra |= {"search_mode": "hybrid", "user": "someone"}
    searched = [http.post(f"/v1/vector_stores/{store_id}/search", json=query | one).json() for one in ({}, extra)]
    assert searched[0]["data"]
    assert searched[0] == searched[1]
    created = http.post("/v1/vector_stores", json={"name": "t", "embedding_model": "x", "provider_id": "y"}).json()
    assert (created["name"], http.delete(f"/v1/vector_stores/{created['id']}").status_code) == ("t", 200)
    form = {"purpose": "assistants", "user": "someone", "ttl": "60", "metadata": '{"a": 1}'}
    file = http.post("/v1/files", files={"file": ("extra.txt", b"The extra words.")}, data=form).json()
    assert (file["filename"], http.delete(f"/v1/files/{file['id']}").status_code) == ("extra.txt", 200)
