"""Steps of a job with defaults for tests."""

from __future__ import annotations

import time
from typing import Any

from ragq.client.job import ClaimedJob, NewJob, Outcome, lanes_of
from ragq.client.rq_client import JobQueue
from ragq.models import Question, QueueName
from ragq.records import DocumentResult, Failure, Job, QueryArguments
from tests.servers import Valkey

QUERIES = lanes_of(QueueName.QUERIES)
DONE, OTHER = DocumentResult("completed", 1), DocumentResult("completed", 2)
BAD = Failure("bad", "why")


async def enqueue(queue: JobQueue, job_id: str, **options: Any) -> bool:
    return (await queue.enqueue(new_job(job_id, **options))).created


def new_job(job_id: str, **options: Any) -> NewJob:
    fields: dict[str, Any] = {
        "queue": QueueName.QUERIES,
        "deadline_seconds": 60,
        "arguments": QueryArguments(Question(job_id, [])),
    }
    return NewJob(id=job_id, **fields | options)


async def claim(queue: JobQueue, most: int = 10, *, worker: str = "w1", in_flight: int = 0) -> list[ClaimedJob]:
    return (await queue.claim(worker, [(lane, most) for lane in QUERIES], in_flight=in_flight)).jobs


async def claim_ids(queue: JobQueue, most: int = 10) -> list[str]:
    return [job.id for job in await claim(queue, most)]


async def state(queue: JobQueue, job_id: str) -> Job:
    job = await queue.fetch(job_id, "default")
    assert job
    return job


async def expire_leases(queue: JobQueue, valkey: Valkey) -> list[str]:
    """Expire the leases while a process is reaping, as in a live fleet; returns what was put back."""
    let_pass(valkey, "leases")
    return (await queue.reap()).put_back


async def finish(queue: JobQueue, job: ClaimedJob, *, run_ms: int = 0) -> bool:
    return (await queue.commit("w1", [Outcome(job.id, job.attempt, DONE, run_ms=run_ms)]))[0]


def let_pass(valkey: Valkey, what: str) -> None:
    """Expire all `leases`, `delayed` or `deadlines`, and make the next reap due."""
    with valkey.connect() as connection:
        for id_ in connection.zrange(f"ragq:{what}", 0, -1):
            connection.zadd(f"ragq:{what}", {id_: 1})
        connection.set("ragq:reaped", int(time.time() * 1000) - 1500)


def move_clock(valkey: Valkey, seconds: float) -> None:
    """Let so much time pass for all leases, delays and deadlines, in which nobody reaps."""
    milliseconds = int(seconds * 1000)
    with valkey.connect() as connection:
        for key in ("ragq:leases", "ragq:delayed", "ragq:deadlines"):
            for id_ in connection.zrange(key, 0, -1):
                connection.zincrby(key, -milliseconds, id_)
        connection.decrby("ragq:reaped", milliseconds)
