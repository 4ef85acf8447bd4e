"""Files and vector stores in PostgreSQL: filtered searches, batches, expiry and pages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from msgspec import convert

from ragq.client.rq_client import JobQueue
from ragq.errors import InvalidRequestError, NotFoundError
from ragq.models import AttributeFilter, Attributes, Chunk, JobStatus, ParsedDocument
from ragq.queues.documents import cancel_documents, document_job_id, enqueue_documents
from ragq.queues.running import WorkerContext
from ragq.queues.upkeep.expiry import expire_files_and_stores
from ragq.queues.upkeep.housekeeping import expire_forever
from ragq.storage.file_batches import FileBatches
from ragq.storage.ingests import Attachment
from ragq.storage.paging import Page
from ragq.storage.search import chunks as chunk_client
from ragq.storage.store_files import StoreFileRecord, _store_files
from ragq.storage.vector_index import make_index
from ragq.storage.vector_stores import Stores
from ragq.tasks import end_tasks
from tests.ingests import TENANT, attach, count_chunks, ingest, look, put_in

DIMENSIONS = 384
NEAR, FAR = np.eye(2, DIMENSIONS, dtype=np.float32)
FILES: dict[str, Attributes] = {
    "old": {"year": 1999, "author": "Ada", "draft": False},
    "new": {"year": 2024, "author": "Bob", "draft": True},
    "text": {"year": "2024", "author": "ada"},
    "bare": {},
}


async def put(
    context: WorkerContext, store: str, name: str, attributes: Attributes, vectors: Sequence[np.ndarray[Any, Any]]
) -> StoreFileRecord:
    """Make a searchable file with these chunks, without the embedding model."""
    record = await attach(context, name, filename=name, store=store)
    await context.store_files.set_attributes(TENANT, store, record.file_id, attributes)
    where = (TENANT, store, record.file_id, record.generation)
    assert await context.ingests.begin_ingest(*where, 1)
    chunks = [Chunk("word", 0, 4, None, None, 1)] * len(vectors)
    assert await context.ingests.complete_ingest(
        record, 1, ParsedDocument("word"), chunks, np.array(vectors), language="en"
    )
    return record


async def put_text(
    context: WorkerContext, store: str, name: str, texts: Sequence[str], starts: Sequence[int]
) -> StoreFileRecord:
    """Make a searchable file with chunks that begin there."""
    record = await attach(context, name, filename=name, store=store)
    assert await context.ingests.begin_ingest(TENANT, store, record.file_id, record.generation, 1)
    chunks = [Chunk(text, start, start + len(text), None, None, 2) for text, start in zip(texts, starts, strict=True)]
    vectors = np.array([NEAR] * len(chunks))
    assert await context.ingests.complete_ingest(record, 1, ParsedDocument(name), chunks, vectors, language="en")
    return record


async def search(context: WorkerContext, store: str, filters: dict[str, Any] | None, limit: int = 50) -> list[str]:
    scope = await context.chunks.find_scope(
        TENANT, [store], "word", convert(filters, AttributeFilter) if filters else None
    )
    found = await context.chunks.search(scope, NEAR, limit=limit)
    return [result.filename for result in found]


async def make_store(context: WorkerContext, **options: Any) -> str:
    return (await Stores(context.database).create(TENANT, name="", description=None, metadata={}, **options)).id


async def run(context: WorkerContext, statement: str, *values: Any) -> None:
    async with context.database.for_all().connection() as connection:
        await connection.execute(statement, values)


async def test_every_comparison_matches_as_the_reference_says(context: WorkerContext) -> None:
    store = await make_store(context)
    for name, attributes in FILES.items():
        await put(context, store, name, attributes, [NEAR])
    year, author = {"key": "year"}, {"key": "author"}
    modern = year | {"type": "gt", "value": 2000}
    expected: list[tuple[dict[str, Any] | None, set[str]]] = [
        (None, {"old", "new", "text", "bare"}),
        (year | {"type": "eq", "value": 2024.0}, {"new"}),
        (year | {"type": "eq", "value": "2024"}, {"text"}),
        (year | {"type": "ne", "value": 2024}, {"old", "text", "bare"}),
        (modern, {"new"}),
        (year | {"type": "gte", "value": 1999}, {"old", "new"}),
        (year | {"type": "lt", "value": 2024}, {"old"}),
        (year | {"type": "lte", "value": "2024"}, {"text"}),
        (year | {"type": "in", "value": [1999, "2024"]}, {"old", "text"}),
        (year | {"type": "in", "value": []}, set()),
        (year | {"type": "nin", "value": [1999, "2024"]}, {"new", "bare"}),
        (author | {"type": "gt", "value": "B"}, {"new", "text"}),
        ({"type": "eq", "key": "draft", "value": False}, {"old"}),
        ({"type": "eq", "key": "draft", "value": 0}, set()),
        ({"type": "eq", "key": "no such key", "value": 1}, set()),
        ({"type": "and", "filters": [modern, author | {"type": "eq", "value": "Bob"}]}, {"new"}),
        ({"type": "or", "filters": [modern, author | {"type": "eq", "value": "Ada"}]}, {"old", "new"}),
        ({"type": "eq", "key": "x') OR true --", "value": "%s {} '"}, set()),
    ]
    for filters, names in expected:
        assert set(await search(context, store, filters)) == names, filters


@pytest.mark.parametrize("exact_up_to", [20_000, 0], ids=["exact", "by index"])
async def test_a_selective_filter_finds_what_many_nearer_chunks_would_hide(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch, exact_up_to: int
) -> None:
    monkeypatch.setattr(chunk_client, "EXACT_SEARCH_CHUNKS", exact_up_to)
    store = await make_store(context)
    await put(context, store, "crowd", {"kind": "crowd"}, [NEAR] * 500)
    await put(context, store, "hermit", {"kind": "hermit"}, [FAR])
    await make_index(context.database, above=exact_up_to)
    await run(context, "ANALYZE chunks")
    assert "hermit" not in await search(context, store, None, limit=5)
    assert await search(context, store, {"type": "eq", "key": "kind", "value": "hermit"}, limit=5) == ["hermit"]


async def test_a_batch_counts_its_files_as_they_are(context: WorkerContext) -> None:
    store, batches = await make_store(context), FileBatches(context.database)
    records = [await attach(context, f"words {n}", filename=f"{n}.txt") for n in range(3)]
    attachments = [Attachment(record.file_id, {"n": n}) for n, record in enumerate(records)]
    batch_id = await batches.create(TENANT, store, [*attachments, attachments[0]])
    batch = await batches.get(TENANT, store, batch_id)
    assert (batch.in_progress, batch.completed, batch.cancelled_at) == (3, 0, None)
    in_store = await context.store_files.list_files(TENANT, store, Page(), None, batch_id=batch_id)
    assert {record.file_id: record.attributes["n"] for record in in_store} == {
        record.file_id: n for n, record in enumerate(records)
    }
    (last,) = await context.store_files.find_in_progress(TENANT, store, [records[2].file_id])
    assert await ingest(context, last) == "completed"
    again = await batches.create(TENANT, store, attachments[2:])
    await context.store_files.detach(TENANT, store, records[0].file_id)
    batch, other = [await batches.get(TENANT, store, one) for one in (batch_id, again)]
    assert (batch.in_progress, batch.completed) == (1, 1)
    assert (other.in_progress, other.completed) == (0, 1)
    with pytest.raises(NotFoundError):
        await batches.get(TENANT, await make_store(context), batch_id)
    with pytest.raises(NotFoundError):
        await batches.get("acme", store, batch_id)


async def test_a_canceled_batch_fences_its_running_ingests_and_cancels_their_jobs(
    context: WorkerContext, queue: JobQueue
) -> None:
    store, batches = await make_store(context), FileBatches(context.database)
    file_ids = [(await attach(context, f"words {n}", filename=f"{n}.txt")).file_id for n in range(3)]
    batch_id = await batches.create(TENANT, store, [Attachment(file_id, {}) for file_id in file_ids])
    records = await context.store_files.find_in_progress(TENANT, store, file_ids)
    await enqueue_documents(queue, context.settings, records)
    done, running, _ = records
    assert await ingest(context, done) == "completed"
    where = (TENANT, store, running.file_id, running.generation)
    assert await context.ingests.begin_ingest(*where, 1)
    cancelled = await batches.cancel(TENANT, store, batch_id)
    await cancel_documents(queue, store, cancelled)
    statuses = await queue.statuses([document_job_id(record) for record in records])
    assert statuses == [JobStatus.QUEUED, JobStatus.CANCELED, JobStatus.CANCELED]
    vectors = np.array([NEAR])
    late = [Chunk("word", 0, 4, None, None, 1)]
    assert not await context.ingests.complete_ingest(running, 1, ParsedDocument("word"), late, vectors, language="en")
    batch = await batches.get(TENANT, store, batch_id)
    assert (batch.in_progress, batch.completed, batch.cancelled) == (0, 1, 2)
    assert batch.cancelled_at
    assert await batches.cancel(TENANT, store, batch_id) == []
    revived = await put_in(context.database, store, running.file_id, attributes={})
    assert (revived.status, revived.generation) == ("in_progress", running.generation + 2)
    assert await ingest(context, revived) == "completed"


async def test_a_batch_that_has_ended_is_not_canceled(context: WorkerContext) -> None:
    store, batches = await make_store(context), FileBatches(context.database)
    file_id = (await attach(context, "words")).file_id
    batch_id = await batches.create(TENANT, store, [Attachment(file_id, {})])
    (record,) = await context.store_files.find_in_progress(TENANT, store, [file_id])
    assert await ingest(context, record) == "completed"
    assert await batches.cancel(TENANT, store, batch_id) == []
    assert (await batches.get(TENANT, store, batch_id)).cancelled_at is None


async def make_file(context: WorkerContext, name: str, seconds: int | None, sha256: str = "0" * 64) -> str:
    file = await context.files.create(
        TENANT, filename=name, purpose="assistants", size=1, sha256=sha256, expires_after_seconds=seconds
    )
    return file.id


async def test_of_two_expiries_of_one_file_the_later_stays(context: WorkerContext) -> None:
    for seconds, lasts in ((3600, 3600), (7200, 7200), (3600, 7200), (None, None), (3600, None)):
        file = await context.files.get(TENANT, await make_file(context, "a.txt", seconds))
        if lasts is None:
            assert file.expires_at is None
        else:
            assert file.expires_at
            assert (file.expires_at - file.created_at).total_seconds() == pytest.approx(lasts, abs=30)


async def test_an_expired_file_goes_with_its_chunks_and_its_bytes_when_no_other_shares_them(
    context: WorkerContext,
) -> None:
    record = await attach(context, "words", filename="goes.txt")
    assert await ingest(context, record) == "completed"
    stays = await make_file(context, "stays.txt", None, record.sha256)
    await run(context, "UPDATE files SET expires_at = now() WHERE id = %s", record.file_id)
    await expire_files_and_stores(context.files, Stores(context.database), context.blobs)
    with pytest.raises(NotFoundError):
        await context.files.get(TENANT, record.file_id)
    assert await count_chunks(context) == 0
    assert await context.blobs.exists(record.sha256)
    await run(context, "UPDATE files SET expires_at = now() WHERE id = %s", stays)
    await expire_files_and_stores(context.files, Stores(context.database), context.blobs)
    assert not await context.blobs.exists(record.sha256)


async def test_housekeeping_expires_files_on_its_own(context: WorkerContext, queue: JobQueue) -> None:
    file_id = await make_file(context, "old.txt", 3600)
    await run(context, "UPDATE files SET expires_at = now() WHERE id = %s", file_id)
    task = asyncio.create_task(expire_forever(replace(context, queue=queue)))
    async with asyncio.timeout(10):
        while await context.files.list_files(TENANT, Page(), None):  # noqa: ASYNC110  (PostgreSQL sets no event)
            await asyncio.sleep(0.02)
    assert not task.done()
    await end_tasks([task])


async def test_an_expired_store_is_emptied_and_stays_as_an_object(context: WorkerContext) -> None:
    store = await make_store(context, expires_after_days=1)
    record = await attach(context, "words", store=store)
    assert await ingest(context, record) == "completed"
    await expire_files_and_stores(context.files, Stores(context.database), context.blobs)
    assert (await look(context, record)).status == "completed"
    await run(context, "UPDATE vector_stores SET expires_at = now() WHERE id = %s", store)
    assert (await Stores(context.database).get(TENANT, store)).expired
    await search(context, store, None)
    with pytest.raises(InvalidRequestError):
        await Stores(context.database).set_expiry(TENANT, store, 30)
    with pytest.raises(InvalidRequestError) as caught:
        await Stores(context.database).resolve(TENANT, store, to_use=True)
    assert caught.value.code == "vector_store_expired"
    await expire_files_and_stores(context.files, Stores(context.database), context.blobs)
    found = await Stores(context.database).get(TENANT, store)
    assert (found.expired, found.completed, found.usage_bytes, await count_chunks(context)) == (True, 0, 0, 0)
    assert (await context.files.get(TENANT, record.file_id)).id == record.file_id


async def test_a_search_makes_a_store_active_at_most_once_a_minute(context: WorkerContext) -> None:
    store = await make_store(context, expires_after_days=7)
    made = await Stores(context.database).get(TENANT, store)
    await search(context, store, None)
    assert (await Stores(context.database).get(TENANT, store)).last_active_at == made.last_active_at
    earlier = "UPDATE vector_stores SET last_active_at = now() - interval '61 seconds', expires_at = now() + '1 hour'"
    await run(context, earlier)
    await search(context, store, None)
    found = await Stores(context.database).get(TENANT, store)
    assert found.last_active_at > made.last_active_at
    assert found.expires_at
    assert (found.expires_at - found.last_active_at).days == 7


async def test_the_default_store_takes_no_expiry(context: WorkerContext) -> None:
    store = await Stores(context.database).default_id(TENANT)
    with pytest.raises(InvalidRequestError):
        await Stores(context.database).set_expiry(TENANT, store, 1)
    await Stores(context.database).set_expiry(TENANT, store, None)


@pytest.mark.parametrize("descending", [True, False])
async def test_pages_go_forward_and_back_over_the_same_files(context: WorkerContext, descending: bool) -> None:
    made = [await make_file(context, f"{n}.txt", None) for n in range(7)]
    if descending:
        made.reverse()

    async def page(**where: Any) -> list[str]:
        listed = await context.files.list_files(TENANT, Page(descending=descending, **where), "assistants")
        return [file.id for file in listed]

    assert await page(limit=10) == made
    assert await page(limit=3, after=made[1]) == made[2:6]  # the last one tells that there are more
    assert await page(limit=3, before=made[5]) == [*made[2:5], made[1]]
    assert await page(limit=3, before=made[2]) == made[:2]
    assert await page(limit=9, after=made[1], before=made[5]) == made[2:5]
    assert await page(limit=3, before=made[0]) == []
    for where in ({"after": "file-unknown"}, {"before": "file-unknown"}):
        with pytest.raises(InvalidRequestError) as caught:
            await page(limit=3, **where)
        assert caught.value.param in where


FILL = """
    WITH made AS (INSERT INTO files (id, tenant_id, filename, purpose, bytes, sha256)
                  SELECT 'file-' || n, 'default', 'Prüfbericht ' || n || '.pdf', 'assistants', 1, 'x'
                  FROM generate_series(1, 10000) AS n RETURNING id)
    INSERT INTO vector_store_files (vector_store_id, file_id, tenant_id, text) SELECT %s, id, 'default', repeat('word ', 400) FROM made
