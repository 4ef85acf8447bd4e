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
from ragq.queues.worker import Clients
from ragq.storage.store_files import StoreFileRecord
from tests.ingests import CRASHED, TENANT, attach, count_chunks, fail, ingest, look
from tests.queue_steps import expire_leases
from tests.servers import Valkey, command, environment

QUARANTINED = PermanentError("2 workers died while they ran this job alone.", code="quarantined")


async def test_a_quarantined_document_shows_its_reason(clients: Clients) -> None:
    record = await attach(clients, "poison")
    await fail(clients, record, QUARANTINED, attempt=5)
    found = await look(clients, record)
    assert (found.status, found.error_code, found.error_message) == ("failed", "server_error", QUARANTINED.message)


async def test_a_worker_quarantines_the_document_that_killed_others_and_its_bytes_are_poison(
    clients: Clients, queue: JobQueue, valkey: Valkey, database_url: str
) -> None:
    record = await attach(clients, "The words that kill.")
    await enqueue_document(queue, clients.settings, record)
    lanes = [(lane, 1) for lane in lanes_of(QueueName.DOCUMENTS)]
    for _ in range(4):  # two deaths among others, two alone
        (job,) = (await queue.claim("killed", lanes, in_flight=0)).jobs
        assert await expire_leases(queue, valkey) == [job.id]
    variables = environment(
        RAGQ_VALKEY_URL=valkey.url, RAGQ_DATABASE_URL=database_url, RAGQ_DATA_DIR=clients.settings.data_dir
    )
    worker = await asyncio.create_subprocess_exec(*command("worker", "documents"), env=variables)
    try:
        async with asyncio.timeout(30):
            while (await look(clients, record)).status == "in_progress":  # noqa: ASYNC110  (nothing tells when)
                await asyncio.sleep(0.1)
    finally:
        worker.kill()
        await worker.wait()
    found = await look(clients, record)
    assert (found.status, found.error_code) == ("failed", "server_error")
    assert found.error_message
    assert "2 workers died while they ran this job alone" in found.error_message
    assert await clients.files.find_poison(record.sha256)


@pytest.mark.parametrize(("error", "code"), [(QUARANTINED, "server_error"), (CRASHED, "invalid_file")])
async def test_poisonous_bytes_fail_at_once_under_any_name_and_say_how_to_lift_it(
    clients: Clients, error: RagqError, code: str
) -> None:
    first = await attach(clients, "poison")
    await fail(clients, first, error)
    for again in (await attach(clients, "poison", filename="other.txt"), await attach(clients, "poison")):
        assert (again.status, again.error_code) == ("failed", code)
        assert again.error_message
        assert error.message in again.error_message
        assert f"ragq doctor --forgive {first.sha256}, then" in again.error_message
    assert (await attach(clients, "harmless", filename="b.txt")).status == "in_progress"


async def test_forgiven_bytes_are_ingested(clients: Clients) -> None:
    record = await attach(clients, "Words that were poison.")
    await fail(clients, record, CRASHED)
    await clients.files.forgive_poison(record.sha256)
    again = await attach(clients, "Words that were poison.")
    assert (again.status, again.error_code, again.error_message) == ("in_progress", None, None)
    assert await ingest(clients, again) == "completed"
    with pytest.raises(NotFoundError, match="nothing to forgive"):
        await clients.files.forgive_poison(record.sha256)


@pytest.mark.parametrize(
    "error",
    [
        DocumentError("The PDF is encrypted and needs a password."),
        DocumentError("It is an .exe.", code="unsupported_file"),
        PermanentError("The job was not done by its deadline.", code="deadline_exceeded"),
    ],
)
async def test_other_failures_are_no_poison(clients: Clients, error: RagqError) -> None:
    record = await attach(clients, "words")
    await fail(clients, record, error)
    assert (await look(clients, record)).status == "failed"
    assert (await attach(clients, "words")).status == "in_progress"


async def test_a_job_queued_before_its_bytes_were_known_as_poison_does_not_read_them(clients: Clients) -> None:
    first, second = await attach(clients, "poison"), await attach(clients, "poison", filename="b.txt")
    await fail(clients, first, CRASHED)
    with pytest.raises(DocumentError, match="not tried again"):
        await ingest(clients, second)


