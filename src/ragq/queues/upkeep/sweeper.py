"""The sweeper: finds ingests that PostgreSQL waits for and no job works on, and queues or fails them.

They are left by a process that died between its step in PostgreSQL and its step in Valkey, by a job that was cancelled
or stopped, or by a Valkey that was restored or emptied.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import structlog

from ragq.client.rq_client import JobQueue
from ragq.errors import DOCUMENT_CODES, DocumentError, PermanentError, RagqError
from ragq.models import JobStatus, Orphan
from ragq.queues.documents import document_job_id, enqueue_document
from ragq.records import Job
from ragq.settings import Settings
from ragq.storage.ingests import Ingests
from ragq.storage.store_files import StoreFileRecord, StoreFiles

log = structlog.get_logger(__name__)

SWEEP_AFTER_SECONDS = 30.0  # the job of a younger row may just be being queued
SWEEP_BATCH = 500  # rows read at once
RECHECK_SECONDS = 1.0
ABANDONED = "The file is in progress but no job works on it. The next sweep repairs it: is a document worker running?"


async def sweep(settings: Settings, store_files: StoreFiles, ingests: Ingests, queue: JobQueue) -> int:
    """Repair every ingest that no job works on; returns how many. Safe in any number of processes at once."""
    repaired = 0
    async for record in _abandoned(store_files, queue):
        repaired += await _repair(settings, ingests, queue, record)
    return repaired


async def find_abandoned(store_files: StoreFiles, queue: JobQueue) -> list[Orphan]:
    """Find the ingests that the next sweep would repair. Read-only; each is found twice, a second apart."""

    async def look() -> set[tuple[str, str, int]]:
        return {
            (record.vector_store_id, record.file_id, record.generation)
            async for record in _abandoned(store_files, queue)
        }

    if not (first := await look()):
        return []
    await asyncio.sleep(RECHECK_SECONDS)
    return [Orphan("ingest_without_job", f"{key[0]}/{key[1]}", ABANDONED) for key in sorted(first & await look())]


async def _abandoned(store_files: StoreFiles, queue: JobQueue) -> AsyncIterator[StoreFileRecord]:
    after = None
    while records := await store_files.list_unfinished(SWEEP_AFTER_SECONDS, limit=SWEEP_BATCH, after=after):
        statuses = await queue.statuses([document_job_id(record) for record in records])
        for record, status in zip(records, statuses, strict=True):
            if status is None or status.is_final:
                yield record
        after = records[-1]


async def _repair(settings: Settings, ingests: Ingests, queue: JobQueue, record: StoreFileRecord) -> bool:
    job = await queue.fetch(document_job_id(record), record.tenant_id)
    if job and not job.status.is_final:
        return False
    where = (record.tenant_id, record.vector_store_id, record.file_id, record.generation)
    if job and job.status is not JobStatus.FINISHED:
        await ingests.fail_ingest(*where, max(job.attempt, record.attempt), _error_of(job))
        log.warning("ingest_failed_by_sweep", job_id=job.id, job_status=str(job.status))
        return True
    if job or record.attempt:  # a new job starts at attempt 1, and needs a generation without attempts
        generation = await ingests.restart_ingest(*where)
        if generation is None:
            return False
        record = replace(record, generation=generation)
    enqueued = await enqueue_document(queue, settings, record)
    log.warning("ingest_enqueued_by_sweep", job_id=enqueued.job_id)
    return enqueued.created


def _error_of(job: Job) -> RagqError:
    """The error that an unfinished job ended with, as its worker would have recorded it."""
    if job.error is None:
        return PermanentError(f"The ingest was {job.status}: put the file into the store again.")
    message, code = job.error.message, job.error.code
    known = code in DOCUMENT_CODES
    return DocumentError(message, code=code) if known else PermanentError(message, code=code)
