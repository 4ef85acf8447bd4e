"""All rows of one tenant: to be found and deleted, by many short statements."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection, sql

from ragq.models import DEFAULT_TENANT
from ragq.storage.database import Database
from ragq.storage.tenancy.audit_log import SERVICE, AuditLog, Entry

STEP_ROWS = 5_000  # deleted by one statement
LOCK_SECONDS = 5.0  # for which a statement stands still behind another transaction

_OWN = "tenant_id = %(tenant)s"


def _below(column: str, table: str) -> str:
    return f"{column} IN (SELECT id FROM {table} WHERE {_OWN})"  # noqa: S608  (constants)


# (table, condition), in an order in which no row is deleted before those that hang on it: so no statement deletes more than its step.
# Files go one by one before these, with their bytes.
_ROWS = (
    ("api_keys", _OWN),
    ("sessions", _OWN),
    ("usage", _OWN),
    ("webhook_deliveries", _below("endpoint_id", "webhook_endpoints")),
    ("webhook_endpoints", _OWN),
    ("batch_lines", _below("batch_id", "batches")),
    ("batches", _OWN),
    ("conversation_items", _below("conversation_id", "conversations")),
    ("conversation_responses", _below("conversation_id", "conversations")),
    ("conversations", _OWN),
    ("upload_parts", _below("upload_id", "uploads")),
    ("uploads", _OWN),
    ("vector_store_file_batch_files", _below("batch_id", "vector_store_file_batches")),
    ("vector_store_file_batches", _OWN),
    ("chunks", _below("vector_store_id", "vector_stores")),
    ("store_shares", _OWN),
    ("vector_store_files", _OWN),
    ("file_keys", _OWN),
    ("vector_stores", _OWN),
    ("feedback", _OWN),
    ("responses", _OWN),
    ("jobs", _OWN),
    ("job_actions", _OWN),
)
_OF_TENANT = (*(table for table, condition in _ROWS if condition == _OWN), "files", "audit_log")


@dataclass(frozen=True, slots=True)
class Claim:
    """On the removal of a tenant: one process has it at a time, as long as its connection lasts."""

    _connection: AsyncConnection[Any]
    _tenant_id: str
    _deleted_at: datetime | None
    _is_first: bool

    async def holds(self) -> bool:
        """Whether this process is to go on: it was the first, and the tenant is still the one that was deleted then."""
        query = "SELECT FROM tenants WHERE id = %s AND deleted_at = %s"
        found = await self._connection.execute(query, [self._tenant_id, self._deleted_at])
        return self._is_first and (self._deleted_at is None or found.rowcount == 1)


class TenantData:
    """Finds and deletes a tenant's rows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextlib.asynccontextmanager
    async def claimed(self, tenant_id: str, deleted_at: datetime | None) -> AsyncIterator[Claim]:
        """Keep other processes from removing a tenant until the end of the block, unless one of them was faster.

        Args:
            deleted_at: As the tenant has it; None for one that need not have been deleted.
        """
        async with self._database.session() as connection:
            query = "SELECT pg_try_advisory_lock(hashtextextended('removal of ' || %s, 0))"
            row = await (await connection.execute(query, [tenant_id])).fetchone()
            yield Claim(connection, tenant_id, deleted_at, bool(row and row[0]))

    async def list_files(self, tenant_id: str, *, limit: int) -> list[tuple[str, str]]:
        """List (file, SHA-256), in any order."""
        async with self._database.for_all().connection() as connection:
            query = "SELECT id, sha256 FROM files WHERE tenant_id = %s LIMIT %s"
            rows = await (await connection.execute(query, [tenant_id, limit])).fetchall()
        return [(str(row[0]), str(row[1])) for row in rows]

    async def release_bytes(self, tenant_id: str, sha256: str) -> bool:
        """Whether no other tenant has a file with these bytes; then it is forgotten, too, that they are poison.

        The caller holds the lock of the bytes.
        """
        query = "SELECT FROM files WHERE sha256 = %(sha256)s AND tenant_id <> %(tenant)s LIMIT 1"
        if await self._database.for_all().row(query, tenant=tenant_id, sha256=sha256) is not None:
            return False
        await self._database.for_all().row(
            "DELETE FROM poison WHERE sha256 = %(sha256)s RETURNING sha256", sha256=sha256
        )
        return True

    async def list_uploads(self, tenant_id: str) -> set[str]:
        """List the ids of uploads."""
        async with self._database.for_all().connection() as connection:
            found = await connection.execute("SELECT id FROM uploads WHERE tenant_id = %s", [tenant_id])
            return {str(row[0]) async for row in found}

    async def list_responses(self, tenant_id: str, ids: Sequence[str]) -> list[str]:
        """List which of these are archived responses of the tenant."""
        async with self._database.for_all().connection() as connection:
            query = "SELECT id FROM responses WHERE tenant_id = %s AND id = ANY(%s)"
            rows = await (await connection.execute(query, [tenant_id, list(ids)])).fetchall()
        return [str(row[0]) for row in rows]

    async def delete_rows(self, tenant_id: str) -> AsyncIterator[tuple[str, int]]:
        """Delete all rows but files and the tenant's own; yields (table, rows) after each statement.

        Raises:
            TransientError: Another transaction holds one of the rows for long: begin again.
        """
        for table, condition in _ROWS:
            deleted = STEP_ROWS
            while deleted == STEP_ROWS:
                async with self._database.for_all().connection() as connection, connection.transaction():
                    await _be_patient(connection)
                    deleted = await _delete_some(connection, table, condition, tenant_id)
                if deleted:
                    yield table, deleted
        if deleted := await AuditLog(self._database).forget(tenant_id, 0):
            yield "audit_log", deleted

    async def delete_tenant(self, tenant_id: str, deleted_at: datetime | None) -> bool:
        """Delete the tenant's own row, and note it in the audit log; False if rows have come in meanwhile, and then nothing is deleted.

        Whatever adds a row of the tenant locks this row against deletion, so none comes in after this.

        Args:
            deleted_at: As of `claimed`.
        """
        async with self._database.transaction(), self._database.for_all().connection() as connection:
            await _be_patient(connection)
            await connection.execute("SELECT FROM tenants WHERE id = %s FOR UPDATE", [tenant_id])
            for table in _OF_TENANT:
                query = sql.SQL("SELECT FROM {} WHERE tenant_id = %s LIMIT 1").format(sql.Identifier(table))
                if (await connection.execute(query, [tenant_id])).rowcount:
                    return False
            deleted = await connection.execute(
                "DELETE FROM tenants WHERE id = %s AND deleted_at IS NOT DISTINCT FROM coalesce(%s, deleted_at)",
                [tenant_id, deleted_at],
            )
            if deleted.rowcount:  # not by another process
                await AuditLog(self._database).add(Entry(SERVICE, "tenant.removed", DEFAULT_TENANT, tenant_id))
        return True


async def _be_patient(connection: AsyncConnection[Any]) -> None:
    """Let the transaction's statements take their time, since archives are read from end to end, but not wait for locks."""
    await connection.execute(f"SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '{1000 * LOCK_SECONDS:.0f}ms'")


async def _delete_some(connection: AsyncConnection[Any], table: str, condition: str, tenant_id: str) -> int:
    query = f"""DELETE FROM {table} WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM {table} WHERE {condition} LIMIT {STEP_ROWS}))"""  # noqa: S608  (constants)
    return (await connection.execute(query, {"tenant": tenant_id})).rowcount
