"""uvicorn's WebSocket protocol with limits: on what a client sends at once, and on how long it neither reads nor speaks."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, TypedDict

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode

from ragq.http.access import IDLE, MAX_JSON_BYTES
from ragq.http.connections import LAST_SECONDS, Connections, Wait, head_too_large, render_refusal
from ragq.metrics import CONNECTIONS_CLOSED

SLICE_BYTES = 4096  # parsed before frames are counted
FRAMES_SLICE_BYTES = 512  # the same, where frames end: fewer than a hundred
MAX_FRAMES = 1000  # within a second; parsing one takes about 10 µs
FRAMES_AT_ONCE = 64  # parsed before others have a turn
REST_SECONDS = 0.005  # until what came behind them is parsed
MAX_FRAGMENTS = 4096  # of one message
_LOG = logging.getLogger("ragq.websockets")
_LOG.setLevel(logging.WARNING)  # no line for each connection


class WebSocketLimits(TypedDict):
    """Settings of uvicorn for WebSockets."""

    ws_max_size: int
    ws_ping_interval: float
    ws_ping_timeout: float
    ws_per_message_deflate: bool


WEBSOCKET_LIMITS: WebSocketLimits = {
    "ws_max_size": MAX_JSON_BYTES,
    "ws_ping_interval": 20.0,
    "ws_ping_timeout": 60.0,  # as long as a client that reads nothing is given
    "ws_per_message_deflate": False,  # it would cost memory for each connection, and time for bombs
}


class WebSocketConnection(WebSocketsSansIOProtocol):
    """A WebSocket with the limits of this module, counted among `Connections`.

    Nothing is read before the handshake has been accepted, nor while the client does not read. Many frames that come at once are
    parsed in parts, between which others have a turn, and the application may end the connection.
    """

    def __init__(self, connections: Connections, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self.logger = self.conn.logger = _LOG
        self._connections = connections
        self.wait: Wait | None = None
        self._is_idle = False
        self._is_ending = False  # the process ends
        self._unsent = 0  # when Wait.READER began
        self._second = 0.0  # in which frames are counted
        self._frames = 0
        self._frames_at_once = 0
        self._rest = b""  # came behind many frames, and is not parsed yet

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connections.admit(self)
        self.transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._rest = b""
        self._connections.remove(self)
        super().connection_lost(exc)

    # What the client sends

    def data_received(self, data: bytes) -> None:
        if self._rest:
            self._rest += data
            self.transport.pause_reading()
        else:
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        """Parse what has come, up to FRAMES_AT_ONCE frames and those of a slice; the rest later."""
        self._frames_at_once, start, size = 0, 0, FRAMES_SLICE_BYTES
        while start < len(data):
            if self.transport.is_closing():
                return
            if self._frames_at_once >= FRAMES_AT_ONCE:
                self._rest = data[start:]
                self.transport.pause_reading()
                self.loop.call_later(REST_SECONDS, self._parse_rest)
                break
            before = self._frames_at_once
            super().data_received(data[start : start + size])
            start += size
            size = SLICE_BYTES if self._frames_at_once == before else FRAMES_SLICE_BYTES
        if not self.handshake_initiated:
            self.transport.write(render_refusal(*head_too_large()))
            self.transport.close()
        self._settle()

    def _parse_rest(self) -> None:
        if self.transport.is_closing():
            return
        data, self._rest = self._rest, b""
        self._parse(data)
        self._read_on()

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if not self.close_sent:
            self.scope["extensions"][IDLE] = {"set": self._set_idle}

    def handle_events(self) -> None:
        if self.handshake_complete:
            second = self.loop.time() // 1
            self._frames_at_once += len(self.conn.events)
            self._frames = len(self.conn.events) + (self._frames if second == self._second else 0)
            self._second = second
        super().handle_events()
        if self._frames > MAX_FRAMES or len(self.frames) > MAX_FRAGMENTS:
            self._end(CloseCode.POLICY_VIOLATION, "too many frames")

    def _set_idle(self, is_idle: bool) -> None:
        self._is_idle = is_idle
        if is_idle and self._is_ending:
            self._end_with_process()
        self._settle()

    # What the client reads

    async def send(self, message: Any) -> None:
        await self.writable.wait()
        if self.close_sent and message["type"] == "websocket.send":  # we closed while the application was sending
            raise ClientDisconnected
        await super().send(message)
        if message["type"] == "websocket.accept":
            self._read_on()
        self._settle()

    async def receive(self) -> Any:
        message = await super().receive()
        if (self._rest or not self.writable.is_set()) and not self.transport.is_closing():
            self.transport.pause_reading()
        return message

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unsent = self.transport.get_write_buffer_size()
        if not self.transport.is_closing():
            self.transport.pause_reading()
        self._settle()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._read_on()
        self._settle()

    def _read_on(self) -> None:
        is_wanted = not self.read_paused and not self._rest and self.writable.is_set()
        if is_wanted and not self.transport.is_closing():
            self.transport.resume_reading()

    # Waiting

    def _settle(self) -> None:
        """Record what this connection waits for now."""
        if self.close_sent or self.transport.is_closing():
            wait: Wait | None = Wait.END
        elif not self.writable.is_set():
            wait = Wait.READER
        else:
            wait = Wait.NEXT_MESSAGE if self._is_idle else None
        self._connections.place(self, wait)

    def expire(self, wait: Wait) -> None:
        """Close the connection, unless it is still making progress."""
        unsent = self.transport.get_write_buffer_size()
        if wait is Wait.NEXT_MESSAGE:
            CONNECTIONS_CLOSED.labels("silent").inc()
            self._end(CloseCode.GOING_AWAY, "no message for too long")
        elif wait is Wait.READER and 0 < unsent < self._unsent:
            self._unsent = unsent
            self._connections.place(self, Wait.READER)
        else:
            self.close("silent" if wait is Wait.END else "reader")

    def keepalive_timeout(self) -> None:
        """Give up a client that did not answer a ping."""
        self.close("silent")

    # Ends

    def _end(self, code: CloseCode, reason: str) -> None:
        """Send the reason, and give the client a moment to read it; one that goes on after a close is cut off."""
        if self.transport.is_closing():
            return
        if self.close_sent:
            self.close("flood")
            return
        self.conn.fail(code, reason)
        self.handle_parser_exception()
        self._settle()

    def shutdown(self) -> None:
        """Let the answer be completed for some seconds when the process ends, as over HTTP."""
        self._is_ending = True
        if self._is_idle or not self.handshake_complete:
            self._end_with_process()
        else:
            self.loop.call_later(LAST_SECONDS, self._end_with_process)

    def _end_with_process(self) -> None:
        if not self.transport.is_closing():
            super().shutdown()

    def close(self, reason: str) -> None:
        """End the connection at once."""
        CONNECTIONS_CLOSED.labels(reason).inc()
        self.transport.abort()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        super().on_task_complete(task)
        self._settle()
