"""Jobs that a client sends again, that it deletes, and that are kept for a moment only."""

from __future__ import annotations

import asyncio
import json

import pytest

from ragq.client import rq_client
from ragq.client.job import Outcome
from ragq.client.rq_client import JobQueue
from ragq.models import JobStatus
from tests.queue_steps import BAD, DONE, claim, claim_ids, enqueue, finish, let_pass, new_job, state
from tests.servers import Valkey


async def send(queue: JobQueue, job_id: str, *, is_repeat: bool | None, tenant_id: str = "default") -> str:
    """Enqueue a job, always of the same payload; returns the id that the caller is given."""
    options = {"tenant_id": tenant_id, "fingerprint": "same", "is_repeat": is_repeat}
    return (await queue.enqueue(new_job(job_id, **options))).job_id


async def test_a_repeat_finds_the_job_of_the_first_sending(queue: JobQueue) -> None:
    assert await send(queue, "a", is_repeat=False) == "a"
    assert await send(queue, "b", is_repeat=True) == "a"
    (job,) = await claim(queue)
    await finish(queue, job)
    assert await send(queue, "c", is_repeat=True) == "a"


async def test_a_repeat_whose_first_sending_never_arrived_makes_a_job_that_the_next_repeat_finds(
    queue: JobQueue,
) -> None:
    assert await send(queue, "b", is_repeat=True) == "b"
    assert await send(queue, "c", is_repeat=True) == "b"


async def test_equal_jobs_of_two_callers_stay_two(queue: JobQueue) -> None:
    assert await send(queue, "a", is_repeat=False) == "a"
    assert await send(queue, "b", is_repeat=False) == "b"
    assert await claim_ids(queue) == ["a", "b"]


async def test_a_job_is_found_neither_by_another_tenant_nor_by_who_names_it_himself(queue: JobQueue) -> None:
    await send(queue, "a", is_repeat=False)
    assert await send(queue, "b", is_repeat=True, tenant_id="acme") == "b"
    assert await send(queue, "c", is_repeat=None) == "c"


async def test_after_a_while_a_repeat_makes_a_new_job(queue: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rq_client, "RECENT_SECONDS", 0.1)
    await send(queue, "a", is_repeat=False)
    await asyncio.sleep(0.15)
    assert await send(queue, "b", is_repeat=True) == "b"


@pytest.mark.parametrize("end", ["cancel", "delete"])
async def test_a_job_that_its_caller_gave_up_is_not_found_again(queue: JobQueue, end: str) -> None:
    await send(queue, "a", is_repeat=False)
    await getattr(queue, end)("a")
    assert await send(queue, "b", is_repeat=True) == "b"
    assert await send(queue, "c", is_repeat=True) == "b"


@pytest.mark.parametrize("status", ["queued", "started", "scheduled", "finished", "failed", "canceled"])
async def test_a_deleted_job_leaves_nothing_whatever_it_was_doing(queue: JobQueue, valkey: Valkey, status: str) -> None:
    await enqueue(queue, "a", archive=True)
    if status in ("started", "scheduled", "finished", "failed"):
        (job,) = await claim(queue)
    if status == "scheduled":
        await queue.retry_later("a", job.attempt, delay_seconds=60)
    if status in ("finished", "failed"):
        await queue.commit("w1", [Outcome("a", job.attempt, BAD if status == "failed" else DONE)])
    if status == "canceled":
        await queue.cancel("a")
    assert (await state(queue, "a")).status == status
    assert await queue.delete("a")
    assert await queue.fetch("a", "default") is None
    with valkey.connect() as connection:
        assert connection.keys("ragq:*:a") == []
        for key in connection.keys("ragq:*"):
            if connection.type(key) == b"zset":
                members = connection.zrange(key, 0, -1)
                assert not {b"a", b"a:1"}.intersection(members), key
        assert connection.lrange("ragq:queue:queries", 0, -1) == []
    assert not await queue.delete("a")


async def test_a_worker_hears_of_a_deletion_and_its_late_commit_is_refused(queue: JobQueue, valkey: Valkey) -> None:
    await enqueue(queue, "a")
    (job,) = await claim(queue)
    with valkey.connect() as connection, connection.pubsub(ignore_subscribe_messages=True) as heard:
        heard.subscribe("ragq:pubsub:w1")
        heard.get_message(timeout=5)  # of the subscription
        await queue.delete("a")
        message = heard.get_message(timeout=5) or {}
    assert json.loads(message["data"]) == {"command": "stop-job", "job_id": "a", "attempt": job.attempt}
    assert await queue.heartbeat([("a", job.attempt, None)]) == {"a"}
    assert await queue.commit("w1", [Outcome("a", job.attempt, DONE)]) == [False]
    assert await queue.fetch("a", "default") is None


async def test_who_waits_for_a_job_is_told_of_its_deletion(queue: JobQueue) -> None:
    await enqueue(queue, "a")
    waiting = asyncio.create_task(queue.wait("a", "default", timeout_seconds=10))
    await asyncio.sleep(0)
    await queue.delete("a")
    async with asyncio.timeout(5):
        assert await waiting is None


@pytest.mark.parametrize("late", [False, True], ids=["done", "past its deadline"])
async def test_a_job_that_is_not_to_be_kept_goes_after_its_own_time(
    queue: JobQueue, valkey: Valkey, late: bool
) -> None:
    await enqueue(queue, "a", keep_seconds=60)
    await enqueue(queue, "kept")
    if late:
        let_pass(valkey, "deadlines")
        await queue.reap()
    else:
        for job in await claim(queue):
            await finish(queue, job)
    with valkey.connect() as connection:
        assert 0 < connection.ttl("ragq:job:a") <= 60
        assert 0 < connection.ttl("ragq:results:a") <= 60
        assert connection.ttl("ragq:job:kept") > 60
    assert (await state(queue, "a")).status == (JobStatus.FAILED if late else JobStatus.FINISHED)
