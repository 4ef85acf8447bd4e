"""The limits of tenants and keys, and the check of a tenant's storage."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from psycopg import AsyncConnection

from ragq.accounts.limits import NO_KEY_LIMITS, NO_LIMITS, KeyLimits, Limits
from ragq.accounts.payer import Payer, current_payer
from ragq.errors import NotFoundError, QuotaError
from ragq.storage.database import Database

_STORED = """
    SELECT count(*), coalesce(sum(bytes), 0)::bigint,
           EXISTS (SELECT FROM files WHERE tenant_id = %(tenant)s AND ARRAY[sha256, filename, purpose] = %(file)s::text[])
    FROM (SELECT bytes FROM files WHERE tenant_id = %(tenant)s AND purpose <> 'batch_output'
          UNION ALL
          SELECT bytes FROM uploads WHERE tenant_id = %(tenant)s AND status = 'pending' AND expires_at > now()) stored"""


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """The limits of a tenant, and of those of its keys that have some."""

    tenant: Limits
    keys: dict[str, KeyLimits]


class LimitStore:
    """The limits of all tenants and keys."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, tenant_id: str) -> TenantLimits:
        """Read the limits of a tenant and its keys.

        Raises:
            NotFoundError: There is no such tenant.
        """
        row = await self._database.for_tenant(tenant_id.replace("\0", "")).row(
            """SELECT limits, (SELECT jsonb_object_agg(id, k.limits) FROM api_keys k
                               WHERE k.tenant_id = t.id AND k.limits IS NOT NULL) AS keys
               FROM tenants t WHERE id = %(tenant)s""",
        )
        if row is None:
            raise NotFoundError(f"No tenant found with id '{tenant_id[:80]}'.", param="tenant_id")
        keys = {id_: read_key_limits(limits) for id_, limits in (row["keys"] or {}).items()}
        return TenantLimits(read_limits(row["limits"]), keys)

    async def change_tenant(self, tenant_id: str, change: Callable[[Limits], Limits]) -> Limits:
        """Change a tenant's limits; another change waits for this one. Returns the new ones.

        Raises:
            NotFoundError: There is no such tenant.
        """
        known_id = tenant_id.replace("\0", "")
        async with self._database.for_tenant(known_id).transaction() as connection:
            query = "SELECT limits FROM tenants WHERE id = %s FOR NO KEY UPDATE"
            row = await (await connection.execute(query, [known_id])).fetchone()
            if row is None:
                raise NotFoundError(f"No tenant found with id '{tenant_id[:80]}'.", param="tenant_id")
            changed = change(read_limits(row[0]))
            query = "UPDATE tenants SET limits = %s::jsonb WHERE id = %s"
            await connection.execute(query, [write_limits(changed), known_id])
        return changed

    async def change_key(self, tenant_id: str, key_id: str, change: Callable[[KeyLimits], KeyLimits]) -> KeyLimits:
        """Change a key's limits; another change waits for this one. Returns the new ones.

        Raises:
            NotFoundError: The tenant has no such key.
        """
        ids = [tenant_id, key_id.replace("\0", "")]
        async with self._database.for_tenant(tenant_id).transaction() as connection:
            query = "SELECT limits FROM api_keys WHERE tenant_id = %s AND id = %s FOR NO KEY UPDATE"
            row = await (await connection.execute(query, ids)).fetchone()
            if row is None:
                raise NotFoundError(f"No API key found with id '{key_id[:80]}'.", param="key_id")
            changed = change(read_key_limits(row[0]))
            query = "UPDATE api_keys SET limits = %s::jsonb WHERE tenant_id = %s AND id = %s"
            await connection.execute(query, [write_limits(changed), *ids])
        return changed

    async def payer_of(self, tenant_id: str, key_id: str) -> Payer:
        """Who pays for work that began with this key; after the key is revoked, its tenant."""
        if not key_id:
            return Payer(tenant_id)
        row = await self._database.for_tenant(tenant_id).row(
            """SELECT t.limits, k.limits AS key_limits FROM tenants t
               LEFT JOIN api_keys k ON k.tenant_id = t.id AND k.id = %(key)s WHERE t.id = %(tenant)s""",
            key=key_id,
        )
        if row is None:
            return Payer(tenant_id, key_id)
        return Payer(tenant_id, key_id, read_limits(row["limits"]), read_key_limits(row["key_limits"]))


@contextlib.asynccontextmanager
async def room_for(
    connection: AsyncConnection[Any], tenant_id: str, size: int, *, unless_there: tuple[str, str, str] | None = None
) -> AsyncIterator[None]:
    """Check that a tenant may store another file, and let no other request store one until the block's end.

    Without such a limit, and for what no request asked for, nothing is done.

    Args:
        size: Bytes.
        unless_there: SHA-256, name and purpose of a file that is not stored again.

    Raises:
        QuotaError: The tenant may not store so much.
    """
    payer = current_payer()
    if payer is None or payer.tenant_id != tenant_id or not payer.limits.has_storage:
        yield
        return
    async with connection.transaction():
        await connection.execute("SELECT FROM tenants WHERE id = %s FOR NO KEY UPDATE", [tenant_id])
        found = await connection.execute(_STORED, {"tenant": tenant_id, "file": list(unless_there or ())})
        row = await found.fetchone()
        assert row
        documents, stored, is_there = row
        for name, held, most in (
            ("documents", documents + 1, payer.limits.documents),
            ("bytes", stored + size, payer.limits.bytes),
        ):
            if most is not None and held > most and not is_there:
                raise QuotaError(
                    f"This tenant may store {most} {name}; with this file it would have {held}. Delete files, or ask the "
                    "operator for more.",
                    param="file",
                )
        yield


def read_limits(found: dict[str, Any] | None) -> Limits:
    """Read a tenant's limits from their JSON."""
    return msgspec.convert(found, Limits) if found else NO_LIMITS


def read_key_limits(found: dict[str, Any] | None) -> KeyLimits:
    """Read a key's limits from their JSON."""
    return msgspec.convert(found, KeyLimits) if found else NO_KEY_LIMITS


def write_limits(limits: KeyLimits) -> str | None:
    """Write limits as JSON; None if there are none."""
    written = msgspec.json.encode(limits).decode()
    return None if written == "{}" else written
