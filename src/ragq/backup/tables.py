"""The tables of PostgreSQL in a backup: read in one snapshot by COPY, and written into an empty database in one transaction."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable
from typing import Any

from psycopg import AsyncConnection, sql

from ragq.backup.format import Manifest, Table
from ragq.errors import PermanentError
from ragq.settings import Settings
from ragq.storage.database import find_done, read_migrations, run_migrations
from ragq.storage.search.vector_column import FIRST_COLUMN, column_of, read_facts, write_facts

PIECE_BYTES = 4 << 20
# The number of the transaction that wrote a chunk means nothing in another database; there it is that of the restore.
LEFT_OUT = {("chunks", "version")}
RESTORED = "restored"  # a fact: the mark of a restore that was committed and is not complete
VECTORS = re.compile(rf"{FIRST_COLUMN}(_\d+)?")

_TABLE = re.compile(r"CREATE (?:UNLOGGED )?TABLE (?:IF NOT EXISTS )?(\w+)")
_COLUMNS = """
    SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod)
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relname = ANY(%s) AND c.relkind IN ('r', 'p')
      AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
    ORDER BY c.relname, a.attnum"""
_REFERENCES = """
    SELECT f.relname, t.relname FROM pg_constraint r JOIN pg_class f ON f.oid = r.conrelid JOIN pg_class t ON t.oid = r.confrelid
    WHERE r.contype = 'f' AND r.connamespace = current_schema()::regnamespace AND f.oid <> t.oid"""


async def begin_snapshot(connection: AsyncConnection[Any]) -> None:
    """Begin the transaction in which everything is read as of one moment. It holds no lock that a writer would wait for."""
    await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    await connection.execute("SET LOCAL statement_timeout = 0")
    await connection.execute("SET LOCAL row_security = off")  # an error rather than a backup with some of the rows


async def read_tables(connection: AsyncConnection[Any]) -> dict[str, Table]:
    """Read which tables of ours there are, with their columns, each after those that it refers to."""
    found: dict[str, dict[str, str]] = {}
    for table, column, type_ in await _rows(connection, _COLUMNS, [sorted(_table_names())]):
        if (table, column) not in LEFT_OUT:
            found.setdefault(table, {})[column] = type_
    references = await _rows(connection, _REFERENCES)
    ordered: dict[str, Table] = {}
    while left := [table for table in found if table not in ordered]:
        ready = [t for t in left if all(to in ordered or to not in found for of, to in references if of == t)]
        ordered |= {table: Table(found[table]) for table in ready or left}
    return ordered


async def copy_out(connection: AsyncConnection[Any], name: str, table: Table) -> AsyncIterator[tuple[bytes, int]]:
    """Yield a table's rows in COPY's text format, in pieces of about 4 MiB, each with its number of rows."""
    statement = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT").format(_columns(table), sql.Identifier(name))
    piece, rows = bytearray(), 0
    async with connection.cursor() as cursor, cursor.copy(statement) as copy:
        async for data in copy:
            piece += data
            rows += 1
            if len(piece) >= PIECE_BYTES:
                yield bytes(piece), rows
                piece, rows = bytearray(), 0
    if piece:
        yield bytes(piece), rows


async def copy_in(connection: AsyncConnection[Any], name: str, table: Table, pieces: Iterable[bytes]) -> None:
    """Write a table's rows."""
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(name), _columns(table))
    async with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for piece in pieces:
            await copy.write(piece)


async def describe_rows(connection: AsyncConnection[Any]) -> str:
    """What a database has of ragq, in words; empty if nothing."""
    if not await find_done(connection):
        return ""
    counts = []
    for table, what in (("tenants", "tenants"), ("files", "files"), ("responses", "answers")):
        [[count]] = await _rows(connection, sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table)))
        counts.append(f"{count} {what}")
    return ", ".join(counts)


def check_known(manifest: Manifest) -> None:
    """Refuse a backup of a newer version.

    Raises:
        PermanentError: It has migrations that this version does not know.
    """
    if unknown := sorted(set(manifest.migrations) - set(read_migrations())):
        raise PermanentError(
            f"The backup was made by ragq {manifest.about.ragq}, whose database is newer than this version's "
            f"({', '.join(unknown)}). Restore it with that version, or a newer one."
        )


