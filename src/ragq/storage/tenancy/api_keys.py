"""API keys, which open a tenant's data to a role. Only their hashes are stored."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from ragq.accounts.limits import NO_KEY_LIMITS, NO_LIMITS, KeyLimits, Limits
from ragq.errors import NotFoundError
from ragq.models import new_id
from ragq.storage.database import Database
from ragq.storage.paging import Listed, Page, read_page
from ragq.storage.tenancy.limits import read_key_limits, read_limits, write_limits
from ragq.storage.tenancy.tenants import OPENED

KEY_PREFIX = "ragq-"  # by which people, and scanners for secrets, know a key
HINT_CHARACTERS = 4  # of a key's end, which lists show

_COLUMNS = """id, tenant_id, name, role, hint, created_at, expires_at, last_used_at, vector_store_ids, groups"""
_KEYS = Listed(
    "api_keys",
    f"SELECT {_COLUMNS} FROM api_keys WHERE tenant_id = %(tenant)s",  # noqa: S608  (constants)
    "tenant_id = %(tenant)s",
)
_CREATE = f"""
    INSERT INTO api_keys (id, tenant_id, name, role, sha256, hint, expires_at, vector_store_ids, groups, limits)
    SELECT %(id)s, id, %(name)s, %(role)s, %(sha256)s, %(hint)s, %(expires_at)s, %(stores)s::text[], %(groups)s::text[],
           %(limits)s::jsonb
    FROM tenants WHERE id = %(tenant)s
    RETURNING {_COLUMNS}"""  # noqa: S608  (constants)
REACH = ("vector_store_ids", "groups")
_ROTATE = f"""
    UPDATE api_keys SET sha256 = %(sha256)s, hint = %(hint)s, previous_sha256 = sha256,
        previous_until = now() + make_interval(secs => %(grace)s)
    WHERE tenant_id = %(tenant)s AND id = %(id)s
    RETURNING {_COLUMNS}"""  # noqa: S608  (constants)

# What a key opens, by its hash or its id. That it was used is written at most once a minute.
_OPEN = """
    WITH found AS (
        SELECT k.id, k.tenant_id, k.role, k.vector_store_ids, k.groups, k.limits AS key_limits, {opened}
        FROM api_keys k JOIN tenants t ON t.id = k.tenant_id
        WHERE {condition} AND (k.expires_at IS NULL OR k.expires_at > now())
    ), used AS (
        UPDATE api_keys SET last_used_at = now()
        WHERE id IN (
            SELECT id FROM api_keys
            WHERE id IN (SELECT id FROM found)
              AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
            FOR NO KEY UPDATE SKIP LOCKED
        )
    )
    SELECT * FROM found"""
_BY_HASH = _OPEN.format(
    opened=OPENED,
    condition="(k.sha256 = %(sha256)s OR (k.previous_sha256 = %(sha256)s AND k.previous_until > now()))",
)
_BY_ID = _OPEN.format(opened=OPENED, condition="k.id = %(id)s")


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key as it is listed.

    Attributes:
        vector_store_ids: The stores that it is limited to; None for all.
        groups: By which it may read documents that have readers.
    """

    id: str
    tenant_id: str
    name: str
    role: str
    hint: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    vector_store_ids: list[str] | None
    groups: list[str]


@dataclass(frozen=True, slots=True)
class OpenedKey:
    """A key that is valid.

    Attributes:
        vector_store_ids: The stores that it is limited to; None for all.
        groups: By which it may read documents that have readers.
        has_readers: The tenant has, or had, such documents.
        has_shares: Other tenants share stores with it.
    """

    id: str
    tenant_id: str
    role: str
    is_suspended: bool
    vector_store_ids: list[str] | None = None
    groups: list[str] = field(default_factory=list)
    has_readers: bool = False
    has_shares: bool = False
    limits: Limits = NO_LIMITS
    key_limits: KeyLimits = NO_KEY_LIMITS


