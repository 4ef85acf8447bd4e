"""The API keys of a tenant."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, NotRequired

from fastapi import APIRouter, Depends, Query
from pydantic import Field
from typing_extensions import TypedDict

from ragq.errors import InvalidRequestError
from ragq.http.callers import Caller, Role
from ragq.http.input import CheckedRoute
from ragq.http.openapi import refusals
from ragq.routes.context import Admin, ContextDependency, PageDependency, listing
from ragq.schemas.objects import Body, Deleted, Listing
from ragq.storage.api_keys import KeyRecord

router = APIRouter(prefix="/v1/admin/keys", route_class=CheckedRoute)

LONGEST_SECONDS = 10 * 366 * 86400
GRACE_SECONDS = 86400


class ApiKey(TypedDict):
    """A key; only its creation and its rotation show the `value`."""

    id: str
    object: Literal["api_key"]
    name: str
    tenant: str
    role: str
    redacted_value: str
    created_at: int
    expires_at: int | None
    last_used_at: int | None
    value: NotRequired[str]


class KeyCreate(Body):
    """A key for a tenant: the caller's own if none is named."""

    name: str = Field(min_length=1, max_length=256)
    role: Literal["reader", "user", "admin"] = "user"
    tenant: str | None = Field(None, max_length=64)
    expires_in_seconds: int | None = Field(None, ge=1, le=LONGEST_SECONDS)


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
async def create_key(body: KeyCreate, context: ContextDependency, caller: Admin) -> ApiKey:
    """Create a key. Its value is shown only now."""
    ends = None if body.expires_in_seconds is None else datetime.now(UTC) + timedelta(seconds=body.expires_in_seconds)
    record, value = await context.api_keys.create(
        choose_tenant(caller, body.tenant), name=body.name, role=body.role, expires_at=ends
    )
    return render_key(record) | {"value": value}


@router.get("")
async def list_keys(page: PageDependency, context: ContextDependency, tenant: KeysTenant) -> Listing[ApiKey]:
    """List keys by age."""
    return listing([render_key(record) for record in await context.api_keys.list_keys(tenant, page)], page)


@router.get("/{key_id}")
async def get_key(key_id: str, context: ContextDependency, tenant: KeysTenant) -> ApiKey:
    """Show a key."""
    return render_key(await context.api_keys.get(tenant, key_id))


@router.post("/{key_id}/rotate")
async def rotate_key(
    key_id: str, context: ContextDependency, tenant: KeysTenant, body: KeyRotate | None = None
) -> ApiKey:
    """Give a key a new value, which is shown only now. The old one holds for `grace_seconds`, a day if omitted."""
    grace = (body or KeyRotate()).grace_seconds
    record, value = await context.api_keys.rotate(tenant, key_id, grace_seconds=grace)
    return render_key(record) | {"value": value}


@router.delete("/{key_id}")
async def revoke_key(key_id: str, context: ContextDependency, caller: Admin, tenant: KeysTenant) -> Deleted:
    """Revoke a key. It opens nothing after five seconds."""
    if key_id == caller.key_id:
        raise InvalidRequestError("A key cannot revoke itself. Use another one.", param="key_id", code="own_key")
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
        "redacted_value": record.hint,
        "created_at": int(record.created_at.timestamp()),
        "expires_at": int(record.expires_at.timestamp()) if record.expires_at else None,
        "last_used_at": int(record.last_used_at.timestamp()) if record.last_used_at else None,
    }
