"""One connection to Valkey for all commands of a process.

Commands are pipelined: each is written at once, and replies come in the order of the commands. So there is no pool to
wait for, and many callers need only one descriptor. Do not send blocking commands here.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, cast

import hiredis
from redis import exceptions

from ragq.client.replication.address import Host, read_address
from ragq.errors import UnavailableError

ANSWER_SECONDS = 5.0
CONNECT_SECONDS = 3.0
UNAVAILABLE = (exceptions.ConnectionError, exceptions.TimeoutError, OSError)
DEMOTED = ("READONLY", "MASTERDOWN", "UNBLOCKED")  # the server has become a replica: look for the primary again
# Transient errors: starting, memory or disk full, replicas missing, a script hangs, the password was changed.
REFUSALS = ("LOADING", "OOM", "MISCONF", "NOREPLICAS", "BUSY ", "NOAUTH", "WRONGPASS", *DEMOTED)

Command = Sequence[str | bytes | int | float]


class _Translation:
    """Limits the time of a block, and turns Valkey's errors into ours."""

    def __init__(self, seconds: float) -> None:
        self._limit = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._limit.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._limit.__aexit__(kind, error, trace)
        except TimeoutError as late:
            raise _unavailable(late) from late
        if isinstance(error, UNAVAILABLE) or (
            isinstance(error, exceptions.ResponseError) and str(error).startswith(REFUSALS)
        ):
            raise _unavailable(error) from error


def translate_errors(seconds: float | None = None) -> _Translation:
    """Limit the time for Valkey's replies, to ANSWER_SECONDS unless another is given, and turn its errors into ours."""
    return _Translation(seconds or ANSWER_SECONDS)


def _unavailable(error: BaseException) -> UnavailableError:
    return UnavailableError(
        "Valkey did not confirm the command, which may not have run. Try again.",
        detail=f"{type(error).__name__}: {error}",
        code="queue_unavailable",
        retry_after_seconds=2,
    )


class ValkeyClient:
    """Sends commands; connects at the first, and after a lost connection. Replies are RESP 2, texts are bytes.

    Methods raise redis-py's ConnectionError or OSError when Valkey is down; call them within `translate_errors`.

    Attributes:
        primary: What Sentinels named when it last connected; None without Sentinels.
    """

    primary: Host | None = None

    def __init__(self, url: str) -> None:
        self._address = read_address(url)
        self._connecting = asyncio.Lock()
        self._line: _Connection | None = None

    async def call(self, *command: str | bytes | float) -> Any:
        """Send a command and return its reply.

        Raises:
            redis.exceptions.ResponseError: The reply is an error.
        """
        return _raise_if_error((await self.call_all([command]))[0])

    async def call_all(self, commands: Iterable[Command]) -> list[Any]:
        """Send commands in one write; an error reply is returned in its place, unless it is transient.

        Raises:
            redis.exceptions.ResponseError: Valkey refuses commands for now (LOADING, OOM, READONLY, …).
        """
        replies = await self.exchange(commands)
        for reply in replies:
            if isinstance(reply, exceptions.ResponseError) and str(reply).startswith(REFUSALS):
                raise reply
        return replies

    async def exchange(self, commands: Iterable[Command]) -> list[Any]:
        """Send commands in one write; every error reply is returned in its place."""
        line = self._line
        if line is None or not line.is_healthy:
            line = await self._connect()
        replies = [await reply for reply in line.send(commands)]
        if any(isinstance(reply, exceptions.ResponseError) and str(reply).startswith(DEMOTED) for reply in replies):
            line.drop()
        return replies

    async def transact(self, commands: Iterable[Command]) -> list[Any]:
        """Send commands as a transaction and return their replies.

        Raises:
            redis.exceptions.ResponseError: One of the replies is an error.
        """
        *_, replies = await self.call_all([["MULTI"], *commands, ["EXEC"]])
        return [_raise_if_error(reply) for reply in _raise_if_error(replies)]

    async def close(self) -> None:
        """Close the connection. Pending calls fail with ConnectionError."""
        if self._line:
            self._line.drop()

    async def _connect(self) -> _Connection:
        async with self._connecting:
            if self._line and self._line.is_healthy:
                return self._line
            if self._line:
                self._line.drop()
            async with asyncio.timeout(CONNECT_SECONDS):
                options, primary = self._address.options, None
                if self._address.sentinels:
                    primary = host, port = await self._address.find_primary()
                    options = {**options, "host": host, "port": port}
                line = await _open(options)
                try:
                    await line.greet(_greeting(options))
                    if self._address.sentinels:
                        await line.refuse_replica()
                except BaseException:
                    line.drop()
                    raise
            self._line, self.primary = line, primary
            return line


