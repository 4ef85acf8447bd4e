"""The queue's scripts against a real Valkey: every state, and every wrong attempt."""

from __future__ import annotations

import asyncio
import json
import os
import time

import pytest
from rq import Queue
from rq.job import Job as RqJob
from rq.registry import StartedJobRegistry
from rq.serializers import JSONSerializer

from ragq.client import valkey_client
from ragq.client.job import Outcome, list_name
from ragq.client.rq_client import JobQueue
from ragq.errors import ConfigurationError, OverloadedError, UnavailableError
from ragq.models import JobFunction, JobStatus, Lane, QueueName
from ragq.records import Meta, Request, TextAdded
from ragq.settings import Settings
from tests.queue_steps import (
    BAD,
    DONE,
    OTHER,
    QUERIES,
    claim,
    claim_ids,
    enqueue,
    expire_leases,
    finish,
    let_pass,
    move_clock,
    new_job,
    state,
)
from tests.servers import Valkey


async def counts(queue: JobQueue) -> tuple[int, int, int]:
    """How many questions are queued, in flight and scheduled."""
    (queries,) = (await queue.monitor.describe()).queues
    return queries.queued, queries.in_flight, queries.scheduled


async def test_an_id_is_accepted_once_and_the_first_payload_stays(queue: JobQueue) -> None:
    assert await enqueue(queue, "a", fingerprint="first")
    second = await queue.enqueue(new_job("a", fingerprint="second"))
    assert (second.created, second.fingerprint) == (False, "first")
    assert await claim_ids(queue) == ["a"]


async def test_jobs_are_claimed_in_order_each_by_one_worker(queue: JobQueue) -> None:
    for n in range(5):
        await enqueue(queue, f"j{n}")
    first, second = await asyncio.gather(claim(queue, 3, worker="w1"), claim(queue, 3, worker="w2"))
    assert [job.id for job in first + second] == [f"j{n}" for n in range(5)]
    assert (await state(queue, "j0")).status is JobStatus.STARTED


async def test_the_priority_lane_goes_first_and_flex_last(queue: JobQueue) -> None:
    await enqueue(queue, "flex", lane=Lane.FLEX)
    await enqueue(queue, "default")
    await enqueue(queue, "priority", lane=Lane.PRIORITY)
    assert await claim_ids(queue) == ["priority", "default", "flex"]


async def test_a_lane_without_room_gives_nothing(queue: JobQueue) -> None:
    await enqueue(queue, "default")
    await enqueue(queue, "priority", lane=Lane.PRIORITY)
    rooms = [(QUERIES[0], 1), (QUERIES[1], 0), (QUERIES[2], 0)]
    assert [job.id for job in (await queue.claim("w", rooms, in_flight=200)).jobs] == ["priority"]


async def test_tenants_take_turns_however_long_one_list_is(queue: JobQueue) -> None:
    for n in range(6):
        await enqueue(queue, f"flood{n}", tenant_id="flood")
    await enqueue(queue, "small", tenant_id="small")
    assert "small" in await claim_ids(queue, 2)


async def test_another_tenants_job_is_not_there(queue: JobQueue) -> None:
    await enqueue(queue, "a", tenant_id="acme")
    assert await queue.fetch("a", "default") is None
    found = await queue.fetch("a", "acme")
    assert found
    assert (found.id, found.status) == ("a", JobStatus.QUEUED)


async def test_a_commit_stores_result_and_meta_and_tells_who_waits(queue: JobQueue) -> None:
    await enqueue(queue, "a", request=Request(input="why?"))
    (job,) = await claim(queue)
    waiting = asyncio.create_task(queue.wait("a", "default", timeout_seconds=5))
    assert await queue.commit("w1", [Outcome("a", job.attempt, DONE, meta=Meta(run_ms=3))]) == [True]
    found = await waiting
    assert found
    assert (found.status, found.result, found.meta) == (JobStatus.FINISHED, DONE, Meta(run_ms=3))
    assert found.request == Request(input="why?")


