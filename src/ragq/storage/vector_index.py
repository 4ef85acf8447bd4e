"""The vector index, created when there are enough chunks for searches to use it.

Before that it would only slow down ingestion, by two milliseconds a chunk, which is most of the time to store one.
"""

from __future__ import annotations

import time
from typing import Any

import structlog
from psycopg import AsyncConnection

from ragq.storage.database import MIGRATION_LOCK, Database
from ragq.storage.search.chunks import EXACT_SEARCH_CHUNKS
from ragq.storage.search.vector_column import FIRST_COLUMN, column_of, read_facts

log = structlog.get_logger(__name__)

INDEX_LOCK = MIGRATION_LOCK + 1
INDEX = "chunks_by_embedding"
# A build that is cancelled or cut off leaves an invalid index, which searches do not use.
_IS_DUE = """
    SELECT CASE WHEN EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass('chunks_by_embedding') AND indisvalid) THEN false
                ELSE (SELECT coalesce(max(chunks), 0) > %s FROM (
                    SELECT sum(chunk_count) AS chunks FROM vector_store_files WHERE chunk_count > 0 GROUP BY tenant_id
                ) AS of_tenant) END"""
# Not in a transaction, so that neither ingests nor searches wait for it.
_SETTINGS = (
    "SET statement_timeout = 0",
    "SET maintenance_work_mem = '2GB'",
    "SET max_parallel_maintenance_workers = 0",  # workers share that much memory in /dev/shm, and a container has 64 MB
)


def write_index(name: str = INDEX, column: str = FIRST_COLUMN) -> str:
    """Write the statement that creates the index of a column of vectors."""
    return (
        f"CREATE INDEX CONCURRENTLY {name} ON chunks USING hnsw ({column} halfvec_cosine_ops) "
        "WITH (m = 24, ef_construction = 128)"
    )


async def is_index_due(database: Database, *, above: int = EXACT_SEARCH_CHUNKS) -> bool:
    """Whether a tenant has more than `above` chunks and there is no valid index."""
    async with database.for_all().connection() as connection:
        return await _ask(connection, _IS_DUE, above)


async def make_index(database: Database, *, above: int = EXACT_SEARCH_CHUNKS) -> bool:
    """Create the index if it is due; True if this call created it.

    If another process is creating it, do nothing.
    """
    async with database.session() as connection:
        if not await _ask(connection, "SELECT pg_try_advisory_lock(%s)", INDEX_LOCK):
            return False
        due = await _ask(connection, _IS_DUE, above)
        if due:
            await create_index(connection, INDEX, column_of(await read_facts(connection)))
        return due


async def create_index(connection: AsyncConnection[Any], name: str, column: str) -> None:
    """Create the index of a column of vectors, in place of one that is invalid. Searches and ingests go on."""
    started = time.monotonic()
    log.info("vectors_being_indexed")
    for statement in _SETTINGS:
        await connection.execute(statement)
    await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
    await connection.execute(write_index(name, column))
    log.info("vectors_indexed", seconds=round(time.monotonic() - started, 1))


async def _ask(connection: AsyncConnection[Any], question: str, value: int) -> bool:
    row = await (await connection.execute(question, [value])).fetchone()
    assert row
    return bool(row[0])
