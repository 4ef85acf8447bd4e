"""How the ingest of a document becomes a job; routes and the sweeper make the same one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Iterator

from ragq.client.job import Enqueued, NewJob
from ragq.client.rq_client import JobQueue
from ragq.errors import OverloadedError
from ragq.models import Lane, QueueName
from ragq.records import DocumentArguments
from ragq.settings import Settings
from ragq.storage.store_files import StoreFileRecord

SMALL_BYTES = 100_000  # of a file that does not wait behind larger ones: as text, a few seconds of embedding
AT_ONCE = 32  # calls to Valkey under way for one batch: together they share its writes to disk


def document_job_id(record: StoreFileRecord) -> str:
    """Name the job of this generation of a file in a store."""
    return _job_id(record.vector_store_id, record.file_id, record.generation)


def _job_id(store_id: str, file_id: str, generation: int) -> str:
    return f"{store_id}-{file_id}-{generation}"


async def enqueue_document(queue: JobQueue, settings: Settings, record: StoreFileRecord) -> Enqueued:
    """Queue the ingest of a file; a repeat finds the job it made before. Small files have a lane and slots of their own.

    When the queue is full the file waits in PostgreSQL, where it is accepted already, until the sweeper finds room.
    """
    try:
        return await queue.enqueue(
            NewJob(
                id=document_job_id(record),
                arguments=DocumentArguments(record.vector_store_id, record.file_id, record.generation),
                queue=QueueName.DOCUMENTS,
                lane=Lane.PRIORITY if record.bytes <= SMALL_BYTES else Lane.DEFAULT,
                tenant_id=record.tenant_id,
                deadline_seconds=settings.document_deadline_seconds,
            )
        )
    except OverloadedError:
        return Enqueued(document_job_id(record), created=False, fingerprint="")


async def enqueue_documents(queue: JobQueue, settings: Settings, records: Iterable[StoreFileRecord]) -> None:
    """Queue the ingests of many files."""
    await _run_all(enqueue_document(queue, settings, record) for record in records)


async def cancel_documents(queue: JobQueue, store_id: str, ingests: Iterable[tuple[str, int]]) -> None:
    """Cancel the jobs of (file, generation), so that no worker spends time on them."""
    await _run_all(queue.cancel(_job_id(store_id, file_id, generation)) for file_id, generation in ingests)


async def _run_all(calls: Iterator[Awaitable[object]]) -> None:
    """Await all, some at once, until one fails; its error is raised."""

    async def run() -> None:
        for call in calls:
            await call

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(run())
    except ExceptionGroup as group:
        raise group.exceptions[0] from group
