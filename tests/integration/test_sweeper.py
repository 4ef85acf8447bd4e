"""The sweeper: what it does with an ingest in each state of its job, on a real Valkey and PostgreSQL."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from ragq.client.job import ClaimedJob, Outcome, lanes_of
from ragq.client.rq_client import JobQueue
from ragq.models import JobStatus, QueueName
from ragq.queues.documents import document_job_id, enqueue_document
from ragq.queues.running import RunningJob, WorkerContext
from ragq.queues.upkeep import sweeper
from ragq.queues.upkeep.sweeper import sweep
from ragq.queues.worker import process_document
from ragq.records import DocumentArguments, DocumentResult, Failure, read_payload
from ragq.storage.store_files import StoreFileRecord
from tests.ingests import TENANT, attach, count_chunks, ingest, look, make_older
from tests.servers import Valkey

WORKER = "w1"


async def run_sweep(context: WorkerContext, queue: JobQueue) -> int:
    return await sweep(context.settings, context.store_files, context.ingests, queue)


async def claim(queue: JobQueue) -> list[ClaimedJob]:
    return (await queue.claim(WORKER, [(lane, 10) for lane in lanes_of(QueueName.DOCUMENTS)], in_flight=0)).jobs


async def work(context: WorkerContext, queue: JobQueue) -> list[str]:
    """Run all queued documents, as a worker does; returns their statuses."""
    statuses: list[str] = []
    for job in await claim(queue):
        _, arguments = read_payload(job.data)
        assert isinstance(arguments, DocumentArguments)
        running = RunningJob(job.id, job.attempt, job.tenant_id, asyncio.get_running_loop().time() + 60)
        result = await process_document(running, context, arguments)
        await queue.commit(WORKER, [Outcome(job.id, job.attempt, result)])
        statuses.append(result.status)
    return statuses


async def attach_and_enqueue(context: WorkerContext, queue: JobQueue) -> StoreFileRecord:
    record = await attach(context, "The ferry leaves at noon.")
    await enqueue_document(queue, context.settings, record)
    return record


async def test_an_attach_whose_enqueue_was_lost_is_ingested_after_the_sweep(
    context: WorkerContext, queue: JobQueue
) -> None:
    record = await attach(context, "The ferry leaves at noon.")
    await make_older(context)
    assert await run_sweep(context, queue) == 1
    assert await run_sweep(context, queue) == 0
    assert await work(context, queue) == ["completed"]
    found = await look(context, record)
    assert (found.status, found.generation, await count_chunks(context)) == ("completed", record.generation, 1)


async def test_a_young_row_is_left_to_its_enqueue(context: WorkerContext, queue: JobQueue) -> None:
    await attach(context, "words")
    await make_older(context, sweeper.SWEEP_AFTER_SECONDS - 10)
    assert await run_sweep(context, queue) == 0
    assert await claim(queue) == []


@pytest.mark.parametrize("status", [JobStatus.QUEUED, JobStatus.STARTED, JobStatus.SCHEDULED])
async def test_a_job_that_has_not_ended_is_left_alone(
    context: WorkerContext, queue: JobQueue, status: JobStatus
) -> None:
    record = await attach_and_enqueue(context, queue)
    await make_older(context)
    if status is not JobStatus.QUEUED:
        (job,) = await claim(queue)
        if status is JobStatus.SCHEDULED:
            await queue.retry_later(job.id, job.attempt, delay_seconds=60)
    assert await run_sweep(context, queue) == 0
    job_now = await queue.fetch(document_job_id(record), TENANT)
    assert job_now
    assert job_now.status is status
    assert (await look(context, record)).generation == record.generation


async def test_a_job_that_vanished_after_it_had_begun_starts_as_a_new_generation(
    context: WorkerContext, queue: JobQueue, valkey: Valkey
) -> None:
    record = await attach_and_enqueue(context, queue)
    (job,) = await claim(queue)
    where = (TENANT, record.vector_store_id, record.file_id, record.generation)
    assert await context.ingests.begin_ingest(*where, job.attempt + 2)
    with valkey.connect() as connection:
        connection.flushall()
    await make_older(context)
    assert await run_sweep(context, queue) == 1
    assert await work(context, queue) == ["completed"]
    assert (await look(context, record)).generation == record.generation + 1


@pytest.mark.parametrize(
    ("error", "code", "words", "poison"),
    [
        (Failure("invalid_file", "The PDF is damaged."), "invalid_file", "The PDF is damaged.", False),
        (Failure("deadline_exceeded", "Too late."), "server_error", "Too late.", False),
        (Failure("quarantined", "Workers died."), "server_error", "Workers died.", True),
    ],
)
async def test_a_failed_jobs_row_gets_its_error(
    context: WorkerContext, queue: JobQueue, error: Failure, code: str, words: str, poison: bool
) -> None:
    record = await attach_and_enqueue(context, queue)
    (job,) = await claim(queue)
    await queue.commit(WORKER, [Outcome(job.id, job.attempt, error)])
    await make_older(context)
    assert await run_sweep(context, queue) == 1
    found = await look(context, record)
    assert (found.status, found.error_code, found.error_message) == ("failed", code, words)
    assert (await context.files.find_poison(record.sha256) is not None) == poison
    assert await run_sweep(context, queue) == 0


@pytest.mark.parametrize("status", [JobStatus.CANCELED, JobStatus.STOPPED])
async def test_a_canceled_or_stopped_jobs_row_fails_and_says_so(
    context: WorkerContext, queue: JobQueue, status: JobStatus
) -> None:
    record = await attach_and_enqueue(context, queue)
    (job,) = await claim(queue)
    await queue.cancel(document_job_id(record), stopped=job.attempt if status is JobStatus.STOPPED else "")
    await make_older(context)
    assert await run_sweep(context, queue) == 1
    found = await look(context, record)
    assert (found.status, found.error_code) == ("failed", "server_error")
    assert found.error_message == f"The ingest was {status}: put the file into the store again."


async def test_a_finished_job_whose_row_is_still_in_progress_runs_again(
    context: WorkerContext, queue: JobQueue
) -> None:
    record = await attach_and_enqueue(context, queue)
    (job,) = await claim(queue)
    await queue.commit(WORKER, [Outcome(job.id, job.attempt, DocumentResult("superseded"))])
    await make_older(context)
    assert await run_sweep(context, queue) == 1
    assert await work(context, queue) == ["completed"]
    assert (await look(context, record)).generation == record.generation + 1


async def test_many_sweepers_at_once_make_one_job(context: WorkerContext, queue: JobQueue) -> None:
    record = await attach(context, "words")
    assert await context.ingests.begin_ingest(TENANT, record.vector_store_id, record.file_id, record.generation, 3)
    await make_older(context)
    await asyncio.gather(*(run_sweep(context, queue) for _ in range(5)))
    assert len(await claim(queue)) == 1


async def test_rows_of_every_tenant_are_listed_oldest_first_page_by_page(
    context: WorkerContext, queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "SWEEP_BATCH", 2)
    made = [await attach(context, f"words {number}", filename=f"{number}.txt") for number in range(5)]
    done = await attach(context, "done", filename="done.txt")
    assert await ingest(context, done) == "completed"
    await make_older(context)
    async with context.database.for_all().connection() as connection:
        await connection.execute("INSERT INTO tenants (id) VALUES ('acme') ON CONFLICT DO NOTHING")
        await connection.execute(
            "UPDATE vector_store_files SET tenant_id = 'acme' WHERE file_id = %s", [made[0].file_id]
        )
    listed = await context.store_files.list_unfinished(30, limit=10)
    made[0] = replace(made[0], tenant_id="acme")
    assert [(one.tenant_id, one.file_id) for one in listed] == [(one.tenant_id, one.file_id) for one in made]
    assert await run_sweep(context, queue) == 5
    assert sorted(job.id for job in await claim(queue)) == sorted(document_job_id(record) for record in made)
