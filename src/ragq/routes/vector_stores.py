"""OpenAI's vector stores: named sets of files that are searched together."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import Field, model_validator

from ragq.client.store_client import StoreFileRecord, StoreRecord
from ragq.errors import UnavailableError
from ragq.models import JobFunction, JobStatus, Lane, QueueName, new_id
from ragq.queues.documents import document_job_id, enqueue_document
from ragq.rag.parse import check_supported
from ragq.routes.context import Body, Context, ContextDependency, PageDependency, Tenant, listing, pace_polling
from ragq.routes.responses import Metadata, RankingOptions, check_question

router = APIRouter(prefix="/v1/vector_stores")

SEARCH_SECONDS = 30.0

AttributeValues = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)] | bool | float],
    Field(max_length=16),
]
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


class StoreCreate(Body):
    """A new store, with files to start with."""

    name: str | None = Field(None, max_length=256)
    description: str | None = Field(None, max_length=512)
    metadata: Metadata | None = None
    file_ids: list[str] | None = Field(None, max_length=500)
    chunking_strategy: ChunkingStrategy | None = None


class StoreUpdate(Body):
    """What to change of a store."""

    name: str | None = Field(None, max_length=256)
    metadata: Metadata | None = None


class StoreFileCreate(Body):
    """A file to put into a store."""

    file_id: str
    attributes: AttributeValues | None = None
    chunking_strategy: ChunkingStrategy | None = None
    replace_same_name: bool = Field(
        False, description="When this file becomes visible, files of the same name leave the store in the same step."
    )


class AttributesUpdate(Body):
    """New attributes, replacing the old."""

    attributes: AttributeValues


class SearchCreate(Body):
    """What to search for."""

    query: str | Annotated[list[str], Field(min_length=1, max_length=16)]
    max_num_results: int = Field(10, ge=1, le=50)
    ranking_options: RankingOptions | None = None
    rewrite_query: Literal[False] | None = None


@router.post("")
async def create_store(body: StoreCreate, context: ContextDependency, tenant: Tenant) -> dict[str, Any]:
    """Make a store and start to ingest its files."""
    for file_id in body.file_ids or []:
        check_supported((await context.store.get_file(tenant, file_id)).filename)
    store = await context.store.create_store(
        tenant, name=body.name or "", description=body.description, metadata=body.metadata or {}
    )
    for file_id in body.file_ids or []:
        await _attach(
            context, tenant, store.id, StoreFileCreate(file_id=file_id, chunking_strategy=body.chunking_strategy)
        )
    return render_store(await context.store.get_store(tenant, store.id))


@router.get("")
async def list_stores(page: PageDependency, context: ContextDependency, tenant: Tenant) -> dict[str, Any]:
    """List stores by age."""
    return listing([render_store(store) for store in await context.store.list_stores(tenant, page)], page)


@router.get("/{vector_store_id}")
async def get_store(vector_store_id: str, context: ContextDependency, tenant: Tenant) -> dict[str, Any]:
    """Show a store; `default` names the tenant's default store."""
    return render_store(
        await context.store.get_store(tenant, await context.store.resolve_store(tenant, vector_store_id))
    )


@router.post("/{vector_store_id}")
async def update_store(
    vector_store_id: str, body: StoreUpdate, context: ContextDependency, tenant: Tenant
) -> dict[str, Any]:
    """Change a store's name or metadata."""
    return render_store(
        await context.store.update_store(
            tenant, await context.store.resolve_store(tenant, vector_store_id), name=body.name, metadata=body.metadata
        )
    )


@router.delete("/{vector_store_id}")
async def delete_store(vector_store_id: str, context: ContextDependency, tenant: Tenant) -> dict[str, Any]:
    """Delete a store; its files stay."""
    store_id = await context.store.resolve_store(tenant, vector_store_id)
    await context.store.delete_store(tenant, store_id)
    return {"id": store_id, "object": "vector_store.deleted", "deleted": True}


@router.post("/{vector_store_id}/search")
async def search_store(
    vector_store_id: str, body: SearchCreate, context: ContextDependency, tenant: Tenant
) -> dict[str, Any]:
    """Find the passages that fit a query, best first."""
    queries = [body.query] if isinstance(body.query, str) else body.query
    for query in queries:
        check_question(context, query, param="query")
    store_id = await context.store.resolve_store(tenant, vector_store_id)
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
) -> dict[str, Any]:
    """Put a file into a store and start to ingest it."""
    store_id = await context.store.resolve_store(tenant, vector_store_id)
    check_supported((await context.store.get_file(tenant, body.file_id)).filename)
    pace_polling(response, None)
    return render_store_file(await _attach(context, tenant, store_id, body))


