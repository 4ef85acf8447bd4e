"""Where a search runs: on a read replica that has all that was committed before it, else on the primary."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import structlog
from psycopg.errors import QueryCanceled, TransactionRollback, UndefinedColumn
from psycopg_pool import PoolTimeout

from ragq.errors import ConfigurationError, TransientError
from ragq.storage.database import Database

log = structlog.get_logger(__name__)

Found = TypeVar("Found")

CATCH_UP_SECONDS = 0.2  # how long a search waits for a replica that is behind or silent
QUIET_SECONDS = 1.0  # between looks whether a replica whose search takes long still answers
ANSWER_SECONDS = 1.0  # it does if it answers within this
LONGEST_SECONDS = 70.0  # longer than a statement may take, so the connection is lost
MOST_CONNECTIONS = 10  # for searches in a process
CHECK_CONNECTIONS = 4
POLL_SECONDS = 0.01
LEFT_SECONDS = 1.0  # for how long searches then run on the primary
END = "SELECT pg_current_wal_flush_lsn()::text AS lsn"
IS_REPLICA = "SELECT pg_is_in_recovery()"
REPLAYED = "SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn() >= %(lsn)s::pg_lsn"
# A column is missing after a change of the embedding model; only the primary's error says so.
FAULTS = (TimeoutError, TransientError, ConfigurationError, UndefinedColumn)


class SearchServers:
    """The primary and, if there is one, its read replica.

    Args:
        checks: Other connections to the replica: a check must not wait behind searches, and answers while they are slow.
    """

    def __init__(self, primary: Database, replica: Database | None, checks: Database | None) -> None:
        self._primary, self._replica, self._checks = primary, replica, checks
        self._left_until = 0.0
        self._unanswered: set[asyncio.Task[Any]] = set()

    async def run(self, search: Callable[[Database], Coroutine[Any, Any, Found]]) -> Found:
        """Run a search on the replica once that has replayed what the primary has committed by now.

        Without a replica, or if it is behind, fails or is silent, the search runs on the primary. One that only takes long stays.
        """
        replica, checks = self._replica, self._checks
        if replica and checks and not self._unanswered and time.monotonic() > self._left_until:
            end = await self._primary.for_all().row(END)
            assert end
            try:
                await self._limit(_wait_until_replayed(checks, replica, end["lsn"]), CATCH_UP_SECONDS)
                return await self._while_answering(checks, search(replica))
            except FAULTS as error:
                if isinstance(error.__cause__, QueryCanceled):
                    raise  # it took as long as a statement may, as it would again
                if not await self._concerns_one(error, checks):
                    self._leave(error)
        return await search(self._primary)

    def _leave(self, error: Exception) -> None:
        log.warning("read_replica_left", seconds=LEFT_SECONDS, reason=str(error) or "it is behind, or silent")
        self._left_until = time.monotonic() + LEFT_SECONDS

    async def _concerns_one(self, error: Exception, checks: Database) -> bool:
        """Whether an error says nothing of the replica: the replay undid a search, or all connections are in use."""
        if isinstance(error.__cause__, PoolTimeout):
            return await self._answers(checks)
        return isinstance(error.__cause__, TransactionRollback)

    async def _while_answering(self, checks: Database, call: Coroutine[Any, Any, Found]) -> Found:
        """Await a search for as long as the replica answers on another connection.

        Raises:
            TimeoutError: It does not.
        """
        task, until = asyncio.create_task(call), time.monotonic() + LONGEST_SECONDS
        try:
            while not (await asyncio.wait({task}, timeout=QUIET_SECONDS))[0]:
                if not await self._answers(checks) or time.monotonic() > until:
                    break
        finally:
            self._abandon(task)
        if not task.done():
            raise TimeoutError
        return task.result()

    async def _answers(self, checks: Database) -> bool:
        try:
            await self._limit(checks.for_all().row("SELECT 1"), ANSWER_SECONDS)
        except (TimeoutError, TransientError):
            return False
        return True

    async def _limit(self, call: Coroutine[Any, Any, Found], seconds: float) -> Found:
        """Await a call of the replica, but no longer than this.

        Raises:
            TimeoutError: There is no answer by then.
        """
        task = asyncio.create_task(call)
        try:
            await asyncio.wait({task}, timeout=seconds)
        finally:
            self._abandon(task)
        if not task.done():
            raise TimeoutError
        return task.result()

    def _abandon(self, task: asyncio.Task[Any]) -> None:
        """Leave a call behind that has not ended; until it has, the replica is not used.

        psycopg asks a server to cancel a statement, and waits for that up to 10 s.
        """
        if not task.done():
            task.cancel()
            self._unanswered.add(task)
            task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._unanswered.discard(task)
        if not task.cancelled():
            task.exception()  # mark it retrieved


async def _wait_until_replayed(checks: Database, replica: Database, lsn: str) -> None:
    """Wait until a replica has replayed the log up to there.

    Raises:
        TimeoutError: It is behind, or no replica any more.
        UnavailableError: It does not answer.
    """
    until = time.monotonic() + CATCH_UP_SECONDS  # its own, as a library may swallow the cancellation
    while not await _has_replayed(checks, replica, lsn):
        if time.monotonic() > until:
            raise TimeoutError
        await asyncio.sleep(POLL_SECONDS)


async def _has_replayed(checks: Database, replica: Database, lsn: str) -> bool:
    async with checks.for_all().connection() as connection:
        found = await (await connection.execute(REPLAYED, {"lsn": lsn})).fetchone()
        assert found
        is_replica, has_all = found
        if not is_replica:
            await connection.close()  # the next one may lead to a replica: the URL may name several servers
    if not is_replica:
        await _close_promoted(replica)
    return bool(is_replica and has_all)


async def _close_promoted(replica: Database) -> None:
    """Close the searches' connections to a server that is a primary now, as far as they are idle."""
    for _ in range(MOST_CONNECTIONS):
        async with replica.for_all().connection() as connection:
            found = await (await connection.execute(IS_REPLICA)).fetchone()
            assert found
            if found[0]:
                return
            await connection.close()
