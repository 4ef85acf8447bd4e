"""Turns of tenants: their shares by weight, their limits, the positions that are told, and whom a flood refuses."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from ragq.client.job import ClaimedJob, Outcome, lanes_of
from ragq.client.rq_client import JobQueue
from ragq.errors import OverloadedError
from ragq.models import Lane, QueueName
from ragq.records import Request
from ragq.settings import Settings
from ragq.tasks import run_all
from tests.queue_steps import DONE, QUERIES, claim, claim_ids, enqueue, expire_leases, move_clock, new_job
from tests.servers import Valkey

LANES = list(Lane)
NUMBERS = itertools.count()


async def flood(queue: JobQueue, tenant: str, jobs: int, *, lane: Lane = Lane.DEFAULT, name: str = "") -> None:
    for n in range(jobs):
        await enqueue(queue, f"{tenant}-{name or lane}-{n}", tenant_id=tenant, lane=lane)


async def answer(queue: JobQueue, most: int, *, lanes: list[str] = QUERIES) -> list[str]:
    """Claim and finish jobs, one after the other; returns their tenants."""
    tenants = []
    for _ in range(most):
        for job in (await queue.claim("w1", [(name, 1) for name in lanes], in_flight=0)).jobs:
            tenants.append(job.tenant_id)
            await queue.commit("w1", [Outcome(job.id, job.attempt, DONE)])
    return tenants


@pytest.mark.parametrize("lanes", [(Lane.DEFAULT, Lane.DEFAULT), (Lane.PRIORITY, Lane.FLEX), (Lane.FLEX, Lane.DEFAULT)])
async def test_weights_of_one_to_three_share_the_questions_so_whatever_the_lanes(
    queue: JobQueue, lanes: tuple[Lane, Lane]
) -> None:
    await queue.tenant_jobs.set_shares({"large": (3, None)})
    await flood(queue, "small", 150, lane=lanes[0])
    await flood(queue, "large", 150, lane=lanes[1])
    counts = Counter(await answer(queue, 160))
    assert counts["large"] / counts["small"] == pytest.approx(3, rel=0.1)


async def test_weights_share_large_documents_and_small_ones_each(queue: JobQueue) -> None:
    await queue.tenant_jobs.set_shares({"large": (3, None)})
    for lane in (Lane.PRIORITY, Lane.DEFAULT):
        for tenant in ("small", "large"):
            for n in range(60):
                job_id = f"{tenant}-{lane}-{n}"
                await queue.enqueue(new_job(job_id, queue=QueueName.DOCUMENTS, tenant_id=tenant, lane=lane))
    for name in lanes_of(QueueName.DOCUMENTS)[:2]:
        counts = Counter(await answer(queue, 60, lanes=[name]))
        assert counts["large"] / counts["small"] == pytest.approx(3, rel=0.1)


async def test_a_claim_of_many_jobs_shares_them_as_single_claims_do(queue: JobQueue) -> None:
    await queue.tenant_jobs.set_shares({"large": (3, None), "tiny": (0.5, None)})
    for tenant in ("small", "large", "tiny"):
        await flood(queue, tenant, 60)
    counts = Counter(job.tenant_id for job in await claim(queue, 90))
    assert counts == {"large": 60, "small": 20, "tiny": 10}


async def test_who_was_idle_saves_up_no_turns_and_who_asks_one_by_one_gains_none(queue: JobQueue) -> None:
    await flood(queue, "busy", 200)
    await answer(queue, 100)
    await flood(queue, "idle", 60)
    assert Counter(await answer(queue, 40)) == {"busy": 20, "idle": 20}
    counts = Counter[str]()
    for n in range(30):  # its list is empty each time
        await flood(queue, "single", 1, name=f"{n}")
        counts.update(await answer(queue, 1))
    assert max(counts.values()) - min(counts.values()) <= 1


async def test_a_tenant_that_marks_all_as_urgent_is_first_among_its_own_jobs_alone(queue: JobQueue) -> None:
    await flood(queue, "loud", 20, lane=Lane.PRIORITY)
    await flood(queue, "loud", 20)
    await flood(queue, "quiet", 20, lane=Lane.FLEX)
    jobs = await claim(queue, 30)
    assert Counter(job.tenant_id for job in jobs) == {"loud": 15, "quiet": 15}
    assert {job.lane for job in jobs if job.tenant_id == "loud"} == {Lane.PRIORITY}


async def test_slots_for_priority_alone_delay_a_tenant_elsewhere_by_some_turns_only(queue: JobQueue) -> None:
    await flood(queue, "other", 300)
    await flood(queue, "searcher", 200, lane=Lane.PRIORITY)
    assert len((await queue.claim("w1", [(QUERIES[0], 100), (QUERIES[1], 0)], in_flight=0)).jobs) == 100
    await flood(queue, "searcher", 1)
    await flood(queue, "new", 2)
    tenants = [job.tenant_id for job in (await queue.claim("w1", [(QUERIES[1], 25)], in_flight=0)).jobs]
    assert Counter(tenants) == {"other": 22, "new": 2, "searcher": 1}
    assert "new" in tenants[:3]


# Newcomers


async def attach(queue: JobQueue, tenant: str, documents: int, *, lane: Lane = Lane.PRIORITY) -> None:
    for _ in range(documents):
        job_id = f"{tenant}-{lane}-{next(NUMBERS)}"
        await queue.enqueue(new_job(job_id, queue=QueueName.DOCUMENTS, tenant_id=tenant, lane=lane))


async def claim_documents(queue: JobQueue, most: int, *, lane: Lane = Lane.PRIORITY) -> list[ClaimedJob]:
    name = lanes_of(QueueName.DOCUMENTS)[list(Lane).index(lane)]
    return (await queue.claim("w1", [(name, most)], in_flight=0)).jobs


async def finish(queue: JobQueue, jobs: list[ClaimedJob]) -> None:
    await queue.commit("w1", [Outcome(job.id, job.attempt, DONE) for job in jobs])


@pytest.mark.parametrize("lane", [Lane.PRIORITY, Lane.DEFAULT])
async def test_a_newcomers_document_begins_though_all_places_are_taken(queue: JobQueue, lane: Lane) -> None:
    await attach(queue, "loud", 50, lane=lane)
    running = await claim_documents(queue, 2, lane=lane)
    for _ in range(3):
        await attach(queue, "quiet", 1, lane=lane)
        assert await claim_documents(queue, -1, lane=lane) == []
        (job,) = await claim_documents(queue, 0, lane=lane)
        assert job.tenant_id == "quiet"
        await finish(queue, [job, *running])
        running = await claim_documents(queue, 2, lane=lane)


async def test_who_has_a_document_that_runs_is_no_newcomer(queue: JobQueue) -> None:
    await attach(queue, "loud", 3)
    assert len(await claim_documents(queue, 1)) == 1
    assert await claim_documents(queue, 0) == []
    await attach(queue, "quiet", 2)
    assert [job.tenant_id for job in await claim_documents(queue, 0)] == ["quiet"]
    assert await claim_documents(queue, 0) == []


async def test_newcomers_get_no_more_turns_than_their_part(queue: JobQueue) -> None:
    """As of a worker with two places: one of the documents that run ends at a time, and what may begin does."""
    await queue.tenant_jobs.set_shares({"large": (3, None)})
    for tenant in ("small", "large"):
        await attach(queue, tenant, 200)
    running: list[ClaimedJob] = []
    begun = Counter[str]()
    for _ in range(160):
        while jobs := await claim_documents(queue, max(-1, min(1, 2 - len(running)))):
            running += jobs
            begun.update(job.tenant_id for job in jobs)
        assert len(running) <= 3
        await finish(queue, [running.pop(0)])
    assert begun["large"] / begun["small"] == pytest.approx(3, rel=0.1)


async def test_no_question_begins_where_no_slot_is_free(queue: JobQueue) -> None:
    await flood(queue, "quiet", 1)
    assert (await queue.claim("w1", [(name, 0) for name in QUERIES], in_flight=0)).jobs == []


# Limits


async def limited(queue: JobQueue, *, most: int = 1) -> ClaimedJob:
    """A tenant at its limit, with a job in each lane."""
    await queue.tenant_jobs.set_shares({"acme": (1, most)})
    for lane in LANES:
        await flood(queue, "acme", 2, lane=lane)
    (*_, last) = await claim(queue, 6)
    return last


ENDS: list[Callable[[JobQueue, Valkey, ClaimedJob], Awaitable[object]]] = [
    lambda queue, _, job: queue.commit("w1", [Outcome(job.id, job.attempt, DONE)]),
    lambda queue, _, job: queue.cancel(job.id),
    lambda queue, _, job: queue.delete(job.id),
    lambda queue, _, job: queue.release([(job.id, job.attempt)]),
    lambda queue, _, job: queue.retry_later(job.id, job.attempt, delay_seconds=60),
    lambda queue, valkey, _: expire_leases(queue, valkey),
    lambda queue, _, __: queue.tenant_jobs.set_shares({"acme": (1, 2)}),
]


@pytest.mark.parametrize(
    "end", ENDS, ids=["commit", "cancel", "delete", "release", "retry", "its worker died", "the limit was raised"]
)
async def test_a_tenant_at_its_limit_waits_until_a_place_is_free_and_others_go_on(
    queue: JobQueue, valkey: Valkey, end: Callable[[JobQueue, Valkey, ClaimedJob], Awaitable[object]]
) -> None:
    job = await limited(queue)
    assert job.lane is Lane.PRIORITY
    assert await claim_ids(queue) == []
    await flood(queue, "acme", 1, name="more")
    await flood(queue, "other", 3)
    for other in await claim(queue):
        assert other.tenant_id == "other"
        await queue.commit("w1", [Outcome(other.id, other.attempt, DONE)])
    await end(queue, valkey, job)
    (again,) = await claim(queue)
    assert (again.tenant_id, again.lane) == ("acme", Lane.PRIORITY)
    assert await claim_ids(queue) == []


async def test_a_limit_counts_questions_and_documents_apart(queue: JobQueue) -> None:
    await limited(queue)
    await queue.enqueue(new_job("document", queue=QueueName.DOCUMENTS, tenant_id="acme"))
    lanes = [(lane, 5) for lane in QUERIES + lanes_of(QueueName.DOCUMENTS)]
    assert [job.id for job in (await queue.claim("w1", lanes, in_flight=0)).jobs] == ["document"]


async def test_a_job_that_rqs_tools_removed_while_it_ran_frees_its_place(queue: JobQueue, valkey: Valkey) -> None:
    job = await limited(queue)
    with valkey.connect() as connection:
        connection.delete(f"ragq:job:{job.id}")
    move_clock(valkey, 10)  # so often the lists are looked through
    await queue.reap()
    assert len(await claim_ids(queue)) == 1


async def test_the_death_of_a_worker_loses_no_place(queue: JobQueue, valkey: Valkey) -> None:
    await queue.tenant_jobs.set_shares({"acme": (1, 3)})
    await flood(queue, "acme", 10)
    await claim(queue)
    assert len(await expire_leases(queue, valkey)) == 3
    jobs = await claim(queue)
    assert len(jobs) == 3
    await queue.commit("w1", [Outcome(job.id, job.attempt, DONE) for job in jobs])
    assert len(await claim(queue)) == 3


async def test_a_claim_takes_as_many_commands_with_a_thousand_tenants_of_whom_200_are_at_their_limit(
    queue: JobQueue, valkey: Valkey
) -> None:
    async def count_commands(tenants: range) -> int:
        with valkey.connect() as connection:
            connection.flushall()
            await queue.tenant_jobs.set_shares({f"t{n}": (1, 1) for n in range(200)})
            await run_all((flood(queue, f"t{n}", 4) for n in tenants), at_once=50)
            unlimited = len([n for n in tenants if n >= 200])
            for jobs in (len(tenants), unlimited):  # after the first turn of all, those with a limit have reached it
                assert len(await claim(queue, jobs)) == jobs
            connection.config_resetstat()
            assert len(await claim(queue, 20)) == 20
            return sum(one["calls"] for one in connection.info("commandstats").values())

    few, many = await count_commands(range(190, 220)), await count_commands(range(1000))
    assert many <= few + 5


# Positions


async def positions_and_order(queue: JobQueue, weights: dict[str, float], seed: int) -> list[tuple[int, int]]:
    """What each job of a backlog is told, and the place at which it is claimed."""
    draw, jobs = random.Random(seed), []
    await queue.tenant_jobs.set_shares({tenant: (weight, None) for tenant, weight in weights.items() if weight != 1})
    for n in range(60):
        tenant, lane = draw.choice(list(weights)), draw.choice(LANES)
        await enqueue(queue, f"j{n}", tenant_id=tenant, lane=lane)
        jobs.append((f"j{n}", tenant))
        if n == 20:
            await claim(queue, 7)  # so that the turns are not all equal
    told = {id_: job.position for id_, tenant in jobs if (job := await queue.fetch(id_, tenant)) and job.position}
    order = [job.id for _ in told for job in await claim(queue, 1)]
    return [(told[id_], place) for place, id_ in enumerate(order, start=1)]


@pytest.mark.parametrize("seed", range(4))
async def test_with_equal_weights_a_position_is_the_number_of_jobs_that_start_before(
    queue: JobQueue, seed: int
) -> None:
    for told, place in await positions_and_order(queue, dict.fromkeys(["default", "a", "b", "c"], 1.0), seed):
        assert told == place


@pytest.mark.parametrize("seed", range(4))
async def test_with_other_weights_a_position_is_wrong_by_less_than_the_number_of_tenants(
    queue: JobQueue, seed: int
) -> None:
    weights = {"default": 1, "a": 3.0, "b": 0.7, "c": 10}
    for told, place in await positions_and_order(queue, weights, seed):
        assert abs(told - place) < len(weights)


async def test_with_very_many_tenants_a_position_is_an_estimate(queue: JobQueue) -> None:
    await run_all((flood(queue, f"t{n}", 3) for n in range(200)), at_once=50)
    found = await queue.fetch("t150-default-2", "t150")
    assert found
    assert found.position == pytest.approx(2 * 200 + 151, rel=0.2)


# Admission


async def test_a_flood_in_any_lane_refuses_the_flooding_tenant_alone(
    queue: JobQueue, valkey: Valkey, settings: Settings
) -> None:
    del queue  # it has emptied the server
    full = JobQueue(settings.model_copy(update={"max_queued": 10}), valkey.url)
    await flood(full, "loud", 10, lane=Lane.PRIORITY)
    for lane in LANES:
        with pytest.raises(OverloadedError):
            await enqueue(full, "refused", tenant_id="loud", lane=lane)
        assert await enqueue(full, f"quiet-{lane}", tenant_id="quiet", lane=lane)
    await full.close()


async def test_a_tenants_large_jobs_refuse_others_only_beyond_their_part(
    queue: JobQueue, valkey: Valkey, settings: Settings
) -> None:
    del queue
    full = JobQueue(settings.model_copy(update={"max_queued_bytes": 60_000}), valkey.url)
    big = Request(input=10_000 * "x")
    for n in range(5):
        await enqueue(full, f"loud{n}", tenant_id="loud", request=big)
    with pytest.raises(OverloadedError):
        await enqueue(full, "refused", tenant_id="loud", request=big)
    assert await enqueue(full, "quiet0", tenant_id="quiet", request=big)
    assert await enqueue(full, "quiet1", tenant_id="quiet", request=big)
    with pytest.raises(OverloadedError):
        await enqueue(full, "quiet2", tenant_id="quiet", request=big)
    await full.close()
