"""A connection to PostgreSQL that keeps its settings from one statement to the next, and knows them."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import psycopg
from psycopg import AsyncConnection
from psycopg.pq import PipelineStatus, TransactionStatus

_ENTER = "SELECT set_config('ragq.tenant', %(tenant)s, %(is_local)s)"
_ROLE = ", set_config('role', %(role)s, %(is_local)s)"
_PATH = ", set_config('search_path', %(path)s, %(is_local)s)"
_LEAVE = "RESET role; RESET ragq.tenant; RESET search_path"


class Entry(NamedTuple):
    """The settings behind the walls of one tenant: its id, and the role and search path of the second wall, if it stands."""

    tenant: str
    role: str | None
    path: str | None


OUTSIDE = Entry("", None, None)


class Connection(AsyncConnection[Any]):
    """A connection of a pool.

    Attributes:
        used_at: When it was last used, on the clock `time.monotonic()`.
        plans_once: Whether its prepared statements are planned once for all values; None if that is not known.
        entered: Behind whose walls it is, or OUTSIDE of all; None if that is not known.
    """

    used_at = 0.0
    plans_once: bool | None = False
    entered: Entry | None = OUTSIDE

    @classmethod
    async def connect(  # type: ignore[override]  # as the pool calls it
        cls, conninfo: str = "", *, failures: deque[psycopg.Error], **options: Any
    ) -> Connection:
        """Connect; the pool does not report why it fails, so the reason is kept in `failures`."""
        try:
            connection = await super().connect(conninfo, **options)
        except psycopg.Error as error:
            failures.append(error)
            raise
        failures.clear()
        return connection

    async def plan_once(self, wanted: bool) -> None:
        """Plan prepared statements once for all values, or as PostgreSQL thinks best."""
        if self.plans_once is not wanted:
            self.plans_once = None  # until it is done: the statement may be cancelled
            await self.execute(f"SET plan_cache_mode = {'force_generic_plan' if wanted else 'auto'}", prepare=False)
            self.plans_once = wanted

    @contextlib.asynccontextmanager
    async def behind(self, entry: Entry) -> AsyncIterator[None]:
        """Run the statement of the block behind a tenant's walls, and stay there; within a transaction, until its end.

        The settings are sent together with the statement, unless they are in force from an earlier one.
        """
        if self.pgconn.transaction_status == TransactionStatus.INTRANS:
            async with self.one_round_trip():
                await self.enter(entry, is_local=True)
                yield
        elif self.entered == entry:
            yield
        else:
            if self.entered is None or self.entered[1:] != entry[1:]:
                await self.leave()
            self.entered = None  # until it is done: an error or a cancellation may undo it
            async with self.one_round_trip():  # which is one transaction
                await self.enter(entry, is_local=False)
                yield
            self.entered = entry

    async def enter(self, entry: Entry, *, is_local: bool = True) -> None:
        """Set tenant, role and path; with `is_local`, until the end of the transaction."""
        query = _ENTER + (_ROLE if entry.role else "") + (_PATH if entry.path else "")
        await self.execute(query, {**entry._asdict(), "is_local": is_local}, prepare=True)

    async def leave(self) -> None:
        """See all rows again."""
        if self.entered != OUTSIDE:
            self.entered = None
            await self.execute(_LEAVE, prepare=False)
            self.entered = OUTSIDE

    @contextlib.asynccontextmanager
    async def one_round_trip(self) -> AsyncIterator[None]:
        """Send all statements of the block together.

        psycopg leaves a connection in pipeline mode when its task is cancelled as the pipeline begins, and it then refuses
        COPY for good. Such a connection is closed, so that the pool replaces it.
        """
        try:
            async with self.pipeline():
                yield
        finally:
            if self.pgconn.pipeline_status != PipelineStatus.OFF:
                self.pgconn.finish()  # `close()` could be cancelled
