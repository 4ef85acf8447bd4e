"""Streams without servers: who follows what, and what a cut leaves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from ragq.errors import UnavailableError
from ragq.models import JobStatus
from ragq.records import Job, LogEntry, Request, SearchStarted, TextAdded
from ragq.routes.streams import Streams
from ragq.schemas.chat_chunks import ChatChunks
from ragq.schemas.response_events import ResponseEvents
from tests.unit.test_stream_events import STARTED, finished

JOB = replace(STARTED, request=Request(model="ragq"))


class FakeQueue:
    """A job that says one word and ends when it is told to; `faults` are raised first, one at each call."""

    def __init__(self) -> None:
        self.canceled: list[str] = []
        self.wait_faults: list[Exception] = []
        self.follow_faults: list[Exception] = []
        self.end = asyncio.Event()
        self.events = self

    async def wait(self, _job_id: str, _tenant_id: str, *, timeout_seconds: float) -> Job:
        assert timeout_seconds
        if self.wait_faults:
            raise self.wait_faults.pop()
        await self.end.wait()
        return finished("One two.")

    async def follow(self, _job_id: str, ended: asyncio.Event) -> AsyncIterator[LogEntry]:
        yield LogEntry(1, [SearchStarted([]), TextAdded("One")])
        if self.follow_faults:
            raise self.follow_faults.pop()
        await ended.wait()

    async def cancel(self, job_id: str) -> None:
        self.canceled.append(job_id)


def open_stream(streams: Streams, made: Any = None, **options: Any) -> Any:
    made = made or ResponseEvents(JOB, results=False, page="")
    return streams.open(JOB, made, kind=type(made).__name__, **options).body_iterator


async def rest(stream: Any) -> str:
    return "".join([piece.decode() async for piece in stream])


async def leave(stream: Any) -> None:
    await stream.aclose()
    await asyncio.sleep(0)


async def test_a_reader_that_goes_cancels_nothing_while_another_follows() -> None:
    queue = FakeQueue()
    streams = Streams(queue)  # type: ignore[arg-type]
    first, second = (open_stream(streams, cancel=True) for _ in range(2))
    await anext(first)
    await anext(second)
    await leave(first)
    assert queue.canceled == []
    await leave(second)
    assert queue.canceled == [JOB.id]


async def test_a_moment_without_valkey_cuts_no_stream() -> None:
    queue = FakeQueue()
    queue.wait_faults = [UnavailableError("away", code="queue_unavailable")]
    stream = open_stream(Streams(queue))  # type: ignore[arg-type]
    queue.end.set()
    assert "response.completed" in await rest(stream)


async def test_a_cut_chat_ends_with_an_error_and_the_next_reader_gets_all_though_one_stays() -> None:
    queue = FakeQueue()
    queue.follow_faults = [UnavailableError("away", code="queue_unavailable")]
    streams = Streams(queue)  # type: ignore[arg-type]
    stalled = open_stream(streams, ChatChunks(JOB, usage=False, page=""))
    with contextlib.suppress(StopAsyncIteration):
        said = (await anext(stalled)).decode()
    assert JOB.status is JobStatus.STARTED
    queue.end.set()
    assert "[DONE]" in await rest(open_stream(streams, ChatChunks(JOB, usage=False, page="")))
    assert "stream_cut" in said + await rest(stalled)


async def test_a_number_beyond_the_end_gets_the_last_event() -> None:
    queue = FakeQueue()
    queue.end.set()
    told = await rest(open_stream(Streams(queue), after=500))  # type: ignore[arg-type]
    assert told.count("event: ") == 1
    assert "event: response.completed" in told


async def test_readers_that_leave_leave_no_task_behind() -> None:
    queue = FakeQueue()
    streams = Streams(queue)  # type: ignore[arg-type]
    before = len(asyncio.all_tasks())
    stream = open_stream(streams)
    await anext(stream)
    await leave(stream)
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == before