@router.get("/{vector_store_id}/files")
async def list_store_files(
    vector_store_id: str,
    page: PageDependency,
    context: ContextDependency,
    tenant: Tenant,
    status: Annotated[FileStatus | None, Query(alias="filter")] = None,
) -> dict[str, Any]:
    """List a store's files by age."""
    store_id = await context.store.resolve_store(tenant, vector_store_id)
    records = await context.store.list_store_files(tenant, store_id, page, status)
    return listing([render_store_file(record) for record in records], page)


@router.get("/{vector_store_id}/files/{file_id}")
async def get_store_file(
    vector_store_id: str, file_id: str, response: Response, context: ContextDependency, tenant: Tenant
) -> dict[str, Any]:
    """Show a file in a store, with its progress while it is ingested."""
    store_id = await context.store.resolve_store(tenant, vector_store_id)
    record = await context.store.get_store_file(tenant, store_id, file_id)
    rendered = render_store_file(record)
    if record.status == "in_progress":
        job = await context.queue.fetch(document_job_id(record), tenant)
        pace_polling(response, job)
        rendered["progress"] = job.meta.get("progress") if job else None
    return rendered


@router.post("/{vector_store_id}/files/{file_id}")
async def update_store_file(
    vector_store_id: str, file_id: str, body: AttributesUpdate, context: ContextDependency, tenant: Tenant
) -> dict[str, Any]:
    """Replace a file's attributes."""
    return render_store_file(
        await context.store.set_attributes(
            tenant, await context.store.resolve_store(tenant, vector_store_id), file_id, body.attributes
        )
    )


@router.get("/{vector_store_id}/files/{file_id}/content")
async def get_store_file_content(
    vector_store_id: str, file_id: str, context: ContextDependency, tenant: Tenant
) -> dict[str, Any]:
    """Show the text that was read from a file; offsets of citations count its characters."""
    store_id = await context.store.resolve_store(tenant, vector_store_id)
    text = await context.store.get_text(tenant, store_id, file_id)
    return {
        "object": "vector_store.file_content.page",
        "data": [] if text is None else [{"type": "text", "text": text}],
        "has_more": False,
        "next_page": None,
    }


@router.delete("/{vector_store_id}/files/{file_id}")
async def delete_store_file(
    vector_store_id: str, file_id: str, context: ContextDependency, tenant: Tenant
) -> dict[str, Any]:
    """Take a file out of a store, with its chunks; the file itself stays."""
    await context.store.detach_file(tenant, await context.store.resolve_store(tenant, vector_store_id), file_id)
    return {"id": file_id, "object": "vector_store.file.deleted", "deleted": True}


async def _attach(context: Context, tenant: str, store_id: str, body: StoreFileCreate) -> StoreFileRecord:
    chunking = body.chunking_strategy.static if isinstance(body.chunking_strategy, StaticStrategy) else None
    record = await context.store.attach_file(
        tenant,
        store_id,
        body.file_id,
        attributes=body.attributes or {},
        max_chunk_tokens=chunking.max_chunk_size_tokens if chunking else None,
        chunk_overlap_tokens=chunking.chunk_overlap_tokens if chunking else None,
        replace_same_name=body.replace_same_name,
    )
    if record.status == "in_progress":
        await enqueue_document(context.queue, context.settings, record)
    return record


def render_store(store: StoreRecord) -> dict[str, Any]:
    """Show a store as OpenAI's vector store object."""
    counts = {name: getattr(store, name) for name in ("in_progress", "completed", "failed", "cancelled")}
    return {
        "id": store.id,
        "object": "vector_store",
        "created_at": int(store.created_at.timestamp()),
        "name": store.name,
        "description": store.description,
        "status": "in_progress" if store.in_progress else "completed",
        "file_counts": {**counts, "total": sum(counts.values())},
        "usage_bytes": store.usage_bytes,
        "last_active_at": int(store.last_active_at.timestamp()),
        "expires_after": None,
        "expires_at": None,
        "metadata": store.metadata,
    }


def render_store_file(record: StoreFileRecord) -> dict[str, Any]:
    """Show a file in a store as OpenAI's vector store file object; its id is the file's."""
    strategy: dict[str, Any] = {"type": "auto"}
    if record.max_chunk_tokens is not None:
        sizes = {
            "max_chunk_size_tokens": record.max_chunk_tokens,
            "chunk_overlap_tokens": record.chunk_overlap_tokens,
        }
        strategy = {"type": "static", "static": sizes}
    error = {"code": record.error_code, "message": record.error_message} if record.error_code else None
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


def _render_result(result: dict[str, Any]) -> dict[str, Any]:
    ours = ("page", "heading", "start", "end", "similarity")
    return {
        "file_id": result["file_id"],
        "filename": result["filename"],
        "score": result["score"],
        "attributes": result["attributes"],
        "content": [{"type": "text", "text": result["text"]}],
        **{name: result[name] for name in ours},
    }
