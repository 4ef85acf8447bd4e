"""Where a search runs: on a read replica that has all that was committed before it, else on the primary."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import structlog
from psycopg.errors import UndefinedColumn

from ragq.errors import ConfigurationError, TransientError
from ragq.storage.database import Database

log = structlog.get_logger(__name__)

Found = TypeVar("Found")

CATCH_UP_SECONDS = 0.2  # how long a search waits for a replica that is behind or silent
SEARCH_SECONDS = 2.0  # and for what it finds there
POLL_SECONDS = 0.01
LEFT_SECONDS = 1.0  # for how long searches then run on the primary
END = "SELECT pg_current_wal_flush_lsn()::text AS lsn"
REPLAYED = "SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn() >= %(lsn)s::pg_lsn"
# A column is missing after a change of the embedding model; only the primary's error says so.
FAULTS = (TimeoutError, TransientError, ConfigurationError, UndefinedColumn)


class SearchServers:
    """The primary and, if there is one, its read replica."""

    def __init__(self, primary: Database, replica: Database | None) -> None:
        self._primary, self._replica = primary, replica
        self._left_until = 0.0
        self._unanswered: set[asyncio.Task[Any]] = set()

    async def run(self, search: Callable[[Database], Coroutine[Any, Any, Found]]) -> Found:
        """Run a search on the replica once that has replayed what the primary has committed by now.

        Without a replica, or if it is behind, fails or is silent, the search runs on the primary.
        """
        replica = self._replica
        if replica and not self._unanswered and time.monotonic() > self._left_until:
            end = await self._primary.for_all().row(END)
            assert end
            try:
                await self._limit(_wait_until_replayed(replica, end["lsn"]), CATCH_UP_SECONDS)
                return await self._limit(search(replica), SEARCH_SECONDS)
            except FAULTS as error:
                log.warning("read_replica_left", seconds=LEFT_SECONDS, reason=str(error) or "it is behind, or silent")
                self._left_until = time.monotonic() + LEFT_SECONDS
        return await search(self._primary)

    async def _limit(self, call: Coroutine[Any, Any, Found], seconds: float) -> Found:
        """Await a call of the replica, but no longer than this.

        psycopg asks a server to cancel a statement, and waits for that up to 10 s. So the call is a task, which is left behind;
        until it has ended, the replica is not used.

        Raises:
            TimeoutError: There is no answer by then.
        """
        task = asyncio.create_task(call)
        try:
            await asyncio.wait({task}, timeout=seconds)
        finally:
            if not task.done():
                task.cancel()
                self._unanswered.add(task)
                task.add_done_callback(self._end)
        if not task.done():
            raise TimeoutError
        return task.result()

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._unanswered.discard(task)
        if not task.cancelled():
            task.exception()  # mark it retrieved


async def _wait_until_replayed(replica: Database, lsn: str) -> None:
    """Wait until a replica has replayed the log up to there.

    Raises:
        TimeoutError: It is behind, or no replica any more.
        UnavailableError: It does not answer.
    """
    until = time.monotonic() + CATCH_UP_SECONDS  # its own, as a library may swallow the cancellation
    while not await _has_replayed(replica, lsn):
        if time.monotonic() > until:
            raise TimeoutError
        await asyncio.sleep(POLL_SECONDS)


async def _has_replayed(replica: Database, lsn: str) -> bool:
    async with replica.for_all().connection() as connection:
        found = await (await connection.execute(REPLAYED, {"lsn": lsn})).fetchone()
        assert found
        is_replica, has_all = found
        if not is_replica:
            await connection.close()  # the next one may lead to a replica: the URL may name several servers
    return bool(is_replica and has_all)
