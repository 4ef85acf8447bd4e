"""Server-sent events: a process reads a job's events once, for all clients that follow it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any, Protocol

import structlog
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from ragq.client.rq_client import JobQueue
from ragq.errors import RagqError, UnavailableError
from ragq.records import Job, LogEntry
from ragq.tasks import give_back_memory

log = structlog.get_logger(__name__)

PING_SECONDS = 15.0
PING = b": ping\n"  # a blank line after it would end an empty event, which the official SDK cannot read
WAIT_SECONDS = 3600.0
SLICE_BYTES = 100_000  # of events, written in one turn of the event loop, in about a millisecond
COLLECT_SECONDS = 5.0  # after the last client disconnects
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class EventMaker(Protocol):
    """Makes the client's events from a job's log; call the methods in order."""

    def begin(self) -> list[Any]:
        """The first events."""

    def add(self, entry: LogEntry) -> list[Any]:
        """The events for an entry of the log."""

    def end(self, job: Job) -> list[Any]:
        """The last events."""

    def cut(self) -> list[Any]:
        """The last event if the rest cannot be sent."""

    def write(self, event: Any) -> bytes:
        """Serialize an event."""


class _Feed:
    """The serialized events of one job, by number; it grows while there are readers."""

    def __init__(self, queue: JobQueue, job: Job, made: EventMaker) -> None:
        self.events: list[bytes] = []
        self.readers = 0
        self.is_complete = False
        self.is_cut = False
        self._grown = asyncio.Event()
        self._queue, self._job, self._made = queue, job, made
        self.task = asyncio.create_task(self._fill(), name=f"feed {job.id}")

    async def _fill(self) -> None:
        ended = asyncio.Event()
        waiting = asyncio.create_task(self._until_end(ended))
        try:
            await self._add(self._made.begin())
            async for entry in self._queue.events.follow(self._job.id, ended):
                await self._add(self._made.add(entry))
            await self._add(self._made.end(await waiting))
        except Exception:  # the stream ends early, and its readers reconnect
            log.exception("stream_cut", job_id=self._job.id)
            self.is_cut = True
            await self._add(self._made.cut())
        finally:
            waiting.cancel()
            self.is_complete = True
            self._wake_readers()

    async def _until_end(self, ended: asyncio.Event) -> Job:
        """Wait for the job's end, and retry while Valkey is down."""
        try:
            while True:
                try:
                    job = await self._queue.wait(self._job.id, self._job.tenant_id, timeout_seconds=WAIT_SECONDS)
                except UnavailableError as error:
                    log.warning("waiting_for_service", part="stream", error=str(error))
                    await asyncio.sleep(1)
                else:
                    return job or self._job
        finally:
            ended.set()

    async def _add(self, events: list[Any]) -> None:
        written = 0
        for event in events:
            self.events.append(self._made.write(event))
            written += len(self.events[-1])
            if written > SLICE_BYTES:  # let other tasks run between slices
                written = 0
                await asyncio.sleep(0)
        self._wake_readers()

    def _wake_readers(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()

    async def wait(self) -> bool:
        """Wait for more events; False after a while without any."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PING_SECONDS):
                return await self._grown.wait()
        return False

    async def read(self, after: int) -> AsyncIterator[list[bytes]]:
        """The events after a number, as they come; an empty list after a while without any."""
        number = after + 1
        while True:
            if number < len(self.events):
                more, number = self.events[number:], len(self.events)
                yield more
            elif self.is_complete:
                if number > len(self.events) and not self.is_cut:  # the client has more events than the log
                    yield self.events[-1:]
                return
            elif not await self.wait():
                yield []


class Streams:
    """The feeds of an API process."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self._feeds: dict[tuple[str, str], _Feed] = {}
        self._cancelling: set[asyncio.Task[None]] = set()
        self._collecting: asyncio.TimerHandle | None = None

    def open(
        self, job: Job, made: EventMaker, *, kind: str, after: int = -1, cancel: bool = False
    ) -> StreamingResponse:
        """Respond with a job's events.

        Args:
            made: Makes the events, unless the process has a feed of this kind for the job already.
            kind: Key of the form of the events; feeds are shared within a kind.
            after: Number of the last event that the client has.
            cancel: Cancel the job if this client disconnects before the end and no other client follows it here.
        """
        return _EventStream(self.follow(job, made, kind=kind, after=after, cancel=cancel))

    @contextlib.contextmanager
    def follow(
        self, job: Job, made: EventMaker, *, kind: str, after: int = -1, cancel: bool = False
    ) -> Iterator[AsyncIterator[list[bytes]]]:
        """Read a job's events, as `_Feed.read` gives them, to the end of the block. The arguments are those of `open`."""
        feed = self._feeds.get((job.id, kind))
        if feed is None or feed.is_cut:
            feed = self._feeds[job.id, kind] = _Feed(self._queue, job, made)
        feed.readers += 1
        try:
            yield feed.read(after)
        finally:
            self._leave(job, feed, kind=kind, cancel=cancel)

    def _leave(self, job: Job, feed: _Feed, *, kind: str, cancel: bool) -> None:
        feed.readers -= 1
        if cancel and not feed.readers and not feed.is_complete:
            task = asyncio.create_task(self._cancel(job))
            self._cancelling.add(task)
            task.add_done_callback(self._cancelling.discard)
        if not feed.readers:
            feed.task.cancel()
            if self._feeds.get((job.id, kind)) is feed:
                del self._feeds[job.id, kind]
        if not self._feeds and self._collecting is None:
            self._collecting = asyncio.get_running_loop().call_later(COLLECT_SECONDS, self._collect)

    def _collect(self) -> None:
        """Collect garbage of disconnected clients: their frames are in cycles, which Python collects only under load."""
        self._collecting = None
        gc.collect()
        give_back_memory()

    async def _cancel(self, job: Job) -> None:
        with contextlib.suppress(RagqError):  # then the job ends at its deadline
            await self._queue.cancel(job.id)


class _EventStream(StreamingResponse):
    """Events as a stream of bytes, with a ping where there are none.

    The reader is counted for as long as the response is sent: the body may never be read, or be left in the middle.
    """

    def __init__(self, following: contextlib.AbstractContextManager[AsyncIterator[list[bytes]]]) -> None:
        super().__init__((), media_type="text/event-stream", headers=HEADERS)
        self._following = following

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._following as read:
            self.body_iterator = _join(read)
            await super().__call__(scope, receive, send)


async def _join(read: AsyncIterator[list[bytes]]) -> AsyncIterator[bytes]:
    async for events in read:
        yield b"".join(events) or PING
