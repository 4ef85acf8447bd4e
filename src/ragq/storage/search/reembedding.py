"""A second column of vectors beside the one that searches use, and the switch from one to the other.

The table `facts` names the model of the column that searches use, and that of the column being filled, with the prefix
`next_`. Every step can be cut off and done again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
import psycopg
from psycopg import AsyncConnection
from psycopg.rows import class_row

from ragq.errors import ConflictError
from ragq.storage.database import MIGRATION_LOCK, Database
from ragq.storage.search.vector_column import EmbeddingModel, column_of, read_facts, write_facts
from ragq.storage.vector_index import INDEX, INDEX_LOCK, create_index

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

REEMBED_LOCK = MIGRATION_LOCK + 2
NEXT = "next_"
UNFILLED = "chunks_to_embed"  # index of the chunks that have no vector in the new column
FEW = 64  # chunks that are embedded while ingests wait
LAST_SECONDS = 10.0  # and for how long, if the embedding endpoint is slow
SEARCHES_WAIT = "300ms"  # the longest that a change of the table makes searches wait for it
INGESTS_WAIT = "5s"
PAUSE_SECONDS = 1.0
_KEY = "vector_store_id, file_id, ordinal, version"


@dataclass(frozen=True, slots=True)
class UnfilledChunk:
    """A chunk without a vector in the new column, by its key, with what is embedded of it."""

    vector_store_id: str
    file_id: str
    ordinal: int
    version: str
    context: str | None
    heading: str | None
    text: str


Embed = Callable[[Sequence[UnfilledChunk]], Awaitable["Vectors"]]


@contextlib.asynccontextmanager
async def reembedding(database: Database) -> AsyncIterator[Reembedding]:
    """Begin, or go on with, the change to another embedding model.

    Raises:
        ConflictError: Another process is doing it.
    """
    await database.check_ready()
    async with database.session() as connection:
        row = await (await connection.execute("SELECT pg_try_advisory_lock(%s)", [REEMBED_LOCK])).fetchone()
        if not (row and row[0]):
            raise ConflictError("Another `ragq reembed` is at work on this database: wait for it, or stop it.")
        await connection.execute("SET statement_timeout = 0")
        yield Reembedding(connection)


class Reembedding:
    """The new column. It owns a connection with the lock that keeps others away."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self._connection = connection
        self._column = ""

    async def begin(self, model: EmbeddingModel) -> bool:
        """Add the column, unless an earlier run did; False if searches use this model already.

        What is left of a change to a third model is removed.
        """
        facts = await read_facts(self._connection)
        if EmbeddingModel.of_facts(facts) == model:
            await self._discard(facts)
            return False
        if EmbeddingModel.of_facts(facts, NEXT) != model:
            await self._discard(facts)
            await retry_locked(lambda: self._add_column(facts, model))
        self._column = _next_column(facts)
        await self._create_index_of_unfilled()
        return True

    async def _add_column(self, facts: dict[str, str], model: EmbeddingModel) -> None:
        column = _next_column(facts)
        async with self._connection.transaction():
            await self._limit_waiting(SEARCHES_WAIT)
            await self._connection.execute(f"ALTER TABLE chunks ADD COLUMN {column} halfvec({model.dimensions})")
            await self._connection.execute(f"ALTER TABLE chunks ALTER COLUMN {column} SET STORAGE MAIN")
            await write_facts(self._connection, model.facts(NEXT))

    async def _discard(self, facts: dict[str, str]) -> None:
        async def drop() -> None:
            async with self._connection.transaction():
                await self._limit_waiting(SEARCHES_WAIT)
                await self._connection.execute(f"ALTER TABLE chunks DROP COLUMN IF EXISTS {_next_column(facts)}")
                await self._forget_next()

        if EmbeddingModel.of_facts(facts, NEXT):
            await retry_locked(drop)

    async def _create_index_of_unfilled(self) -> None:
        if not await self._is_valid(UNFILLED):
            await self._connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {UNFILLED}")
            await self._connection.execute(
                f"CREATE INDEX CONCURRENTLY {UNFILLED} ON chunks ({_KEY}) WHERE {self._column} IS NULL"
            )

    async def count(self) -> tuple[int, int]:
        """Count the chunks that have their new vector, and all."""
        all_chunks = await self._ask("SELECT count(*) FROM chunks")
        return all_chunks - await self.count_unfilled(), all_chunks

    async def count_unfilled(self) -> int:
        return await self._ask(f"SELECT count(*) FROM chunks WHERE {self._column} IS NULL")  # noqa: S608

    async def unfilled(self, most: int) -> list[UnfilledChunk]:
        """List chunks without their new vector, but for those that a transaction is deleting."""
        async with self._connection.cursor(row_factory=class_row(UnfilledChunk)) as cursor:
            await cursor.execute(
                f"""SELECT vector_store_id, file_id, ordinal, version::text, context, heading, text FROM chunks
                    WHERE {self._column} IS NULL ORDER BY {_KEY} LIMIT %s FOR UPDATE SKIP LOCKED""",  # noqa: S608
                [most],
            )
            return await cursor.fetchall()

    async def fill(self, chunks: Sequence[UnfilledChunk], vectors: Vectors) -> None:
        """Store the new vectors; a chunk that is being deleted is passed over, so that neither waits for the other.

        Args:
            vectors: Float array of shape (len(chunks), dimensions), rows of length 1.
        """
        await self._connection.execute(
            f"""UPDATE chunks SET {self._column} = new.vector::halfvec
                FROM (SELECT {_KEY}, vector
                      FROM unnest(%s::text[], %s::text[], %s::int[], %s::text[]::xid8[], %s::text[])
                           AS given (vector_store_id, file_id, ordinal, version, vector)
                           JOIN chunks old USING ({_KEY})
                      FOR UPDATE OF old SKIP LOCKED) AS new
                WHERE (chunks.vector_store_id, chunks.file_id, chunks.ordinal, chunks.version)
                      = (new.vector_store_id, new.file_id, new.ordinal, new.version)""",  # noqa: S608
            [
                [chunk.vector_store_id for chunk in chunks],
                [chunk.file_id for chunk in chunks],
                [chunk.ordinal for chunk in chunks],
                [chunk.version for chunk in chunks],
                [orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY).decode() for vector in vectors],
            ],
        )

    async def create_vector_index(self) -> None:
        """Index the new vectors if the old ones have an index; idempotent."""
        name = f"{INDEX}_next"
        if await self._is_valid(INDEX) and not await self._is_valid(name):
            # So that housekeeping does not make the old index meanwhile, which would wait for this one.
            await self._connection.execute("SELECT pg_advisory_lock(%s)", [INDEX_LOCK])
            try:
                await create_index(self._connection, name, self._column)
            finally:
                await self._connection.execute("SELECT pg_advisory_unlock(%s)", [INDEX_LOCK])

    async def switch(self, embed: Embed) -> bool:
        """Make searches use the new column and drop the old one, in one transaction; False if too much is left to embed.

        Ingests wait for it, some seconds at the most: the last chunks are embedded under a lock that keeps writers
        away and lets searches pass. Searches wait for the change of the table alone.

        Args:
            embed: Embeds the last chunks.

        Raises:
            psycopg.errors.LockNotAvailable: A long ingest or search is in the way; nothing has changed.
        """
        async with self._connection.transaction():
            await self._limit_waiting(INGESTS_WAIT)
            await self._connection.execute("LOCK TABLE chunks IN SHARE ROW EXCLUSIVE MODE")
            last = await self.unfilled(FEW + 1)
            if len(last) > FEW:
                return False
            if last:
                try:
                    async with asyncio.timeout(LAST_SECONDS):
                        vectors = await embed(last)
                except TimeoutError:
                    return False
                await self.fill(last, vectors)
            await self._limit_waiting(SEARCHES_WAIT)
            await self._exchange_columns()
        return True

    async def _exchange_columns(self) -> None:
        facts = await read_facts(self._connection)
        model = EmbeddingModel.of_facts(facts, NEXT)
        assert model
        for statement in (
            "LOCK TABLE chunks IN ACCESS EXCLUSIVE MODE",
            f"ALTER TABLE chunks DROP COLUMN {column_of(facts)}",  # and its index
            f"ALTER INDEX IF EXISTS {INDEX}_next RENAME TO {INDEX}",
            f"DROP INDEX {UNFILLED}",
            # NOT VALID, because every chunk has its vector and to look again would take long.
            f"ALTER TABLE chunks ADD CHECK ({self._column} IS NOT NULL) NOT VALID",
        ):
            await self._connection.execute(statement)
        await write_facts(self._connection, model.facts() | {"embedding_column": self._column})
        await self._forget_next()

    async def _forget_next(self) -> None:
        await self._connection.execute("DELETE FROM facts WHERE starts_with(name, %s)", [NEXT])

    async def _limit_waiting(self, limit: str) -> None:
        await self._connection.execute("SELECT set_config('lock_timeout', %s, true)", [limit])

    async def _is_valid(self, index: str) -> bool:
        return bool(
            await self._ask("SELECT count(*) FROM pg_index WHERE indexrelid = to_regclass(%s) AND indisvalid", index)
        )

    async def _ask(self, query: str, *values: str) -> int:
        row = await (await self._connection.execute(query, values)).fetchone()
        assert row
        return int(row[0])


async def retry_locked(change: Callable[[], Awaitable[Any]]) -> Any:
    """Repeat a change of the table until no transaction is in its way; searches pass between the tries."""
    while True:
        try:
            return await change()
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            await asyncio.sleep(PAUSE_SECONDS)


def _next_column(facts: dict[str, str]) -> str:
    """A name that no earlier model had: embedding_2, then embedding_3."""
    number = column_of(facts).rpartition("_")[2]
    return f"embedding_{int(number) + 1 if number.isdigit() else 2}"