async def test_a_failure_keeps_its_code_and_message(queue: JobQueue) -> None:
    await enqueue(queue, "a")
    (job,) = await claim(queue)
    await queue.commit("w1", [Outcome("a", job.attempt, BAD)])
    found = await state(queue, "a")
    assert (found.status, found.error, found.result) == (JobStatus.FAILED, BAD, None)


async def test_a_commit_of_a_wrong_attempt_changes_nothing(queue: JobQueue) -> None:
    await enqueue(queue, "a")
    (job,) = await claim(queue)
    for attempt in (job.attempt - 1, job.attempt + 1):
        assert await queue.commit("w1", [Outcome("a", attempt, DONE)]) == [False]
    assert (await state(queue, "a")).status is JobStatus.STARTED


async def test_the_same_commit_sent_twice_is_accepted_twice_and_stored_once(queue: JobQueue, valkey: Valkey) -> None:
    await enqueue(queue, "a")
    (job,) = await claim(queue)
    outcome = Outcome("a", job.attempt, DONE)
    assert await queue.commit("w1", [outcome]) == [True]
    assert await queue.commit("w1", [outcome]) == [True]
    with valkey.connect() as connection:
        assert connection.xlen("ragq:results:a") == 1


async def test_a_silent_workers_job_starts_again_and_its_late_commit_is_refused(queue: JobQueue) -> None:
    await enqueue(queue, "a")
    (first,) = await claim(queue)
    async with asyncio.timeout(5):
        while not (put_back := (await queue.reap()).put_back):  # noqa: ASYNC110  (nothing tells when a lease is over)
            await asyncio.sleep(0.1)
    assert put_back == ["a"]
    (second,) = await claim(queue, worker="w2")
    assert second.attempt == first.attempt + 1
    assert await queue.commit("w1", [Outcome("a", first.attempt, DONE)]) == [False]
    assert await queue.commit("w2", [Outcome("a", second.attempt, OTHER)]) == [True]
    assert (await state(queue, "a")).result == OTHER


async def test_a_job_put_back_but_not_claimed_may_still_be_committed_and_runs_no_more(
    queue: JobQueue, valkey: Valkey
) -> None:
    await enqueue(queue, "a")
    (job,) = await claim(queue)
    await expire_leases(queue, valkey)
    assert await queue.commit("w1", [Outcome("a", job.attempt, DONE)]) == [True]
    assert await claim_ids(queue) == []


async def test_a_job_put_back_is_queued_alone_and_its_heartbeat_takes_it_out_again(
    queue: JobQueue, valkey: Valkey
) -> None:
    await enqueue(queue, "a")
    (job,) = await claim(queue)
    assert await expire_leases(queue, valkey) == ["a"]
    assert await counts(queue) == (1, 0, 0)
    assert await queue.heartbeat([("a", job.attempt, None)]) == set()
    assert await counts(queue) == (0, 1, 0)
    assert await claim_ids(queue) == []
    assert await queue.release([("a", job.attempt)]) == [True]
    assert await counts(queue) == (1, 0, 0)


async def test_a_heartbeat_keeps_the_lease_and_names_lost_jobs(queue: JobQueue, valkey: Valkey) -> None:
    await enqueue(queue, "kept")
    await enqueue(queue, "lost")
    kept, lost = await claim(queue)
    let_pass(valkey, "leases")
    await queue.heartbeat([(kept.id, kept.attempt, Meta(worker="w1"))])
    assert (await queue.reap()).put_back == ["lost"]
    assert (await state(queue, "kept")).meta == Meta(worker="w1")
    assert await claim_ids(queue) == ["lost"]
    assert await queue.heartbeat([(kept.id, kept.attempt, None), (lost.id, lost.attempt, None)]) == {"lost"}


async def test_after_a_time_without_reaping_every_lease_gets_its_time_anew(queue: JobQueue, valkey: Valkey) -> None:
    await enqueue(queue, "a")
    await claim(queue)
    await queue.reap()
    move_clock(valkey, 3.2)  # longer than the lease, and nobody watched
    assert (await queue.reap()).put_back == []
    assert (await state(queue, "a")).status is JobStatus.STARTED


