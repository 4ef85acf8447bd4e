"""The archive of finished responses against a real PostgreSQL."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import pytest

from ragq.errors import GoneError, NotFoundError
from ragq.models import Answer, JobStatus, SearchResult
from ragq.records import Failure, Job, Meta, QueryResult, Request
from ragq.storage import archive as archive_client
from ragq.storage.archive import TOMBSTONE_SECONDS, Archive
from ragq.storage.database import Database

DAY = 86_400


def make_job(job_id: str, *, ended_days_ago: float = 0, text: str = "yes") -> Job:
    ended_at = time.time() - ended_days_ago * DAY
    return Job(
        id=job_id,
        tenant_id="default",
        status=JobStatus.FINISHED,
        attempt=1,
        created_at=ended_at - 2,
        started_at=ended_at - 1,
        ended_at=ended_at,
        request=Request(input="why?"),
        result=QueryResult("why?", Answer(text, [], "extractive"), []),
        meta=Meta(run_ms=7),
    )


@pytest.fixture
def archive(database: Database) -> Archive:
    return Archive(database)


async def count(database: Database, where: str) -> int:
    row = await database.for_all().row(f"SELECT count(*) AS rows FROM responses WHERE {where}")
    assert row
    return int(row["rows"])


async def test_a_job_comes_back_as_it_was_stored(archive: Archive) -> None:
    jobs = [make_job(f"resp_{number}") for number in range(3)]
    await archive.store(jobs)
    assert [await archive.fetch(job.id, "default") for job in jobs] == jobs


async def test_no_jobs_are_no_statement(archive: Archive, database: Database) -> None:
    await archive.store([])
    assert await count(database, "true") == 0


def failed_job(message: str) -> Job:
    failure = Failure("server_error", message)
    return replace(make_job("resp_b"), status=JobStatus.FAILED, result=None, error=failure)


@pytest.mark.parametrize("text", ["a \0 b", '"{}\\', "Grüße, 東京 \U0001f600"])
async def test_any_text_is_stored(archive: Archive, text: str) -> None:
    answered, failed = make_job("resp_a", text=text), failed_job(text)
    await archive.store([answered, failed])
    assert await archive.fetch("resp_a", "default") == answered
    assert await archive.fetch("resp_b", "default") == failed


async def test_half_a_surrogate_pair_does_not_hold_up_the_batch(archive: Archive) -> None:
    failed = failed_job("a lone \ud800")
    await archive.store([make_job("resp_a"), failed])
    assert await archive.fetch("resp_b", "default") == replace(failed, error=Failure("server_error", "a lone \ufffd"))


async def test_a_similarity_that_is_no_number_does_not_hold_up_the_batch(archive: Archive) -> None:
    found = SearchResult("file-1", "a.md", "text", 0, 4, None, None, 1, 0.5, similarity=math.nan)
    job = replace(make_job("resp_a"), result=QueryResult("why?", Answer("yes", [], "extractive"), [found]))
    await archive.store([job])
    stored = await archive.fetch("resp_a", "default")
    assert stored
    assert stored.answered
    assert stored.answered.results == [replace(found, similarity=None)]


async def test_the_later_end_stays_whatever_the_order(archive: Archive) -> None:
    old, new = make_job("resp_a", ended_days_ago=1, text="old"), make_job("resp_a", text="new")
    for batch, stays in (([old], old), ([new], new), ([old], new), ([new, old], new), ([old, new], new)):
        await archive.store(batch)
        assert await archive.fetch("resp_a", "default") == stays


async def test_another_tenants_and_an_unknown_job_are_not_there(archive: Archive) -> None:
    await archive.store([make_job("resp_a")])
    await archive.expire(0)
    for job_id, tenant in (("resp_a", "acme"), ("resp_unknown", "default"), ("resp_\0", "default")):
        assert await archive.fetch(job_id, tenant) is None


async def test_an_expired_job_is_gone_and_a_repeated_store_does_not_bring_it_back(
    archive: Archive, database: Database
) -> None:
    old, young = make_job("resp_old", ended_days_ago=31), make_job("resp_young", ended_days_ago=29)
    await archive.store([old, young])
    assert await archive.expire(30 * DAY) == 1
    await archive.store([old])
    with pytest.raises(GoneError) as caught:
        await archive.fetch("resp_old", "default")
    assert (caught.value.status, caught.value.code) == (410, "expired")
    assert await archive.fetch("resp_young", "default") == young
    assert await count(database, "job IS NULL") == 1
    assert await archive.expire(30 * DAY) == 0


async def test_expiry_takes_every_batch_and_forgets_after_a_year(
    archive: Archive, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_client, "EXPIRY_BATCH", 2)
    year = TOMBSTONE_SECONDS / DAY
    await archive.store([make_job(f"resp_{number}", ended_days_ago=31 + year) for number in range(5)])
    await archive.store([make_job("resp_recent", ended_days_ago=29 + year)])
    assert await archive.expire(30 * DAY) == 6
    assert await count(database, "job IS NULL") == 6
    assert await archive.expire(30 * DAY) == 0
    assert await count(database, "true") == 1
    with pytest.raises(GoneError):
        await archive.fetch("resp_recent", "default")


async def test_a_deleted_job_is_not_there_and_one_just_being_archived_does_not_bring_it_back(
    archive: Archive, database: Database
) -> None:
    await archive.store([make_job("resp_a")])
    for job_id in ("resp_a", "resp_b"):
        await archive.delete(job_id, "default")
        await archive.store([make_job(job_id)])
        with pytest.raises(NotFoundError):
            await archive.fetch(job_id, "default")
        assert await archive.fetch(job_id, "acme") is None
    assert await archive.expire(30 * DAY) == 0
    assert await count(database, "true") == 2
    assert await archive.expire(-1) == 0
    assert await count(database, "true") == 0


async def test_no_tenant_deletes_what_is_anothers(archive: Archive) -> None:
    await archive.store([make_job("resp_a")])
    await archive.delete("resp_a", "acme")
    assert await archive.fetch("resp_a", "default")


async def test_a_job_of_an_older_version_is_read(archive: Archive, database: Database) -> None:
    await archive.store([make_job("resp_a")])
    async with database.for_all().connection() as connection:
        await connection.execute(
            """UPDATE responses SET job = ((job::jsonb - 'position') || '{"forgotten": 1}')::text"""
        )
    assert await archive.fetch("resp_a", "default")
