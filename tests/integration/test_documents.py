"""What becomes of documents in PostgreSQL: poison, fences against late workers, and deletes."""

from __future__ import annotations

import hashlib
import io
import time

import pytest

from ragq.client.store_client import StoreFileRecord
from ragq.errors import DocumentError, NotFoundError, PermanentError, PoisonError, RagqError
from ragq.queues.worker import Clients, RunningJob, document_failed, process_document

TENANT = "default"


async def attach(clients: Clients, text: str, *, filename: str = "a.txt", store: str | None = None) -> StoreFileRecord:
    """Upload words and put them into a store, as the routes do, but queue nothing."""
    data = text.encode()
    sha256 = hashlib.sha256(data).hexdigest()
    await clients.blobs.put(sha256, io.BytesIO(data))
    file = await clients.store.create_file(
        TENANT, filename=filename, purpose="assistants", size=len(data), sha256=sha256
    )
    store = store or await clients.store.default_store(TENANT)
    return await clients.store.attach_file(TENANT, store, file.id, attributes={})


async def look(clients: Clients, record: StoreFileRecord) -> StoreFileRecord:
    return await clients.store.get_store_file(TENANT, record.vector_store_id, record.file_id)


def job_of(record: StoreFileRecord, attempt: int = 1) -> RunningJob:
    return RunningJob(
        f"{record.vector_store_id}-{record.file_id}-{record.generation}", attempt, TENANT, time.monotonic()
    )


def arguments_of(record: StoreFileRecord) -> dict[str, str | int]:
    return {"vector_store_id": record.vector_store_id, "file_id": record.file_id, "generation": record.generation}


async def ingest(clients: Clients, record: StoreFileRecord, attempt: int = 1) -> str:
    done = await process_document(job_of(record, attempt), clients, **arguments_of(record))  # type: ignore[arg-type]
    return str(done["status"])


async def fail(clients: Clients, record: StoreFileRecord, error: RagqError, attempt: int = 1) -> None:
    await document_failed(job_of(record, attempt), clients, error, **arguments_of(record))  # type: ignore[arg-type]


QUARANTINED = PermanentError("2 workers died while they ran this job alone.", code="quarantined")
CRASHED = PoisonError("The file crashed the parser (SIGSEGV).")


async def test_a_quarantined_document_shows_its_reason(clients: Clients) -> None:
    record = await attach(clients, "poison")
    await fail(clients, record, QUARANTINED, attempt=5)
    found = await look(clients, record)
    assert (found.status, found.error_code, found.error_message) == ("failed", "server_error", QUARANTINED.message)


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
    await clients.store.forgive_poison(record.sha256)
    again = await attach(clients, "Words that were poison.")
    assert (again.status, again.error_code, again.error_message) == ("in_progress", None, None)
    assert await ingest(clients, again) == "completed"
    with pytest.raises(NotFoundError, match="nothing to forgive"):
        await clients.store.forgive_poison(record.sha256)


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
    assert await clients.store.find_poison(record.sha256) is None


async def test_a_reason_with_characters_that_postgresql_refuses_is_recorded(clients: Clients) -> None:
    record = await attach(clients, "words")
    await fail(clients, record, DocumentError("Page \0 of \ud800 is damaged."))
    assert (await look(clients, record)).error_message == "Page   of ? is damaged."
