"""Attacks on the WebSocket of `/v1/responses`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from websockets.frames import Frame, Opcode

from benchmarks.attack.stage import (
    EVIL,
    HOLD_SECONDS,
    KEY,
    MAX_RATIO,
    Stage,
    Verdict,
    beside,
    beside_rounds,
    connect,
    peak_mb,
    raw,
    status_of,
)

HANDSHAKE = (
    "GET /v1/responses{query} HTTP/1.1\r\nhost: {host}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
    "sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{more}\r\n"
)
SILENT, OPENED_A_SECOND, ROUNDS = 1000, 100, 5  # a second at most
PAUSE_SECONDS = 0.1  # between sockets: the attack is what one can do
MAX_GROWTH_MB = 30.0  # of the API, by one oversized message of at most 4 MiB that is taken
ENOUGH_MB = 20.0  # more is sent only if the server does not end the connection
QUESTION = json.dumps({"type": "response.create", "input": "How tall is it?", "store": False}).encode()

Socket = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def handshake(*headers: str, host: str = "127.0.0.1", query: str = "") -> bytes:
    """Write a request to upgrade, with further headers."""
    return HANDSHAKE.format(host=host, query=query, more="".join(f"{header}\r\n" for header in headers)).encode()


def frame(opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> bytes:
    """Write a client's frame."""
    return Frame(opcode, data, fin).serialize(mask=True)


@contextlib.asynccontextmanager
async def upgraded(url: str) -> AsyncIterator[Socket]:
    """A connection after its handshake, for frames that no client's library sends."""
    reader, writer = await connect(url)
    try:
        writer.write(handshake(host=urlsplit(url).netloc))
        head = await reader.readuntil(b"\r\n\r\n")
        if status_of(head) != 101:
            raise ConnectionError(f"no upgrade: {head[:200]!r}")
        yield reader, writer
    finally:
        writer.transport.abort()


async def pour(url: str, piece: bytes, *, first: bytes = b"") -> tuple[bool, float]:
    """Send a piece again and again over one socket; returns whether the server ended it, and the MB that were sent."""
    sent = 0
    async with upgraded(url) as (reader, writer):
        ended = asyncio.create_task(reader.read())
        with contextlib.suppress(ConnectionError):
            writer.write(first)
            while sent < ENOUGH_MB * (1 << 20) and not ended.done():
                writer.write(piece)
                await writer.drain()
                sent += len(piece)
        await asyncio.wait([ended], timeout=5)
        has_ended = ended.done()
        ended.cancel()
        await asyncio.gather(ended, return_exceptions=True)
    return has_ended, round(sent / (1 << 20), 1)


async def socket_strangers(stage: Stage) -> Verdict:
    """Handshakes without the key, with a wrong one, and with the right one in places where it does not count."""
    tried = {
        "no key": handshake(),
        "an empty key": handshake("authorization: Bearer "),
        "a wrong key": handshake("sec-websocket-protocol: realtime, openai-insecure-api-key.wrong"),
        "the key in the address": handshake(query=f"?api_key={KEY.replace(' ', '+')}"),
        "a foreign host": handshake(f"authorization: Bearer {KEY}", host="evil.example"),
    }
    found = {name: status_of(await raw(stage.keyed.url, request)) for name, request in tried.items()}
    expected = {name: {403} if "host" in name else {401} for name in tried} | {
        "a wrong key": {401, 429}
    }  # after many, 429
    held = all(code in expected[name] for name, code in found.items())
    return Verdict("handshakes of a stranger", f"{found}", held)


async def socket_pages(stage: Stage) -> Verdict:
    """Scripts of other sites in a browser on this machine, which no CORS keeps from opening a WebSocket."""
    host = urlsplit(stage.open.url).netloc
    tried = {
        EVIL: handshake(f"origin: {EVIL}", host=host),
        "null": handshake("origin: null", host=host),
        "another port": handshake("origin: http://127.0.0.1:1", host=host),
        "cross-site": handshake("sec-fetch-site: cross-site", host=host),
        "rebound": handshake("origin: http://evil.example", host="evil.example"),
    }
    found = {name: status_of(await raw(stage.open.url, request)) for name, request in tried.items()}
    return Verdict("handshakes of pages of other sites", f"{found}", set(found.values()) == {403})


