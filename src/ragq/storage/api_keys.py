"""API keys, which open a tenant's data to a role. Only their hashes are stored."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime

from ragq.errors import NotFoundError
from ragq.models import new_id
from ragq.storage.database import Database
from ragq.storage.paging import Listed, Page, read_page

KEY_PREFIX = "ragq-"  # by which people, and scanners for secrets, know a key
HINT_CHARACTERS = 4  # of a key's end, which lists show

_KEYS = Listed(
    "api_keys",
    """SELECT id, tenant_id, name, role, hint, created_at, expires_at, last_used_at FROM api_keys
       WHERE tenant_id = %(tenant)s""",
    "tenant_id = %(tenant)s",
)
_CREATE = """
    INSERT INTO api_keys (id, tenant_id, name, role, sha256, hint, expires_at)
    SELECT %(id)s, id, %(name)s, %(role)s, %(sha256)s, %(hint)s, %(expires_at)s FROM tenants WHERE id = %(tenant)s
    RETURNING id, tenant_id, name, role, hint, created_at, expires_at, last_used_at"""
_ROTATE = """
    UPDATE api_keys SET sha256 = %(sha256)s, hint = %(hint)s, previous_sha256 = sha256,
        previous_until = now() + make_interval(secs => %(grace)s)
    WHERE tenant_id = %(tenant)s AND id = %(id)s
    RETURNING id, tenant_id, name, role, hint, created_at, expires_at, last_used_at"""

# What a key opens, by its hash or its id. That it was used is written at most once a minute.
_OPEN = """
    WITH found AS (
        SELECT k.id, k.tenant_id, k.role, coalesce(t.suspended_at, t.deleted_at) IS NOT NULL AS is_suspended
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
    condition="(k.sha256 = %(sha256)s OR (k.previous_sha256 = %(sha256)s AND k.previous_until > now()))"
)
_BY_ID = _OPEN.format(condition="k.id = %(id)s")


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key as it is listed."""

    id: str
    tenant_id: str
    name: str
    role: str
    hint: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class OpenedKey:
    """A key that is valid."""

    id: str
    tenant_id: str
    role: str
    is_suspended: bool


class ApiKeys:
    """The keys of all tenants."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, tenant_id: str, *, name: str, role: str, expires_at: datetime | None
    ) -> tuple[KeyRecord, str]:
        """Create a key; returns it with its value, which is nowhere kept.

        Raises:
            NotFoundError: There is no such tenant.
        """
        value = make_key()
        created = await self._database.records(
            KeyRecord,
            _CREATE,
            id=new_id("key_"),
            tenant=tenant_id,
            name=name,
            role=role,
            sha256=hash_key(value),
            hint=_hint(value),
            expires_at=expires_at,
        )
        if not created:
            raise NotFoundError(f"No tenant found with id '{tenant_id[:80]}'.", param="tenant")
        return created[0], value

    async def rotate(self, tenant_id: str, key_id: str, *, grace_seconds: int) -> tuple[KeyRecord, str]:
        """Give a key a new value; the old one holds for the grace.

        Raises:
            NotFoundError: This tenant has no key with this id.
        """
        value = make_key()
        changed = await self._database.records(
            KeyRecord,
            _ROTATE,
            tenant=tenant_id,
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
        found = await self._database.records(KeyRecord, query, tenant=tenant_id, id=key_id.replace("\0", ""))
        if not found:
            raise _not_found(key_id)
        return found[0]

    async def list_keys(self, tenant_id: str, page: Page) -> list[KeyRecord]:
        """List a tenant's keys by age; one more than `page.limit` if there are more."""
        return await read_page(self._database, KeyRecord, _KEYS, page, tenant=tenant_id)

    async def revoke(self, tenant_id: str, key_id: str) -> None:
        """Delete a key.

        Raises:
            NotFoundError: This tenant has no key with this id.
        """
        query = "DELETE FROM api_keys WHERE tenant_id = %(tenant)s AND id = %(id)s RETURNING id"
        if not await self._database.row(query, tenant=tenant_id, id=key_id.replace("\0", "")):
            raise _not_found(key_id)

    async def open(self, value: str) -> OpenedKey | None:
        """Find what a key opens; None if it is unknown, revoked or expired."""
        found = await self._database.records(OpenedKey, _BY_HASH, sha256=hash_key(value))
        return found[0] if found else None

    async def open_id(self, key_id: str) -> OpenedKey | None:
        """Find what the key with this id opens, as `open` does."""
        found = await self._database.records(OpenedKey, _BY_ID, id=key_id)
        return found[0] if found else None


def make_key() -> str:
    """Make a key of 256 random bits."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def hash_key(value: str) -> bytes:
    """The SHA-256 of a key."""
    return hashlib.sha256(value.encode()).digest()


def _hint(value: str) -> str:
    return f"{KEY_PREFIX}…{value[-HINT_CHARACTERS:]}"


def _not_found(key_id: str) -> NotFoundError:
    return NotFoundError(f"No API key found with id '{key_id[:80]}'.", param="key_id")
