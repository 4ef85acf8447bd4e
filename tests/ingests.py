"""Single steps of ingests, for tests that choose their order and attempts."""

from __future__ import annotations

import hashlib
import io
import time
from typing import Any

from ragq.client.rq_client import JobQueue
from ragq.errors import PoisonError, RagqError
from ragq.queues.documents import document_job_id
from ragq.queues.running import RunningJob, WorkerContext
from ragq.queues.worker import document_failed, process_document
from ragq.records import DocumentArguments
from ragq.settings import Settings
from ragq.storage.database import Database
from ragq.storage.ingests import Attachment, Ingests
from ragq.storage.store_files import StoreFileRecord, StoreFiles
from ragq.storage.vector_stores import Stores

TENANT = "default"
CRASHED = PoisonError("The file crashed the parser (SIGSEGV).")


async def open_context(settings: Settings, database_url: str) -> WorkerContext:
    """Open the context of job functions; Valkey is down, since most of these do not use the queue."""
    return await WorkerContext.open(settings, JobQueue(settings, "redis://127.0.0.1:1"), database_url)


async def attach(
    context: WorkerContext, text: str, *, filename: str = "a.txt", store: str | None = None
) -> StoreFileRecord:
    """Upload words and put them into a store, like the routes, but without queueing the ingest."""
    data = text.encode()
    sha256 = hashlib.sha256(data).hexdigest()
    async with context.files.locked_bytes(sha256):
        await context.blobs.put(sha256, io.BytesIO(data))
        file = await context.files.create(
            TENANT, filename=filename, purpose="assistants", size=len(data), sha256=sha256
        )
    store = store or await Stores(context.database).default_id(TENANT)
    return await put_in(context.database, store, file.id, attributes={})


async def put_in(database: Database, store: str, file_id: str, **how: Any) -> StoreFileRecord:
    """Put a file into a store; `how` has the fields of `Attachment`."""
    await Ingests(database).attach_many(TENANT, store, [Attachment(file_id, **how)])
    return await StoreFiles(database).get(TENANT, store, file_id)


async def look(context: WorkerContext, record: StoreFileRecord) -> StoreFileRecord:
    return await context.store_files.get(TENANT, record.vector_store_id, record.file_id)


def job_of(record: StoreFileRecord, attempt: int = 1) -> RunningJob:
    return RunningJob(document_job_id(record), attempt, TENANT, time.monotonic())


def arguments_of(record: StoreFileRecord) -> DocumentArguments:
    return DocumentArguments(record.vector_store_id, record.file_id, record.generation)


async def ingest(context: WorkerContext, record: StoreFileRecord, attempt: int = 1) -> str:
    return (await process_document(job_of(record, attempt), context, arguments_of(record))).status


async def fail(context: WorkerContext, record: StoreFileRecord, error: RagqError, attempt: int = 1) -> None:
    await document_failed(job_of(record, attempt), context, error, arguments_of(record))


async def make_older(context: WorkerContext, seconds: float = 60) -> None:
    """Make all files in stores older."""
    async with context.database.for_all().connection() as connection:
        await connection.execute(
            "UPDATE vector_store_files SET created_at = created_at - make_interval(secs => %s)", [seconds]
        )


async def count_chunks(context: WorkerContext) -> int:
    row = await context.database.for_all().row("SELECT count(*) AS chunks FROM chunks")
    assert row
    return int(row["chunks"])
