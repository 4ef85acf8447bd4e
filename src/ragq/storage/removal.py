"""Remove files and their chunks from stores, by many short statements that each stay within PostgreSQL's time limit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from psycopg import AsyncConnection

STEP_CHUNKS = 5_000  # deleted by one statement
STEP_FILES = 500

_FIND = """
    SELECT v.vector_store_id, v.file_id, v.chunk_count FROM vector_store_files v JOIN files f ON f.id = v.file_id
    WHERE {condition} ORDER BY v.vector_store_id, v.file_id FOR UPDATE OF v"""
_DELETE_FILES = """
    DELETE FROM vector_store_files WHERE (vector_store_id, file_id) IN (SELECT * FROM unnest(%s::text[], %s::text[]))"""
# Never chunks that the same transaction has stored.
_DELETE_CHUNKS = """
    DELETE FROM chunks c
    USING unnest(%s::text[], %s::text[], %s::int[], %s::int[]) AS s (vector_store_id, file_id, first, last)
    WHERE (c.vector_store_id, c.file_id) = (s.vector_store_id, s.file_id) AND c.ordinal BETWEEN s.first AND s.last
      AND c.version <> pg_current_xact_id()"""
_LAST = 2**31 - 1  # greater than any ordinal, in case a row's chunk count is wrong


class StoredFile(NamedTuple):
    """A file in a store, with the number of its chunks."""

    vector_store_id: str
    file_id: str
    chunk_count: int


async def remove_files(connection: AsyncConnection[Any], condition: str, values: Mapping[str, Any]) -> int:
    """Remove files from their stores, in the caller's transaction; returns how many.

    This does not wait for an ingest in progress, which finds at its end that the file is gone.

    Args:
        condition: SQL on `v`, the files in stores, and `f`, the files.
    """
    found = await connection.execute(_FIND.format(condition=condition), values)
    files = [StoredFile(*row) for row in await found.fetchall()]
    await delete_chunks(connection, files)
    for first in range(0, len(files), STEP_FILES):
        some = files[first : first + STEP_FILES]
        await connection.execute(_DELETE_FILES, [[one.vector_store_id for one in some], [one.file_id for one in some]])
    return len(files)


async def remove_older_of_same_name(connection: AsyncConnection[Any], store_id: str, file_ids: Sequence[str]) -> None:
    """Remove files from a store that have the same name as one of these and are older.

    One with readers stays beside a file that none of them may read: it may have been put there by others.
    """
    await remove_files(
        connection,
        """v.vector_store_id = %(store)s AND EXISTS (
               SELECT FROM vector_store_files newer JOIN files named ON named.id = newer.file_id
               WHERE newer.vector_store_id = v.vector_store_id AND newer.file_id = ANY(%(files)s)
                 AND newer.file_id <> v.file_id AND named.filename = f.filename AND newer.created_at > v.created_at
                 AND (v.readers IS NULL OR v.readers && newer.readers))""",
        {"store": store_id, "files": list(file_ids)},
    )


async def delete_chunks(connection: AsyncConnection[Any], files: Iterable[StoredFile]) -> None:
    """Delete the chunks of files, in the caller's transaction, except those that it has stored itself."""
    for step in _in_steps(files):
        await connection.execute(_DELETE_CHUNKS, [list(column) for column in zip(*step, strict=True)])


def _in_steps(files: Iterable[StoredFile]) -> Iterator[list[tuple[str, str, int, int]]]:
    """Group (store, file, first chunk, last) into steps of at most `STEP_CHUNKS`; a long file spans several."""
    step, room = list[tuple[str, str, int, int]](), STEP_CHUNKS
    for file in files:
        count = max(1, file.chunk_count)
        for first in range(0, count, STEP_CHUNKS):
            size = min(STEP_CHUNKS, count - first)
            if size > room:
                yield step
                step, room = [], STEP_CHUNKS
            last = first + size - 1 if first + size < count else _LAST
            step.append((file.vector_store_id, file.file_id, first, last))
            room -= size
    if step:
        yield step