async def prepare(connection: AsyncConnection[Any], settings: Settings, manifest: Manifest) -> None:
    """Make the backup's schema in an empty database, in the transaction of the restore, without a row and without triggers."""
    await connection.execute("SET LOCAL row_security = off")
    await run_migrations(connection, settings, only=manifest.migrations)
    await _match_vectors(connection, manifest)
    names = [sql.Identifier(name) for name in manifest.tables]
    for name in names:
        await connection.execute(sql.SQL("ALTER TABLE {} DISABLE TRIGGER USER").format(name))
    await connection.execute(sql.SQL("TRUNCATE {}").format(sql.SQL(", ").join(names)))


async def finish(connection: AsyncConnection[Any], settings: Settings, manifest: Manifest) -> None:
    """Enable the triggers, and run the migrations that are newer than the backup."""
    for name in manifest.tables:
        await connection.execute(sql.SQL("ALTER TABLE {} ENABLE TRIGGER USER").format(sql.Identifier(name)))
    await run_migrations(connection, settings)


async def write_mark(connection: AsyncConnection[Any], mark: str) -> None:
    """Write a restore's mark into the transaction that restores the tables."""
    await write_facts(connection, {RESTORED: mark})


async def read_mark(connection: AsyncConnection[Any]) -> str | None:
    """The mark of the restore that wrote this database; None if there is none, or it is complete."""
    return (await read_facts(connection)).get(RESTORED) if await find_done(connection) else None


async def delete_mark(connection: AsyncConnection[Any]) -> None:
    await connection.execute("DELETE FROM facts WHERE name = %s", [RESTORED])


async def find_ended(connection: AsyncConnection[Any], since_ms: int) -> tuple[set[str], set[str]]:
    """Find the answers that ended, and those that were deleted, after this time; ids of jobs.

    They may be in the backup's queue as they were before. A deletion has PostgreSQL's time, which may differ from Valkey's.
    """
    rows = await _rows(
        connection,
        """SELECT id, job IS NULL FROM responses
           WHERE ended_at >= to_timestamp(%(since)s / 1000.0)
              OR job IS NULL AND created_at >= to_timestamp(%(since)s / 1000.0) - interval '1 hour'""",
        {"since": since_ms},
    )
    return {id_ for id_, is_deleted in rows if not is_deleted}, {id_ for id_, is_deleted in rows if is_deleted}


async def _match_vectors(connection: AsyncConnection[Any], manifest: Manifest) -> None:
    """Give the chunks the columns of vectors that `ragq reembed` had made, instead of the first."""
    wanted, found = manifest.tables["chunks"].columns, (await read_tables(connection))["chunks"]
    for column in found.columns:
        if VECTORS.fullmatch(column) and wanted.get(column) != found.columns[column]:
            await connection.execute(sql.SQL("ALTER TABLE chunks DROP COLUMN {}").format(sql.Identifier(column)))
    for column, type_ in wanted.items():
        if VECTORS.fullmatch(column) and found.columns.get(column) != type_:
            names = {"column": sql.Identifier(column), "type": sql.SQL(type_)}
            await connection.execute(sql.SQL("ALTER TABLE chunks ADD COLUMN {column} {type}").format(**names))
            await connection.execute(
                sql.SQL("ALTER TABLE chunks ALTER COLUMN {column} SET STORAGE MAIN").format(**names)
            )
            if column == column_of(manifest.facts):
                await connection.execute(sql.SQL("ALTER TABLE chunks ADD CHECK ({column} IS NOT NULL)").format(**names))


def _table_names() -> set[str]:
    """The tables that migrations make; others in the same schema are not ours."""
    return {name for text in read_migrations().values() for name in _TABLE.findall(text)}


def _columns(table: Table) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, table.columns))


async def _rows(connection: AsyncConnection[Any], query: Any, values: Any = None) -> list[Any]:
    return await (await connection.execute(query, values)).fetchall()
