"""WebSockets that send too much, read too little or say nothing: each is bounded, and makes room for others."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.utils import ClientDisconnected
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from ragq.http import connections, websockets
from ragq.http.access import IDLE
from ragq.http.connections import SECONDS, Connection, Connections, Wait
from ragq.http.websockets import (
    FRAMES_AT_ONCE,
    FRAMES_SLICE_BYTES,
    MAX_FRAMES,
    WEBSOCKET_LIMITS,
    WebSocketConnection,
)

MOST = 50
SHORT = dict.fromkeys(Wait, 0.5)
HANDSHAKE = (
    b"GET /v1/responses HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
ABRUPT = None  # the connection ended without a close frame


class Server:
    """A server in this process whose application sends as many kilobytes as a message asks for; `messages` it has read."""

    def __init__(self) -> None:
        self.port = 0
        self.messages: list[str] = []
        self.ended = 0
        self.faults: list[Exception] = []
        self.connections = Connections(MOST)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/responses"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            scope["extensions"][IDLE]["set"](True)
            message = await receive()
            if message["type"] == "websocket.disconnect":
                self.ended += 1
                return
            self.messages.append(message["text"])
            if message["text"] == "close":
                await send({"type": "websocket.close", "code": 1008})
                return
            scope["extensions"][IDLE]["set"](False)
            if message["text"] == "slow":
                await asyncio.sleep(0.5)
                await send({"type": "websocket.send", "text": "the answer"})
                continue
            if message["text"] == "endless":
                await self._send_without_end(send)
                return
            with contextlib.suppress(OSError, ValueError):
                for _ in range(int(message["text"])):
                    await send({"type": "websocket.send", "text": "a" * 1000})

    async def _send_without_end(self, send: Any) -> None:
        try:
            while True:
                await send({"type": "websocket.send", "text": "a"})
                await asyncio.sleep(0)
        except (OSError, RuntimeError) as error:
            self.faults.append(error)

    @contextlib.asynccontextmanager
    async def running(self, **limits: Any) -> AsyncIterator[Server]:
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        http: Any = partial(Connection, self.connections)
        ws: Any = partial(WebSocketConnection, self.connections)
        settings: dict[str, Any] = {**WEBSOCKET_LIMITS, **limits}
        config = uvicorn.Config(self, http=http, ws=ws, log_config=None, lifespan="off", **settings)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve([listener]))
        try:
            yield self
        finally:
            server.should_exit = True
            await serving
            listener.close()

    def open(self) -> int:
        return len(self.connections._open)


@pytest.fixture
async def hasty(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    """A server with short waits."""
    monkeypatch.setattr(connections, "SECONDS", SHORT)
    monkeypatch.setattr(connections, "SWEEP_SECONDS", 0.05)
    async with Server().running() as server:
        yield server


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server().running() as server:
        yield server


async def code_of(client: ClientConnection) -> int | None:
    """The code with which the server ends a connection."""
    async with asyncio.timeout(10):
        try:
            while True:
                await client.recv()
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else ABRUPT


def frame(opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


async def opened(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection after its handshake, for frames that no client's library sends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(HANDSHAKE + b"\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
    return reader, writer


async def flood(server: Server, piece: bytes, *, times: int, first: bytes = b"", reads: bool = True) -> bytes:
    """Send a piece again and again until the server has enough; returns what it sent."""
    reader, writer = await opened(server)
    if not reads:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
    answer = asyncio.create_task(reader.read())
    try:
        writer.write(first)
        async with asyncio.timeout(20):
            for _ in range(times):
                writer.write(piece)
                await writer.drain()
            return await answer
    except (ConnectionError, TimeoutError):
        return b""
    finally:
        answer.cancel()
        writer.transport.abort()


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not check():  # noqa: ASYNC110  (a test polls)
            await asyncio.sleep(0.02)


async def settled(server: Server) -> None:
    """Wait until the server has forgotten every connection."""
    await until(lambda: not server.open())


@pytest.mark.parametrize(
    "piece",
    [
        pytest.param(frame(Opcode.PING) * 100, id="pings"),
        pytest.param(frame(Opcode.PONG) * 100, id="pongs"),
        pytest.param(frame(Opcode.TEXT) * 100, id="empty messages"),
        pytest.param(frame(Opcode.CONT, fin=False) * 100, id="empty fragments"),
    ],
)
async def test_a_flood_of_frames_ends_the_connection(server: Server, piece: bytes) -> None:
    first = frame(Opcode.TEXT, b"a", fin=False) if piece.startswith(b"\x00") else b""
    started = time.monotonic()
    answer = await flood(server, piece, times=10_000, first=first)
    assert b"too many frames" in answer or not answer
    ended = time.monotonic()
    assert ended - started < 10
    seconds = int(ended) - int(started) + 1  # of the clock, which frames are counted by
    assert len(server.messages) <= MAX_FRAMES * seconds + 700  # those of one slice more
    await settled(server)


async def test_a_flood_of_frames_lets_others_have_their_turns(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the loop goes round, few frames are parsed, however many have come."""
    loop, turn, parsed = asyncio.get_running_loop(), 0, Counter[int]()
    handle_events = WebSocketConnection.handle_events

    def go_round() -> None:
        nonlocal turn
        turn += 1
        loop.call_later(0, go_round)

    def count(self: WebSocketConnection) -> None:
        parsed[turn] += len(self.conn.events)
        handle_events(self)

    monkeypatch.setattr(WebSocketConnection, "handle_events", count)
    go_round()
    reader, writer = await opened(server)
    writer.write(frame(Opcode.TEXT, b"0") * 900 + frame(Opcode.CLOSE))
    async with asyncio.timeout(20):
        await reader.read()
    writer.transport.abort()
    await settled(server)
    assert max(parsed.values()) <= FRAMES_AT_ONCE + FRAMES_SLICE_BYTES // 6
    assert server.messages == ["0"] * 900