async def test_a_released_job_goes_to_the_front_and_is_charged_nothing(queue: JobQueue) -> None:
    await enqueue(queue, "a")
    await enqueue(queue, "b")
    (job,) = await claim(queue, 1)
    assert await queue.release([("a", job.attempt)]) == [True]
    assert await queue.release([("a", job.attempt)]) == [True]  # the reply was lost: the same again
    again = (await claim(queue, 1))[0]
    assert (again.id, again.tries, again.deaths_alone) == ("a", 0, 0)


async def test_a_retry_waits_for_its_time_is_charged_a_try_and_is_claimed_though_nobody_reaps(
    queue: JobQueue, valkey: Valkey
) -> None:
    await enqueue(queue, "a")
    (job,) = await claim(queue)
    assert await queue.retry_later("a", job.attempt, delay_seconds=60)
    assert (await state(queue, "a")).status is JobStatus.SCHEDULED
    assert await claim_ids(queue) == []
    let_pass(valkey, "delayed")
    assert [(again.id, again.attempt, again.tries) for again in await claim(queue)] == [("a", job.attempt + 1, 1)]


@pytest.mark.parametrize("stage", ["queued", "scheduled", "started"])
async def test_a_canceled_job_is_final_at_every_stage(queue: JobQueue, valkey: Valkey, stage: str) -> None:
    await enqueue(queue, "a")
    attempt = 1
    if stage != "queued":
        attempt = (await claim(queue))[0].attempt
    if stage == "scheduled":
        await queue.retry_later("a", attempt, delay_seconds=60)
    assert await queue.cancel("a")
    assert (await state(queue, "a")).status is JobStatus.CANCELED
    assert await counts(queue) == (0, 0, 0)
    assert await queue.commit("w1", [Outcome("a", attempt, DONE)]) == [False]
    assert await queue.release([("a", attempt)]) == [False]
    move_clock(valkey, 70)
    await queue.reap()
    assert await claim_ids(queue) == []


async def test_an_attempt_is_stopped_and_no_later_one(queue: JobQueue, valkey: Valkey) -> None:
    await enqueue(queue, "a")
    (first,) = await claim(queue)
    assert await expire_leases(queue, valkey) == ["a"]
    (second,) = await claim(queue, worker="w2")
    assert await queue.cancel("a", stopped=first.attempt) is JobStatus.STARTED
    assert (await state(queue, "a")).status is JobStatus.STARTED
    assert await queue.cancel("a", stopped=second.attempt) is JobStatus.STARTED
    assert (await state(queue, "a")).status is JobStatus.STOPPED
    assert await queue.commit("w2", [Outcome("a", second.attempt, DONE)]) == [False]


async def test_canceling_a_finished_or_unknown_job_changes_nothing(queue: JobQueue) -> None:
    await enqueue(queue, "a")
    (job,) = await claim(queue)
    await queue.commit("w1", [Outcome("a", job.attempt, DONE)])
    assert await queue.cancel("a")
    assert (await state(queue, "a")).status is JobStatus.FINISHED
    assert not await queue.cancel("unknown")


async def test_a_job_that_killed_two_workers_runs_alone_and_the_lanes_go_on(queue: JobQueue, valkey: Valkey) -> None:
    await enqueue(queue, "suspect")
    for _ in range(2):
        await claim(queue)
        assert await expire_leases(queue, valkey) == ["suspect"]
    await enqueue(queue, "innocent")
    busy = await queue.claim("w1", [(lane, 10) for lane in QUERIES], in_flight=3)
    assert (busy.jobs, busy.drain) == ([], True)
    other = await queue.claim("w2", [(lane, 10) for lane in QUERIES], in_flight=3)
    assert [job.id for job in other.jobs] == ["innocent"]
    (alone,) = await claim(queue, in_flight=0)
    assert (alone.id, alone.alone) == ("suspect", True)


