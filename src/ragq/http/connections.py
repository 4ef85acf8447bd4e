"""Limits on the API's HTTP connections: their number, their waiting times, and the size of a request's head.

uvicorn with httptools limits none of these, so one endless header or a thousand silent connections would stop the service.
`Connection` is uvicorn's protocol with limits; `Connections` is the state that a process's connections share.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Protocol, cast

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ragq.errors import InvalidRequestError, RagqError, UnavailableError
from ragq.metrics import CONNECTIONS, CONNECTIONS_CLOSED

log = structlog.get_logger(__name__)

MAX_HEAD_BYTES = 64 << 10  # of request line and headers, of trailers, and of what surrounds the chunks of a body
MAX_HEADERS = 100
MAX_PIPELINED = 16  # requests that wait for an earlier answer on the connection
MAX_OVERHEAD = 8  # bytes of framing per byte of a chunked body, beyond MAX_HEAD_BYTES
MIN_BODY_BYTES = 16 << 10  # of a body, that must arrive within each waiting time
MAX_DISCARDED_BYTES = 8 << 20  # read after a refusal, so that the client gets to read the answer
SWEEP_SECONDS = 0.1  # short, so that connections opened together are not all closed in one turn of the event loop
LOG_SECONDS = 10.0
GRACE_SECONDS = 5  # for answers, when the process ends
LAST_SECONDS = 4.0  # for streams


class Wait(StrEnum):  # a plain Enum's members are hashed by slow Python code
    """What the server waits for on a connection. To make room, connections are closed in the order of the kinds."""

    END = "end"  # after a refusal, the client reads the answer and closes
    FIRST_REQUEST = "first request"  # its whole head
    NEXT_REQUEST = "next request"
    NEXT_MESSAGE = "next message"  # of a WebSocket on which nothing is being answered
    BODY = "body"  # MIN_BODY_BYTES of it
    READER = "reader"  # the client reads some of an answer that fills the buffer


SECONDS = {
    Wait.END: 2.0,
    Wait.FIRST_REQUEST: 15.0,
    Wait.NEXT_REQUEST: 15.0,
    Wait.NEXT_MESSAGE: 900.0,
    Wait.BODY: 30.0,
    Wait.READER: 60.0,
}
WEBSOCKETS = (b"/v1/responses",)  # addresses at which a client may upgrade to WebSocket


class Limited(Protocol):
    """A connection that `Connections` counts, and closes to make room."""

    loop: asyncio.AbstractEventLoop
    wait: Wait | None

    def expire(self, wait: Wait) -> None:
        """Refuse or close the connection, unless it is still making progress."""

    def close(self, reason: str) -> None:
        """End the connection at once."""


class Connections:
    """The connections of a process. At the limit, the one that has been silent longest is closed for a new one.

    Args:
        most: Most connections at once.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: set[Limited] = set()
        self._waiting: dict[Wait, dict[Limited, float]] = {wait: {} for wait in Wait}  # by deadline, earliest first
        self._closed = 0  # to make room, since the last log line
        self._logged_at = -LOG_SECONDS
        self._sweeping: asyncio.TimerHandle | None = None
        CONNECTIONS.set_function(lambda: len(self._open))

    def admit(self, connection: Limited) -> bool:
        """Admit a new connection if there is room or room can be made."""
        if len(self._open) >= self._most and not self._make_room():
            return False
        self._open.add(connection)
        if self._sweeping is None:
            self._sweeping = connection.loop.call_later(SWEEP_SECONDS, self._sweep, connection.loop)
        return True

    def _make_room(self) -> bool:
        self._closed += 1
        for waiting in self._waiting.values():
            if waiting:
                longest = next(iter(waiting))
                self.remove(longest)
                longest.close("full")
                return True
        CONNECTIONS_CLOSED.labels("refused").inc()
        return False

    def place(self, connection: Limited, wait: Wait | None) -> None:
        """Record what a connection waits for from now on; None for the application."""
        if wait is connection.wait:
            return
        if connection.wait:
            self._waiting[connection.wait].pop(connection, None)
        connection.wait = wait
        if wait and connection in self._open:
            self._waiting[wait][connection] = connection.loop.time() + SECONDS[wait]

    def remove(self, connection: Limited) -> None:
        self.place(connection, None)
        self._open.discard(connection)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Expire the connections that have waited too long."""
        self._sweeping = loop.call_later(SWEEP_SECONDS, self._sweep, loop) if self._open else None
        for wait, waiting in self._waiting.items():
            while waiting and next(iter(waiting.values())) <= loop.time():
                connection = next(iter(waiting))
                self.place(connection, None)
                with contextlib.suppress(OSError):  # the connection broke just now
                    connection.expire(wait)
        if self._closed and loop.time() > self._logged_at + LOG_SECONDS:
            self._logged_at = loop.time()
            log.warning("connections_full", most=self._most, closed_or_refused=self._closed)
            self._closed = 0


class Connection(HttpToolsProtocol):
    """uvicorn's protocol with the limits of this module.

    A request over a limit is refused with OpenAI's error body or, if an answer has begun, cut off.
    """

    def __init__(self, connections: Connections, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._connections = connections
        self.wait: Wait | None = None
        self._running: RequestResponseCycle | None = None  # the newest one given to the application
        self._overhead = 0  # bytes received since the last complete request, minus those of its body
        self._head_bytes = 0
        self._body_bytes = 0  # since Wait.BODY began
        self._unsent = 0  # when Wait.READER began
        self._discarded: int | None = None  # bytes since a refusal
        self._fault: tuple[HTTPStatus, RagqError] | None = None  # found by a callback of the parser

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transport = cast(
            "asyncio.Transport", _PatientTransport(transport, self)
        )  # uvicorn closes the connection through it
        if self._connections.admit(self):
            self._settle()
            return
        full = UnavailableError("This process has too many connections. Try again later.", code="too_many_connections")
        transport.write(render_refusal(HTTPStatus.SERVICE_UNAVAILABLE, full))
        transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.remove(self)
        self._end_running()
        super().connection_lost(exc)

    # Bytes

    def data_received(self, data: bytes) -> None:
        if self._discarded is not None:
            self._discarded += len(data)
            if self._discarded > MAX_DISCARDED_BYTES:
                self.flow.pause_reading()
            return
        self._overhead += len(data)
        super().data_received(data)
        if self.transport.get_protocol() is not self:  # upgraded to WebSocket
            return
        if self._overhead > MAX_HEAD_BYTES:
            self._refuse(*head_too_large())
        else:
            self._settle()

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            self._stop(*head_too_large())

    def on_headers_complete(self) -> None:
        if self._head_bytes + len(self.url) > MAX_HEAD_BYTES:
            self._stop(*head_too_large())
        if len(self.pipeline) >= MAX_PIPELINED:
            self._stop(HTTPStatus.BAD_REQUEST, InvalidRequestError("Wait for answers before you send more requests."))
        self._overhead = self._body_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        self._overhead -= (1 + MAX_OVERHEAD) * len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._overhead = self._head_bytes = 0
        super().on_message_complete()

    def _stop(self, status: HTTPStatus, error: RagqError) -> None:
        """Make the parser stop here and call `send_400_response`."""
        self._fault = status, error
        raise error

    def send_400_response(self, msg: str) -> None:
        """Answer input that the parser refuses."""
        self._refuse(*(self._fault or (HTTPStatus.BAD_REQUEST, InvalidRequestError(msg))))

    # Upgrades

    def _should_upgrade(self) -> bool:
        is_known = self.parser.get_method() == b"GET" and self.url.partition(b"?")[0] in WEBSOCKETS
        return is_known and super()._should_upgrade()

    def handle_websocket_upgrade(self) -> None:
        """Hand the transport to uvicorn's WebSocket protocol, which takes this connection's place."""
        if self._running and not self._running.response_complete:
            self._refuse(HTTPStatus.BAD_REQUEST, InvalidRequestError("Wait for answers before you open a WebSocket."))
            return
        self._connections.remove(self)
        self.transport = cast("_PatientTransport", self.transport).wrapped
        super().handle_websocket_upgrade()

    def _unsupported_upgrade_warning(self) -> None:
        """Do not warn: a request to upgrade to another protocol is answered over HTTP."""

    # Answers

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._settle()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unsent = self.transport.get_write_buffer_size()
        self._settle()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._settle()

    # Waiting

    def _settle(self) -> None:
        """Record what this connection waits for now."""
        running = self._running
        if self._discarded is not None:
            wait: Wait | None = Wait.END
        elif self.flow.write_paused:
            wait = Wait.READER
        elif running and not running.response_complete:
            wait = Wait.BODY if running.more_body else None
        else:
            wait = Wait.NEXT_REQUEST if running else Wait.FIRST_REQUEST
        self._connections.place(self, wait)

    def expire(self, wait: Wait) -> None:
        """Refuse or close the connection, unless it is still making progress."""
        if wait is Wait.BODY:
            self._expect_body()
        elif unsent := self.transport.get_write_buffer_size():
            if wait is Wait.END or (wait is Wait.READER and unsent >= self._unsent):
                self.close("reader")
            else:
                self._unsent = unsent
                self._connections.place(self, Wait.READER)
        elif wait is not Wait.END and self._overhead > 0:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, _too_slow("the head of a request"))
        else:
            self.close("silent")

    def _expect_body(self) -> None:
        running = self._running
        is_ours = self.flow.read_paused or (running and running.waiting_for_100_continue)  # we are not reading it
        if is_ours or self._body_bytes >= MIN_BODY_BYTES:
            self._body_bytes = 0
            self._connections.place(self, Wait.BODY)
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, _too_slow("the body of a request"))

    # Ends

    def _refuse(self, status: HTTPStatus, error: RagqError) -> None:
        """Send an error and end the connection; if an answer has begun, end it at once."""
        if self._discarded is not None or self.transport.is_closing():
            return
        running = self._running
        if self.pipeline or (running and running.response_started and not running.response_complete):
            self.close(error.code)
            return
        CONNECTIONS_CLOSED.labels(error.code).inc()
        self._end_running()
        self.transport.write(render_refusal(status, error))
        self._discard()

    def discard_rest(self) -> bool:
        """If an answer was sent before the whole request came, keep reading so that the client can read it; True if so."""
        if self._discarded is not None or self._running is None or not self._running.more_body:
            return False
        self.flow.resume_reading()
        self._discard()
        return True

    def _discard(self) -> None:
        """Read and drop further input, because closing now could cost the client the answer."""
        self._discarded = 0
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._settle()

    def close(self, reason: str) -> None:
        """End the connection at once."""
        CONNECTIONS_CLOSED.labels(reason).inc()
        self.transport.abort()

    def shutdown(self) -> None:
        """Let the answer be completed for some seconds when the process ends; a stream is cut then, as by its client."""
        super().shutdown()
        self.loop.call_later(LAST_SECONDS, self._cut)

    def _cut(self) -> None:
        if self._running and self._running.response_started and not self._running.response_complete:
            self.transport.abort()

    def _end_running(self) -> None:
        """Notify all requests that the client has disconnected; uvicorn notifies only the newest one."""
        if self._running and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()


class _PatientTransport:
    """A transport that closes only after the client could read the answer."""

    def __init__(self, transport: asyncio.Transport, connection: Connection) -> None:
        self.wrapped = transport
        self._connection = connection
        self.write = transport.write  # not through __getattr__, since these two are called for every answer
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)

    def close(self) -> None:
        if not self._connection.discard_rest():
            self.wrapped.close()


def head_too_large() -> tuple[HTTPStatus, RagqError]:
    message = f"The head of a request may have {MAX_HEAD_BYTES} bytes and {MAX_HEADERS} headers. Send what is long in the body."
    return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, InvalidRequestError(message, code="request_head_too_large")


def _too_slow(part: str) -> RagqError:
    return InvalidRequestError(f"The server waited too long for {part}. Send it faster.", code="request_timeout")


def render_refusal(status: HTTPStatus, error: RagqError) -> bytes:
    """Render an error as an HTTP response in OpenAI's form."""
    content = {"message": error.message, "type": error.type, "param": None, "code": error.code}
    body = json.dumps({"error": content}).encode()
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body
