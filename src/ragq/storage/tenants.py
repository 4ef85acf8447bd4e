"""Tenants: whose data it is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ragq.errors import ConflictError, NotFoundError
from ragq.storage.database import Database
from ragq.storage.paging import Listed, Page, read_page

_TENANTS = Listed("tenants", "SELECT id, created_at, suspended_at, deleted_at FROM tenants WHERE true", "true")
_CREATE = """
    INSERT INTO tenants (id) VALUES (%(id)s) ON CONFLICT DO NOTHING RETURNING id, created_at, suspended_at, deleted_at"""
SETTLED_SECONDS = 10  # after which no API process takes the keys of a deleted tenant, and what it had begun is done


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
