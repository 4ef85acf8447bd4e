"""Vector stores in PostgreSQL.

A method that takes the tenant reads only what its viewer may see. The others are for the service itself, not for routes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from ragq.accounts.views import Viewer, tenant_of, view_of
from ragq.errors import ForbiddenError, InvalidRequestError, NotFoundError, TransientError
from ragq.models import DEFAULT_STORE_NAME, new_id
from ragq.storage.database import Database
from ragq.storage.paging import Listed, Page, read_page
from ragq.storage.removal import remove_files
from ragq.storage.tenancy.visibility import of_tenant, see_readers, see_stores, values_of


@dataclass(frozen=True, slots=True)
class StoreRecord:
    """A vector store with the counts of its files by status; an expired one is empty, or will be within a minute.

    Attributes:
        shared: It is another tenant's, and may be read only.
    """

    id: str
    shared: bool
    name: str
    description: str | None
    metadata: dict[str, str]
    created_at: datetime
    last_active_at: datetime
    expires_after_days: int | None
    expires_at: datetime | None
    expired: bool
    in_progress: int
    completed: int
    failed: int
    cancelled: int
    usage_bytes: int


# The counts are of the files that the viewer may read.
_STORE = """
    SELECT s.id, s.tenant_id <> %(tenant)s AS shared, s.name, s.description, s.metadata, s.created_at, s.last_active_at,
           s.expires_after_days, s.expires_at, coalesce(s.expires_at <= now(), false) AS expired,
           count(*) FILTER (WHERE f.status = 'in_progress') AS in_progress,
           count(*) FILTER (WHERE f.status = 'completed') AS completed,
           count(*) FILTER (WHERE f.status = 'failed') AS failed,
           count(*) FILTER (WHERE f.status = 'cancelled') AS cancelled,
           coalesce(sum(f.usage_bytes), 0)::bigint AS usage_bytes
    FROM vector_stores s LEFT JOIN vector_store_files f ON f.vector_store_id = s.id{readable}
    WHERE {seen}
