"""Tenants, for the operator."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import Field
from typing_extensions import TypedDict

from ragq.errors import InvalidRequestError
from ragq.http.input import CheckedRoute
from ragq.http.openapi import refusals
from ragq.models import DEFAULT_TENANT
from ragq.routes.context import ContextDependency, Operator, PageDependency, listing
from ragq.schemas.objects import Body, Listing
from ragq.storage.tenants import TenantRecord

router = APIRouter(prefix="/v1/admin/tenants", route_class=CheckedRoute)


class Tenant(TypedDict):
    """A tenant. While it is suspended, its keys open nothing, and what it has queued goes on."""

    id: str
    object: Literal["tenant"]
    status: Literal["active", "suspended", "deleting"]
    created_at: int


class TenantCreate(Body):
    """A tenant, by a short name of lower-case letters, digits and hyphens."""

    id: str = Field(max_length=63, pattern=r"^[a-z0-9][a-z0-9-]*$")


@router.post("", responses=refusals(409))
async def create_tenant(body: TenantCreate, context: ContextDependency, _caller: Operator) -> Tenant:
    """Create a tenant."""
    created = await context.tenants.create(body.id)
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


@router.post("/{tenant_id}/suspend")
async def suspend_tenant(tenant_id: str, context: ContextDependency, _caller: Operator) -> Tenant:
    """Suspend a tenant: after five seconds its keys open nothing. Its data stays."""
    _check_other(tenant_id, "suspended")
    return render_tenant(await context.tenants.suspend(tenant_id, suspended=True))


@router.post("/{tenant_id}/resume")
async def resume_tenant(tenant_id: str, context: ContextDependency, _caller: Operator) -> Tenant:
    """Let a suspended tenant's keys open its data again."""
    return render_tenant(await context.tenants.suspend(tenant_id, suspended=False))


@router.delete("/{tenant_id}")
async def delete_tenant(tenant_id: str, context: ContextDependency, _caller: Operator) -> Tenant:
    """Delete a tenant with all that it has. Its keys open nothing after five seconds; the rest goes in the background."""
    _check_other(tenant_id, "deleted")
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
    }
