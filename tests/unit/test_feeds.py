"""Streams without servers: who follows what, and what a cut leaves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest

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


@contextlib.contextmanager
def follow(streams: Streams, made: Any = None, **options: Any) -> Iterator[AsyncIterator[list[bytes]]]:
    made = made or ResponseEvents(JOB, results=False, page="")
    with streams.follow(JOB, made, kind=type(made).__name__, **options) as read:
        yield read


async def rest(read: AsyncIterator[list[bytes]]) -> str:
    return "".join([event.decode() async for events in read for event in events])


async def test_a_reader_that_goes_cancels_nothing_while_another_follows() -> None:
    queue = FakeQueue()
    streams = Streams(queue)  # type: ignore[arg-type]
    with follow(streams, cancel=True) as second:
        with follow(streams, cancel=True) as first:
            await anext(first)
            await anext(second)
        await asyncio.sleep(0)
        assert queue.canceled == []
    await asyncio.sleep(0)
    assert queue.canceled == [JOB.id]


@pytest.mark.parametrize("cancel", [True, False])
@pytest.mark.parametrize("stalls_at", ["http.response.start", "http.response.body"])
async def test_a_client_that_goes_while_it_is_sent_something_cancels_at_once(stalls_at: str, *, cancel: bool) -> None:
    queue = FakeQueue()
    made = ResponseEvents(JOB, results=False, page="")
    opened = Streams(queue).open(JOB, made, kind="response", cancel=cancel)  # type: ignore[arg-type]
    stalled, kept = asyncio.Event(), []

    async def receive() -> Any:
        await stalled.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == stalls_at:
            kept.append(opened.body_iterator)  # as a cycle of frames does, until garbage is collected
            stalled.set()
            await asyncio.sleep(3600)

    await opened({"type": "http", "asgi": {"spec_version": "2.3"}}, receive, send)
    await asyncio.sleep(0)
    assert kept
    assert queue.canceled == ([JOB.id] if cancel else [])


async def test_a_moment_without_valkey_cuts_no_stream() -> None:
    queue = FakeQueue()
    queue.wait_faults = [UnavailableError("away", code="queue_unavailable")]
    queue.end.set()
    with follow(Streams(queue)) as read:  # type: ignore[arg-type]
        assert "response.completed" in await rest(read)


async def test_a_cut_chat_ends_with_an_error_and_the_next_reader_gets_all_though_one_stays() -> None:
    queue = FakeQueue()
    queue.follow_faults = [UnavailableError("away", code="queue_unavailable")]
    streams = Streams(queue)  # type: ignore[arg-type]
    with follow(streams, ChatChunks(JOB, usage=False, page="")) as stalled:
        with contextlib.suppress(StopAsyncIteration):
            said = b"".join(await anext(stalled)).decode()
        assert JOB.status is JobStatus.STARTED
        queue.end.set()
        with follow(streams, ChatChunks(JOB, usage=False, page="")) as read:
            assert "[DONE]" in await rest(read)
        assert "stream_cut" in said + await rest(stalled)


async def test_a_number_beyond_the_end_gets_the_last_event() -> None:
    queue = FakeQueue()
    queue.end.set()
    with follow(Streams(queue), after=500) as read:  # type: ignore[arg-type]
        told = await rest(read)
    assert told.count("event: ") == 1
    assert "event: response.completed" in told


async def test_readers_that_leave_leave_no_task_behind() -> None:
    queue = FakeQueue()
    streams = Streams(queue)  # type: ignore[arg-type]
    before = len(asyncio.all_tasks())
    with follow(streams) as read:
        await anext(read)
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == before
