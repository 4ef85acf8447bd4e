"""The connection to PostgreSQL: a pool, translated errors, and the migrations."""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterator
from contextvars import ContextVar
from functools import cache
from importlib import resources
from typing import Any

import psycopg
import structlog
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from ragq.accounts.views import Viewer
from ragq.errors import ConfigurationError, InvalidRequestError, TooLargeError, TransientError, UnavailableError
from ragq.settings import Settings
from ragq.storage.database_check import check_database
from ragq.storage.search.vector_column import EmbeddingModel, column_of, read_facts, write_facts
from ragq.storage.tenancy.access import Access, AllAccess, TenantAccess
from ragq.storage.tenancy.connection import Connection
from ragq.storage.tenancy.wall import Wall, find_wall, raise_wall

log = structlog.get_logger(__name__)

# Also of a primary that has become a standby: it refuses writes.
AWAY = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.ReadOnlySqlTransaction)
CANCELLED = (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable, psycopg.errors.TransactionRollback)
MIGRATION_LOCK = 0x72616771  # "ragq"
OTHER_MODEL = "embedding_model_changed"  # code of the error of a process with settings of another embedding model
MIGRATIONS_PENDING = "migrations_pending"  # code of the error while they have not all run
READY_SECONDS = 1.0  # PostgreSQL must provide a connection within this to count as ready
CONNECT_SECONDS = 5
WALL_SECONDS = 60.0  # between two looks for the second wall between tenants while it is down
RECONNECT_SECONDS = 5.0  # of attempts whose waits double; a later request begins them anew
SURPLUS_SECONDS = 10.0  # a pool that did not use all its connections for so long closes one: each takes 3 MB
RESTED_SECONDS = 1.0  # a connection idle for longer is checked before it is used
SESSION_SETTINGS = {"statement_timeout": "1min", "hnsw.iterative_scan": "relaxed_order", "hnsw.ef_search": "400"}
STARTUP_OPTIONS = " ".join(f"-c {name}={value}" for name, value in SESSION_SETTINGS.items())
_IN_TRANSACTION = "; ".join(f"SET LOCAL {name} = '{value}'" for name, value in SESSION_SETTINGS.items())
_LEAVE = "SELECT set_config('role', 'none', true), set_config('ragq.tenant', '', true)"
BEHIND_A_POOLER = (
    "RAGQ_DATABASE_URL leads to a pooler that refuses the settings of a connection. Set "
    "RAGQ_DATABASE_POOLED=true, and RAGQ_DATABASE_DIRECT_URL to PostgreSQL itself."
)


async def _check(connection: Connection) -> None:
    """Check that an idle connection is alive; a check at each use would double the round trips."""
    if time.monotonic() - connection.used_at > RESTED_SECONDS:
        await AsyncConnectionPool.check_connection(connection)