async def test_a_flood_is_a_disconnect_to_an_application_that_is_sending(server: Server) -> None:
    await flood(server, frame(Opcode.PING) * 100, times=1000, first=frame(Opcode.TEXT, b"endless"))
    await settled(server)
    assert [type(fault) for fault in server.faults] == [ClientDisconnected]


async def test_a_flood_after_the_close_is_cut_off_at_once(server: Server) -> None:
    async with connect(server.url) as client:
        await client.send("close")
        await client.send("a few words more")
        assert await code_of(client) == 1008
    reader, writer = await opened(server)
    writer.write(frame(Opcode.TEXT, b"close"))
    assert await reader.readexactly(4) == b"\x88\x02\x03\xf0"
    started = time.monotonic()
    with contextlib.suppress(ConnectionError):
        while time.monotonic() - started < 10:
            writer.write(frame(Opcode.TEXT, b"a") * 100)
            await writer.drain()
            await asyncio.sleep(0)
    assert time.monotonic() - started < SECONDS[Wait.END] / 2
    writer.transport.abort()
    await settled(server)


async def test_a_message_has_a_bounded_number_of_fragments_and_of_bytes(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websockets, "MAX_FRAGMENTS", 200)
    monkeypatch.setattr(websockets, "MAX_FRAMES", 10_000)
    async with connect(server.url) as client:
        await client.send(["0"] * 200)
        await client.send(["0"] * 3000)
        assert await code_of(client) == 1008
    async with connect(server.url) as client:
        await client.send(["a" * (1 << 20)] * 5)
        assert await code_of(client) == 1009
    assert server.messages == ["0" * 200]
    await settled(server)


async def test_a_client_that_pings_and_does_not_read_is_not_read_either(hasty: Server) -> None:
    before = resident_mb()
    reader, writer = await opened(hasty)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(frame(Opcode.TEXT, b"20000"))  # asks for 20 MB
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(10):
            while True:
                writer.write(frame(Opcode.PING, b"a" * 125) * 5)
                await writer.drain()
                await asyncio.sleep(0.01)
    assert resident_mb() - before < 10
    await settled(hasty)
    assert hasty.ended <= 1
    writer.transport.abort()
    assert reader


