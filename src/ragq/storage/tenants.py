"""Tenants: whose data it is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from psycopg import sql

from ragq.errors import ConflictError, NotFoundError
from ragq.storage.database import Database
from ragq.storage.paging import Listed, Page, read_page

_TENANTS = Listed("tenants", "SELECT id, created_at, suspended_at, deleted_at FROM tenants WHERE true", "true")
_CREATE = """
    INSERT INTO tenants (id) VALUES (%(id)s) ON CONFLICT DO NOTHING RETURNING id, created_at, suspended_at, deleted_at"""
SETTLED_SECONDS = 10  # after which no API process takes the keys of a deleted tenant, and what it had begun is done
STEP_ROWS = 1000  # deleted by one statement
# Tables of a tenant whose rows are deleted as they are; what hangs on them goes with them.
_PLAIN = (
    "api_keys",
    "webhook_endpoints",
    "batches",
    "conversations",
    "responses",
    "vector_store_file_batches",
    "uploads",
)
_DELETE = """
    DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE tenant_id = %s LIMIT %s)"""


@dataclass(frozen=True, slots=True)
class TenantRecord:
    """A tenant; while it is suspended, or after it was deleted, its keys open nothing."""

    id: str
    created_at: datetime
    suspended_at: datetime | None
    deleted_at: datetime | None


class Tenants:
    """All tenants."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, tenant_id: str) -> TenantRecord:
        """Create a tenant.

        Raises:
            ConflictError: There is one with this id.
        """
        created = await self._database.records(TenantRecord, _CREATE, id=tenant_id)
        if not created:
            raise ConflictError(f"There is a tenant '{tenant_id}' already.", param="id", code="tenant_exists")
        return created[0]

    async def get(self, tenant_id: str) -> TenantRecord:
        """Find a tenant.

        Raises:
            NotFoundError: There is none with this id.
        """
        query = _TENANTS.query + " AND id = %(id)s"
        found = await self._database.records(TenantRecord, query, id=tenant_id.replace("\0", ""))
        if not found:
            raise NotFoundError(f"No tenant found with id '{tenant_id[:80]}'.", param="tenant_id")
        return found[0]

    async def list_tenants(self, page: Page) -> list[TenantRecord]:
        """List tenants by age; one more than `page.limit` if there are more."""
        return await read_page(self._database, TenantRecord, _TENANTS, page)

    async def suspend(self, tenant_id: str, *, suspended: bool) -> TenantRecord:
        """Suspend a tenant, or let it go on.

        Raises:
            NotFoundError: There is none with this id.
        """
        await self._database.row(
            """UPDATE tenants SET suspended_at = CASE WHEN %(suspended)s THEN coalesce(suspended_at, now()) END
               WHERE id = %(id)s RETURNING id""",
            id=tenant_id.replace("\0", ""),
            suspended=suspended,
        )
        return await self.get(tenant_id)

    async def mark_deleted(self, tenant_id: str) -> TenantRecord:
        """Let nobody use a tenant any more; its data is removed in the background. Idempotent.

        Raises:
            NotFoundError: There is none with this id.
        """
        query = "UPDATE tenants SET deleted_at = coalesce(deleted_at, now()) WHERE id = %(id)s RETURNING id"
        await self._database.row(query, id=tenant_id.replace("\0", ""))
        return await self.get(tenant_id)

    async def list_deleted(self) -> list[str]:
        """List the tenants whose data may be removed."""
        query = "SELECT id FROM tenants WHERE deleted_at < now() - make_interval(secs => %s) ORDER BY id"
        async with self._database.connection() as connection:
            rows = await (await connection.execute(query, [SETTLED_SECONDS])).fetchall()
        return [str(row[0]) for row in rows]

    async def delete_rows(self, tenant_id: str) -> int:
        """Delete a tenant's rows, but for files and stores, in short statements; returns how many."""
        count = 0
        for table in _PLAIN:
            deleted = STEP_ROWS
            while deleted == STEP_ROWS:
                async with self._database.connection() as connection:
                    done = await connection.execute(_DELETE.format(table=table), [tenant_id, STEP_ROWS])
                deleted = done.rowcount
                count += deleted
        return count

    async def list_of(self, tenant_id: str, table: Literal["files", "vector_stores"]) -> list[str]:
        """List some ids of a tenant's files or stores."""
        query = f"SELECT id FROM {table} WHERE tenant_id = %s LIMIT %s"  # noqa: S608  (one of two names)
        async with self._database.connection() as connection:
            rows = await (await connection.execute(query, [tenant_id, STEP_ROWS])).fetchall()
        return [str(row[0]) for row in rows]

    async def list_parts(self, tenant_id: str) -> list[tuple[str, str]]:
        """List (upload, part) of a tenant's uploads."""
        query = "SELECT upload_id, p.id FROM upload_parts p JOIN uploads u ON u.id = upload_id WHERE tenant_id = %s"
        async with self._database.connection() as connection:
            rows = await (await connection.execute(query, [tenant_id])).fetchall()
        return [(str(row[0]), str(row[1])) for row in rows]

    async def find_jobs(self, tenant_id: str, job_ids: list[str]) -> set[str]:
        """Find those of some jobs that are in the archive as this tenant's."""
        async with self._database.connection() as connection:
            query = "SELECT id FROM responses WHERE tenant_id = %s AND id = ANY(%s)"
            rows = await (await connection.execute(query, [tenant_id, job_ids])).fetchall()
        return {str(row[0]) for row in rows}

    async def forget(self, tenant_id: str) -> None:
        """Delete the tenant itself, after all that it had."""
        await self._database.row("DELETE FROM tenants WHERE id = %(id)s RETURNING id", id=tenant_id)

    async def count_left(self, tenant_id: str) -> dict[str, int]:
        """Count what every table of the database that names tenants has of one, by the name of the table."""
        async with self._database.connection() as connection:
            found = await connection.execute(
                """SELECT table_name, column_name FROM information_schema.columns
                   WHERE table_schema = current_schema() AND (column_name LIKE 'tenant%' OR table_name = 'tenants')
                     AND data_type = 'text'"""
            )
            counts: dict[str, int] = {}
            for table, column in await found.fetchall():
                query = sql.SQL("SELECT count(*) FROM {} WHERE {} = %s").format(
                    sql.Identifier(table), sql.Identifier(column)
                )
                row = await (await connection.execute(query, [tenant_id])).fetchone()
                counts[table] = counts.get(table, 0) + (row[0] if row else 0)
        return {table: count for table, count in counts.items() if count}
