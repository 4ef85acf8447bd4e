"""Ingests that take long: their storing, what ends them, and what they leave when their process is killed."""

from __future__ import annotations

import asyncio
import hashlib
import io
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragq.client.embedding_client import LocalEmbeddingClient, Progress
from ragq.errors import DocumentError, NotFoundError
from ragq.models import Attributes, Chunk, ParsedDocument
from ragq.queues.documents import document_job_id
from ragq.queues.running import WorkerContext
from ragq.queues.upkeep.expiry import expire_files_and_stores
from ragq.storage import database as database_module
from ragq.storage import removal
from ragq.storage.file_batches import FileBatches
from ragq.storage.ingests import Attachment
from ragq.storage.store_files import StoreFileRecord
from ragq.storage.vector_stores import Stores
from tests.ingests import TENANT, attach, count_chunks, fail, ingest, look, open_context, put_in
from tests.servers import environment

CHUNKS = 600
ROW_SECONDS = 0.002  # that storing or deleting a chunk takes here, as on a busy machine with the index of vectors
STATEMENT_MS = 900  # less than all chunks together take
SLOW = f"""
    CREATE OR REPLACE FUNCTION take_time() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_sleep({ROW_SECONDS}); RETURN coalesce(NEW, OLD); END $$;
    CREATE OR REPLACE TRIGGER take_time BEFORE INSERT OR DELETE ON chunks FOR EACH ROW EXECUTE FUNCTION take_time()"""


