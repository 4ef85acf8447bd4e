"""Tenants, for the operator."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import Field
from typing_extensions import TypedDict

from ragq.errors import InvalidRequestError
from ragq.http.audit import Change, audited
from ragq.http.input import CheckedRoute
from ragq.http.openapi import refusals
from ragq.models import DEFAULT_TENANT
from ragq.routes.context import ContextDependency, Operator, PageDependency, listing
from ragq.schemas.objects import Body, Listing
from ragq.storage.tenancy.tenants import TenantRecord

router = APIRouter(prefix="/v1/admin/tenants", route_class=CheckedRoute)


TenantId = Annotated[str, Field(max_length=63, pattern=r"^[a-z0-9][a-z0-9-]*$")]


class Tenant(TypedDict):
    """A tenant. While it is suspended, its keys open nothing, and what it has queued goes on."""

    id: str
    object: Literal["tenant"]
    status: Literal["active", "suspended", "deleting"]
    created_at: int
    weight: float
    max_running: int | None
    keep_responses_days: int | None
    keep_files_days: int | None
    keep_logs_days: int | None


class TenantCreate(Body):
    """A tenant, by a short name of lower-case letters, digits and hyphens."""

    id: TenantId


Days = Annotated[int | None, Field(ge=1, le=36_500)]


class TenantUpdate(Body):
    """What the operator changes of a tenant; what is left out stays.

    Attributes:
        max_running: Null: no limit.
        keep_responses_days: For how many days what it has is kept, as the other two. Null: as the settings say.
    """

    weight: float = Field(1, ge=0.1, le=100)
    max_running: int | None = Field(None, ge=1, le=10_000)
    keep_responses_days: Days = None
    keep_files_days: Days = None
    keep_logs_days: Days = None


@router.post("", responses=refusals(409))
async def create_tenant(
    body: TenantCreate,
    context: ContextDependency,
    _caller: Operator,
    change: Annotated[Change, audited("tenant.created")],
) -> Tenant:
    """Create a tenant."""
    async with change(DEFAULT_TENANT, body.id):
        created = await context.tenants.create(body.id)
        # Only now, as one of this name may be on its way out, and before the commit: without Valkey there is no tenant.
        await context.queue.tenant_jobs.open(body.id)
    return render_tenant(created)


@router.get("")
async def list_tenants(page: PageDependency, context: ContextDependency, _caller: Operator) -> Listing[Tenant]:
    """List tenants by age."""
    return listing([render_tenant(record) for record in await context.tenants.list_tenants(page)], page)


@router.get("/{tenant_id}")
async def get_tenant(tenant_id: str, context: ContextDependency, _caller: Operator) -> Tenant:
    """Show a tenant."""
    return render_tenant(await context.tenants.get(tenant_id))


@router.post("/{tenant_id}")
async def update_tenant(
    tenant_id: str,
    body: TenantUpdate,
    context: ContextDependency,
    _caller: Operator,
    change: Annotated[Change, audited("tenant.updated")],
) -> Tenant:
    """Set a tenant's part of the workers, the most of its jobs that run at once, and how long what it has is kept."""
    given = body.model_dump(exclude_unset=True)
    async with change(DEFAULT_TENANT, tenant_id, **given):
        changed = await context.tenants.update(tenant_id, given)
    await context.queue.tenant_jobs.set_shares(await context.tenants.read_shares())
    return render_tenant(changed)


@router.post("/{tenant_id}/suspend")
async def suspend_tenant(
    tenant_id: str,
    context: ContextDependency,
    _caller: Operator,
    change: Annotated[Change, audited("tenant.suspended")],
) -> Tenant:
    """Suspend a tenant: after five seconds its keys open nothing. Its data stays."""
    _check_other(tenant_id, "suspended")
    async with change(DEFAULT_TENANT, tenant_id):
        return render_tenant(await context.tenants.suspend(tenant_id, suspended=True))


@router.post("/{tenant_id}/resume")
async def resume_tenant(
    tenant_id: str,
    context: ContextDependency,
    _caller: Operator,
    change: Annotated[Change, audited("tenant.resumed")],
) -> Tenant:
    """Let a suspended tenant's keys open its data again."""
    async with change(DEFAULT_TENANT, tenant_id):
        return render_tenant(await context.tenants.suspend(tenant_id, suspended=False))


@router.delete("/{tenant_id}")
async def delete_tenant(
    tenant_id: str,
    context: ContextDependency,
    _caller: Operator,
    change: Annotated[Change, audited("tenant.deleted")],
) -> Tenant:
    """Delete a tenant with all that it has. Its keys open nothing after five seconds; the rest goes in the background."""
    _check_other(tenant_id, "deleted")
    async with change(DEFAULT_TENANT, tenant_id):
        return render_tenant(await context.tenants.mark_deleted(tenant_id))


def _check_other(tenant_id: str, done: str) -> None:
    if tenant_id == DEFAULT_TENANT:
        raise InvalidRequestError(f"The tenant 'default' is the operator's: it cannot be {done}.", param="tenant_id")


def render_tenant(record: TenantRecord) -> Tenant:
    """Render a tenant."""
    return {
        "id": record.id,
        "object": "tenant",
        "status": "deleting" if record.deleted_at else "suspended" if record.suspended_at else "active",
        "created_at": int(record.created_at.timestamp()),
        "weight": record.weight,
        "max_running": record.max_running,
        "keep_responses_days": record.keep_responses_days,
        "keep_files_days": record.keep_files_days,
        "keep_logs_days": record.keep_logs_days,
    }
