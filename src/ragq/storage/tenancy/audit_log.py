"""The audit log in PostgreSQL: who changed what, when and from where, and what was refused. It is append-only."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

from ragq.models import DEFAULT_TENANT, new_id
from ragq.storage.database import Database
from ragq.storage.paging import Listed, Page, read_page

Action = Literal[
    "access.refused",
    "session.created",
    "person.sessions_ended",
    "key.created",
    "key.rotated",
    "key.revoked",
    "key.updated",
    "key.limits_updated",
    "tenant.created",
    "tenant.updated",
    "tenant.limits_updated",
    "tenant.suspended",
    "tenant.resumed",
    "tenant.deleted",
    "tenant.removed",
    "tenant.exported",
    "file.created",
    "file.deleted",
    "vector_store.created",
    "vector_store.updated",
    "vector_store.deleted",
    "vector_store.shared",
    "vector_store.unshared",
    "vector_store.file.added",
    "vector_store.file.updated",
    "vector_store.file.removed",
    "vector_store.file_batch.created",
    "vector_store.file_batch.cancelled",
    "webhook_endpoint.created",
    "webhook_endpoint.deleted",
    "job.retried",
    "job.cancelled",
    "job.deleted",
    "job_action.created",
    "job_action.stopped",
    "queue.paused",
    "queue.resumed",
    "worker.drained",
    "poison.forgiven",
]
ACTIONS: tuple[Action, ...] = get_args(Action)
ActorType = Literal["api_key", "person", "operator", "service", "unknown"]
UNCONFIRMED = "unconfirmed"  # code of an entry that was written before its action, until it is known how that ended
EXPIRY_BATCH = 1000  # entries deleted by one statement

_ADD = """
    INSERT INTO audit_log (id, tenant_id, action, object_id, code, count, actor_type, actor_id, actor_name, actor_role,
                           actor_tenant, address, data)
    SELECT %(id)s, t.id, %(action)s, %(object)s, %(code)s, %(count)s, %(type)s, %(actor)s,
           coalesce((SELECT name FROM api_keys WHERE id = %(actor)s), %(name)s), %(role)s, %(actor_tenant)s, %(address)s, %(data)s
    FROM tenants t WHERE t.id = %(tenant)s RETURNING id"""
_SETTLE = "UPDATE audit_log SET code = %(code)s WHERE id = %(id)s AND code = %(unconfirmed)s RETURNING id"
_SELECT = """
    SELECT id, tenant_id, created_at, action, object_id, code, count, actor_type, actor_id, actor_name, actor_role,
           actor_tenant, address, data
    FROM audit_log WHERE """
_FILTERS = {
    "actions": "action = ANY(%(actions)s)",
    "actors": "actor_id = ANY(%(actors)s)",
    "objects": "object_id = ANY(%(objects)s)",
    "since": "created_at >= to_timestamp(%(since)s)",
    "until": "created_at < to_timestamp(%(until)s)",
}

_DUE = """
    SELECT id AS tenant_id, seconds
    FROM tenants, LATERAL (SELECT coalesce(keep_logs_days * 86400, %(seconds)s)::float8 AS seconds) kept
    WHERE EXISTS (SELECT FROM audit_log WHERE tenant_id = tenants.id AND created_at < now() - make_interval(secs => seconds))"""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, and from where.

    Attributes:
        type: `operator` is `RAGQ_API_KEY`, or anyone where no key is needed; `unknown` sent a key that is none.
        id: The key's, or the subject of a person who signed in; empty for the other types.
        name: The person's. A key's is looked up.
        address: The client's, as the API process sees it; empty where there is none.
    """

    type: ActorType
    tenant: str
    id: str = ""
    role: str = ""
    address: str = ""
    name: str = ""


SERVICE = Actor("service", DEFAULT_TENANT)