class Database:
    """A pool of connections; open it with `await Database.open(…)`.

    Behind a pooler (`RAGQ_DATABASE_POOLED`) each use of a connection is one transaction that sets its own settings, and
    statements are not prepared.
    """

    def __init__(
        self,
        settings: Settings,
        url: str,
        pool: AsyncConnectionPool[Connection],
        failures: deque[psycopg.Error],
        *,
        repeats_reads: bool,
    ) -> None:
        self._settings = settings
        direct = settings.database_direct_url if settings.database_pooled else None
        self._direct_url = direct.get_secret_value() if direct else url
        self._pool = pool
        self._failures = failures
        self._repeats_reads = repeats_reads
        self._vector_column: str | None = None
        self._shared: ContextVar[Connection | None] = ContextVar("shared", default=None)  # of `transaction`
        self._wall: Wall | None = None
        self._wall_until = 0.0

    @classmethod
    async def open(cls, settings: Settings, url: str, *, connections: int = 10, repeats_reads: bool = True) -> Database:
        """Open a pool; it connects in the background, and again when a connection is lost.

        Args:
            repeats_reads: Repeat a SELECT that lost its connection, for some seconds; False if another server may answer.
        """
        failures = deque[psycopg.Error](maxlen=1)
        kept: dict[str, Any] = {"prepare_threshold": None} if settings.database_pooled else {"options": STARTUP_OPTIONS}
        pool = AsyncConnectionPool(
            url,
            connection_class=Connection,
            min_size=1,
            max_size=connections,
            max_idle=SURPLUS_SECONDS,
            timeout=5,
            reconnect_timeout=RECONNECT_SECONDS,
            open=False,
            check=_check,
            kwargs={"autocommit": True, "connect_timeout": CONNECT_SECONDS, "failures": failures} | kept,
        )
        await pool.open()
        return cls(settings, url, pool, failures, repeats_reads=repeats_reads)

    async def close(self) -> None:
        await self._pool.close()

    @contextlib.asynccontextmanager
    async def _connection(
        self, plans_once: bool = False, stays_behind: bool = False, *, timeout_seconds: float | None = None
    ) -> AsyncIterator[Connection]:
        """Use a connection of the pool; with None, wait for one as long as the pool's timeout.

        Args:
            plans_once: Plan prepared statements once, whatever their values.
            stays_behind: Take it as it is, behind a tenant's walls or none; otherwise it sees all rows.
        """
        with self._translate_errors():
            if shared := self._shared.get():
                await shared.execute(_LEAVE)  # the statement before may have been a tenant's
                yield shared
                return
            async with self._pool.connection(timeout_seconds) as connection:
                if self._settings.database_pooled:
                    async with connection.transaction():
                        await connection.execute(_IN_TRANSACTION)
                        yield connection
                else:
                    await connection.plan_once(plans_once)
                    if not stays_behind:
                        await connection.leave()
                    yield connection
                connection.used_at = time.monotonic()

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Run what this task does with the database until the end of the block as one transaction, on one connection."""
        async with self._connection() as connection, connection.transaction():
            token = self._shared.set(connection)
            try:
                yield
            finally:
                self._shared.reset(token)

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncConnection[Any]]:
        """Open a connection directly to PostgreSQL, for locks and settings that outlast a transaction."""
        with self._translate_errors():
            async with await AsyncConnection.connect(
                self._direct_url, autocommit=True, connect_timeout=CONNECT_SECONDS, options=STARTUP_OPTIONS
            ) as connection:
                yield connection

    @contextlib.contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Translate psycopg's exceptions into our errors."""
        try:
            yield
        except psycopg.DataError as error:
            if "NUL" in str(error) or isinstance(error, psycopg.errors.UntranslatableCharacter):
                raise InvalidRequestError(
                    "A text contains the character U+0000, which cannot be stored: remove it."
                ) from error
            raise
        except psycopg.errors.UndefinedColumn as error:
            if not self._vector_column or self._vector_column not in str(error):
                raise
            self._vector_column = None
            raise _other_model("The embedding model was changed while this process ran.") from error
        except (*AWAY, PoolTimeout) as error:
            if isinstance(error, psycopg.errors.ProgramLimitExceeded):
                raise TooLargeError("A text is longer than PostgreSQL can index: split it.", detail=error) from error
            if isinstance(error, CANCELLED):
                raise TransientError(
                    "PostgreSQL cancelled a statement. Try again.", detail=error, retry_after_seconds=1
                ) from error
            reason: object = error
            if isinstance(error, PoolTimeout):
                reason = self._failures[-1] if self._failures else "all connections of this process are in use"
            if "unsupported startup parameter" in str(reason):
                raise ConfigurationError(BEHIND_A_POOLER) from error
            raise UnavailableError(
                "PostgreSQL does not answer. Try again later; the log has the reason.",
                detail=reason,
                code="database_unavailable",
                retry_after_seconds=2,
            ) from error

    def for_tenant(self, tenant: Viewer) -> TenantAccess:
        """Access to one tenant's rows, and to read those of stores that others share with it.

        PostgreSQL shows and changes no others, whatever a statement says. The values in the conditions of `visibility`, such as
        `tenant`, are among the parameters of `row` and `records`.
        """
        return TenantAccess(self._connection, self._find_wall, tenant, repeats_reads=self._may_repeat())

    def for_all(self) -> AllAccess:
        """Access to the rows of all tenants. A test lists the uses: each is a decision."""
        return AllAccess(self._connection, repeats_reads=self._may_repeat())

    def for_one_or_all(self, tenant_id: str | None) -> Access:
        """Access to one tenant's rows, or with None, as the operator has it, to those of all."""
        return self.for_all() if tenant_id is None else self.for_tenant(tenant_id)

    def _may_repeat(self) -> bool:
        """Whether a SELECT that lost its connection is repeated; within a transaction that would be another one."""
        return self._repeats_reads and not self._shared.get()

    async def _find_wall(self) -> Wall | None:
        """The wall, looked for again each minute until it stands."""
        if time.monotonic() > self._wall_until:
            async with self._connection() as connection:
                self._wall = await find_wall(connection)
            stands = self._wall is not None and self._wall.stands
            self._wall_until = math.inf if stands else time.monotonic() + WALL_SECONDS
        return self._wall

    async def vector_column(self) -> str:
        """Name of the column with the vectors of the settings' embedding model.

        Raises:
            UnavailableError: The database has the vectors of another model, or has not been migrated.
        """
        if self._vector_column is None:
            await self.check_ready()
            async with self._connection() as connection:
                facts = await read_facts(connection)
            wanted, found = EmbeddingModel.of_settings(self._settings), EmbeddingModel.of_facts(facts)
            if found != wanted:
                raise _other_model(f"The database has vectors of {found}, the settings name {wanted}.")
            self._vector_column = column_of(facts)
        return self._vector_column

    async def migrate(self, *, embedding_model: str) -> None:
        """Run the pending migrations, under a lock. Idempotent.

        Raises:
            ConfigurationError: The database cannot hold the schema, or was made for another embedding model.
        """
        settings = self._settings
        wanted = EmbeddingModel(embedding_model, settings.embedding_dimensions, settings.document_prefix)
        await self.check_suitable()
        async with self.session() as connection, connection.transaction():
            if await find_pending(connection):
                await run_migrations(connection, settings)
            await connection.execute(
                "LOCK TABLE facts IN SHARE ROW EXCLUSIVE MODE"
            )  # another process may start with another model
            await raise_wall(connection)
            found = EmbeddingModel.of_facts(await read_facts(connection))
            if found is None:
                await write_facts(connection, wanted.facts())
        if found not in (None, wanted):
            raise ConfigurationError(
                f"The database has vectors of {found}, the settings name {wanted}. Set it back, or embed the documents "
                "again with `ragq reembed`."
            )

    async def check_suitable(self) -> None:
        """Check that this database can hold the schema.

        Raises:
            ConfigurationError: It cannot, or a pooler prevents it; the message says what to do.
        """
        async with self.session() as connection:
            await check_database(connection, is_to_change=bool(await find_pending(connection)))
            wall = await find_wall(connection)
        if wall and wall.hides_from_all:
            raise ConfigurationError(
                "Row-level security hides the tenants' rows from the housekeeping, because the database's user has the role "
                f"{wall.role} at all times. As an administrator of PostgreSQL, run {wall.grant}"
            )
        row = await self.for_all().row("SELECT current_setting('statement_timeout') AS timeout")
        if not row or row["timeout"] != "1min":
            raise ConfigurationError(BEHIND_A_POOLER)

    async def check_wall(self) -> str | None:
        """Why the second wall between tenants is down, and how to raise it; None if it stands."""
        async with self._connection() as connection:
            wall = await find_wall(connection)
        return wall.problem if wall else None

    async def check_ready(self) -> None:
        """Check that PostgreSQL answers and that every migration has run.

        Raises:
            UnavailableError: PostgreSQL does not answer, or migrations are pending.
        """
        async with self._connection(timeout_seconds=READY_SECONDS) as connection:
            pending = await find_pending(connection)
        if pending:
            raise UnavailableError(
                f"The database's migrations have not run yet: {', '.join(pending)}. `ragq migrate` runs them.",
                code=MIGRATIONS_PENDING,
                retry_after_seconds=2,
            )


