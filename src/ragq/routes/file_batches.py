"""OpenAI's file batches: one request puts many files into a store."""

from __future__ import annotations

import contextlib
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from pydantic import Field, model_validator
from typing_extensions import TypedDict

from ragq.accounts.views import TenantView
from ragq.context import Context
from ragq.errors import TransientError
from ragq.http.audit import Change, audited
from ragq.http.input import CheckedRoute
from ragq.queues.documents import cancel_documents
from ragq.routes.context import ContextDependency, PageDependency, Tenant, UserTenant, listing, pace_polling
from ragq.routes.store_files import (
    ChunkingStrategy,
    FileCounts,
    FileStatus,
    Readers,
    StoreFile,
    StoreFileCreate,
    check_files,
    enqueue_files,
    render_counts,
    render_store_file,
)
from ragq.schemas.filters import AttributeValues
from ragq.schemas.objects import Body, Listing
from ragq.storage.file_batches import FileBatchRecord

router = APIRouter(prefix="/v1/vector_stores/{vector_store_id}/file_batches", route_class=CheckedRoute)

MAX_FILES = 2000


class FileBatch(TypedDict):
    """Files that were put into a store by one request."""

    id: str
    object: Literal["vector_store.files_batch"]
    created_at: int
    vector_store_id: str
    status: Literal["in_progress", "completed", "cancelled", "failed"]
    file_counts: FileCounts


class FileBatchCreate(Body):
    """Files to put into a store, with the same or with their own attributes and chunking."""

    file_ids: list[str] | None = Field(None, min_length=1, max_length=MAX_FILES)
    files: list[StoreFileCreate] | None = Field(None, min_length=1, max_length=MAX_FILES)
    attributes: AttributeValues | None = None
    readers: Readers | None = None
    chunking_strategy: ChunkingStrategy | None = None

    @model_validator(mode="after")
    def _is_one_of_the_two_forms(self) -> FileBatchCreate:
        if (self.file_ids is None) == (self.files is None):
            raise ValueError("send either file_ids or files")
        if self.files is not None and (self.attributes, self.readers, self.chunking_strategy) != (None, None, None):
            raise ValueError("attributes, readers and chunking_strategy go with file_ids; with files, each has its own")
        return self

    def each(self) -> list[StoreFileCreate]:
        """Convert both forms to that of `files`."""
        if self.files is not None:
            return self.files
        return [
            StoreFileCreate(
                file_id=file_id,
                attributes=self.attributes,
                readers=self.readers,
                chunking_strategy=self.chunking_strategy,
            )
            for file_id in self.file_ids or []
        ]


@router.post("")
async def create_file_batch(
    vector_store_id: str,
    body: FileBatchCreate,
    response: Response,
    context: ContextDependency,
    tenant: UserTenant,
    change: Annotated[Change, audited("vector_store.file_batch.created")],
) -> FileBatch:
    """Put files into a store and start to ingest them."""
    store_id = await context.stores.resolve(tenant, vector_store_id, to_use=True, to_change=True)
    files = body.each()
    file_ids = [file.file_id for file in files]
    await check_files(context, tenant, files)
    batches = context.file_batches
    async with change(tenant, vector_store_id=store_id, files=len(files)) as entry:
        batch_id = await batches.create(tenant, store_id, [file.to_attachment() for file in files])
        entry.object_id = batch_id
    await enqueue_files(context, tenant.id, store_id, file_ids)
    pace_polling(response, None)
    return _render(await batches.get(tenant, store_id, batch_id))


@router.get("/{batch_id}")
async def get_file_batch(
    vector_store_id: str, batch_id: str, response: Response, context: ContextDependency, tenant: Tenant
) -> FileBatch:
    """Show a batch with the current counts of its files."""
    batch = await _find(context, tenant, vector_store_id, batch_id)
    pace_polling(response, None)
    return _render(batch)


@router.post("/{batch_id}/cancel")
async def cancel_file_batch(
    vector_store_id: str,
    batch_id: str,
    context: ContextDependency,
    tenant: UserTenant,
    change: Annotated[Change, audited("vector_store.file_batch.cancelled")],
) -> FileBatch:
    """Cancel the unfinished ingests of a batch. A batch that has ended is left unchanged."""
    batch, batches = await _find(context, tenant, vector_store_id, batch_id), context.file_batches
    async with change(tenant, batch_id, vector_store_id=batch.vector_store_id) as entry:
        ingests = await batches.cancel(tenant, batch.vector_store_id, batch_id)
        entry.data["files"] = len(ingests)
    with contextlib.suppress(TransientError):  # a job that runs nevertheless finds that its ingest is cancelled
        await cancel_documents(context.queue, batch.vector_store_id, ingests)
    return _render(await batches.get(tenant, batch.vector_store_id, batch_id))


@router.get("/{batch_id}/files")
async def list_file_batch_files(
    vector_store_id: str,
    batch_id: str,
    page: PageDependency,
    context: ContextDependency,
    tenant: Tenant,
    status: Annotated[FileStatus | None, Query(alias="filter")] = None,
) -> Listing[StoreFile]:
    """List a batch's files by age."""
    batch = await _find(context, tenant, vector_store_id, batch_id)
    records = await context.store_files.list_files(tenant, batch.vector_store_id, page, status, batch_id=batch_id)
    return listing([render_store_file(record) for record in records], page)


async def _find(context: Context, tenant: TenantView, vector_store_id: str, batch_id: str) -> FileBatchRecord:
    store_id = await context.stores.resolve(tenant, vector_store_id)
    return await context.file_batches.get(tenant, store_id, batch_id)


def _render(batch: FileBatchRecord) -> FileBatch:
    return {
        "id": batch.id,
        "object": "vector_store.files_batch",
        "created_at": int(batch.created_at.timestamp()),
        "vector_store_id": batch.vector_store_id,
        "status": _status(batch),
        "file_counts": render_counts(batch),
    }


def _status(batch: FileBatchRecord) -> Literal["in_progress", "completed", "cancelled", "failed"]:
    if batch.cancelled_at:
        return "cancelled"
    if batch.in_progress:
        return "in_progress"
    return "failed" if batch.failed and not batch.completed else "completed"
