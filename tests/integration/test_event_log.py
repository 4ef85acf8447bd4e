"""Event logs: what a job says, read by any number of followers."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.drill.load import until
from ragq.client.rq_client import JobQueue
from ragq.records import TextAdded, write_events
from tests.queue_steps import claim, enqueue, finish
from tests.servers import Valkey


async def read(queue: JobQueue, job_id: str, ended: asyncio.Event, read_events: list[Any]) -> None:
    async for entry in queue.events.follow(job_id, ended):
        read_events += entry.events


async def test_followers_of_one_log_each_read_all_of_it_whenever_they_come(queue: JobQueue) -> None:
    await enqueue(queue, "a")
    (job,) = await claim(queue)
    ended = asyncio.Event()
    early: list[Any] = []
    late: list[Any] = []
    readers = [asyncio.create_task(read(queue, "a", ended, early))]
    assert await queue.append([("a", job.attempt, 1, [TextAdded("one "), TextAdded("two")])]) == set()
    await until(lambda: bool(early))
    readers.append(asyncio.create_task(read(queue, "a", ended, late)))
    assert await queue.append([("a", job.attempt, 2, [TextAdded(" three")])]) == set()
    await until(lambda: len(early) == len(late) == 2)
    assert await finish(queue, job)
    ended.set()
    await asyncio.gather(*readers)
    assert early == late == [TextAdded("one two"), TextAdded(" three")]


async def test_what_a_dead_attempt_says_is_refused(queue: JobQueue) -> None:
    await enqueue(queue, "a")
    (job,) = await claim(queue)
    assert await queue.append([("a", job.attempt + 1, 1, [TextAdded("lie")])]) == {"a"}
    ended = asyncio.Event()
    ended.set()
    said: list[Any] = []
    await read(queue, "a", ended, said)
    assert said == []


async def test_a_log_that_an_older_version_began_by_the_time_is_continued(queue: JobQueue, valkey: Valkey) -> None:
    await enqueue(queue, "a")
    (job,) = await claim(queue)
    with valkey.connect() as connection:
        connection.xadd("ragq:events:a", {"attempt": 1, "events": write_events([TextAdded("old")])})
    ended = asyncio.Event()
    said: list[Any] = []
    reader = asyncio.create_task(read(queue, "a", ended, said))
    await until(lambda: bool(said))
    await queue.release([(job.id, job.attempt)])
    (again,) = await claim(queue)
    for number, text in ((1, "new"), (1, "new"), (2, "er")):  # one is sent twice
        assert await queue.append([("a", again.attempt, number, [TextAdded(text)])]) == set()
    ended.set()
    await reader
    assert said == [TextAdded("old"), TextAdded("new"), TextAdded("er")]


async def test_a_spoilt_log_does_not_keep_others_from_being_read(queue: JobQueue, valkey: Valkey) -> None:
    for job_id in ("spoilt", "sound"):
        await enqueue(queue, job_id)
    spoilt, sound = await claim(queue)
    with valkey.connect() as connection:
        connection.xadd(f"ragq:events:{spoilt.id}", {"attempt": "one", "events": "no JSON"})
    ended = asyncio.Event()
    said: list[Any] = []
    readers = [
        asyncio.create_task(read(queue, spoilt.id, ended, [])),
        asyncio.create_task(read(queue, sound.id, ended, said)),
    ]
    assert await queue.append([(sound.id, sound.attempt, 1, [TextAdded("heard")])]) == set()
    await until(lambda: said == [TextAdded("heard")])
    ended.set()
    await asyncio.gather(*readers, return_exceptions=True)