async def test_a_client_that_reads_slowly_gets_everything(hasty: Server) -> None:
    async with connect(hasty.url, max_queue=1) as client:
        await client.send("3000")
        for number in range(3000):
            assert len(await client.recv()) == 1000
            if number % 100 == 0:
                await asyncio.sleep(0.1)


async def test_a_process_that_ends_completes_the_answer_and_reads_nothing_further() -> None:
    server = Server()
    async with server.running():
        busy, idle = await connect(server.url), await connect(server.url)
        await busy.send("slow")
        await busy.send("slow")
        await until(lambda: server.messages == ["slow"])
    assert await code_of(idle) == 1012
    assert await busy.recv() == "the answer"
    assert await code_of(busy) == 1012


async def test_a_process_that_ends_waits_for_no_long_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websockets, "LAST_SECONDS", 0.3)
    server = Server()
    async with asyncio.timeout(10):
        async with server.running():
            client = await connect(server.url, max_queue=None)
            await client.send("endless")
            await client.recv()
        assert await code_of(client) == 1012
    assert [type(fault) for fault in server.faults] == [ClientDisconnected]


async def test_a_silent_client_is_told_and_closed(hasty: Server) -> None:
    async with connect(hasty.url) as client:
        assert await code_of(client) == 1001
    await settled(hasty)


async def test_a_client_that_answers_no_ping_is_closed() -> None:
    async with Server().running(ws_ping_interval=0.2, ws_ping_timeout=0.2) as server:
        reader, writer = await opened(server)
        async with asyncio.timeout(5):
            await reader.read()  # to the end of what the server sends
        assert reader.at_eof()
        writer.close()
        await settled(server)


async def test_a_client_that_never_ends_its_close_is_cut_off(hasty: Server) -> None:
    reader, writer = await opened(hasty)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(frame(Opcode.TEXT, b"20000") + frame(Opcode.CLOSE, b"\x03\xe8"))
    await settled(hasty)
    writer.transport.abort()
    assert reader


async def test_idle_sockets_make_room_for_others_and_busy_ones_do_not(server: Server) -> None:
    clients = [await connect(server.url) for _ in range(MOST)]
    for client in clients[1:]:
        await client.send("100000")  # it reads as fast as it is read: 100 MB
    await asyncio.sleep(0.2)
    async with connect(server.url):
        assert await code_of(clients[0]) is ABRUPT
        assert server.open() == MOST
    for client in clients:
        client.transport.abort()
    await settled(server)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"cookie: " + b"a" * 20_000, 431),
        (b"x-a: b\r\n" * 120, 431),
        (b"sec-websocket-key: BBBBBBBBBBBBBBBBBBBBBB==", 400),
    ],
)
async def test_a_handshake_over_a_limit_is_refused(server: Server, head: bytes, status: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(HANDSHAKE + head.rstrip() + b"\r\n\r\n")
    async with asyncio.timeout(5):
        assert (await reader.read()).startswith(b"HTTP/1.1 %d" % status)
    writer.close()
    await settled(server)


async def test_a_handshake_behind_an_unanswered_request_is_refused(server: Server) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"POST / HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 0\r\n\r\n" + HANDSHAKE + b"\r\n")
    async with asyncio.timeout(5):
        assert (await reader.read()).startswith(b"HTTP/1.1 400")
    writer.close()
    await settled(server)


async def test_1000_silent_sockets_cost_little() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    server = Server()
    server.connections = Connections(4096)
    held = []
    try:
        async with server.running():
            before = resident_mb()
            held = [await opened(server) for _ in range(1000)]
            assert server.open() == 1000
            print(f"{resident_mb() - before:.1f} MB for 1,000 sockets and their clients")  # noqa: T201
            assert resident_mb() - before < 100
            async with connect(server.url) as client:
                await client.send("1")
                assert await client.recv()
            for _, writer in held:
                writer.transport.abort()
            await settled(server)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def resident_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024