@dataclass(slots=True)
class Entry:
    """An entry that is to be written. What the change makes known, such as an id, may be set until its transaction ends.

    Attributes:
        tenant: Whose admin may read it.
        code: Why it was refused, or UNCONFIRMED; None if it was done.
        count: How often, since refusals are counted.
        data: More about the change: ids, numbers, roles and names of keys.
    """

    actor: Actor
    action: Action
    tenant: str
    object_id: str = ""
    code: str | None = None
    count: int = 1
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EntryRecord:
    """An entry as it is listed."""

    id: str
    tenant_id: str
    created_at: datetime
    action: str
    object_id: str
    code: str | None
    count: int
    actor_type: str
    actor_id: str
    actor_name: str
    actor_role: str
    actor_tenant: str
    address: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """Which entries to list; None is any. `since` and `until`, which is exclusive, are in seconds since 1970."""

    actions: list[str] | None = None
    actors: list[str] | None = None
    objects: list[str] | None = None
    since: int | None = None
    until: int | None = None


@dataclass(frozen=True, slots=True)
class _Due:
    tenant_id: str
    seconds: float


class AuditLog:
    """The entries of all tenants."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, entry: Entry) -> str | None:
        """Write an entry; returns its id. Nothing is written for a tenant that is gone."""
        row = await self._database.for_all().row(
            _ADD,
            id=new_id("audit_log-"),
            tenant=entry.tenant,
            action=entry.action,
            object=entry.object_id,
            code=entry.code,
            count=entry.count,
            type=entry.actor.type,
            actor=entry.actor.id,
            name=entry.actor.name,
            role=entry.actor.role,
            actor_tenant=entry.actor.tenant,
            address=entry.actor.address,
            data=json.dumps(entry.data),
        )
        return str(row["id"]) if row else None

    async def settle(self, entry_id: str, code: str | None) -> None:
        """Say of an unconfirmed entry, once, why its action was refused, or with None that it was done."""
        await self._database.for_all().row(_SETTLE, id=entry_id, code=code, unconfirmed=UNCONFIRMED)

    @contextlib.asynccontextmanager
    async def recorded(self, entry: Entry) -> AsyncIterator[Entry]:
        """Make the changes of this block and write the entry, in one transaction: neither is without the other.

        The block is for statements alone, since it holds a connection. An error undoes all of it.
        """
        async with self._database.transaction():
            yield entry
            await self.add(entry)

    async def list_entries(self, tenant_id: str | None, page: Page, wanted: EntryFilter) -> list[EntryRecord]:
        """List entries by age, of all tenants with None; one more than `page.limit` if there are more."""
        access = self._database.for_one_or_all(tenant_id)
        scope = "tenant_id = %(tenant)s" if tenant_id is not None else "true"
        given = {name: getattr(wanted, name) for name in _FILTERS if getattr(wanted, name) is not None}
        condition = "".join(f" AND {_FILTERS[name]}" for name in given)
        listed = Listed("audit_log", _SELECT + scope, scope)
        return await read_page(access, EntryRecord, listed, page, condition=condition, **given)

    async def expire(self, older_than_seconds: float) -> int:
        """Delete the entries that are older, or older than their tenant keeps them; returns how many."""
        due = await self._database.for_all().records(_Due, _DUE, seconds=older_than_seconds)
        return sum([await self.forget(one.tenant_id, one.seconds) for one in due])

    async def forget(self, tenant_id: str, older_than_seconds: float) -> int:
        """Delete a tenant's entries that are older; returns how many."""
        forgotten, batch = 0, EXPIRY_BATCH
        while batch == EXPIRY_BATCH:
            row = await self._database.for_tenant(tenant_id).row(
                "SELECT forget_audit_log(%(tenant)s, now() - make_interval(secs => %(age)s), %(most)s) AS forgotten",
                age=older_than_seconds,
                most=EXPIRY_BATCH,
            )
            batch = row["forgotten"] if row else 0
            forgotten += batch
        return forgotten