async def test_a_suspect_of_a_full_tenant_runs_as_soon_as_a_worker_is_empty(queue: JobQueue, valkey: Valkey) -> None:
    await queue.tenant_jobs.set_shares({"default": (1, 1)})
    await enqueue(queue, "suspect")
    for _ in range(2):
        await claim(queue)
        assert await expire_leases(queue, valkey) == ["suspect"]
    await enqueue(queue, "innocent")
    (running,) = (await queue.claim("w2", [("queries", 1)], in_flight=1)).jobs or await claim(queue, in_flight=0)
    if running.id == "innocent":  # the tenant has no place left
        (running,) = await claim(queue, in_flight=0)
    assert (running.id, running.alone) == ("suspect", True)


async def test_deaths_alone_are_counted_and_then_the_job_comes_back_to_be_ended(
    queue: JobQueue, valkey: Valkey
) -> None:
    await enqueue(queue, "poison")
    for _ in range(4):
        await claim(queue)
        assert await expire_leases(queue, valkey) == ["poison"]
    (job,) = await claim(queue, in_flight=5)
    assert (job.deaths_alone, job.alone) == (2, False)


async def test_a_job_hash_that_is_no_hash_harms_nobody(queue: JobQueue, valkey: Valkey) -> None:
    await enqueue(queue, "broken")
    await enqueue(queue, "good")
    with valkey.connect() as connection:
        connection.delete("ragq:job:broken")
        connection.set("ragq:job:broken", "not a hash")
    assert await claim_ids(queue) == ["good"]


async def test_position_counts_down_while_a_job_waits(queue: JobQueue) -> None:
    for n in range(3):
        await enqueue(queue, f"j{n}")
    assert (await state(queue, "j2")).position == 3
    await claim(queue, 1)
    assert (await state(queue, "j2")).position == 2


async def test_rqs_own_classes_read_our_jobs_and_cannot_harm_them(queue: JobQueue, valkey: Valkey) -> None:
    assert os.environ["RQ_KEY_PREFIX"] == "ragq"  # set for the tests, as `ragq env` does
    await enqueue(queue, "a")
    await enqueue(queue, "b")
    (job,) = await claim(queue, 1)
    with valkey.connect() as connection:
        started = StartedJobRegistry("queries", connection=connection, serializer=JSONSerializer)
        assert started.get_job_ids(cleanup=False) == ["a"]
        started.cleanup(time.time() + 1e6)  # what a dashboard's look may do
        assert Queue("queries", connection=connection).count == 1
        await queue.commit("w1", [Outcome("a", job.attempt, DONE)])
        seen = RqJob.fetch("a", connection=connection, serializer=JSONSerializer)
        assert (seen.get_status(), seen.return_value(), seen.func_name) == (
            "finished",
            {"record": "document/2", "status": "completed", "chunks": 1},
            "ragq.queues.worker.process_query",
        )


async def test_a_failed_job_that_rq_requeues_runs_again_with_its_whole_time(queue: JobQueue, valkey: Valkey) -> None:
    await enqueue(queue, "a")
    (job,) = await claim(queue)
    await queue.commit("w1", [Outcome("a", job.attempt, BAD)])
    with valkey.connect() as connection:
        RqJob.fetch("a", connection=connection, serializer=JSONSerializer).requeue()
    assert await queue.heartbeat([("a", job.attempt, None)]) == {"a"}, "the attempt before has ended"
    move_clock(valkey, 10)  # so often the lists are looked through
    await queue.reap()
    (again,) = await claim(queue)
    assert again.deadline > time.monotonic() + 50
    assert json.loads(again.data)[0] == JobFunction.PROCESS_QUERY
    await queue.commit("w1", [Outcome("a", again.attempt, OTHER)])
    found = await state(queue, "a")
    assert (found.status, found.result, found.error) == (JobStatus.FINISHED, OTHER, None)


async def test_an_unsafe_valkey_is_refused_with_what_to_change(queue: JobQueue, valkey: Valkey) -> None:
    with valkey.connect() as connection:
        connection.config_set("maxmemory-policy", "allkeys-lru")
        try:
            with pytest.raises(ConfigurationError, match="maxmemory-policy is allkeys-lru, not noeviction"):
                await queue.check_server()
            allowing = JobQueue(Settings(_env_file=None, allow_unsafe_valkey=True), valkey.url)
            await allowing.check_server()
            await allowing.close()
        finally:
            connection.config_set("maxmemory-policy", "noeviction")
    await queue.check_server()


