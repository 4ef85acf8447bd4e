"""Whom the queue refuses, when it says they may come back, and how long it says the others wait."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ragq.client.rq_client import JobQueue
from ragq.errors import OverloadedError
from ragq.models import Lane
from ragq.records import Request
from ragq.settings import Settings
from tests.queue_steps import claim, enqueue, finish, let_pass, new_job, state
from tests.servers import Valkey

MOST = 3


@pytest.fixture
async def full(queue: JobQueue, valkey: Valkey, settings: Settings) -> AsyncIterator[JobQueue]:
    """A queue that takes no job behind three others."""
    del queue  # it has emptied the server
    full = JobQueue(settings.model_copy(update={"max_queued": MOST}), valkey.url)
    yield full
    await full.close()


async def flood(queue: JobQueue, jobs: int, *, lane: Lane = Lane.DEFAULT, tenant_id: str = "default") -> None:
    for n in range(jobs):
        await enqueue(queue, f"{tenant_id}-{lane}-{n}", lane=lane, tenant_id=tenant_id)


async def refusal(queue: JobQueue, job_id: str, *, lane: Lane = Lane.DEFAULT, max_wait_seconds: float = 0) -> float:
    with pytest.raises(OverloadedError) as refused:
        await enqueue(queue, job_id, lane=lane, max_wait_seconds=max_wait_seconds)
    assert await queue.fetch(job_id, "default") is None
    assert refused.value.retry_after_seconds
    return refused.value.retry_after_seconds


async def learn(queue: JobQueue, valkey: Valkey, *, run_ms: int, slots: int) -> None:
    """Let the queue know how long a job of the default lane runs, and how many run at once."""
    await queue.monitor.register_worker("w1", {"name": "w1", "slots": f"queries={slots}"}, ["queries"])
    await enqueue(queue, "history")
    (job,) = await claim(queue)
    await finish(queue, job, run_ms=run_ms)
    let_pass(valkey, "leases")
    await queue.reap()


async def test_a_job_behind_too_many_is_refused_and_told_when_to_come_back(full: JobQueue) -> None:
    await flood(full, MOST)
    assert 0 < await refusal(full, "late") < 10
    await claim(full, 1)
    assert await enqueue(full, "late")


async def test_a_repeat_of_an_accepted_job_is_answered_while_the_queue_is_full(full: JobQueue) -> None:
    await enqueue(full, "a", fingerprint="first")
    await flood(full, MOST - 1)
    await refusal(full, "late")
    assert not await enqueue(full, "a", fingerprint="first")


async def test_a_flood_in_flex_refuses_neither_default_nor_priority(full: JobQueue) -> None:
    await flood(full, MOST, lane=Lane.FLEX)
    await refusal(full, "late", lane=Lane.FLEX)
    assert await enqueue(full, "default")
    assert await enqueue(full, "priority", lane=Lane.PRIORITY)


async def test_a_flood_in_priority_counts_for_the_lanes_below(full: JobQueue) -> None:
    await flood(full, MOST, lane=Lane.PRIORITY)
    assert await refusal(full, "default") > 0


async def test_one_tenants_flood_refuses_no_other_tenant(full: JobQueue) -> None:
    await flood(full, MOST, tenant_id="flood")
    assert await enqueue(full, "small")


async def test_no_job_is_refused_when_the_number_has_no_limit(valkey: Valkey, queue: JobQueue) -> None:
    unlimited = JobQueue(Settings(_env_file=None, max_queued=0), valkey.url)
    await flood(unlimited, 20)
    assert await enqueue(unlimited, "last")
    await unlimited.close()
    assert (await queue.monitor.describe()).queues[0].queued == 21


async def test_a_job_that_would_wait_too_long_by_what_others_took_is_refused(queue: JobQueue, valkey: Valkey) -> None:
    await learn(queue, valkey, run_ms=4000, slots=2)
    await flood(queue, 4)  # 4 jobs of 4 s on 2 slots: 8 s
    assert await enqueue(queue, "patient", max_wait_seconds=8)
    # now 10 s: 2 s too long, and the time of two more jobs, since every other place is for who comes new
    assert await refusal(queue, "hasty", max_wait_seconds=8) == pytest.approx(2 + 2 * 2, abs=0.1)


async def test_each_refusal_tells_a_later_time_and_the_time_shrinks_as_jobs_are_done(
    queue: JobQueue, valkey: Valkey
) -> None:
    await learn(queue, valkey, run_ms=400, slots=2)
    await flood(queue, 10)
    first, second, third = [await refusal(queue, "late", max_wait_seconds=1) for _ in range(3)]
    assert first < second < third
    with valkey.connect() as connection:
        connection.hincrby("ragq:refused:queries", "at", -1000)  # a second ago: the workers have done five jobs
    assert await refusal(queue, "late", max_wait_seconds=1) < second


@pytest.mark.parametrize(("run_ms", "slots"), [(4000, 0), (None, 2)], ids=["no workers", "no history"])
async def test_only_the_number_counts_where_nothing_is_known(
    full: JobQueue, valkey: Valkey, run_ms: int | None, slots: int
) -> None:
    if run_ms:
        await learn(full, valkey, run_ms=run_ms, slots=slots)
    else:
        await full.monitor.register_worker("w1", {"slots": f"queries={slots}"}, ["queries"])
        await full.reap()
    for n in range(MOST):
        assert await enqueue(full, f"j{n}", max_wait_seconds=0.001)
    assert await refusal(full, "late", max_wait_seconds=0.001) > 0


async def test_a_position_counts_higher_lanes_of_its_tenant_and_the_turns_of_others(queue: JobQueue) -> None:
    await flood(queue, 4, tenant_id="acme")
    await flood(queue, 2)
    await flood(queue, 3, lane=Lane.PRIORITY)
    await flood(queue, 5, lane=Lane.FLEX)
    assert (await state(queue, "default-default-0")).position == 1 + 3 + 3
    assert (await state(queue, "default-default-1")).position == 2 + 3 + 4
    assert (await state(queue, "default-priority-0")).position == 1
    assert (await state(queue, "default-flex-0")).position == 1 + 3 + 2 + 4


async def test_the_eta_is_unknown_without_history(queue: JobQueue) -> None:
    await enqueue(queue, "a")
    assert (await state(queue, "a")).eta_seconds is None
    await claim(queue)
    assert (await state(queue, "a")).eta_seconds is None


async def test_who_is_accepted_is_told_the_place_and_the_eta_that_a_look_would_show(
    queue: JobQueue, valkey: Valkey
) -> None:
    await learn(queue, valkey, run_ms=4000, slots=2)
    await flood(queue, 3)
    enqueued = await queue.enqueue(new_job("last", request=Request(input="How tall is it?"), fingerprint="print"))
    assert enqueued.job == await state(queue, "last")
    assert (enqueued.job.position, enqueued.job.eta_seconds) == (4, 3 * 4 / 2 + 4)


async def test_who_asks_again_is_told_nothing_of_a_new_job(queue: JobQueue) -> None:
    assert (await queue.enqueue(new_job("a"))).job
    assert (await queue.enqueue(new_job("a"))).job is None


async def test_the_eta_of_waiting_and_of_started_jobs_follows_what_others_took(queue: JobQueue, valkey: Valkey) -> None:
    await learn(queue, valkey, run_ms=4000, slots=2)
    await flood(queue, 3)
    assert (await state(queue, "default-default-2")).eta_seconds == pytest.approx(2 * 4 / 2 + 4)
    await claim(queue, 1)
    started = await state(queue, "default-default-0")
    assert started.position is None
    assert started.eta_seconds == pytest.approx(4, abs=0.5)
    with valkey.connect() as connection:
        connection.hset("ragq:job:default-default-0", "started_ms", 1)
    assert (await state(queue, "default-default-0")).eta_seconds == pytest.approx(0.4)


async def test_what_an_outcome_took_moves_the_mean_of_its_lane_alone(queue: JobQueue, valkey: Valkey) -> None:
    for n, run_ms in enumerate((1000, 3000)):
        await enqueue(queue, f"j{n}")
        await finish(queue, (await claim(queue))[0], run_ms=run_ms)
    with valkey.connect() as connection:
        assert float(connection.hget("ragq:service:queries", "mean_ms") or 0) == 2000
        assert connection.keys("ragq:service:*") == [b"ragq:service:queries"]


async def test_positions_after_a_retry_are_never_below_one_and_served_never_goes_back(
    queue: JobQueue, valkey: Valkey
) -> None:
    await flood(queue, 4)
    first, *_ = await claim(queue, 3)
    await queue.release([(first.id, first.attempt)])
    assert (await state(queue, first.id)).position == 1
    (again,) = await claim(queue, 1)
    assert again.id == first.id
    with valkey.connect() as connection:
        assert int(connection.hget("ragq:served", "queries") or 0) == 3
    assert (await state(queue, "default-default-3")).position == 1


async def test_a_delayed_job_that_is_due_waits_behind_those_that_are_there(queue: JobQueue, valkey: Valkey) -> None:
    await flood(queue, 3)
    (first,) = await claim(queue, 1)
    await queue.retry_later(first.id, first.attempt, delay_seconds=60)
    assert (await state(queue, first.id)).position is None
    let_pass(valkey, "delayed")
    await queue.reap()
    assert (await state(queue, first.id)).position == 3