async def socket_oversized(stage: Stage) -> Verdict:
    """Frames and messages over the limit, compressed frames, and frames that no client may send."""
    mb = bytes(1 << 20)
    parts = {
        "a frame of 100 MB": (b"\x81\xff" + struct.pack("!Q", 100 << 20) + b"abcd", mb),
        "a frame of 2^62 bytes": (b"\x81\xff" + struct.pack("!Q", 1 << 62) + b"abcd", mb),
        "fragments of 1 MB": (frame(Opcode.TEXT, mb, fin=False), frame(Opcode.CONT, mb, fin=False)),
        "a compressed frame": (b"\xc1\x85abcd" + bytes(5), b""),
        "frames without a mask": (b"\x81\x05hello", b"\x81\x05hello"),
        "a ping of 1 MB": (b"\x89\xff" + struct.pack("!Q", 1 << 20) + b"abcd", mb),
    }

    async def each() -> dict[str, tuple[bool, float]]:
        return {
            name: await pour(stage.open.url, piece or b"\x80", first=first) for name, (first, piece) in parts.items()
        }

    grown, found = await peak_mb(stage.open.pids["api"], each())
    held = grown <= MAX_GROWTH_MB and all(ended and sent < ENOUGH_MB for ended, sent in found.values())
    happened = f"ended and MB sent: {found}; the API grew by {grown} MB"
    return Verdict("oversized and forbidden frames on a WebSocket", happened, held, {"grown_mb": grown})


async def _send_again_and_again(
    stage: Stage, kinds: Iterable[str], send: Callable[[str], Awaitable[tuple[bool, float]]]
) -> tuple[str, bool, dict[str, Any]]:
    """Open sockets one after the other and send each kind; returns what happened, whether it held, and the figures."""

    async def again_and_again() -> list[tuple[bool, float]]:
        found: list[tuple[bool, float]] = []
        until = time.monotonic() + HOLD_SECONDS
        while time.monotonic() < until:
            for name in kinds:
                found.append(await send(name))
                await asyncio.sleep(PAUSE_SECONDS)
        return found

    found, ratio, figures = await beside(stage.open, again_and_again())
    held = ratio <= MAX_RATIO and all(ended and sent < ENOUGH_MB for ended, sent in found)
    most = max(sent for _, sent in found)
    ended = sum(ended for ended, _ in found)
    happened = f"{len(found)} sockets, {ended} ended, {most} MB taken at most; good clients' p95 {ratio} times as long"
    return happened, held, figures


async def socket_fragments(stage: Stage) -> Verdict:
    """Messages that never end, of fragments without content and of one letter, again and again."""
    kinds = {"empty": b"", "of one letter": b"a"}

    async def send(name: str) -> tuple[bool, float]:
        piece = frame(Opcode.CONT, kinds[name], fin=False) * 500
        return await pour(stage.open.url, piece, first=frame(Opcode.TEXT, kinds[name], fin=False))

    happened, held, figures = await _send_again_and_again(stage, kinds, send)
    return Verdict("messages of endless fragments", happened, held, figures)


async def silent_sockets(stage: Stage) -> Verdict:
    """Sockets that are opened and never say anything, in rounds, since the machine's speed changes."""
    count = min(SILENT, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 500)

    async def hold_all() -> int:
        opened = 0
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(
                count
            ):  # one by one: many at the same moment would be a flood, which needs no silent sockets
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    await stack.enter_async_context(upgraded(stage.open.url))
                    opened += 1
                await asyncio.sleep(1 / OPENED_A_SECOND)
            await asyncio.sleep(HOLD_SECONDS)
        return opened

    rounds = (peak_mb(stage.open.pids["api"], hold_all()) for _ in range(ROUNDS))
    found, ratio, figures = await beside_rounds(stage.open, rounds)
    opened, grown = min(opened for _, opened in found), max(grown for grown, _ in found)
    held = ratio <= MAX_RATIO and opened == count
    happened = f"{opened} of {count} opened at least; the API grew by {grown} MB; good clients' p95 {ratio} times as long (median)"
    tried = f"{ROUNDS} times {count} silent WebSockets for {HOLD_SECONDS:.0f} s"
    return Verdict(tried, happened, held, figures | {"grown_mb": grown})


async def socket_flood(stage: Stage) -> Verdict:
    """Requests without end on one socket, without waiting for answers: questions, and messages that are none."""
    kinds = {"questions": QUESTION, "no JSON": b"{", "no request": b'{"type": "session.update"}'}

    async def send(name: str) -> tuple[bool, float]:
        return await pour(stage.open.url, frame(Opcode.TEXT, kinds[name]) * 100)

    happened, held, figures = await _send_again_and_again(stage, kinds, send)
    return Verdict("requests without end on a WebSocket: " + ", ".join(kinds), happened, held, figures)


ATTACKS = (socket_strangers, socket_pages, socket_oversized, socket_fragments, silent_sockets, socket_flood)
