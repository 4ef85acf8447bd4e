"""Job hashes that somebody else wrote into: their job may end, their neighbours go on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ragq.client.job import ClaimedJob, Outcome
from ragq.client.rq_client import JobQueue
from ragq.errors import PermanentError
from ragq.models import JobFunction, JobStatus, Question
from ragq.queues.worker import check_payload
from ragq.records import QueryArguments
from tests.queue_steps import DONE, claim, claim_ids, enqueue, finish, let_pass, state
from tests.servers import Valkey

GARBAGE = (b"", b"garbage", b"1.5", b"-1", b"1e999", b"nan", b"\xff\xfe")
NUMBERS = ("deadline_ms", "created_ms", "ticket", "tries", "deaths", "deaths_alone", "attempt")
FIELDS = (*NUMBERS, "origin", "data", "tenant", "waiting_in", "alone", "archive")


def spoil(valkey: Valkey, field: str, value: bytes | None) -> None:
    with valkey.connect() as connection:
        if value is None:
            connection.hdel("ragq:job:broken", field)
        else:
            connection.hset("ragq:job:broken", field, value)


async def claim_all(queue: JobQueue) -> dict[str, ClaimedJob]:
    return {job.id: job for job in await claim(queue)}


async def enqueue_three(queue: JobQueue) -> None:
    for job_id in ("before", "broken", "after"):
        await enqueue(queue, job_id)


async def spoil_in_every_way(queue: JobQueue, valkey: Valkey, field: str) -> AsyncIterator[bytes | None]:
    """For each kind of garbage: queue three jobs in an empty Valkey, and spoil the second."""
    for value in (*GARBAGE, None):
        with valkey.connect() as connection:
            connection.flushall()
        await enqueue_three(queue)
        spoil(valkey, field, value)
        yield value


@pytest.mark.parametrize("field", FIELDS)
async def test_a_spoilt_field_harms_no_neighbour_and_its_job_ends(queue: JobQueue, valkey: Valkey, field: str) -> None:
    async for value in spoil_in_every_way(queue, valkey, field):
        jobs = await claim_all(queue)
        assert sorted(jobs) == ["after", "before", "broken"], value
        let_pass(valkey, "leases")  # the worker dies, and another one does its work
        assert sorted((await queue.reap()).put_back) == sorted(jobs), value
        jobs = await claim_all(queue) | await claim_all(queue)  # a suspect is claimed alone
        assert sorted(jobs) == ["after", "before", "broken"], value
        assert [await finish(queue, job) for job in jobs.values()] == [True] * 3, value


@pytest.mark.parametrize("field", FIELDS)
async def test_a_spoilt_job_is_released_and_retried_with_its_neighbours(
    queue: JobQueue, valkey: Valkey, field: str
) -> None:
    async for value in spoil_in_every_way(queue, valkey, field):
        jobs = await claim(queue)
        assert await queue.release([(job.id, job.attempt) for job in jobs]) == [True] * 3, value
        for job in await claim(queue):
            assert await queue.retry_later(job.id, job.attempt, delay_seconds=60), value
        let_pass(valkey, "delayed")
        assert sorted(await claim_ids(queue)) == ["after", "before", "broken"], value


@pytest.mark.parametrize("field", FIELDS)
async def test_a_spoilt_job_that_nobody_claims_ends_at_its_deadline(
    queue: JobQueue, valkey: Valkey, field: str
) -> None:
    async for value in spoil_in_every_way(queue, valkey, field):
        let_pass(valkey, "deadlines")
        assert sorted((await queue.reap()).late) == ["after", "before", "broken"], value
        assert await claim_ids(queue) == []
        assert (await state(queue, "after")).status is JobStatus.FAILED


@pytest.mark.parametrize("value", [b"", b"garbage", b"[]", b'["os.system", null, [], {}]', b"\xff\xfe", None])
async def test_a_spoilt_payload_is_claimed_and_refused(queue: JobQueue, valkey: Valkey, value: bytes | None) -> None:
    await enqueue_three(queue)
    spoil(valkey, "data", value)
    jobs = await claim_all(queue)
    with pytest.raises(PermanentError, match="The job was not run"):
        check_payload(jobs["broken"].data)
    assert check_payload(jobs["after"].data) == (JobFunction.PROCESS_QUERY, QueryArguments(Question("after", [])))


async def test_a_hash_that_becomes_a_text_while_its_job_runs_harms_no_neighbour(
    queue: JobQueue, valkey: Valkey
) -> None:
    await enqueue_three(queue)
    before, broken, after = await claim(queue)
    with valkey.connect() as connection:
        connection.delete("ragq:job:broken")
        connection.set("ragq:job:broken", "not a hash")
    held = [(job.id, job.attempt, None) for job in (before, broken, after)]
    assert await queue.heartbeat(held) == {"broken"}
    outcomes = [Outcome(job.id, job.attempt, DONE) for job in (before, broken, after)]
    assert await queue.commit("w1", outcomes) == [True, False, True]


@pytest.mark.parametrize("time", ["leases", "deadlines", "delayed"])
async def test_a_hash_that_is_a_text_does_not_stop_the_reaping(queue: JobQueue, valkey: Valkey, time: str) -> None:
    await enqueue_three(queue)
    if time != "deadlines":
        jobs = await claim(queue)
        if time == "delayed":
            for job in jobs:
                await queue.retry_later(job.id, job.attempt, delay_seconds=60)
    with valkey.connect() as connection:
        connection.delete("ragq:job:broken")
        connection.set("ragq:job:broken", "not a hash")
    let_pass(valkey, time)
    reaped = await queue.reap()
    assert sorted(reaped.put_back + reaped.late) == ([] if time == "delayed" else ["after", "before"])
    let_pass(valkey, time)
    assert (await queue.reap()).put_back == []
    assert sorted(await claim_ids(queue)) == ([] if time == "deadlines" else ["after", "before"])