def _other_model(reason: str) -> UnavailableError:
    """Transient, so that a job goes back to the queue, for a worker that has the right settings; this worker stops."""
    return UnavailableError(
        f"{reason} Restart it with the settings of the database's embedding model.",
        code=OTHER_MODEL,
        retry_after_seconds=0.2,
    )


async def find_pending(connection: AsyncConnection[Any]) -> list[str]:
    """List the migrations that have not run; those of newer versions are ignored."""
    done = await find_done(connection)
    return [name for name in read_migrations() if name not in done]


async def find_done(connection: AsyncConnection[Any]) -> list[str]:
    """List the migrations that have run, in their order; none in a database that ragq has not used."""
    found = await (await connection.execute("SELECT to_regclass('migrations') IS NOT NULL")).fetchone()
    if not (found and found[0]):
        return []
    return sorted(row[0] for row in await (await connection.execute("SELECT name FROM migrations")).fetchall())


async def run_migrations(
    connection: AsyncConnection[Any], settings: Settings, only: Collection[str] | None = None
) -> None:
    """Run the pending migrations, or those of these names, in the transaction of the caller."""
    await connection.execute("SET LOCAL statement_timeout = 0")  # another process may hold the lock for minutes
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", [MIGRATION_LOCK])
    await connection.execute("CREATE TABLE IF NOT EXISTS migrations (name text PRIMARY KEY)")
    pending, texts = await find_pending(connection), read_migrations()
    facts = {"dimensions": settings.embedding_dimensions, "text_search_config": await _old_language(connection)}
    for name in pending:
        if only is None or name in only:
            await connection.execute(texts[name].format(**facts))
            await connection.execute("INSERT INTO migrations VALUES (%s)", [name])
            log.info("migrated", migration=name)


async def _old_language(connection: AsyncConnection[Any]) -> str:
    """By whose rules words were cut to stems before each document had a language: one for the whole database."""
    known = await (await connection.execute("SELECT to_regclass('facts') IS NOT NULL")).fetchone()
    if not (known and known[0]):
        return "english"
    found = await connection.execute("SELECT value FROM facts WHERE name = 'text_search_config'")
    row = await found.fetchone()
    return str(row[0]) if row else "english"


@cache
def read_migrations() -> dict[str, str]:
    """The SQL of the migrations that this version knows, by name, in their order."""
    folder = resources.files("ragq.storage") / "migrations"
    return dict(sorted((entry.name, entry.read_text()) for entry in folder.iterdir() if entry.name.endswith(".sql")))