class ApiKeys:
    """The keys of all tenants."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        tenant_id: str,
        *,
        name: str,
        role: str,
        expires_at: datetime | None,
        vector_store_ids: Sequence[str] | None = None,
        groups: Sequence[str] = (),
        limits: KeyLimits = NO_KEY_LIMITS,
    ) -> tuple[KeyRecord, str]:
        """Create a key; returns it with its value, which is nowhere kept.

        Args:
            vector_store_ids: The stores that it is limited to; None for all.
            groups: By which it may read documents that have readers.

        Raises:
            NotFoundError: There is no such tenant.
        """
        value = make_key()
        created = await self._database.for_tenant(tenant_id).records(
            KeyRecord,
            _CREATE,
            id=new_id("key_"),
            name=name,
            role=role,
            sha256=hash_key(value),
            hint=_hint(value),
            expires_at=expires_at,
            limits=write_limits(limits),
            stores=None if vector_store_ids is None else list(vector_store_ids),
            groups=list(groups),
        )
        if not created:
            raise NotFoundError(f"No tenant found with id '{tenant_id[:80]}'.", param="tenant")
        return created[0], value

    async def change(self, tenant_id: str, key_id: str, reach: Mapping[str, list[str] | None]) -> KeyRecord:
        """Replace the stores that a key is limited to, or its groups.

        Args:
            reach: Those of `REACH` that are to change.

        Raises:
            NotFoundError: This tenant has no key with this id.
        """
        given: dict[str, Any] = {name: reach[name] for name in REACH if name in reach}
        if not given:
            return await self.get(tenant_id, key_id)
        columns = ", ".join(f"{name} = %({name})s::text[]" for name in given)
        query = f"""UPDATE api_keys SET {columns}
                    WHERE tenant_id = %(tenant)s AND id = %(id)s RETURNING {_COLUMNS}"""  # noqa: S608  (names of our own)
        changed = await self._database.for_tenant(tenant_id).records(
            KeyRecord, query, id=key_id.replace("\0", ""), **given
        )
        if not changed:
            raise _not_found(key_id)
        return changed[0]

    async def rotate(self, tenant_id: str, key_id: str, *, grace_seconds: int) -> tuple[KeyRecord, str]:
        """Give a key a new value; the old one holds for the grace.

        Raises:
            NotFoundError: This tenant has no key with this id.
        """
        value = make_key()
        changed = await self._database.for_tenant(tenant_id).records(
            KeyRecord,
            _ROTATE,
            id=key_id.replace("\0", ""),
            sha256=hash_key(value),
            hint=_hint(value),
            grace=grace_seconds,
        )
        if not changed:
            raise _not_found(key_id)
        return changed[0], value

    async def get(self, tenant_id: str, key_id: str) -> KeyRecord:
        """Find a key.

        Raises:
            NotFoundError: This tenant has no key with this id.
        """
        query = _KEYS.query + " AND id = %(id)s"
        found = await self._database.for_tenant(tenant_id).records(KeyRecord, query, id=key_id.replace("\0", ""))
        if not found:
            raise _not_found(key_id)
        return found[0]

    async def list_keys(self, tenant_id: str, page: Page) -> list[KeyRecord]:
        """List a tenant's keys by age; one more than `page.limit` if there are more."""
        return await read_page(self._database.for_tenant(tenant_id), KeyRecord, _KEYS, page)

    async def revoke(self, tenant_id: str, key_id: str) -> None:
        """Delete a key.

        Raises:
            NotFoundError: This tenant has no key with this id.
        """
        query = "DELETE FROM api_keys WHERE tenant_id = %(tenant)s AND id = %(id)s RETURNING id"
        if not await self._database.for_tenant(tenant_id).row(query, id=key_id.replace("\0", "")):
            raise _not_found(key_id)

    async def open(self, value: str) -> OpenedKey | None:
        """Find what a key opens; None if it is unknown, revoked or expired."""
        return _opened(await self._database.for_all().records(OpenedKey, _BY_HASH, sha256=hash_key(value)))

    async def open_id(self, key_id: str) -> OpenedKey | None:
        """Find what the key with this id opens, as `open` does."""
        return _opened(await self._database.for_all().records(OpenedKey, _BY_ID, id=key_id))


def make_key() -> str:
    """Make a key of 256 random bits."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def hash_key(value: str) -> bytes:
    """The SHA-256 of a key."""
    return hashlib.sha256(value.encode()).digest()


def _opened(found: list[OpenedKey]) -> OpenedKey | None:
    """A key that was found, its limits read from their JSON."""
    if not found:
        return None
    limits: Any = found[0].limits
    key_limits: Any = found[0].key_limits
    return replace(found[0], limits=read_limits(limits), key_limits=read_key_limits(key_limits))


def _hint(value: str) -> str:
    return f"{KEY_PREFIX}…{value[-HINT_CHARACTERS:]}"


def _not_found(key_id: str) -> NotFoundError:
    return NotFoundError(f"No API key found with id '{key_id[:80]}'.", param="key_id")
