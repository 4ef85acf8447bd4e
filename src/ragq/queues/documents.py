"""Queue the ingest of a document as a job. Routes and the sweeper create the same job."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ragq.client.job import Enqueued, NewJob
from ragq.client.rq_client import JobQueue
from ragq.errors import OverloadedError
from ragq.models import Lane, QueueName
from ragq.records import DocumentArguments
from ragq.settings import Settings
from ragq.storage.store_files import StoreFileRecord
from ragq.tasks import run_all

SMALL_BYTES = 100_000  # smaller files do not wait behind larger ones; this much text takes a few seconds to embed
_JOB_ID = re.compile(r"(vs_[^-]+)-(file-.+)-\d+")
AT_ONCE = 32  # concurrent calls to Valkey for one batch; they share its disk writes


def document_job_id(record: StoreFileRecord) -> str:
    """The job id for this generation of a file in a store."""
    return _job_id(record.vector_store_id, record.file_id, record.generation)


def document_of(job_id: str) -> tuple[str, str] | None:
    """The store and the file of a document's job; None of another job."""
    found = _JOB_ID.fullmatch(job_id)
    return (found[1], found[2]) if found else None


def _job_id(store_id: str, file_id: str, generation: int) -> str:
    return f"{store_id}-{file_id}-{generation}"


async def enqueue_document(queue: JobQueue, settings: Settings, record: StoreFileRecord) -> Enqueued:
    """Queue the ingest of a file. Idempotent. Small files have a lane and slots of their own.

    If the queue is full, the file waits in PostgreSQL, where it is already accepted, until the sweeper queues it.
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
                archive=True,
            )
        )
    except OverloadedError:
        return Enqueued(document_job_id(record), created=False, fingerprint="")


async def enqueue_documents(queue: JobQueue, settings: Settings, records: Iterable[StoreFileRecord]) -> None:
    await run_all((enqueue_document(queue, settings, record) for record in records), at_once=AT_ONCE)


async def cancel_documents(queue: JobQueue, store_id: str, ingests: Iterable[tuple[str, int]]) -> None:
    """Cancel the jobs of (file, generation)."""
    calls = (queue.cancel(_job_id(store_id, file_id, generation)) for file_id, generation in ingests)
    await run_all(calls, at_once=AT_ONCE)
