"""A connection's turns without servers: what ends them, and what they leave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.websockets import WebSocket
from structlog.testing import capture_logs

from ragq.errors import AuthenticationError, ForbiddenError, RagqError, UnavailableError
from ragq.http.access import IDLE
from ragq.models import JobStatus
from ragq.records import Job, LogEntry, Request, TextAdded
from ragq.routes.streams import Streams
from ragq.websocket import route
from tests.unit.test_stream_events import STARTED

JOB = replace(STARTED, request=Request(model="ragq"))
ASK = json.dumps({"type": "response.create", "input": "How tall is it?"})


class Talkative:
    """A queue whose job says a word in each turn of the event loop, and never ends."""

    def __init__(self) -> None:
        self.canceled: list[str] = []
        self.events = self

    async def wait(self, _job_id: str, _tenant_id: str, *, timeout_seconds: float) -> Job:
        await asyncio.sleep(timeout_seconds)
        return replace(JOB, status=JobStatus.CANCELED)

    async def follow(self, _job_id: str, _ended: asyncio.Event) -> AsyncIterator[LogEntry]:
        number = 0
        while True:
            number += 1
            yield LogEntry(1, [TextAdded(f"word{number} ")])
            await asyncio.sleep(0)

    async def cancel(self, job_id: str) -> None:
        self.canceled.append(job_id)


class Wire:
    """A server's end of a connection, as strict as uvicorn's: nothing may be sent after the close."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[dict[str, Any]] = []
        self.incoming.put_nowait({"type": "websocket.connect"})

    def say(self, text: str) -> None:
        self.incoming.put_nowait({"type": "websocket.receive", "text": text})

    async def send(self, message: Any) -> None:
        assert "websocket.close" not in [earlier["type"] for earlier in self.sent], "sent after the close"
        self.sent.append(message)
        await asyncio.sleep(0)  # as while the client does not read

    def socket(self, queue: Talkative, refusal: Exception | None = None) -> WebSocket:
        async def confirm(caller: Any) -> Any:
            if refusal:
                raise refusal
            return caller

        context = SimpleNamespace(
            keys=SimpleNamespace(confirm=confirm),
            queue=queue,
            streams=Streams(queue),  # type: ignore[arg-type]
            settings=SimpleNamespace(page_url=""),
        )
        scope = {
            "type": "websocket",
            "path": "/v1/responses",
            "headers": [],
            "subprotocols": [],
            "extensions": {IDLE: {"set": lambda _: None}},
            "app": SimpleNamespace(state=SimpleNamespace(context=context)),
        }
        return WebSocket(scope, self.incoming.get, self.send)


CALLER: Any = SimpleNamespace(view=None, tenant="tenant", new_payer=lambda: None)


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions are accepted without a queue."""

    async def read(*_: Any, **__: Any) -> Any:
        return SimpleNamespace(question=None, request=JOB.request)

    async def accept(*_: Any, **__: Any) -> Any:
        return SimpleNamespace(job=JOB)

    monkeypatch.setattr(route, "read_question", read)
    monkeypatch.setattr(route, "ask", accept)


@pytest.mark.usefixtures("questions")
async def test_a_flood_during_a_stream_ends_the_connection_and_the_response_and_is_no_fault_of_ours() -> None:
    queue, wire = Talkative(), Wire()
    with capture_logs() as logs:
        async with asyncio.timeout(10):
            serving = asyncio.create_task(route.respond(wire.socket(queue), CALLER))
            wire.say(ASK)
            while len(wire.sent) < 20:  # noqa: ASYNC110  (a test polls)
                await asyncio.sleep(0)
            for _ in range(route.MAX_WAITING + 1):
                wire.say(ASK)
            await serving
            await asyncio.sleep(0)
    assert (wire.sent[-1]["type"], wire.sent[-1]["code"]) == ("websocket.close", route.POLICY_VIOLATION)
    assert logs == []
    assert queue.canceled == [JOB.id]


@pytest.mark.usefixtures("questions")
@pytest.mark.parametrize("refusal", [AuthenticationError("It was revoked."), ForbiddenError("It is suspended.")])
async def test_a_key_that_opens_nothing_any_more_ends_the_connection_with_an_error(refusal: RagqError) -> None:
    wire = Wire()
    wire.say(ASK)
    wire.say(ASK)
    async with asyncio.timeout(10):
        await route.respond(wire.socket(Talkative(), refusal), CALLER)
    _, told, closed = wire.sent
    error = json.loads(told["text"])
    assert (error["type"], error["status"], error["error"]["code"]) == ("error", refusal.status, refusal.code)
    assert (closed["type"], closed["code"]) == ("websocket.close", route.POLICY_VIOLATION)


@pytest.mark.usefixtures("questions")
async def test_a_key_that_cannot_be_checked_now_ends_no_connection() -> None:
    wire = Wire()
    wire.say(ASK)
    wire.say(ASK)
    async with asyncio.timeout(10):
        serving = asyncio.create_task(route.respond(wire.socket(Talkative(), UnavailableError("It is away.")), CALLER))
        while len(wire.sent) < 3:  # noqa: ASYNC110  (a test polls)
            await asyncio.sleep(0)
        wire.incoming.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await serving
    assert [json.loads(message["text"])["status"] for message in wire.sent[1:]] == [503, 503]
