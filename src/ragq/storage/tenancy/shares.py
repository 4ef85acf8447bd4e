"""Stores that a tenant shares with others, to be read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ragq.errors import NotFoundError
from ragq.storage.database import Database


@dataclass(frozen=True, slots=True)
class ShareRecord:
    """A store that another tenant may read."""

    vector_store_id: str
    with_tenant_id: str
    created_at: datetime


class StoreShares:
    """The shares of all tenants."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, tenant_id: str, store_id: str, with_tenant_id: str) -> ShareRecord:
        """Share a store of this tenant. Idempotent; whether there is a tenant of that name is not told.

        Raises:
            NotFoundError: This tenant has no store with this id.
        """
        await self._database.for_tenant(tenant_id).row(
            """INSERT INTO store_shares (vector_store_id, with_tenant_id, tenant_id)
               SELECT id, %(other)s, tenant_id FROM vector_stores WHERE tenant_id = %(tenant)s AND id = %(store)s
               ON CONFLICT DO NOTHING RETURNING vector_store_id""",
            store=store_id,
            other=with_tenant_id,
        )
        for share in await self.list_shares(tenant_id, store_id):
            if share.with_tenant_id == with_tenant_id:
                return share
        raise NotFoundError(f"No vector store found with id '{store_id[:80]}'.", param="vector_store_id")

    async def list_shares(self, tenant_id: str, store_id: str) -> list[ShareRecord]:
        """List with whom a store is shared, the oldest first."""
        return await self._database.for_tenant(tenant_id).records(
            ShareRecord,
            """SELECT vector_store_id, with_tenant_id, created_at FROM store_shares
               WHERE tenant_id = %(tenant)s AND vector_store_id = %(store)s ORDER BY created_at, with_tenant_id""",
            store=store_id,
        )

    async def delete(self, tenant_id: str, store_id: str, with_tenant_id: str) -> None:
        """Share a store no longer, from now on.

        Raises:
            NotFoundError: It is not shared with that tenant.
        """
        query = """DELETE FROM store_shares WHERE tenant_id = %(tenant)s AND vector_store_id = %(store)s
                   AND with_tenant_id = %(other)s RETURNING vector_store_id"""
        other = with_tenant_id.replace("\0", "")
        if not await self._database.for_tenant(tenant_id).row(query, store=store_id, other=other):
            raise NotFoundError(f"The store is not shared with '{with_tenant_id[:80]}'.", param="tenant_id")
