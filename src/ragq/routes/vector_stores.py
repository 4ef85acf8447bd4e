"""OpenAI's vector stores: named sets of files that are searched together."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import Field, model_validator

from ragq.client.file_batch_client import FileBatchRecord
from ragq.client.store_client import StoreRecord
from ragq.client.store_file_client import Attachment, StoreFileRecord
from ragq.errors import UnavailableError
from ragq.models import JobFunction, JobStatus, Lane, QueueName, new_id
from ragq.queues.documents import document_job_id, enqueue_documents
from ragq.rag.parse import check_supported
from ragq.routes.context import Body, Context, ContextDependency, PageDependency, Tenant, listing, pace_polling
from ragq.routes.filters import AttributeValues, Filter
from ragq.routes.objects import (
    Deleted,
    FileCounts,
    FileText,
    JobError,
    Listing,
    SearchHit,
    SearchHits,
    StoreExpiry,
    StoreFile,
    VectorStore,
)
from ragq.routes.openapi import refusals
from ragq.routes.questions import Metadata, RankingOptions, check_question

router = APIRouter(prefix="/v1/vector_stores")

SEARCH_SECONDS = 30.0

FileStatus = Literal["in_progress", "completed", "failed", "cancelled"]


class StaticChunking(Body):
    """Chunk size and overlap, in tokens of the embedding model."""

    max_chunk_size_tokens: int = Field(ge=100, le=4096)
    chunk_overlap_tokens: int = Field(ge=0)

    @model_validator(mode="after")
    def _overlap_is_at_most_half(self) -> StaticChunking:
        if self.chunk_overlap_tokens * 2 > self.max_chunk_size_tokens:
            message = "chunk_overlap_tokens must be at most half of max_chunk_size_tokens"
            raise ValueError(message)
        return self


class AutoStrategy(Body):
    """Chunks sized to the embedding model."""

    type: Literal["auto"]


class StaticStrategy(Body):
    """Chunks of a given size."""

    type: Literal["static"]
    static: StaticChunking


ChunkingStrategy = Annotated[AutoStrategy | StaticStrategy, Field(discriminator="type")]


class ExpiresAfter(Body):
    """When a store expires: so long after it was last active."""

    anchor: Literal["last_active_at"]
    days: int = Field(ge=1, le=365)


class StoreCreate(Body):
    """A new store, with files to start with."""

    name: str | None = Field(None, max_length=256)
    description: str | None = Field(None, max_length=512)
    metadata: Metadata | None = None
    file_ids: list[str] | None = Field(None, max_length=500)
    chunking_strategy: ChunkingStrategy | None = None
    expires_after: ExpiresAfter | None = None


class StoreUpdate(Body):
    """What to change of a store; null removes it."""

    name: str | None = Field(None, max_length=256)
    metadata: Metadata | None = None
    expires_after: ExpiresAfter | None = None


class StoreFileCreate(Body):
    """A file to put into a store."""

    file_id: str
    attributes: AttributeValues | None = None
    chunking_strategy: ChunkingStrategy | None = None
    replace_same_name: bool = Field(
        False, description="When this file becomes visible, files of the same name leave the store in the same step."
    )

    def to_attachment(self) -> Attachment:
        """Say it in the store's words."""
        static = self.chunking_strategy.static if isinstance(self.chunking_strategy, StaticStrategy) else None
        return Attachment(
            self.file_id,
            self.attributes or {},
            max_chunk_tokens=static.max_chunk_size_tokens if static else None,
            chunk_overlap_tokens=static.chunk_overlap_tokens if static else None,
            replace_same_name=self.replace_same_name,
        )


class AttributesUpdate(Body):
    """New attributes, replacing the old."""

    attributes: AttributeValues


class SearchCreate(Body):
    """What to search for."""

    query: str | Annotated[list[str], Field(min_length=1, max_length=16)]
    max_num_results: int = Field(10, ge=1, le=50)
    ranking_options: RankingOptions | None = None
    rewrite_query: bool | None = Field(None, description="The query is used as it is, whatever this says.")
    filters: Filter | None = None


@router.post("", responses=refusals(404))
async def create_store(body: StoreCreate, context: ContextDependency, tenant: Tenant) -> VectorStore:
    """Make a store and start to ingest its files."""
    file_ids = body.file_ids or []
    await check_files(context, tenant, file_ids)
    store = await context.stores.create(
        tenant,
        name=body.name or "",
        description=body.description,
        metadata=body.metadata or {},
        expires_after_days=body.expires_after.days if body.expires_after else None,
    )
    files = [StoreFileCreate(file_id=file_id, chunking_strategy=body.chunking_strategy) for file_id in file_ids]
    await context.store_files.attach_many(tenant, store.id, [file.to_attachment() for file in files])
    await enqueue_files(context, tenant, store.id, file_ids)
    return render_store(await context.stores.get(tenant, store.id))


