"""Tenants: whose data it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ragq.accounts.limits import Limits
from ragq.errors import ConflictError, NotFoundError
from ragq.storage.database import Database
from ragq.storage.paging import Listed, Page, read_page
from ragq.storage.tenancy.limits import read_limits

SETTINGS = ("weight", "max_running", "keep_responses_days", "keep_files_days", "keep_logs_days")
_COLUMNS = f"id, created_at, suspended_at, deleted_at, {', '.join(SETTINGS)}"
_TENANTS = Listed("tenants", f"SELECT {_COLUMNS} FROM tenants WHERE true", "true")  # noqa: S608  (constants)
_CREATE = f"INSERT INTO tenants (id) VALUES (%(id)s) ON CONFLICT DO NOTHING RETURNING {_COLUMNS}"  # noqa: S608  (constants)
# What of its tenant t concerns each caller.
OPENED = """coalesce(t.suspended_at, t.deleted_at) IS NOT NULL AS is_suspended, t.limits, t.has_readers,
    EXISTS (SELECT FROM store_shares s WHERE s.with_tenant_id = t.id) AS has_shares"""
_OPEN = f"SELECT {OPENED} FROM tenants t WHERE id = %(id)s"  # noqa: S608  (constants)
SETTLED_SECONDS = 10  # after which no API process takes the keys of a deleted tenant, and what it had begun is done


@dataclass(frozen=True, slots=True)
class TenantRecord:
    """A tenant; while it is suspended, or after it was deleted, its keys open nothing.

    Attributes:
        weight: Its part of the workers beside those of others, 0.1 to 100.
        max_running: The most of its questions, and of its documents, that run at once; None for no limit.
        keep_responses_days: For how many days what it has is kept, from 1; None: as the settings say.
    """

    id: str
    created_at: datetime
    suspended_at: datetime | None
    deleted_at: datetime | None
    weight: float
    max_running: int | None
    keep_responses_days: int | None
    keep_files_days: int | None
    keep_logs_days: int | None


@dataclass(frozen=True, slots=True)
class OpenedTenant:
    """What of a tenant concerns each of its callers.

    Attributes:
        has_readers: It has, or had, documents that have readers.
        has_shares: Other tenants share stores with it.
    """

    is_suspended: bool
    limits: Limits
    has_readers: bool
    has_shares: bool


class Tenants:
    """All tenants."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, tenant_id: str) -> TenantRecord:
        """Create a tenant.

        Raises:
            ConflictError: There is one with this id.
        """
        created = await self._database.for_all().records(TenantRecord, _CREATE, id=tenant_id)
        if not created:
            raise ConflictError(f"There is a tenant '{tenant_id}' already.", param="id", code="tenant_exists")
        return created[0]

    async def get(self, tenant_id: str) -> TenantRecord:
        """Find a tenant.

        Raises:
            NotFoundError: There is none with this id.
        """
        query = _TENANTS.query + " AND id = %(id)s"
        found = await self._database.for_all().records(TenantRecord, query, id=tenant_id.replace("\0", ""))
        if not found:
            raise NotFoundError(f"No tenant found with id '{tenant_id[:80]}'.", param="tenant_id")
        return found[0]

    async def open(self, tenant_id: str) -> OpenedTenant | None:
        """Find what concerns each of a tenant's callers; None if it is not there."""
        row = await self._database.for_all().row(_OPEN, id=tenant_id.replace("\0", ""))
        return OpenedTenant(**row | {"limits": read_limits(row["limits"])}) if row else None

    async def list_tenants(self, page: Page) -> list[TenantRecord]:
        """List tenants by age; one more than `page.limit` if there are more."""
        return await read_page(self._database.for_all(), TenantRecord, _TENANTS, page)

    async def suspend(self, tenant_id: str, *, suspended: bool) -> TenantRecord:
        """Suspend a tenant, or let it go on.

        Raises:
            NotFoundError: There is none with this id.
        """
        await self._database.for_all().row(
            """UPDATE tenants SET suspended_at = CASE WHEN %(suspended)s THEN coalesce(suspended_at, now()) END
               WHERE id = %(id)s RETURNING id""",
            id=tenant_id.replace("\0", ""),
            suspended=suspended,
        )
        return await self.get(tenant_id)

    async def update(self, tenant_id: str, settings: Mapping[str, float | None]) -> TenantRecord:
        """Change a tenant's settings.

        Args:
            settings: Those of `SETTINGS` that are to change.

        Raises:
            NotFoundError: There is none with this id.
        """
        if changed := [name for name in SETTINGS if name in settings]:
            columns = ", ".join(f"{name} = %({name})s" for name in changed)
            query = f"UPDATE tenants SET {columns} WHERE id = %(id)s RETURNING id"  # noqa: S608  (names of our own)
            values: dict[str, Any] = {name: settings[name] for name in changed}
            await self._database.for_all().row(query, id=tenant_id.replace("\0", ""), **values)
        return await self.get(tenant_id)

    async def read_shares(self) -> dict[str, tuple[float, int | None]]:
        """Read (weight, max_running) of the tenants that have other ones than (1, None)."""
        query = """SELECT id, weight, max_running FROM tenants
                   WHERE deleted_at IS NULL AND (weight <> 1 OR max_running IS NOT NULL)"""
        async with self._database.for_all().connection() as connection:
            rows = await (await connection.execute(query)).fetchall()
        return {tenant_id: (weight, max_running) for tenant_id, weight, max_running in rows}

    async def mark_deleted(self, tenant_id: str) -> TenantRecord:
        """Let nobody use a tenant any more; its data is removed in the background. Idempotent.

        Raises:
            NotFoundError: There is none with this id.
        """
        query = """WITH unshared AS (DELETE FROM store_shares WHERE %(id)s IN (tenant_id, with_tenant_id))
                   UPDATE tenants SET deleted_at = coalesce(deleted_at, now()) WHERE id = %(id)s RETURNING id"""
        await self._database.for_all().row(query, id=tenant_id.replace("\0", ""))
        return await self.get(tenant_id)

    async def list_deleted(self) -> list[tuple[str, datetime]]:
        """List the tenants whose data may be removed, and when they were deleted."""
        query = "SELECT id, deleted_at FROM tenants WHERE deleted_at < now() - make_interval(secs => %s) ORDER BY id"
        async with self._database.for_all().connection() as connection:
            rows = await (await connection.execute(query, [SETTLED_SECONDS])).fetchall()
        return [(str(row[0]), row[1]) for row in rows]
