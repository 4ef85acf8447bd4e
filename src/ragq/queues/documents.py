"""How the ingest of a document becomes a job; routes and the sweeper make the same one."""

from __future__ import annotations

from ragq.client.job import Enqueued
from ragq.client.rq_client import JobQueue
from ragq.client.store_client import StoreFileRecord
from ragq.errors import OverloadedError
from ragq.models import JobFunction, QueueName
from ragq.settings import Settings


def document_job_id(record: StoreFileRecord) -> str:
    """Name the job of this generation of a file in a store."""
    return f"{record.vector_store_id}-{record.file_id}-{record.generation}"


async def enqueue_document(queue: JobQueue, settings: Settings, record: StoreFileRecord) -> Enqueued:
    """Queue the ingest of a file; a repeat finds the job it made before.

    When the queue is full the file waits in PostgreSQL, where it is accepted already, until the sweeper finds room.
    """
    try:
        return await queue.enqueue(
            JobFunction.PROCESS_DOCUMENT,
            {"vector_store_id": record.vector_store_id, "file_id": record.file_id, "generation": record.generation},
            job_id=document_job_id(record),
            queue=QueueName.DOCUMENTS,
            tenant_id=record.tenant_id,
            deadline_seconds=settings.document_deadline_seconds,
        )
    except OverloadedError:
        return Enqueued(document_job_id(record), created=False, fingerprint="")