@pytest.fixture
async def slow(
    context: WorkerContext, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[WorkerContext]:
    """A context with a database that needs longer for a long document than one statement may take."""
    async with context.database.for_all().connection() as connection:
        await connection.execute(SLOW)
    options = database_module.STARTUP_OPTIONS.replace("=1min", f"={STATEMENT_MS}")
    monkeypatch.setattr(database_module, "STARTUP_OPTIONS", options)
    monkeypatch.setattr(removal, "STEP_CHUNKS", 200)
    hurried = await open_context(context.settings, database_url)
    yield hurried
    await hurried.close()
    async with context.database.for_all().connection() as connection:
        await connection.execute("DROP TRIGGER take_time ON chunks")


async def begin(context: WorkerContext, record: StoreFileRecord, attempt: int = 1) -> None:
    where = (TENANT, record.vector_store_id, record.file_id, record.generation)
    assert await context.ingests.begin_ingest(*where, attempt)


async def store(
    context: WorkerContext, record: StoreFileRecord, attempt: int = 1, count: int = CHUNKS, **how: Any
) -> bool:
    """Take the last step of an ingest alone."""
    chunks = [Chunk(f"word{n}", n, n + 1, None, None, 1) for n in range(count)]
    vectors = np.eye(count, context.settings.embedding_dimensions, dtype=np.float32) + 0.1
    return await context.ingests.complete_ingest(
        record, attempt, ParsedDocument("word " * count), chunks, vectors, **how, language="en"
    )


async def test_a_long_document_is_stored_in_steps_that_become_visible_as_one(slow: WorkerContext) -> None:
    record = await attach(slow, "words")
    await begin(slow, record)
    assert await store(slow, record, count=1)
    again = await put_in(slow.database, record.vector_store_id, record.file_id, max_chunk_tokens=100)
    await begin(slow, again)
    told: list[tuple[int, int]] = []
    task = asyncio.create_task(store(slow, again, progress=lambda done, total: told.append((done, total))))
    seen = set()
    while not task.done():
        seen.add(await count_chunks(slow))
        await asyncio.sleep(0.02)
    assert await task
    assert seen <= {1, CHUNKS}, "the version before is visible until the new one is complete"
    assert await count_chunks(slow) == CHUNKS
    assert told[-1] == (CHUNKS, CHUNKS)
    assert len(told) >= 3


@pytest.mark.parametrize("what", ["file", "file in a store", "store", "expired store", "version"])
async def test_many_chunks_are_deleted_in_steps(slow: WorkerContext, what: str) -> None:
    stores = Stores(slow.database)
    made = await stores.create(TENANT, name="", description=None, metadata={})
    record = await attach(slow, "words", store=made.id)
    await begin(slow, record)
    assert await store(slow, record)
    if what == "file":
        await slow.files.delete(TENANT, record.file_id)
    elif what == "file in a store":
        await slow.store_files.detach(TENANT, made.id, record.file_id)
    elif what == "store":
        await stores.delete(TENANT, made.id)
    elif what == "expired store":
        async with slow.database.for_all().connection() as connection:
            await connection.execute("UPDATE vector_stores SET expires_at = now() WHERE id = %s", [made.id])
        await expire_files_and_stores(slow.files, stores, slow.blobs)
    else:
        again = await put_in(slow.database, made.id, record.file_id, max_chunk_tokens=100)
        await begin(slow, again)
        assert await store(slow, again, count=1)
    assert await count_chunks(slow) == (what == "version")


async def test_nobody_waits_for_a_document_that_is_being_stored(slow: WorkerContext) -> None:
    record = await attach(slow, "words")
    await begin(slow, record)
    stored = asyncio.Event()
    late = asyncio.create_task(store(slow, record, progress=lambda *_: stored.set()))
    await stored.wait()
    await begin(slow, record, attempt=2)  # as when its worker froze
    assert await store(slow, record, attempt=2, count=1)
    await slow.files.delete(TENANT, record.file_id)
    assert not late.done()
    assert not await late
    assert await count_chunks(slow) == 0


class EndlessEmbedding(LocalEmbeddingClient):
    """An embedding model that does not come to an end."""

    def __init__(self) -> None:
        super().__init__()
        self.began = asyncio.Event()
        self.ended_at = 0.0

    async def embed_documents(
        self, texts: Sequence[str], progress: Progress | None = None, *, tenant_id: str = ""
    ) -> Any:
        del texts, progress, tenant_id
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended_at = time.monotonic()
        raise AssertionError


async def delete_file(context: WorkerContext, record: StoreFileRecord) -> None:
    await context.files.delete(TENANT, record.file_id)


async def detach(context: WorkerContext, record: StoreFileRecord) -> None:
    await context.store_files.detach(TENANT, record.vector_store_id, record.file_id)


async def delete_store(context: WorkerContext, record: StoreFileRecord) -> None:
    await Stores(context.database).delete(TENANT, record.vector_store_id)


async def expire_file(context: WorkerContext, record: StoreFileRecord) -> None:
    async with context.database.for_all().connection() as connection:
        await connection.execute("UPDATE files SET expires_at = now() WHERE id = %s", [record.file_id])
    await expire_files_and_stores(context.files, Stores(context.database), context.blobs)


async def expire_store(context: WorkerContext, record: StoreFileRecord) -> None:
    async with context.database.for_all().connection() as connection:
        await connection.execute("UPDATE vector_stores SET expires_at = now() WHERE id = %s", [record.vector_store_id])
    await expire_files_and_stores(context.files, Stores(context.database), context.blobs)


async def replace_it(context: WorkerContext, record: StoreFileRecord) -> None:
    newer = await attach(context, "newer words", filename=record.filename, store=record.vector_store_id)
    assert await ingest(context, newer) == "completed"
    await put_in(context.database, record.vector_store_id, newer.file_id, replace_same_name=True)


async def chunk_otherwise(context: WorkerContext, record: StoreFileRecord) -> None:
    await put_in(context.database, record.vector_store_id, record.file_id, max_chunk_tokens=100)


async def cancel_batch(context: WorkerContext, record: StoreFileRecord) -> None:
    batches = FileBatches(context.database)
    batch = await batches.create(TENANT, record.vector_store_id, [Attachment(record.file_id)])
    assert await batches.cancel(TENANT, record.vector_store_id, batch)


@pytest.mark.parametrize(
    "way",
    [delete_file, detach, delete_store, expire_file, expire_store, replace_it, chunk_otherwise, cancel_batch],
    ids=lambda way: way.__name__,
)
async def test_an_ingest_ends_within_two_seconds_after_its_file_is_gone(context: WorkerContext, way: Any) -> None:
    made = await Stores(context.database).create(TENANT, name="", description=None, metadata={})
    record = await attach(context, "words", store=made.id)
    endless = EndlessEmbedding()
    task = asyncio.create_task(ingest(replace(context, embedding=endless), record))
    await endless.began.wait()
    await way(context, record)
    gone = time.monotonic()
    async with asyncio.timeout(10):
        assert await task == "superseded"
    assert endless.ended_at - gone < 2


async def test_an_ingest_goes_on_while_its_file_changes_in_other_ways(context: WorkerContext) -> None:
    record = await attach(context, "words")
    endless = EndlessEmbedding()
    task = asyncio.create_task(ingest(replace(context, embedding=endless), record))
    await endless.began.wait()
    await put_in(context.database, record.vector_store_id, record.file_id, attributes={"a": 1})
    done, _ = await asyncio.wait([task], timeout=2.5)
    assert not done
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert endless.ended_at


async def test_a_file_put_in_again_at_once_gets_a_job_of_its_own(context: WorkerContext) -> None:
    first = await attach(context, "words")
    await context.store_files.detach(TENANT, first.vector_store_id, first.file_id)
    second = await attach(context, "words")
    assert second.file_id == first.file_id
    assert document_job_id(second) != document_job_id(first)


async def test_attributes_change_when_a_file_is_put_in_again_and_stay_when_none_are_named(
    context: WorkerContext,
) -> None:
    record = await attach(context, "words")
    assert await ingest(context, record) == "completed"
    where = (TENANT, record.vector_store_id)
    steps: list[tuple[Attributes | None, Attributes]] = [({"a": 1}, {"a": 1}), (None, {"a": 1}), ({}, {})]
    for attributes, expected in steps:
        again = await put_in(context.database, where[1], record.file_id, attributes=attributes)
        assert (again.status, again.generation, again.attributes) == ("completed", record.generation, expected)


@pytest.mark.parametrize("state", ["in_progress", "completed", "failed", "cancelled"])
async def test_a_file_put_in_again_with_another_chunking_is_ingested_again(context: WorkerContext, state: str) -> None:
    record = await attach(context, "words")
    where = (TENANT, record.vector_store_id)
    assert await ingest(context, record) == "completed"
    async with context.database.for_all().connection() as connection:
        await connection.execute("UPDATE vector_store_files SET status = %s", [state])
    again = await put_in(context.database, where[1], record.file_id, max_chunk_tokens=100, chunk_overlap_tokens=0)
    assert (again.status, again.max_chunk_tokens, again.chunk_count) == ("in_progress", 100, 1)
    assert again.generation > record.generation
    kept = await put_in(context.database, where[1], record.file_id)  # the model's own sizes, named
    assert (kept.max_chunk_tokens, kept.generation > again.generation) == (None, True)
    assert await ingest(context, kept) == "completed"
    assert await count_chunks(context) == 1


async def test_a_chunking_that_is_not_named_stays(context: WorkerContext) -> None:
    record = await attach(context, "words")
    where = (TENANT, record.vector_store_id)
    await put_in(context.database, where[1], record.file_id, max_chunk_tokens=100, chunk_overlap_tokens=0)
    (before,) = await context.store_files.find_in_progress(*where, [record.file_id])
    await context.ingests.attach_many(*where, [Attachment(record.file_id, {"a": 1}, keeps_chunking=True)])
    (after,) = await context.store_files.find_in_progress(*where, [record.file_id])
    assert after == replace(before, attributes={"a": 1})


@pytest.mark.parametrize("is_done", [True, False], ids=["completed", "in progress"])
@pytest.mark.parametrize("by_batch", [False, True], ids=["alone", "in a batch"])
async def test_a_file_put_in_again_replaces_those_of_its_name(
    context: WorkerContext, is_done: bool, by_batch: bool
) -> None:
    old = await attach(context, "the first words")
    if is_done:
        assert await ingest(context, old) == "completed"
    newer, other = await attach(context, "newer words"), await attach(context, "other", filename="b.txt")
    assert await ingest(context, newer) == "completed"
    wanted = [Attachment(old.file_id, replace_same_name=True, keeps_chunking=True)]
    if by_batch:
        await FileBatches(context.database).create(TENANT, old.vector_store_id, wanted)
    else:
        await context.ingests.attach_many(TENANT, old.vector_store_id, wanted)
    if not is_done:
        assert await count_chunks(context) == 1, "what is replaced stays until the other is visible"
        assert await ingest(context, await look(context, old)) == "completed"
    async with context.database.for_all().connection() as connection:
        rows = await (await connection.execute("SELECT file_id FROM vector_store_files")).fetchall()
    assert {row[0] for row in rows} == {old.file_id, other.file_id}


async def test_a_failed_file_that_runs_again_still_replaces_those_of_its_name(context: WorkerContext) -> None:
    old = await attach(context, "the first words")
    assert await ingest(context, old) == "completed"
    newer = await attach(context, "newer words")
    where = (TENANT, old.vector_store_id)
    await context.ingests.attach_many(*where, [Attachment(newer.file_id, replace_same_name=True)])
    await fail(context, await look(context, newer), DocumentError("The file is damaged."))
    await context.ingests.attach_many(*where, [Attachment(newer.file_id, keeps_chunking=True)])
    assert await ingest(context, await look(context, newer)) == "completed"
    with pytest.raises(NotFoundError):
        await look(context, old)


HOLD = """
import asyncio, sys
from pathlib import Path
from ragq.storage.blobs import BlobStore
from ragq.settings import Settings

async def hold():
    blobs = BlobStore(Settings(_env_file=None, data_dir=Path(sys.argv[1])))
    async with blobs.as_file(sys.argv[2]) as path:
        print(path.stat().st_size, flush=True)
        await asyncio.Event().wait()

asyncio.run(hold())
"""


async def test_a_killed_process_leaves_no_temporary_file(context: WorkerContext, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    await context.blobs.put("word", io.BytesIO(b"words"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLD, str(context.settings.data_dir), "word"),
        env=environment(TMPDIR=temporary),
        stdout=subprocess.PIPE,
    )
    assert process.stdout
    assert await process.stdout.readline() == b"5\n"
    process.kill()
    await process.wait()
    assert list(temporary.iterdir()) == []


UPLOAD = """
import asyncio, os, signal, sys
from pathlib import Path
from ragq.storage.blobs import BlobStore
from ragq.settings import Settings

class Deadly:
    def __init__(self, file):
        self.file, self.left = file, 120 << 20
    def read(self, size=-1):
        self.left -= size
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.file.read(size)
    def __getattr__(self, name):
        return getattr(self.file, name)

async def put():
    blobs = BlobStore(Settings(_env_file=None, data_dir=Path(sys.argv[1])))
    with open(sys.argv[2], "w+b") as file:
        file.truncate(200 << 20)
        await blobs.put(sys.argv[3], Deadly(file))

asyncio.run(put())
"""


async def test_what_a_killed_upload_left_is_deleted_unless_the_bytes_are_being_written(
    context: WorkerContext, tmp_path: Path
) -> None:
    killed, alive = (hashlib.sha256(word).hexdigest() for word in (b"killed", b"alive"))
    arguments = [str(context.settings.data_dir), str(tmp_path / "sparse"), killed]
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", UPLOAD, *arguments, env=environment())
    await process.wait()
    folder = context.settings.data_dir / "files"
    assert [path.name.startswith(f"{killed}#") for path in folder.iterdir()] == [True]
    (folder / f"{alive}#1").write_text("half")
    expiry = expire_files_and_stores(context.files, Stores(context.database), context.blobs)
    async with context.files.locked_bytes(alive):
        task = asyncio.create_task(expiry)
        await asyncio.wait([task], timeout=1)
        assert (folder / f"{alive}#1").exists()
    await task
    assert list(folder.iterdir()) == []
