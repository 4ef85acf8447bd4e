"""The API keys of a tenant."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, NotRequired

from fastapi import APIRouter, Depends, Query
from pydantic import Field
from typing_extensions import TypedDict

from ragq.accounts.limits import NO_KEY_LIMITS
from ragq.accounts.roles import Role
from ragq.context import Context
from ragq.errors import InvalidRequestError
from ragq.http.audit import Change, audited
from ragq.http.callers import Caller
from ragq.http.input import CheckedRoute
from ragq.http.openapi import refusals
from ragq.routes.context import Admin, ContextDependency, PageDependency, listing
from ragq.schemas.limits import KeyLimitsUpdate
from ragq.schemas.objects import MAX_GROUPS, Body, Deleted, Group, Listing
from ragq.storage.tenancy.api_keys import KeyRecord

router = APIRouter(prefix="/v1/admin/keys", route_class=CheckedRoute)

MAX_STORES = 100
LONGEST_SECONDS = 10 * 366 * 86400
GRACE_SECONDS = 86400


class ApiKey(TypedDict):
    """A key; only its creation and its rotation show the `value`.

    It is limited to `vector_store_ids`, if it has some, and may read the documents whose readers are one of its `groups`.
    """

    id: str
    object: Literal["api_key"]
    name: str
    tenant: str
    role: str
    vector_store_ids: list[str] | None
    groups: list[str]
    redacted_value: str
    created_at: int
    expires_at: int | None
    last_used_at: int | None
    value: NotRequired[str]


class KeyReach(Body):
    """The stores that a key is limited to, null for all, and its groups. Omitted fields are left unchanged."""

    vector_store_ids: list[str] | None = Field(None, min_length=1, max_length=MAX_STORES)
    groups: list[Group] = Field([], max_length=MAX_GROUPS)


class KeyCreate(KeyReach):
    """A key for a tenant: the caller's own if none is named."""

    name: str = Field(min_length=1, max_length=256)
    role: Literal["reader", "user", "admin"] = "user"
    tenant: str | None = Field(None, max_length=64)
    expires_in_seconds: int | None = Field(None, ge=1, le=LONGEST_SECONDS)
    limits: KeyLimitsUpdate | None = None


class KeyRotate(Body):
    """How long the old value holds."""

    grace_seconds: int = Field(GRACE_SECONDS, ge=0, le=30 * 86400)


async def _find_tenant(caller: Admin, tenant: Annotated[str | None, Query(max_length=64)] = None) -> str:
    """The tenant whose keys a request is about: another than the caller's own, if the operator names one."""
    return choose_tenant(caller, tenant)


KeysTenant = Annotated[str, Depends(_find_tenant)]


def choose_tenant(caller: Caller, named: str | None) -> str:
    """Choose the tenant that a caller names, or its own.

    Raises:
        ForbiddenError: It is not the caller's, and the caller is not the operator.
    """
    if named is not None and named != caller.tenant:
        caller.require(Role.OPERATOR)
    return named or caller.tenant


@router.post("", responses=refusals(404))
async def create_key(
    body: KeyCreate, context: ContextDependency, caller: Admin, change: Annotated[Change, audited("key.created")]
) -> ApiKey:
    """Create a key. Its value is shown only now."""
    ends = None if body.expires_in_seconds is None else datetime.now(UTC) + timedelta(seconds=body.expires_in_seconds)
    tenant = choose_tenant(caller, body.tenant)
    limits = body.limits.change(NO_KEY_LIMITS) if body.limits else NO_KEY_LIMITS
    stores = await _find_stores(context, tenant, body, body.role)
    async with change(tenant, name=body.name, role=body.role) as entry:
        record, value = await context.api_keys.create(
            tenant,
            name=body.name,
            role=body.role,
            expires_at=ends,
            limits=limits,
            vector_store_ids=stores,
            groups=body.groups,
        )
        entry.object_id = record.id
    return render_key(record) | {"value": value}


@router.get("")
async def list_keys(page: PageDependency, context: ContextDependency, tenant: KeysTenant) -> Listing[ApiKey]:
    """List keys by age."""
    return listing([render_key(record) for record in await context.api_keys.list_keys(tenant, page)], page)


@router.get("/{key_id}")
async def get_key(key_id: str, context: ContextDependency, tenant: KeysTenant) -> ApiKey:
    """Show a key."""
    return render_key(await context.api_keys.get(tenant, key_id))


@router.post("/{key_id}")
async def change_key(
    key_id: str,
    body: KeyReach,
    context: ContextDependency,
    tenant: KeysTenant,
    change: Annotated[Change, audited("key.updated")],
) -> ApiKey:
    """Change the stores that a key is limited to, or its groups. It holds after five seconds."""
    key = await context.api_keys.get(tenant, key_id)
    stores = await _find_stores(context, tenant, body, key.role)
    reach = body.model_dump(exclude_unset=True) | ({"vector_store_ids": stores} if stores is not None else {})
    async with change(tenant, key_id) as entry:
        changed = await context.api_keys.change(tenant, key_id, reach)
        entry.data = {"vector_store_ids": changed.vector_store_ids, "groups": changed.groups}
    return render_key(changed)


async def _find_stores(context: Context, tenant: str, body: KeyReach, role: str) -> list[str] | None:
    """Check the stores that a key is to be limited to; `default` becomes the id of the default store.

    Raises:
        InvalidRequestError: It is an admin's.
        NotFoundError: A store does not exist.
    """
    if role == Role.ADMIN and (body.vector_store_ids or body.groups):
        raise InvalidRequestError("An admin sees all of its tenant: leave out stores and groups.", param="role")
    if body.vector_store_ids is None:
        return None
    return [await context.stores.resolve(tenant, store_id) for store_id in dict.fromkeys(body.vector_store_ids)]


@router.post("/{key_id}/rotate")
async def rotate_key(
    key_id: str,
    context: ContextDependency,
    tenant: KeysTenant,
    change: Annotated[Change, audited("key.rotated")],
    body: KeyRotate | None = None,
) -> ApiKey:
    """Give a key a new value, which is shown only now. The old one holds for `grace_seconds`, a day if omitted."""
    grace = (body or KeyRotate()).grace_seconds
    async with change(tenant, key_id, grace_seconds=grace):
        record, value = await context.api_keys.rotate(tenant, key_id, grace_seconds=grace)
    return render_key(record) | {"value": value}


@router.delete("/{key_id}")
async def revoke_key(
    key_id: str,
    context: ContextDependency,
    caller: Admin,
    tenant: KeysTenant,
    change: Annotated[Change, audited("key.revoked")],
) -> Deleted:
    """Revoke a key. It opens nothing after five seconds."""
    if key_id == caller.key_id:
        raise InvalidRequestError("A key cannot revoke itself. Use another one.", param="key_id", code="own_key")
    async with change(tenant, key_id):
        await context.api_keys.revoke(tenant, key_id)
    return {"id": key_id, "object": "api_key", "deleted": True}


def render_key(record: KeyRecord) -> ApiKey:
    """Render a key, without its value."""
    return {
        "id": record.id,
        "object": "api_key",
        "name": record.name,
        "tenant": record.tenant_id,
        "role": record.role,
        "vector_store_ids": record.vector_store_ids,
        "groups": record.groups,
        "redacted_value": record.hint,
        "created_at": int(record.created_at.timestamp()),
        "expires_at": int(record.expires_at.timestamp()) if record.expires_at else None,
        "last_used_at": int(record.last_used_at.timestamp()) if record.last_used_at else None,
    }