class _Connection(asyncio.Protocol):
    """A connection and its pending replies."""

    def __init__(self) -> None:
        self._replies = hiredis.Reader(replyError=exceptions.ResponseError)
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._transport: asyncio.Transport | None = None

    @property
    def is_healthy(self) -> bool:
        """Whether it is open and no reply is overdue."""
        is_late = self._waiting and time.monotonic() - self._waiting[0][1] > ANSWER_SECONDS
        return self._transport is not None and not is_late

    def send(self, commands: Iterable[Command]) -> list[asyncio.Future[Any]]:
        """Write commands in one go; returns a future for each reply."""
        if self._transport is None:
            raise exceptions.ConnectionError("the connection was lost")
        packed = [hiredis.pack_command(tuple(command)) for command in commands]  # type: ignore[arg-type]
        loop, now = asyncio.get_running_loop(), time.monotonic()
        futures = [loop.create_future() for _ in packed]
        self._waiting.extend((future, now) for future in futures)
        self._transport.write(b"".join(packed))
        return futures

    async def greet(self, commands: list[Command]) -> None:
        """Authenticate and select the database; must complete before other commands are sent."""
        for reply in [await reply for reply in self.send(commands)]:
            if isinstance(reply, exceptions.ResponseError):
                raise exceptions.ConnectionError(f"Valkey refuses the connection: {reply}")

    async def refuse_replica(self) -> None:
        """Check that the server is a primary: a Sentinel may not have heard yet that it was replaced."""
        [info] = [await reply for reply in self.send([["INFO", "replication"]])]
        if isinstance(info, exceptions.ResponseError) or b"role:master" not in info:
            raise exceptions.ConnectionError("the server that Sentinels name is not a primary")

    def drop(self) -> None:
        if self._transport:
            self._transport.abort()
        self.connection_lost(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._replies.feed(data)
            while (reply := self._replies.gets()) is not False:
                future, _ = self._waiting.popleft()
                if not future.done():  # done if the caller was cancelled
                    future.set_result(reply)
        except (hiredis.ProtocolError, IndexError):  # not a valid reply
            self.drop()

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        while self._waiting:
            future, _ = self._waiting.popleft()
            if not future.done():
                future.set_exception(exceptions.ConnectionError("the connection was lost"))
                future.exception()  # mark it retrieved: of several commands sent together, only the first is awaited


async def _open(options: dict[str, Any]) -> _Connection:
    loop = asyncio.get_running_loop()
    if path := options.get("path"):
        _, line = await loop.create_unix_connection(_Connection, path)
    else:
        host, port = options.get("host", "localhost"), int(options.get("port", 6379))
        _, line = await loop.create_connection(_Connection, host, port, ssl=_tls(options))
    return line


def _tls(options: dict[str, Any]) -> ssl.SSLContext | None:
    """Make an SSL context from redis-py's options of a `rediss://` URL."""
    if "SSL" not in getattr(options.get("connection_class"), "__name__", ""):
        return None
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"), capath=options.get("ssl_ca_path"))
    if options.get("ssl_cert_reqs") == "none":
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if certificate := options.get("ssl_certfile"):
        context.load_cert_chain(certificate, options.get("ssl_keyfile"), options.get("ssl_password"))
    return context


def _greeting(options: dict[str, Any]) -> list[Command]:
    commands: list[Command] = []
    if password := options.get("password"):
        user = options.get("username")
        commands.append(["AUTH", user, password] if user else ["AUTH", password])
    if database := options.get("db"):
        commands.append(["SELECT", int(database)])
    return commands


def _raise_if_error(reply: Any) -> Any:
    if isinstance(reply, Exception):
        raise reply
    return reply


def pairs(flat: Sequence[Any]) -> dict[Any, Any]:
    """Make a dict from RESP 2's flat list of names and values."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