async def test_a_refused_failure_leaves_no_poison(clients: Clients) -> None:
    record = await attach(clients, "words")
    assert await ingest(clients, record, attempt=2) == "completed"
    await fail(clients, record, CRASHED)
    assert (await look(clients, record)).status == "completed"
    assert await clients.files.find_poison(record.sha256) is None


async def test_a_reason_with_characters_that_postgresql_refuses_is_recorded(clients: Clients) -> None:
    record = await attach(clients, "words")
    await fail(clients, record, DocumentError("Page \0 of \ud800 is damaged."))
    assert (await look(clients, record)).error_message == "Page   of ? is damaged."


async def complete(clients: Clients, record: StoreFileRecord, attempt: int, text: str) -> bool:
    """Take the last step of an ingest alone."""
    chunks = [Chunk(text, 0, len(text), None, None, 3)]
    vectors = np.eye(1, clients.settings.embedding_dimensions, dtype=np.float32)
    return await clients.ingests.complete_ingest(record, attempt, ParsedDocument(text), chunks, vectors)


async def begin(clients: Clients, record: StoreFileRecord, attempt: int) -> bool:
    return await clients.ingests.begin_ingest(
        TENANT, record.vector_store_id, record.file_id, record.generation, attempt
    )


async def test_a_delete_wins_over_an_ingest_that_runs(clients: Clients) -> None:
    record = await attach(clients, "words")
    assert await begin(clients, record, 1)
    await clients.store_files.detach(TENANT, record.vector_store_id, record.file_id)
    assert not await complete(clients, record, 1, "words")
    assert await count_chunks(clients) == 0
    with pytest.raises(NotFoundError):
        await look(clients, record)


async def test_a_delete_of_the_file_in_the_middle_of_the_real_ingest_leaves_nothing(
    clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = await attach(clients, "Words of a file that is deleted while it is read.")

    parse = clients.parser.parse

    async def parse_and_delete(*args: Any, **kwargs: Any) -> ParsedDocument:
        document = await parse(*args, **kwargs)
        await clients.files.delete(TENANT, record.file_id)
        return document

    monkeypatch.setattr(clients.parser, "parse", parse_and_delete)
    assert await ingest(clients, record) == "superseded"
    assert await count_chunks(clients) == 0


async def test_an_older_attempt_can_neither_complete_nor_fail_nor_begin_again(clients: Clients) -> None:
    record = await attach(clients, "words")
    assert await begin(clients, record, 1)
    assert await begin(clients, record, 2)
    assert not await complete(clients, record, 1, "late")
    await fail(clients, record, DocumentError("late"), attempt=1)
    assert not await begin(clients, record, 1)
    assert (await look(clients, record)).status == "in_progress"
    assert await complete(clients, record, 2, "words")
    assert await clients.store_files.get_text(TENANT, record.vector_store_id, record.file_id) == "words"


async def test_an_older_generation_can_neither_complete_nor_fail(clients: Clients) -> None:
    record = await attach(clients, "words")
    assert await begin(clients, record, 1)
    where = (TENANT, record.vector_store_id, record.file_id)
    assert await clients.ingests.restart_ingest(*where, record.generation) == record.generation + 1
    assert await clients.ingests.restart_ingest(*where, record.generation) is None
    assert not await complete(clients, record, 1, "late")
    await fail(clients, record, DocumentError("late"))
    found = await look(clients, record)
    assert (found.status, found.generation, found.attempt) == ("in_progress", record.generation + 1, 0)


async def test_a_completed_ingest_is_not_restarted(clients: Clients) -> None:
    record = await attach(clients, "words")
    assert await ingest(clients, record) == "completed"
    where = (TENANT, record.vector_store_id, record.file_id)
    assert await clients.ingests.restart_ingest(*where, record.generation) is None


async def test_the_same_file_twice_is_one_copy(clients: Clients) -> None:
    text = "The lighthouse of Quorra is 61 metres tall."
    first, second = await asyncio.gather(attach(clients, text), attach(clients, text))
    assert (first.file_id, first.generation) == (second.file_id, second.generation)
    outcomes = await asyncio.gather(ingest(clients, first, 1), ingest(clients, second, 2))
    assert outcomes.count("completed") == 1
    assert await count_chunks(clients) == 1