"""


def _stores(viewer: Viewer) -> Listed:
    return Listed(
        "vector_stores",
        _STORE.format(readable=see_readers(viewer, "f."), seen=_seen(viewer, "s.")),
        _seen(viewer, ""),
        alias="s",
        group=" GROUP BY s.id",
    )


def _seen(viewer: Viewer, store: str) -> str:
    return of_tenant(viewer, f"{store}tenant_id", f"{store}id") + see_stores(viewer, f"{store}id")


class Stores:
    """All vector stores."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        tenant_id: str,
        *,
        name: str,
        description: str | None,
        metadata: dict[str, str],
        expires_after_days: int | None = None,
    ) -> StoreRecord:
        id_ = new_id("vs_")
        await self._database.for_tenant(tenant_id).row(
            """INSERT INTO vector_stores (id, tenant_id, name, description, metadata, last_active_at, expires_after_days,
                                          expires_at)
               VALUES (%(id)s, %(tenant)s, %(name)s, %(description)s, %(metadata)s, now(), %(days)s::int,
                       now() + %(days)s * interval '24 hours') RETURNING id""",
            id=id_,
            name=name,
            description=description,
            metadata=json.dumps(metadata),
            days=expires_after_days,
        )
        return await self.get(tenant_id, id_)

    async def default_id(self, tenant_id: str) -> str:
        """The id of the tenant's default store, which is created on first use."""
        query = "SELECT id FROM vector_stores WHERE tenant_id = %(tenant)s AND is_default"
        row = await self._database.for_tenant(tenant_id).row(query)
        if row is None:
            await self._database.for_tenant(tenant_id).row(
                "INSERT INTO vector_stores (id, tenant_id, name, is_default) VALUES (%(id)s, %(tenant)s, %(name)s, true)"
                " ON CONFLICT (tenant_id) WHERE is_default DO NOTHING RETURNING id",
                id=new_id("vs_"),
                name=DEFAULT_STORE_NAME,
            )
            row = await self._database.for_tenant(tenant_id).row(query)
        if row is None:
            raise TransientError("The default store was deleted at the same time: try again.")
        return str(row["id"])

    async def resolve(self, tenant: Viewer, store_id: str, *, to_use: bool = False, to_change: bool = False) -> str:
        """The id of an existing store; `default` stands for the tenant's default store.

        For a key that is limited to other stores, `default` stands for the first of them.

        Args:
            to_use: For a search or an ingest, so refuse an expired store.
            to_change: Refuse a store of another tenant.

        Raises:
            ForbiddenError: The store is shared by another tenant, and was to be changed.
            NotFoundError: This tenant has no store with this id.
            InvalidRequestError: The store has expired.
        """
        if store_id == DEFAULT_STORE_NAME:
            if view_of(tenant).stores is None:
                return await self.default_id(tenant_of(tenant))
            store_id = await self._find_first(tenant) or store_id
        row = await self._database.for_tenant(tenant).row(
            f"""SELECT expires_at <= now() AS expired, tenant_id <> %(tenant)s AS shared FROM vector_stores
                WHERE id = %(id)s AND {_seen(tenant, "")}""",  # noqa: S608
            id=store_id,
        )
        if row is None:
            raise _not_found(store_id)
        if to_change and row["shared"]:
            raise ForbiddenError("Another tenant shares this store: it may be read only.", code="shared_store")
        if to_use and row["expired"]:
            raise _expired(store_id)
        return store_id

    async def _find_first(self, tenant: Viewer) -> str | None:
        """The default store, if the viewer sees it, or the first of those that it sees, the tenant's own before shared ones."""
        row = await self._database.for_tenant(tenant).row(
            f"""SELECT id FROM vector_stores WHERE {_seen(tenant, "")}
                ORDER BY tenant_id = %(tenant)s DESC, is_default DESC, array_position(%(view_stores)s::text[], id)
                LIMIT 1""",  # noqa: S608
        )
        return str(row["id"]) if row else None

    async def get(self, tenant: Viewer, store_id: str) -> StoreRecord:
        """Find a store.

        Raises:
            NotFoundError: This tenant has no store with this id.
        """
        listed = _stores(tenant)
        query = f"{listed.query} AND s.id = %(id)s{listed.group}"
        records = await self._database.for_tenant(tenant).records(StoreRecord, query, id=store_id)
        if not records:
            raise _not_found(store_id)
        return records[0]

    async def list_stores(self, tenant: Viewer, page: Page) -> list[StoreRecord]:
        """List stores by age; one more than `page.limit` if there are more."""
        return await read_page(self._database.for_tenant(tenant), StoreRecord, _stores(tenant), page)

    async def update(
        self, tenant: Viewer, store_id: str, *, name: str | None = None, metadata: dict[str, str] | None = None
    ) -> StoreRecord:
        """Change the values that are not None."""
        await self._database.for_tenant(tenant).row(
            f"""UPDATE vector_stores SET name = coalesce(%(name)s, name), metadata = coalesce(%(metadata)s::jsonb, metadata)
                WHERE tenant_id = %(tenant)s AND id = %(id)s{see_stores(tenant, "id")} RETURNING id""",  # noqa: S608
            id=store_id,
            name=name,
            metadata=None if metadata is None else json.dumps(metadata),
        )
        return await self.get(tenant, store_id)

    async def set_expiry(self, tenant: Viewer, store_id: str, days: int | None) -> None:
        """Let a store expire when it has not been active for this many days, counted from now, or never.

        Raises:
            InvalidRequestError: The store has expired already, or is the default store.
        """
        row = await self._database.for_tenant(tenant).row(
            f"""UPDATE vector_stores SET last_active_at = now(), expires_after_days = %(days)s::int,
                                        expires_at = now() + %(days)s * interval '24 hours'
               WHERE tenant_id = %(tenant)s AND id = %(id)s AND (expires_at IS NULL OR expires_at > now())
                 AND NOT (is_default AND %(days)s::int IS NOT NULL){see_stores(tenant, "id")}
               RETURNING id""",  # noqa: S608
            id=store_id,
            days=days,
        )
        if row is None:
            await self.resolve(tenant, store_id, to_use=True)
            raise InvalidRequestError("The default store does not expire.", param="expires_after")

    async def empty_expired(self, *, limit: int) -> int:
        """Remove up to this many files from expired stores of all tenants; returns how many."""
        async with self._database.for_all().connection() as connection, connection.transaction():
            return await remove_files(
                connection,
                """(v.vector_store_id, v.file_id) IN (
                       SELECT w.vector_store_id, w.file_id
                       FROM vector_stores s JOIN vector_store_files w ON w.vector_store_id = s.id
                       WHERE s.expires_at <= now() LIMIT %(limit)s)""",
                {"limit": limit},
            )

    async def delete(self, tenant: Viewer, store_id: str) -> None:
        """Delete a store and its chunks; the files are kept."""
        async with self._database.for_tenant(tenant).transaction() as connection:
            found = await connection.execute(
                f"""SELECT FROM vector_stores WHERE tenant_id = %(tenant)s AND id = %(id)s{see_stores(tenant, "id")}
                    FOR UPDATE""",
                values_of(tenant) | {"id": store_id},
            )
            if not found.rowcount:
                raise _not_found(store_id)
            await remove_files(connection, "v.vector_store_id = %(id)s", {"id": store_id})
            await connection.execute("DELETE FROM vector_stores WHERE id = %s", [store_id])


def _expired(store_id: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"The vector store '{store_id}' has expired and is empty: make a new one.",
        code="vector_store_expired",
        param="vector_store_id",
    )


def _not_found(store_id: str) -> NotFoundError:
    return NotFoundError(f"No vector store found with id '{store_id[:80]}'.", param="vector_store_id")
