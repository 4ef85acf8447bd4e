"""What becomes of documents in PostgreSQL: poison, fences against late workers, and deletes."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from ragq.client.job import lanes_of
from ragq.client.rq_client import JobQueue
from ragq.errors import DocumentError, NotFoundError, PermanentError, RagqError
from ragq.models import Chunk, ParsedDocument, QueueName
from ragq.queues.documents import enqueue_document
from ragq.queues.running import WorkerContext
from ragq.storage.store_files import StoreFileRecord
from tests.ingests import CRASHED, TENANT, attach, count_chunks, fail, ingest, look
from tests.queue_steps import expire_leases
from tests.servers import Valkey, command, environment

QUARANTINED = PermanentError("2 workers died while they ran this job alone.", code="quarantined")


async def test_a_quarantined_document_shows_its_reason(context: WorkerContext) -> None:
    record = await attach(context, "poison")
    await fail(context, record, QUARANTINED, attempt=5)
    found = await look(context, record)
    assert (found.status, found.error_code, found.error_message) == ("failed", "server_error", QUARANTINED.message)


async def test_a_worker_quarantines_the_document_that_killed_others_and_its_bytes_are_poison(
    context: WorkerContext, queue: JobQueue, valkey: Valkey, database_url: str
) -> None:
    record = await attach(context, "The words that kill.")
    await enqueue_document(queue, context.settings, record)
    lanes = [(lane, 1) for lane in lanes_of(QueueName.DOCUMENTS)]
    for _ in range(4):  # two deaths among others, two alone
        (job,) = (await queue.claim("killed", lanes, in_flight=0)).jobs
        assert await expire_leases(queue, valkey) == [job.id]
    variables = environment(
        RAGQ_VALKEY_URL=valkey.url, RAGQ_DATABASE_URL=database_url, RAGQ_DATA_DIR=context.settings.data_dir
    )
    worker = await asyncio.create_subprocess_exec(*command("worker", "documents"), env=variables)
    try:
        async with asyncio.timeout(30):
            while (await look(context, record)).status == "in_progress":  # noqa: ASYNC110  (nothing tells when)
                await asyncio.sleep(0.1)
    finally:
        worker.kill()
        await worker.wait()
    found = await look(context, record)
    assert (found.status, found.error_code) == ("failed", "server_error")
    assert found.error_message
    assert "2 workers died while they ran this job alone" in found.error_message
    assert await context.files.find_poison(record.sha256)


@pytest.mark.parametrize(("error", "code"), [(QUARANTINED, "server_error"), (CRASHED, "invalid_file")])
async def test_poisonous_bytes_fail_at_once_under_any_name_and_say_how_to_lift_it(
    context: WorkerContext, error: RagqError, code: str
) -> None:
    first = await attach(context, "poison")
    await fail(context, first, error)
    for again in (await attach(context, "poison", filename="other.txt"), await attach(context, "poison")):
        assert (again.status, again.error_code) == ("failed", code)
        assert again.error_message
        assert error.message in again.error_message
        assert f"ragq doctor --forgive {first.sha256}, then" in again.error_message
    assert (await attach(context, "harmless", filename="b.txt")).status == "in_progress"


async def test_forgiven_bytes_are_ingested(context: WorkerContext) -> None:
    record = await attach(context, "Words that were poison.")
    await fail(context, record, CRASHED)
    await context.files.forgive_poison(record.sha256)
    again = await attach(context, "Words that were poison.")
    assert (again.status, again.error_code, again.error_message) == ("in_progress", None, None)
    assert await ingest(context, again) == "completed"
    with pytest.raises(NotFoundError, match="nothing to forgive"):
        await context.files.forgive_poison(record.sha256)


@pytest.mark.parametrize(
    "error",
    [
        DocumentError("The PDF is encrypted and needs a password."),
        DocumentError("It is an .exe.", code="unsupported_file"),
        PermanentError("The job was not done by its deadline.", code="deadline_exceeded"),
    ],
)
async def test_other_failures_are_no_poison(context: WorkerContext, error: RagqError) -> None:
    record = await attach(context, "words")
    await fail(context, record, error)
    assert (await look(context, record)).status == "failed"
    assert (await attach(context, "words")).status == "in_progress"


async def test_a_job_queued_before_its_bytes_were_known_as_poison_does_not_read_them(context: WorkerContext) -> None:
    first, second = await attach(context, "poison"), await attach(context, "poison", filename="b.txt")
    await fail(context, first, CRASHED)
    with pytest.raises(DocumentError, match="not tried again"):
        await ingest(context, second)


async def test_a_refused_failure_leaves_no_poison(context: WorkerContext) -> None:
    record = await attach(context, "words")
    assert await ingest(context, record, attempt=2) == "completed"
    await fail(context, record, CRASHED)
    assert (await look(context, record)).status == "completed"
    assert await context.files.find_poison(record.sha256) is None


async def test_a_reason_with_characters_that_postgresql_refuses_is_recorded(context: WorkerContext) -> None:
    record = await attach(context, "words")
    await fail(context, record, DocumentError("Page \0 of \ud800 is damaged."))
    assert (await look(context, record)).error_message == "Page   of ? is damaged."


async def complete(context: WorkerContext, record: StoreFileRecord, attempt: int, text: str) -> bool:
    """Take the last step of an ingest alone."""
    chunks = [Chunk(text, 0, len(text), None, None, 3)]
    vectors = np.eye(1, context.settings.embedding_dimensions, dtype=np.float32)
    return await context.ingests.complete_ingest(record, attempt, ParsedDocument(text), chunks, vectors, language="en")


async def begin(context: WorkerContext, record: StoreFileRecord, attempt: int) -> bool:
    return await context.ingests.begin_ingest(
        TENANT, record.vector_store_id, record.file_id, record.generation, attempt
    )


async def test_a_delete_wins_over_an_ingest_that_runs(context: WorkerContext) -> None:
    record = await attach(context, "words")
    assert await begin(context, record, 1)
    await context.store_files.detach(TENANT, record.vector_store_id, record.file_id)
    assert not await complete(context, record, 1, "words")
    assert await count_chunks(context) == 0
    with pytest.raises(NotFoundError):
        await look(context, record)


async def test_a_delete_of_the_file_in_the_middle_of_the_real_ingest_leaves_nothing(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = await attach(context, "Words of a file that is deleted while it is read.")

    parse = context.parser.parse

    async def parse_and_delete(*args: Any, **kwargs: Any) -> ParsedDocument:
        document = await parse(*args, **kwargs)
        await context.files.delete(TENANT, record.file_id)
        return document

    monkeypatch.setattr(context.parser, "parse", parse_and_delete)
    assert await ingest(context, record) == "superseded"
    assert await count_chunks(context) == 0


async def test_an_older_attempt_can_neither_complete_nor_fail_nor_begin_again(context: WorkerContext) -> None:
    record = await attach(context, "words")
    assert await begin(context, record, 1)
    assert await begin(context, record, 2)
    assert not await complete(context, record, 1, "late")
    await fail(context, record, DocumentError("late"), attempt=1)
    assert not await begin(context, record, 1)
    assert (await look(context, record)).status == "in_progress"
    assert await complete(context, record, 2, "words")
    assert await context.store_files.get_text(TENANT, record.vector_store_id, record.file_id) == "words"


async def test_an_older_generation_can_neither_complete_nor_fail(context: WorkerContext) -> None:
    record = await attach(context, "words")
    assert await begin(context, record, 1)
    where = (TENANT, record.vector_store_id, record.file_id)
    assert await context.ingests.restart_ingest(*where, record.generation) == record.generation + 1
    assert await context.ingests.restart_ingest(*where, record.generation) is None
    assert not await complete(context, record, 1, "late")
    await fail(context, record, DocumentError("late"))
    found = await look(context, record)
    assert (found.status, found.generation, found.attempt) == ("in_progress", record.generation + 1, 0)


async def test_a_completed_ingest_is_not_restarted(context: WorkerContext) -> None:
    record = await attach(context, "words")
    assert await ingest(context, record) == "completed"
    where = (TENANT, record.vector_store_id, record.file_id)
    assert await context.ingests.restart_ingest(*where, record.generation) is None


async def test_the_same_file_twice_is_one_copy(context: WorkerContext) -> None:
    text = "The lighthouse of Quorra is 61 metres tall."
    first, second = await asyncio.gather(attach(context, text), attach(context, text))
    assert (first.file_id, first.generation) == (second.file_id, second.generation)
    outcomes = await asyncio.gather(ingest(context, first, 1), ingest(context, second, 2))
    assert outcomes.count("completed") == 1
    assert await count_chunks(context) == 1
