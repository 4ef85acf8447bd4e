"""Two doors to the rows: for one tenant, behind both walls, and for all, behind none."""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, TypeVar

import psycopg
from psycopg import AsyncConnection, AsyncCursor, Rollback
from psycopg.pq import TransactionStatus
from psycopg.rows import AsyncRowFactory, dict_row, kwargs_row

from ragq import tracing
from ragq.accounts.views import Viewer, tenant_of
from ragq.errors import UnavailableError
from ragq.storage.tenancy.connection import Connection, Entry
from ragq.storage.tenancy.visibility import values_of
from ragq.storage.tenancy.wall import Wall

Record = TypeVar("Record")
Row = TypeVar("Row")
Found = TypeVar("Found")
Plan = Literal["once", "anew"] | None
Connect = Callable[..., AbstractAsyncContextManager[Connection]]
FindWall = Callable[[], Awaitable[Wall | None]]

READ_AGAIN_SECONDS = 5.0  # how long a SELECT is repeated while a primary is replaced
PREPARE: dict[Plan, bool | None] = {"once": True, "anew": False, None: None}


class Access(ABC):
    """Runs statements on connections of the pool."""

    def __init__(self, connect: Connect, *, repeats_reads: bool) -> None:
        self._connect = connect
        self._repeats_reads = repeats_reads

    async def row(self, query: str, *, plan: Plan = None, **parameters: Any) -> dict[str, Any] | None:
        """Fetch the first row.

        Args:
            plan: As of `records`.
        """
        return await self._fetch(AsyncCursor.fetchone, dict_row, query, plan, parameters)

    async def records(
        self, record: Callable[..., Record], query: str, *, plan: Plan = None, **parameters: Any
    ) -> list[Record]:
        """Fetch all rows.

        Args:
            record: Makes a record of the columns.
            plan: "once" for a statement whose planning takes longer than its run, whatever the values: it is prepared with a
                generic plan. "anew" to plan for these values. None leaves it to psycopg and PostgreSQL.
        """
        return await self._fetch(AsyncCursor.fetchall, kwargs_row(record), query, plan, parameters)

    async def _fetch(
        self,
        fetch: Callable[[AsyncCursor[Row]], Awaitable[Found]],
        row_factory: AsyncRowFactory[Row],
        query: str,
        plan: Plan,
        parameters: dict[str, Any],
    ) -> Found:
        """Run a statement and fetch. A SELECT is repeated while a primary is replaced, if that is allowed."""
        may_repeat = self._repeats_reads and query.lstrip().startswith("SELECT")
        give_up_at = time.monotonic() + READ_AGAIN_SECONDS
        while True:
            try:
                with tracing.query(query):
                    async with self._run(row_factory, query, plan, parameters) as cursor:
                        return await fetch(cursor)
            except UnavailableError:
                if not may_repeat or time.monotonic() > give_up_at:
                    raise
                await asyncio.sleep(0.05)

    @abstractmethod
    def _run(
        self, row_factory: AsyncRowFactory[Row], query: str, plan: Plan, parameters: dict[str, Any]
    ) -> AbstractAsyncContextManager[AsyncCursor[Row]]:
        """Run a statement; yields the cursor to fetch its rows from."""


class AllAccess(Access):
    """All tenants' rows, as the tables' owner: for housekeeping and what no tenant owns."""

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection[Any]]:
        """Use a connection of the pool."""
        async with self._connect() as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def _run(
        self, row_factory: AsyncRowFactory[Row], query: str, plan: Plan, parameters: dict[str, Any]
    ) -> AsyncIterator[AsyncCursor[Row]]:
        async with self._connect(plan == "once") as connection, connection.cursor(row_factory=row_factory) as cursor:
            await cursor.execute(query, parameters, prepare=PREPARE[plan])
            yield cursor


class TenantAccess(Access):
    """One tenant's rows, and those that others share with it; the statements' parameters have the values of its viewer."""

    def __init__(self, connect: Connect, find_wall: FindWall, viewer: Viewer, *, repeats_reads: bool) -> None:
        super().__init__(connect, repeats_reads=repeats_reads)
        self._find_wall = find_wall
        self._viewer = viewer

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection[Any]]:
        """Run several statements in one transaction; `psycopg.Rollback` ends it without an error."""
        wall = await self._find_wall()
        async with self._connect() as connection:
            is_begun = connection.info.transaction_status == TransactionStatus.INTRANS  # by `_connect`
            async with connection.one_round_trip():  # as `connection.transaction()` does not
                if not is_begun:
                    await connection.execute("BEGIN")
                await connection.enter(self._entry(wall))
            async with connection.transaction() if is_begun else _ending(connection):
                yield connection

    @contextlib.asynccontextmanager
    async def copying(self) -> AsyncIterator[tuple[AsyncConnection[Any], Callable[[], Awaitable[None]]]]:
        """Run a transaction that begins with COPY, which PostgreSQL refuses under a policy; a trigger checks the rows instead.

        Yields the connection and what to call after the last COPY, to have both walls.
        """
        wall = await self._find_wall()
        async with self._connect() as connection, connection.transaction():
            await connection.enter(self._entry(None))
            yield connection, lambda: connection.enter(self._entry(wall))

    @contextlib.asynccontextmanager
    async def _run(
        self, row_factory: AsyncRowFactory[Row], query: str, plan: Plan, parameters: dict[str, Any]
    ) -> AsyncIterator[AsyncCursor[Row]]:
        wall = await self._find_wall()
        async with (
            self._connect(plan == "once", stays_behind=True) as connection,
            connection.cursor(row_factory=row_factory) as cursor,
        ):
            async with connection.behind(self._entry(wall)):
                await cursor.execute(query, parameters | values_of(self._viewer), prepare=PREPARE[plan])
            yield cursor

    def _entry(self, wall: Wall | None) -> Entry:
        role, path = (wall.role, wall.search_path) if wall and wall.stands else (None, None)
        return Entry(tenant_of(self._viewer), role, path)


@contextlib.asynccontextmanager
async def _ending(connection: AsyncConnection[Any]) -> AsyncIterator[None]:
    """End a transaction: commit it, or roll it back on an exception."""
    try:
        yield
    except BaseException as error:
        with contextlib.suppress(psycopg.Error):  # of a lost connection
            await connection.rollback()
        if not isinstance(error, Rollback):
            raise
    else:
        await connection.commit()
