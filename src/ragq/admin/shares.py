"""Stores that a tenant shares with others."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter
from typing_extensions import TypedDict

from ragq.admin.tenants import TenantId
from ragq.errors import InvalidRequestError
from ragq.http.audit import Change, audited
from ragq.http.input import CheckedRoute
from ragq.http.openapi import refusals
from ragq.routes.context import AdminTenant, ContextDependency, listing
from ragq.schemas.objects import Body, Deleted, Listing
from ragq.storage.paging import Page
from ragq.storage.tenancy.shares import ShareRecord

router = APIRouter(prefix="/v1/admin/vector_stores/{vector_store_id}/shares", route_class=CheckedRoute)


class StoreShare(TypedDict):
    """A store that another tenant may read; the id is the other tenant's."""

    id: str
    object: Literal["vector_store.share"]
    vector_store_id: str
    created_at: int


class ShareCreate(Body):
    """With whom a store is shared."""

    tenant: TenantId


@router.post("", responses=refusals(404))
async def share_store(
    vector_store_id: str,
    body: ShareCreate,
    context: ContextDependency,
    tenant: AdminTenant,
    change: Annotated[Change, audited("vector_store.shared")],
) -> StoreShare:
    """Let another tenant read a store. It sees it within five seconds. Whether there is such a tenant is not told."""
    if body.tenant == tenant:
        raise InvalidRequestError("The store is this tenant's own: name another one.", param="tenant")
    store_id = await context.stores.resolve(tenant, vector_store_id)
    async with change(tenant, store_id, **{"with": body.tenant}):
        return _render(await context.store_shares.create(tenant, store_id, body.tenant))


@router.get("")
async def list_shares(vector_store_id: str, context: ContextDependency, tenant: AdminTenant) -> Listing[StoreShare]:
    """List the tenants that a store is shared with."""
    store_id = await context.stores.resolve(tenant, vector_store_id)
    shares = [_render(record) for record in await context.store_shares.list_shares(tenant, store_id)]
    return listing(shares, Page(limit=len(shares)))


@router.delete("/{tenant_id}")
async def unshare_store(
    vector_store_id: str,
    tenant_id: str,
    context: ContextDependency,
    tenant: AdminTenant,
    change: Annotated[Change, audited("vector_store.unshared")],
) -> Deleted:
    """Share a store no longer, from now on."""
    store_id = await context.stores.resolve(tenant, vector_store_id)
    async with change(tenant, store_id, **{"with": tenant_id}):
        await context.store_shares.delete(tenant, store_id, tenant_id)
    return {"id": tenant_id, "object": "vector_store.share", "deleted": True}


def _render(record: ShareRecord) -> StoreShare:
    return {
        "id": record.with_tenant_id,
        "object": "vector_store.share",
        "vector_store_id": record.vector_store_id,
        "created_at": int(record.created_at.timestamp()),
    }
