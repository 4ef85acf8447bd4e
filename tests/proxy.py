"""A proxy in front of Valkey that counts a client's writes and cuts the connection at one of them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Container
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Self

from ragq.client.scripts import read_scripts

READS = frozenset(
    b"AUTH CLIENT COMMAND CONFIG ECHO EVALSHA_RO EVAL_RO EXISTS GET HELLO HGET HGETALL HMGET INFO LLEN LRANGE MGET MULTI"
    b" PING SCRIPT SELECT SMEMBERS TIME TTL TYPE UNWATCH WATCH XLEN XRANGE XREAD XREVRANGE ZCARD ZCOUNT ZRANGE ZSCORE"
    b" HLEN SCARD SCAN PTTL STRLEN".split()
)
SUBSCRIBES = frozenset((b"SUBSCRIBE", b"PSUBSCRIBE", b"SSUBSCRIBE"))
CALLS = frozenset((b"EVALSHA", b"EVAL", b"FCALL"))
LONGEST_LINE = 1 << 20
AGGREGATES = {b"*": 1, b"~": 1, b">": 1, b"%": 2, b"|": 2}


class Cut(Enum):
    """Where the connection is cut: before Valkey gets a write, or after its reply and before the client gets that."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True)
class Write:
    """A write of a client.

    Attributes:
        number: From 1, over all connections of the proxy.
        name: The script's name, else the command in lower case.
        turn: From 1, among those of its name.
    """

    number: int
    name: str
    turn: int

    def __str__(self) -> str:
        return f"{self.name}#{self.turn}"


class ValkeyProxy:
    """Listens on a socket of its own; use it with `async with`.

    Args:
        path: The socket to listen on.
        target: Valkey's socket.
        choose: Returns for each write whether and where to cut.
        strike: Called at a cut, before the client's connection is closed.
        refused: Numbers, from 1, of connections to close at once.
    """

    def __init__(
        self,
        path: Path,
        target: Path,
        choose: Callable[[Write], Cut | None] = lambda _: None,
        strike: Callable[[Write, Cut], None] = lambda _write, _cut: None,
        *,
        refused: Container[int] = (),
    ) -> None:
        self.url = f"unix://{path}"
        self.connections = 0
        self.writes: list[Write] = []
        self.cuts: list[tuple[Write, Cut]] = []
        self._path, self._target = path, target
        self._choose, self._strike, self._refused = choose, strike, refused
        self._names = {hashlib.sha1(text.encode()).hexdigest().encode(): name for name, text in read_scripts().items()}
        self._turns: Counter[str] = Counter()
        self._clients: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._accept, str(self._path), limit=LONGEST_LINE)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for client in self._clients:
            client.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.connections in self._refused:
            writer.transport.abort()
            return
        self._clients.add(writer)
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream: asyncio.StreamWriter | None = None
        try:
            replies, upstream = await asyncio.open_unix_connection(str(self._target), limit=LONGEST_LINE)
            connection = _Connection(reader, writer, replies, upstream)
            while await self._exchange(connection):
                pass
        except (OSError, EOFError):
            pass  # one side has closed, so the other is closed too
        finally:
            self._clients.discard(writer)
            for one in filter(None, (writer, upstream)):
                one.transport.abort()
                with contextlib.suppress(OSError):
                    await one.wait_closed()

    async def _exchange(self, connection: _Connection) -> bool:
        """Forward one request and its reply; False if the connection has ended."""
        raw, words = await _read_request(connection.requests)
        write = self._note(words) if connection.writes(words) else None
        cut = self._choose(write) if write else None
        if write and cut is Cut.BEFORE:
            return self._hit(write, cut)
        connection.upstream.write(raw)
        if words[0].upper() in SUBSCRIBES:
            await connection.pass_all()
            return False
        reply = await _read_reply(connection.replies)
        if write and cut is Cut.AFTER:
            return self._hit(write, cut)
        connection.client.write(reply)
        await connection.client.drain()
        return True

    def _hit(self, write: Write, cut: Cut) -> bool:
        self.cuts.append((write, cut))
        self._strike(write, cut)
        return False

    def _note(self, words: list[bytes]) -> Write:
        command = words[0].upper()
        name = self._names.get(words[1], "script") if command in CALLS else command.decode().lower()
        self._turns[name] += 1
        self.writes.append(Write(len(self.writes) + 1, name, self._turns[name]))
        return self.writes[-1]


@dataclass
class _Connection:
    """A client's connection and ours to Valkey for it."""

    requests: asyncio.StreamReader
    client: asyncio.StreamWriter
    replies: asyncio.StreamReader
    upstream: asyncio.StreamWriter
    transaction_writes: bool = False

    def writes(self, words: list[bytes]) -> bool:
        """Whether this is a write; an EXEC is one if a write was queued for it."""
        command = words[0].upper()
        if command == b"EXEC":
            return self.transaction_writes
        is_write = command not in READS | SUBSCRIBES
        self.transaction_writes = command != b"MULTI" and (is_write or self.transaction_writes)
        return is_write

    async def pass_all(self) -> None:
        """Forward everything in both directions, as a subscription needs it."""
        await asyncio.gather(_pipe(self.requests, self.upstream), _pipe(self.replies, self.client))


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


async def _read_line(reader: asyncio.StreamReader) -> bytes:
    line = await reader.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    return line


async def _read_request(reader: asyncio.StreamReader) -> tuple[bytes, list[bytes]]:
    """Read an array of bulk strings; returns its bytes and the strings."""
    raw, words = [await _read_line(reader)], list[bytes]()
    for _ in range(int(raw[0][1:])):
        head = await _read_line(reader)
        word = await reader.readexactly(int(head[1:]) + 2)
        raw += [head, word]
        words.append(word[:-2])
    return b"".join(raw), words


async def _read_reply(reader: asyncio.StreamReader) -> bytes:
    """Read the bytes of one reply, RESP2 or RESP3."""
    head = await _read_line(reader)
    kind, size = head[:1], head[1:-2]
    if kind in (b"$", b"!", b"=") and size != b"-1":
        return head + await reader.readexactly(int(size) + 2)
    parts = [head]
    if kind in AGGREGATES and size != b"-1":
        parts += [await _read_reply(reader) for _ in range(int(size) * AGGREGATES[kind])]
        if kind in (b"|", b">"):  # an attribute or a push comes before the reply itself
            parts.append(await _read_reply(reader))
    return b"".join(parts)
