"""Responses over a WebSocket: a connection's requests are answered one after the other, with the events of a stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import replace

import structlog
from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from starlette.websockets import WebSocketState

from ragq.accounts.payer import paid_by
from ragq.errors import AuthenticationError, ForbiddenError, InvalidRequestError, RagqError
from ragq.http.access import IDLE, KEY_PROTOCOL, MAX_JSON_BYTES
from ragq.http.callers import Caller
from ragq.models import new_id
from ragq.queues.questions import ask, read_question
from ragq.records import Request
from ragq.routes.context import AnyCaller, ApiContext
from ragq.schemas.questions import SEARCH_RESULTS, stream_of
from ragq.schemas.responses import RESPONSE_PREFIX
from ragq.tasks import end_tasks
from ragq.websocket.memory import Memory
from ragq.websocket.messages import SocketEvents, Turn, read_body, read_message, render_error, write_event

log = structlog.get_logger(__name__)
router = APIRouter()

LIFETIME_SECONDS = 3600.0
MAX_WAITING = 16  # messages, of MAX_JSON_BYTES together
POLICY_VIOLATION = 1008


@router.websocket("/v1/responses")
async def respond(socket: WebSocket, caller: AnyCaller) -> None:
    """Answer a client's messages until it disconnects."""
    offered = [name for name in socket.scope["subprotocols"] if not name.startswith(KEY_PROTOCOL)]
    await socket.accept(subprotocol=offered[0] if offered else None)
    inbox = _Inbox(socket)
    conversation = _Conversation(socket, inbox, caller)
    tasks = [asyncio.create_task(inbox.fill()), asyncio.create_task(conversation.run())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end_tasks(tasks)  # which cancels the response that nobody reads
    if inbox.is_full and socket.application_state is WebSocketState.CONNECTED:
        with contextlib.suppress(WebSocketDisconnect):
            await socket.close(POLICY_VIOLATION, "Wait for answers before you send more.")


class _Inbox:
    """The messages that wait. They are read as they come, so that a disconnect is noticed during a response."""

    def __init__(self, socket: WebSocket) -> None:
        self.is_full = False
        self._socket = socket
        self._waiting: deque[str | bytes] = deque()
        self._arrived = asyncio.Event()

    async def fill(self) -> None:
        """Read until the client disconnects or sends too much ahead."""
        while (message := await self._socket.receive())["type"] == "websocket.receive":
            text = message.get("text")
            self._waiting.append(message["bytes"] if text is None else text)
            self.is_full = len(self._waiting) > MAX_WAITING or sum(map(len, self._waiting)) > MAX_JSON_BYTES
            if self.is_full:
                return
            self._arrived.set()

    async def next(self) -> str | bytes:
        """The next message; waits for it."""
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        return self._waiting.popleft()


class _Conversation:
    """A connection's turns."""

    def __init__(self, socket: WebSocket, inbox: _Inbox, caller: Caller) -> None:
        self._socket, self._inbox = socket, inbox
        self._context: ApiContext = socket.app.state.context
        self._caller = caller
        self._memory = Memory()
        self._is_let_in = True
        self._set_idle = socket.scope["extensions"][IDLE]["set"]

    async def run(self) -> None:
        """Take turns for as long as a connection may last."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + LIFETIME_SECONDS
        with contextlib.suppress(WebSocketDisconnect):
            while self._is_let_in and loop.time() < ends_at:
                self._set_idle(True)
                try:
                    async with asyncio.timeout_at(ends_at):
                        message = await self._inbox.next()
                except TimeoutError:
                    break
                self._set_idle(False)
                await self._take_turn(message)
            if not self._is_let_in:
                await self._socket.close(POLICY_VIOLATION, "The key opens nothing any more.")
                return
            limit = f"A connection lasts {LIFETIME_SECONDS / 60:g} minutes: open another one."
            await self._send_error(InvalidRequestError(limit, code="websocket_connection_limit_reached"), None)
            await self._socket.close()

    async def _take_turn(self, message: str | bytes) -> None:
        turn = Turn({}, None)
        try:
            turn = read_message(message)
            await self._respond(turn)
        except WebSocketDisconnect:
            raise
        except RagqError as error:
            self._forget(turn)
            await self._send_error(error, turn.stream_id)
        except Exception:  # the outermost handler of a message
            log.exception("message_failed", path=self._socket.url.path)
            self._forget(turn)
            await self._send_error(RagqError("Internal error. See the server's log."), turn.stream_id)

    async def _respond(self, turn: Turn) -> None:
        """Queue a question, send the events of its response, and cancel it if the client disconnects."""
        body, context = read_body(turn.fields), self._context
        await self._confirm()
        asked = await read_question(
            body, context, self._caller.view, remembered=self._memory.find(body.previous_response_id)
        )
        response_id = new_id(RESPONSE_PREFIX)
        try:
            with paid_by(self._caller.new_payer()):
                enqueued = await ask(
                    context, self._caller.view, response_id, asked.question, asked.request, stream=stream_of(body)
                )
        except asyncio.CancelledError:  # the client has gone, and the question may be in the queue
            with contextlib.suppress(RagqError):
                await context.queue.cancel(response_id)
            raise
        assert enqueued.job
        results, page = SEARCH_RESULTS in asked.request.include, context.settings.page_url
        made = SocketEvents(enqueued.job, results=results, page=page, stream_id=turn.stream_id)
        with context.streams.follow(enqueued.job, made, kind="websocket", cancel=True) as read:
            async for events in read:
                for event in events:
                    await self._socket.send_text(event.decode())
        await self._remember(response_id, asked.request, turn)

    async def _confirm(self) -> None:
        """Check that the caller may still ask; else this turn is the last one.

        Raises:
            RagqError: It may not, or that cannot be told now.
        """
        try:
            self._caller = await self._context.keys.confirm(self._caller)
        except (AuthenticationError, ForbiddenError):
            self._is_let_in = False
            raise

    async def _remember(self, response_id: str, request: Request, turn: Turn) -> None:
        """Keep an answer that is not stored."""
        job = await self._context.queue.fetch(response_id, self._caller.tenant)
        if job is None or job.answered is None:
            self._forget(turn)
        elif not request.store:
            self._memory.keep(turn.stream_id, replace(job, request=request))

    def _forget(self, turn: Turn) -> None:
        """Let no response be continued twice, once a try has failed: the client is to send the whole conversation."""
        self._memory.forget(turn.fields.get("previous_response_id"))

    async def _send_error(self, error: RagqError, stream_id: str | None) -> None:
        await self._socket.send_text(write_event(render_error(error), stream_id))
