"""Writes that are answered once replicas have them on disk, too.

A `WAITAOF` blocks its connection, so these writes have one of their own, and all that arrive while one waits go out
together as the next batch. It waits for what its own connection wrote, so a batch ends with a write: without it, a repeat
that found its job would be answered before the replica has that job. A replica asked in the moment of a write says what it had
synced before it, and is asked again after a second; so `WAIT`, for its receipt, comes first.
"""

from __future__ import annotations

import asyncio
from typing import Any

from redis import exceptions

from ragq.client.replication.address import Host
from ragq.client.valkey_client import ANSWER_SECONDS, UNAVAILABLE, Command, ValkeyClient

WAIT_SECONDS = 1.5  # for the receipt, and again for the disk
CONFIRMED_SECONDS = 2 * ANSWER_SECONDS + 1  # what a call may take: the batch before its own, and its own
MARK = "#!lua flags=allow-oom\nreturn redis.call('SET', ARGV[1] .. ':confirmed', redis.call('TIME')[1])"


class UnconfirmedError(exceptions.TimeoutError):
    """Too few replicas confirmed a write in time. It stands on the primary, and may be lost with it.

    Attributes:
        reply: The primary's reply to it.
    """

    def __init__(self, reply: Any) -> None:
        super().__init__("no replica has confirmed the write in time")
        self.reply = reply


class ConfirmedCalls:
    """Sends commands on a connection of its own, and replies when replicas have synced them to disk."""

    def __init__(self, url: str, *, replicas: int, prefix: str) -> None:
        self._valkey = ValkeyClient(url)
        wait_ms = int(WAIT_SECONDS * 1000)
        self._ends: list[Command] = [
            ["EVAL", MARK, 0, prefix],
            ["WAIT", replicas, wait_ms],
            ["WAITAOF", 1, replicas, wait_ms],
        ]
        self._replicas = replicas
        self._waiting: list[tuple[Command, asyncio.Future[Any]]] = []
        self._sender: asyncio.Task[None] | None = None

    async def call(self, *command: str | bytes | float) -> Any:
        """Send a command and return its reply once it is confirmed.

        Raises:
            UnconfirmedError: It was not confirmed in time.
            redis.exceptions.ResponseError: The reply is an error.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((command, future))
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send_all())
        reply = await future
        if isinstance(reply, Exception):
            raise reply
        return reply

    @property
    def primary(self) -> Host | None:
        """What Sentinels named when it last connected; None without Sentinels."""
        return self._valkey.primary

    async def close(self) -> None:
        """Close the connection. Pending calls fail with ConnectionError."""
        await self._valkey.close()

    async def _send_all(self) -> None:
        while self._waiting:
            batch, self._waiting = [one for one in self._waiting if not one[1].done()], []  # done: the caller gave up
            for (_, future), reply in zip(batch, await self._send([command for command, _ in batch]), strict=True):
                if not future.done():  # done if the caller was cancelled
                    future.set_result(reply)

    async def _send(self, commands: list[Command]) -> list[Any]:
        """Send a batch; returns for each command its reply, or the error to raise."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                *replies, mark, _, confirmed = await self._valkey.exchange([*commands, *self._ends])
        except UNAVAILABLE as error:
            await self._valkey.close()
            return [error] * len(commands)
        failure = next((reply for reply in (mark, confirmed) if isinstance(reply, Exception)), None)
        if failure is None and min(confirmed[0], confirmed[1] - self._replicas + 1) > 0:
            return replies
        await self._valkey.close()  # this primary may have been replaced: the next batch looks for it again
        return [reply if isinstance(reply, Exception) else failure or UnconfirmedError(reply) for reply in replies]
