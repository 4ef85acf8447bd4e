"""Jobs that nobody began in time, and how long ended ones stay."""

from __future__ import annotations

import pytest
from rq.job import Job as RqJob
from rq.serializers import JSONSerializer

from ragq.client.job import Outcome
from ragq.client.rq_client import JobQueue
from ragq.models import JobStatus
from tests.queue_steps import BAD, DONE, claim, claim_ids, enqueue, finish, let_pass, state
from tests.servers import Valkey

TTL_SECONDS = 3600


def fetch_by_rq(valkey: Valkey, job_id: str) -> RqJob:
    return RqJob.fetch(job_id, connection=valkey.connect(), serializer=JSONSerializer)


def seconds_to_live(valkey: Valkey, job_id: str) -> tuple[int, int]:
    """Of the job and of its results; -1 for ever, -2 when it is not there."""
    with valkey.connect() as connection:
        return int(connection.ttl(f"ragq:job:{job_id}")), int(connection.ttl(f"ragq:results:{job_id}"))


@pytest.mark.parametrize("stage", ["queued", "scheduled"])
async def test_a_job_that_nobody_began_by_its_deadline_has_failed(queue: JobQueue, valkey: Valkey, stage: str) -> None:
    await enqueue(queue, "a")
    if stage == "scheduled":
        (job,) = await claim(queue)
        await queue.retry_later("a", job.attempt, delay_seconds=60)
    await enqueue(queue, "in time")
    with valkey.connect() as connection:
        connection.zadd("ragq:deadlines", {"a": 1}, xx=True)
    assert (await queue.reap()).late == ["a"]
    found = await state(queue, "a")
    assert found.status is JobStatus.FAILED
    assert found.error
    assert found.error.code == "deadline_exceeded"
    with valkey.connect() as connection:
        assert [connection.zcard(f"ragq:{key}") for key in ("delayed", "scheduled:queries")] == [0, 0]
        assert connection.lrange("ragq:queue:queries", 0, -1) == [b"in time"]
    assert await claim_ids(queue) == ["in time"]


async def test_rq_reads_why_a_job_missed_its_deadline(queue: JobQueue, valkey: Valkey) -> None:
    await enqueue(queue, "a")
    let_pass(valkey, "deadlines")
    await queue.reap()
    seen = fetch_by_rq(valkey, "a")
    result = seen.latest_result()
    assert result
    assert (seen.get_status(), result.type.name) == ("failed", "FAILED")
    assert "deadline_exceeded" in str(result.exc_string)
    with valkey.connect() as connection:
        assert connection.zrange("ragq:failed:queries", 0, -1) == [b"a"]


async def test_a_started_job_past_its_deadline_is_left_to_its_worker(queue: JobQueue, valkey: Valkey) -> None:
    await enqueue(queue, "a")
    (job,) = await claim(queue)
    let_pass(valkey, "deadlines")
    assert (await queue.reap()).late == []
    assert await finish(queue, job)
    assert (await state(queue, "a")).status is JobStatus.FINISHED


async def test_a_started_job_past_its_deadline_is_ended_after_its_worker_died(queue: JobQueue, valkey: Valkey) -> None:
    await enqueue(queue, "a")
    (job,) = await claim(queue)
    let_pass(valkey, "deadlines")
    await queue.reap()
    let_pass(valkey, "leases")
    let_pass(valkey, "deadlines")
    reaped = await queue.reap()
    assert (reaped.put_back, reaped.late) == (["a"], ["a"])
    assert not await finish(queue, job)
    assert (await state(queue, "a")).status is JobStatus.FAILED
    assert await claim_ids(queue) == []


async def test_an_ended_job_is_watched_no_more(queue: JobQueue, valkey: Valkey) -> None:
    await enqueue(queue, "finished")
    await finish(queue, (await claim(queue))[0])
    await enqueue(queue, "canceled")
    await queue.cancel("canceled")
    with valkey.connect() as connection:
        assert connection.zcard("ragq:deadlines") == 0


async def test_a_job_for_the_archive_stays_until_it_is_there(queue: JobQueue, valkey: Valkey) -> None:
    await enqueue(queue, "a", archive=True)
    await finish(queue, (await claim(queue))[0])
    assert seconds_to_live(valkey, "a") == (-1, -1)
    jobs = await queue.unarchived(10)
    assert [(job.id, job.result) for job in jobs] == [("a", DONE)]
    await queue.mark_archived(jobs)
    assert all(0 < seconds <= TTL_SECONDS for seconds in seconds_to_live(valkey, "a"))
    assert await queue.unarchived(10) == []


async def test_any_other_job_goes_by_itself(queue: JobQueue, valkey: Valkey) -> None:
    await enqueue(queue, "a")
    assert seconds_to_live(valkey, "a") == (-1, -2)
    await finish(queue, (await claim(queue))[0])
    assert all(0 < seconds <= TTL_SECONDS for seconds in seconds_to_live(valkey, "a"))
    assert await queue.unarchived(10) == []


async def test_a_mark_for_an_earlier_end_lets_no_job_go(queue: JobQueue, valkey: Valkey) -> None:
    await enqueue(queue, "a", archive=True)
    await finish(queue, (await claim(queue))[0])
    jobs = await queue.unarchived(10)
    with valkey.connect() as connection:
        connection.hincrby("ragq:job:a", "ended_ms", 1)  # it ended once more since
    await queue.mark_archived(jobs)
    assert seconds_to_live(valkey, "a") == (-1, -1)
    assert [job.id for job in await queue.unarchived(10)] == ["a"]


async def test_an_archived_job_that_rq_requeues_is_kept_again_until_it_is_archived_again(
    queue: JobQueue, valkey: Valkey
) -> None:
    await enqueue(queue, "a", archive=True)
    (job,) = await claim(queue)
    await queue.commit("w1", [Outcome("a", job.attempt, BAD)])
    await queue.mark_archived(await queue.unarchived(10))
    fetch_by_rq(valkey, "a").requeue()
    with valkey.connect() as connection:
        connection.zadd("ragq:ring:queries", {"queries": 1})  # as the reaper does, every ten seconds
    (again,) = await claim(queue)
    assert again.attempt == job.attempt + 1
    assert seconds_to_live(valkey, "a")[0] == -1
    await finish(queue, again)
    assert seconds_to_live(valkey, "a") == (-1, -1)
    jobs = await queue.unarchived(10)
    assert [(one.status, one.result) for one in jobs] == [(JobStatus.FINISHED, DONE)]
    await queue.mark_archived(jobs)
    assert all(0 < seconds <= TTL_SECONDS for seconds in seconds_to_live(valkey, "a"))