def test_lists_are_named_by_queue_lane_and_tenant() -> None:
    assert list_name(QueueName.QUERIES) == "queries"
    assert list_name(QueueName.QUERIES, Lane.FLEX) == "queries.flex"
    assert list_name(QueueName.DOCUMENTS, Lane.DEFAULT, "acme") == "documents@acme"


async def test_a_silent_worker_is_forgotten_and_a_living_one_kept(queue: JobQueue, valkey: Valkey) -> None:
    for name in ("silent", "living"):
        await queue.monitor.register_worker(name, {"name": name, "slots": "queries=5"}, ["queries"])
    with valkey.connect() as connection:
        assert 0 < int(connection.ttl("ragq:worker:silent")) <= 15
        connection.delete("ragq:worker:silent")  # as when that time is over
        await queue.reap()
        for key in ("ragq:workers", "ragq:workers:queries"):
            assert connection.smembers(key) == {b"ragq:worker:living"}
        assert connection.hgetall("ragq:capacity") == {b"queries": b"5"}
    assert [worker.name for worker in (await queue.monitor.describe()).workers] == ["living"]


async def test_a_list_tells_how_long_its_first_job_waits(queue: JobQueue, valkey: Valkey) -> None:
    await enqueue(queue, "a")
    await enqueue(queue, "b")
    with valkey.connect() as connection:
        connection.hset("ragq:job:a", "created_ms", int((time.time() - 100) * 1000))
    (queries,) = (await queue.monitor.describe()).queues
    assert queries.oldest_seconds == pytest.approx(100, abs=2)
    await claim(queue)
    (queries,) = (await queue.monitor.describe()).queues
    assert (queries.queued, queries.oldest_seconds) == (0, None)


async def test_a_second_reaping_within_a_second_does_nothing(queue: JobQueue, valkey: Valkey) -> None:
    await enqueue(queue, "a")
    await claim(queue)
    let_pass(valkey, "leases")
    with valkey.connect() as connection:
        connection.set("ragq:reaped", int(time.time() * 1000))
    assert (await queue.reap()).put_back == []
    let_pass(valkey, "leases")
    assert (await queue.reap()).put_back == ["a"]


async def test_a_full_valkey_refuses_new_jobs_and_brings_the_accepted_ones_to_their_end(
    queue: JobQueue, valkey: Valkey
) -> None:
    await enqueue(queue, "a", archive=True)
    with valkey.connect() as connection:
        connection.config_set("maxmemory", "1")
        try:
            await queue.monitor.register_worker("w1", {"name": "w1", "slots": "queries=1"}, ["queries"])
            (job,) = await claim(queue)
            assert await queue.heartbeat([(job.id, job.attempt, Meta(worker="w1"))]) == set()
            assert await queue.append([(job.id, job.attempt, 1, [TextAdded("yes")])]) == set()
            await queue.reap()
            assert await finish(queue, job)
            assert await queue.claim_period("archive", every_seconds=60)
            await queue.mark_archived(await queue.unarchived(10))
            with pytest.raises(OverloadedError) as refused:
                await enqueue(queue, "b")
            assert refused.value.retry_after_seconds
            assert await queue.fetch("b", "default") is None
        finally:
            connection.config_set("maxmemory", "0")
    assert (await state(queue, "a")).result == DONE


async def test_one_cancellation_ends_a_task_that_talks_to_valkey_all_the_time(queue: JobQueue) -> None:
    async def talk() -> None:
        while True:
            await queue.ping()

    for _ in range(50):
        talking = asyncio.create_task(talk())
        await asyncio.sleep(0.002)
        talking.cancel()
        await asyncio.wait([talking], timeout=1)
        assert talking.cancelled()


async def test_a_frozen_valkey_is_unavailable_after_its_time(
    queue: JobQueue, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(valkey_client, "ANSWER_SECONDS", 0.3)
    with valkey.connect() as connection:
        connection.client_pause(700)
    with pytest.raises(UnavailableError, match="TimeoutError"):
        await queue.ping()