@router.get("")
async def list_stores(page: PageDependency, context: ContextDependency, tenant: Tenant) -> Listing[VectorStore]:
    """List stores by age."""
    return listing([render_store(store) for store in await context.stores.list_stores(tenant, page)], page)


@router.get("/{vector_store_id}")
async def get_store(vector_store_id: str, context: ContextDependency, tenant: Tenant) -> VectorStore:
    """Show a store; `default` names the tenant's default store."""
    return render_store(await context.stores.get(tenant, await context.stores.resolve(tenant, vector_store_id)))


@router.post("/{vector_store_id}")
async def update_store(
    vector_store_id: str, body: StoreUpdate, context: ContextDependency, tenant: Tenant
) -> VectorStore:
    """Change a store's name, metadata or expiry; what is not named stays."""
    store_id = await context.stores.resolve(tenant, vector_store_id)
    named = body.model_fields_set
    if "expires_after" in named:
        await context.stores.set_expiry(tenant, store_id, body.expires_after.days if body.expires_after else None)
    name = (body.name or "") if "name" in named else None
    metadata = (body.metadata or {}) if "metadata" in named else None
    return render_store(await context.stores.update(tenant, store_id, name=name, metadata=metadata))


@router.delete("/{vector_store_id}")
async def delete_store(vector_store_id: str, context: ContextDependency, tenant: Tenant) -> Deleted:
    """Delete a store; its files stay."""
    store_id = await context.stores.resolve(tenant, vector_store_id)
    await context.stores.delete(tenant, store_id)
    return {"id": store_id, "object": "vector_store.deleted", "deleted": True}


@router.post("/{vector_store_id}/search", responses=refusals(429))
async def search_store(
    vector_store_id: str, body: SearchCreate, context: ContextDependency, tenant: Tenant
) -> SearchHits:
    """Find the passages that fit a query, best first."""
    queries = [body.query] if isinstance(body.query, str) else body.query
    for query in queries:
        check_question(context, query, param="query")
    store_id = await context.stores.resolve(tenant, vector_store_id, to_use=True)
    results = await _search(context, tenant, store_id, queries, body)
    return {
        "object": "vector_store.search_results.page",
        "search_query": queries,
        "data": [_render_result(result) for result in results],
        "has_more": False,
        "next_page": None,
    }


async def _search(
    context: Context, tenant: str, store_id: str, queries: list[str], body: SearchCreate
) -> list[dict[str, Any]]:
    """Have a worker search, ahead of the questions: the API holds no embedding model."""
    job_id = new_id("search_")
    await context.queue.enqueue(
        JobFunction.PROCESS_SEARCH,
        {
            "queries": queries,
            "vector_store_ids": [store_id],
            "max_results": body.max_num_results,
            "score_threshold": body.ranking_options.score_threshold if body.ranking_options else 0.0,
            **({"filters": body.filters.model_dump(mode="json")} if body.filters else {}),
        },
        job_id=job_id,
        queue=QueueName.QUERIES,
        lane=Lane.PRIORITY,
        tenant_id=tenant,
        deadline_seconds=SEARCH_SECONDS,
    )
    job = await context.queue.wait(job_id, tenant, timeout_seconds=SEARCH_SECONDS)
    if job is None or job.status is not JobStatus.FINISHED or job.result is None:
        await context.queue.cancel(job_id)
        reason = job.error["message"] if job and job.error else "no query worker took it: is one running?"
        raise UnavailableError(
            f"The search was not done in time: {reason}", code="search_failed", retry_after_seconds=2
        )
    found: list[dict[str, Any]] = job.result["results"]
    return found


@router.post("/{vector_store_id}/files")
async def create_store_file(
    vector_store_id: str, body: StoreFileCreate, response: Response, context: ContextDependency, tenant: Tenant
) -> StoreFile:
    """Put a file into a store and start to ingest it."""
    store_id = await context.stores.resolve(tenant, vector_store_id, to_use=True)
    await check_files(context, tenant, [body.file_id])
    await context.store_files.attach_many(tenant, store_id, [body.to_attachment()])
    await enqueue_files(context, tenant, store_id, [body.file_id])
    pace_polling(response, None)
    return render_store_file(await context.store_files.get(tenant, store_id, body.file_id))


@router.get("/{vector_store_id}/files")
async def list_store_files(
    vector_store_id: str,
    page: PageDependency,
    context: ContextDependency,
    tenant: Tenant,
    status: Annotated[FileStatus | None, Query(alias="filter")] = None,
) -> Listing[StoreFile]:
    """List a store's files by age."""
    store_id = await context.stores.resolve(tenant, vector_store_id)
    records = await context.store_files.list_files(tenant, store_id, page, status)
    return listing([render_store_file(record) for record in records], page)


