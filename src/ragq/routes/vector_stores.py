"""OpenAI's vector stores: named sets of files that are searched together."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import Field
from typing_extensions import TypedDict

from ragq.errors import ForbiddenError
from ragq.http.audit import Change, audited
from ragq.http.input import CheckedRoute
from ragq.http.openapi import refusals
from ragq.routes.context import ContextDependency, PageDependency, Tenant, UserTenant, listing
from ragq.routes.store_files import (
    ChunkingStrategy,
    FileCounts,
    StoreFileCreate,
    check_files,
    enqueue_files,
    render_counts,
)
from ragq.schemas.objects import Body, Deleted, Listing
from ragq.schemas.questions import Metadata
from ragq.storage.vector_stores import StoreRecord

router = APIRouter(prefix="/v1/vector_stores", route_class=CheckedRoute)


class StoreExpiry(TypedDict):
    """When a store expires, counted from its last activity."""

    anchor: Literal["last_active_at"]
    days: int


class VectorStore(TypedDict):
    """A set of files that are searched together. If it is `shared`, it is another tenant's, and may be read only."""

    id: str
    object: Literal["vector_store"]
    created_at: int
    name: str
    description: str | None
    status: Literal["expired", "in_progress", "completed"]
    file_counts: FileCounts
    usage_bytes: int
    shared: bool
    last_active_at: int
    expires_after: StoreExpiry | None
    expires_at: int | None
    metadata: dict[str, str]


class ExpiresAfter(Body):
    """When a store expires, counted from its last activity."""

    anchor: Literal["last_active_at"]
    days: int = Field(ge=1, le=365)


class StoreCreate(Body):
    """A new store and its first files."""

    name: str | None = Field(None, max_length=256)
    description: str | None = Field(None, max_length=512)
    metadata: Metadata | None = None
    file_ids: list[str] | None = Field(None, max_length=500)
    chunking_strategy: ChunkingStrategy | None = None
    expires_after: ExpiresAfter | None = None


class StoreUpdate(Body):
    """Changes to a store; null removes a value."""

    name: str | None = Field(None, max_length=256)
    metadata: Metadata | None = None
    expires_after: ExpiresAfter | None = None


@router.post("", responses=refusals(404))
async def create_store(
    body: StoreCreate,
    context: ContextDependency,
    tenant: UserTenant,
    change: Annotated[Change, audited("vector_store.created")],
) -> VectorStore:
    """Create a store and start to ingest its files."""
    if tenant.stores is not None:
        raise ForbiddenError("This key is limited to stores that there are. Use another one.", code="limited_key")
    file_ids = body.file_ids or []
    files = [StoreFileCreate(file_id=file_id, chunking_strategy=body.chunking_strategy) for file_id in file_ids]
    await check_files(context, tenant, files)
    async with change(tenant, files=len(files)) as entry:
        store = await context.stores.create(
            tenant.id,
            name=body.name or "",
            description=body.description,
            metadata=body.metadata or {},
            expires_after_days=body.expires_after.days if body.expires_after else None,
        )
        await context.ingests.attach_many(tenant, store.id, [file.to_attachment() for file in files])
        entry.object_id = store.id
    await enqueue_files(context, tenant.id, store.id, file_ids)
    return render_store(await context.stores.get(tenant, store.id))


@router.get("")
async def list_stores(page: PageDependency, context: ContextDependency, tenant: Tenant) -> Listing[VectorStore]:
    """List stores by age."""
    return listing([render_store(store) for store in await context.stores.list_stores(tenant, page)], page)


@router.get("/{vector_store_id}")
async def get_store(vector_store_id: str, context: ContextDependency, tenant: Tenant) -> VectorStore:
    """Show a store. `default` is the tenant's default store."""
    return render_store(await context.stores.get(tenant, await context.stores.resolve(tenant, vector_store_id)))


@router.post("/{vector_store_id}")
async def update_store(
    vector_store_id: str,
    body: StoreUpdate,
    context: ContextDependency,
    tenant: UserTenant,
    change: Annotated[Change, audited("vector_store.updated")],
) -> VectorStore:
    """Change a store's name, metadata or expiry. Omitted fields are left unchanged."""
    store_id = await context.stores.resolve(tenant, vector_store_id, to_change=True)
    named = body.model_fields_set
    name = (body.name or "") if "name" in named else None
    metadata = (body.metadata or {}) if "metadata" in named else None
    async with change(tenant, store_id, fields=sorted(named)):
        if "expires_after" in named:
            await context.stores.set_expiry(tenant, store_id, body.expires_after.days if body.expires_after else None)
        return render_store(await context.stores.update(tenant, store_id, name=name, metadata=metadata))


@router.delete("/{vector_store_id}")
async def delete_store(
    vector_store_id: str,
    context: ContextDependency,
    tenant: UserTenant,
    change: Annotated[Change, audited("vector_store.deleted")],
) -> Deleted:
    """Delete a store. Its files are kept."""
    store_id = await context.stores.resolve(tenant, vector_store_id, to_change=True)
    async with change(tenant, store_id):
        await context.stores.delete(tenant, store_id)
    return {"id": store_id, "object": "vector_store.deleted", "deleted": True}


def render_store(store: StoreRecord) -> VectorStore:
    """Render a store as OpenAI's vector store object."""
    days = store.expires_after_days
    expires_after: StoreExpiry | None = None if days is None else {"anchor": "last_active_at", "days": days}
    return {
        "id": store.id,
        "object": "vector_store",
        "created_at": int(store.created_at.timestamp()),
        "name": store.name,
        "description": store.description,
        "status": "expired" if store.expired else "in_progress" if store.in_progress else "completed",
        "file_counts": render_counts(store),
        "usage_bytes": store.usage_bytes,
        "shared": store.shared,
        "last_active_at": int(store.last_active_at.timestamp()),
        "expires_after": expires_after,
        "expires_at": int(store.expires_at.timestamp()) if store.expires_at else None,
        "metadata": store.metadata,
    }
