"""The audit log, much as OpenAI's is read."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from typing_extensions import TypedDict

from ragq.accounts.roles import Role
from ragq.errors import InvalidRequestError
from ragq.http.callers import Caller
from ragq.http.input import CheckedRoute
from ragq.routes.context import Admin, ContextDependency, PageDependency, listing
from ragq.schemas.objects import Listing
from ragq.storage.tenancy.audit_log import ACTIONS, UNCONFIRMED, EntryFilter, EntryRecord

router = APIRouter(prefix="/v1/admin/audit_log", route_class=CheckedRoute)

LAST_SECOND = 2**33  # in the year 2242
Several = list[str] | None  # a client sends them as `name` or as `name[]`
Second = Annotated[int | None, Query(ge=0, le=LAST_SECOND)]


class AuditActor(TypedDict):
    """Who did it; `id` and `name` are a key's, at that time."""

    type: str
    id: str | None
    name: str | None
    role: str | None
    tenant: str
    ip_address: str | None


class AuditEntry(TypedDict):
    """What was done or refused, or whose end is not known; refusals are counted."""

    id: str
    object: Literal["audit_log.entry"]
    type: str
    effective_at: int
    tenant: str
    actor: AuditActor
    resource_id: str | None
    outcome: Literal["done", "refused", "unconfirmed"]
    code: str | None
    count: int
    data: dict[str, Any]


async def _filter(
    types: Annotated[Several, Query(alias="event_types")] = None,
    more_types: Annotated[Several, Query(alias="event_types[]")] = None,
    actors: Annotated[Several, Query(alias="actor_ids")] = None,
    more_actors: Annotated[Several, Query(alias="actor_ids[]")] = None,
    resources: Annotated[Several, Query(alias="resource_ids")] = None,
    more_resources: Annotated[Several, Query(alias="resource_ids[]")] = None,
    since: Annotated[Second, Query(alias="effective_at[gte]")] = None,
    until: Annotated[Second, Query(alias="effective_at[lt]")] = None,
) -> EntryFilter:
    wanted = types or more_types
    if unknown := set(wanted or ()).difference(ACTIONS):
        raise InvalidRequestError(
            f"There is no entry of the type '{min(unknown)[:80]}'. Types are: {', '.join(ACTIONS)}.",
            param="event_types",
        )
    return EntryFilter(wanted, actors or more_actors, resources or more_resources, since, until)


@router.get("")
async def list_audit_log(
    page: PageDependency,
    context: ContextDependency,
    caller: Admin,
    wanted: Annotated[EntryFilter, Depends(_filter)],
    tenant: Annotated[str | None, Query(max_length=64)] = None,
) -> Listing[AuditEntry]:
    """List entries by age: the caller's tenant's; to the operator, all of them or those of the tenant it names."""
    if tenant not in (None, caller.tenant):
        caller.require(Role.OPERATOR)
    whose = tenant if caller.role is Role.OPERATOR else caller.tenant
    records = await context.audit_log.list_entries(whose, page, wanted)
    return listing([render_entry(_as_seen_by(caller, record)) for record in records], page)


def _as_seen_by(caller: Caller, record: EntryRecord) -> EntryRecord:
    """Hide from a tenant which of the operator's people has acted in it."""
    if caller.role is Role.OPERATOR or record.actor_tenant == record.tenant_id:
        return record
    return replace(record, actor_type="operator", actor_id="", actor_name="", address="")


def render_entry(record: EntryRecord) -> AuditEntry:
    """Render an entry."""
    is_unconfirmed = record.code == UNCONFIRMED
    return {
        "id": record.id,
        "object": "audit_log.entry",
        "type": record.action,
        "effective_at": int(record.created_at.timestamp()),
        "tenant": record.tenant_id,
        "actor": {
            "type": record.actor_type,
            "id": record.actor_id or None,
            "name": record.actor_name or None,
            "role": record.actor_role or None,
            "tenant": record.actor_tenant,
            "ip_address": record.address or None,
        },
        "resource_id": record.object_id or None,
        "outcome": "done" if record.code is None else "unconfirmed" if is_unconfirmed else "refused",
        "code": None if is_unconfirmed else record.code,
        "count": record.count,
        "data": record.data,
    }