@router.get("/{vector_store_id}/files/{file_id}")
async def get_store_file(
    vector_store_id: str, file_id: str, response: Response, context: ContextDependency, tenant: Tenant
) -> StoreFile:
    """Show a file in a store, with its progress while it is ingested."""
    store_id = await context.stores.resolve(tenant, vector_store_id)
    record = await context.store_files.get(tenant, store_id, file_id)
    rendered = render_store_file(record)
    if record.status == "in_progress":
        job = await context.queue.fetch(document_job_id(record), tenant)
        pace_polling(response, job)
        rendered["progress"] = job.meta.get("progress") if job else None
    return rendered


@router.post("/{vector_store_id}/files/{file_id}")
async def update_store_file(
    vector_store_id: str, file_id: str, body: AttributesUpdate, context: ContextDependency, tenant: Tenant
) -> StoreFile:
    """Replace a file's attributes."""
    return render_store_file(
        await context.store_files.set_attributes(
            tenant, await context.stores.resolve(tenant, vector_store_id), file_id, body.attributes
        )
    )


@router.get("/{vector_store_id}/files/{file_id}/content")
async def get_store_file_content(
    vector_store_id: str, file_id: str, context: ContextDependency, tenant: Tenant
) -> FileText:
    """Show the text that was read from a file; offsets of citations count its characters."""
    store_id = await context.stores.resolve(tenant, vector_store_id)
    text = await context.store_files.get_text(tenant, store_id, file_id)
    return {
        "object": "vector_store.file_content.page",
        "data": [] if text is None else [{"type": "text", "text": text}],
        "has_more": False,
        "next_page": None,
    }


@router.delete("/{vector_store_id}/files/{file_id}")
async def delete_store_file(vector_store_id: str, file_id: str, context: ContextDependency, tenant: Tenant) -> Deleted:
    """Take a file out of a store, with its chunks; the file itself stays."""
    await context.store_files.detach(tenant, await context.stores.resolve(tenant, vector_store_id), file_id)
    return {"id": file_id, "object": "vector_store.file.deleted", "deleted": True}


async def check_files(context: Context, tenant: str, file_ids: list[str]) -> None:
    """See that files exist and are documents, before any is put into a store.

    Raises:
        NotFoundError: One does not exist.
        DocumentError: One is of a kind that cannot be read.
    """
    for file in await context.files.get_many(tenant, file_ids):
        check_supported(file.filename)


async def enqueue_files(context: Context, tenant: str, store_id: str, file_ids: list[str]) -> None:
    """Queue the ingests that files which were put into a store are waiting for."""
    records = await context.store_files.find_in_progress(tenant, store_id, file_ids)
    await enqueue_documents(context.queue, context.settings, records)


def render_counts(record: StoreRecord | FileBatchRecord) -> FileCounts:
    """Show how many files have each status."""
    return {
        "in_progress": record.in_progress,
        "completed": record.completed,
        "failed": record.failed,
        "cancelled": record.cancelled,
        "total": record.in_progress + record.completed + record.failed + record.cancelled,
    }


def render_store(store: StoreRecord) -> VectorStore:
    """Show a store as OpenAI's vector store object."""
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
        "last_active_at": int(store.last_active_at.timestamp()),
        "expires_after": expires_after,
        "expires_at": int(store.expires_at.timestamp()) if store.expires_at else None,
        "metadata": store.metadata,
    }


def render_store_file(record: StoreFileRecord) -> StoreFile:
    """Show a file in a store as OpenAI's vector store file object; its id is the file's."""
    strategy: dict[str, Any] = {"type": "auto"}
    if record.max_chunk_tokens is not None:
        sizes = {
            "max_chunk_size_tokens": record.max_chunk_tokens,
            "chunk_overlap_tokens": record.chunk_overlap_tokens,
        }
        strategy = {"type": "static", "static": sizes}
    error: JobError | None = None
    if record.error_code:
        error = {"code": record.error_code, "message": record.error_message or ""}
    return {
        "id": record.file_id,
        "object": "vector_store.file",
        "created_at": int(record.created_at.timestamp()),
        "vector_store_id": record.vector_store_id,
        "status": record.status,
        "last_error": error,
        "usage_bytes": record.usage_bytes,
        "attributes": record.attributes,
        "chunking_strategy": strategy,
        "filename": record.filename,
        "chunk_count": record.chunk_count,
    }


def _render_result(result: dict[str, Any]) -> SearchHit:
    return {
        "file_id": result["file_id"],
        "filename": result["filename"],
        "score": result["score"],
        "attributes": result["attributes"],
        "content": [{"type": "text", "text": result["text"]}],
        "page": result["page"],
        "heading": result["heading"],
        "start": result["start"],
        "end": result["end"],
        "similarity": result["similarity"],
    }