"""


async def test_a_file_is_found_by_a_part_of_its_name_among_ten_thousand(context: WorkerContext) -> None:
    store = await Stores(context.database).default_id(TENANT)
    async with context.database.for_all().connection() as connection:
        await connection.execute(FILL, [store])
        await connection.execute("ANALYZE vector_store_files, files")

    async def find(filename: str | None, limit: int = 3, **where: Any) -> list[str]:
        page = Page(limit, **where)
        return [
            one.filename for one in await context.store_files.list_files(TENANT, store, page, None, filename=filename)
        ]

    assert await find("PRÜFBERICHT 777.P") == ["Prüfbericht 777.pdf"]
    assert set(await find("bericht 77", limit=200)) == {
        f"Prüfbericht {n}.pdf" for n in (77, *range(770, 780), *range(7700, 7800))
    }
    assert await find("100%") == await find("r_f") == []
    found = await find("bericht 77", limit=200)
    last = found[1].removeprefix("Prüfbericht ").removesuffix(".pdf")
    assert await find("bericht 77", limit=1, after=f"file-{last}") == found[2:4]
    newest = _store_files(TENANT).query + " ORDER BY v.created_at DESC, v.file_id DESC LIMIT 21"
    async with context.database.for_all().connection() as connection:
        plan = await connection.execute(f"EXPLAIN {newest}", {"tenant": TENANT, "store": store})
        assert "vector_store_files_by_age" in str(await plan.fetchall())


async def test_the_chunk_after_another_is_read_in_its_document_alone(context: WorkerContext) -> None:
    store = await make_store(context)
    record = await put_text(context, store, "a.txt", ["One. Two.", "Two. Three.", "Four."], [0, 5, 17])
    await put_text(context, store, "b.txt", ["Other."], [20])
    scope = await context.chunks.find_scope(TENANT, [store], "one two three four")
    found = {
        one.text: one for one in await context.chunks.search(scope, NEAR, limit=9) if one.file_id == record.file_id
    }

    async def after(text: str, stores: list[str]) -> str | None:
        following = await context.chunks.read_next(TENANT, stores, found[text])
        return following.text if following else None

    assert [await after(text, [store]) for text in ("One. Two.", "Two. Three.", "Four.")] == [
        "Two. Three.",
        "Four.",
        None,
    ]
    assert await after("One. Two.", ["default"]) is None
