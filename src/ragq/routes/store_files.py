"""OpenAI's vector store files: the files of a store and the state of their ingests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NotRequired

from fastapi import APIRouter, Query, Response
from pydantic import Field, model_validator
from typing_extensions import TypedDict

from ragq.accounts.views import TenantView
from ragq.context import Context
from ragq.errors import DOCUMENT_CODES, InvalidRequestError
from ragq.http.audit import Change, audited
from ragq.http.input import CheckedRoute
from ragq.parsing.parser import check_supported
from ragq.queues.documents import document_job_id, enqueue_documents
from ragq.routes.context import ContextDependency, PageDependency, Tenant, UserTenant, listing, pace_polling
from ragq.schemas.filters import AttributeValues
from ragq.schemas.objects import MAX_GROUPS, Body, Deleted, Group, Listing
from ragq.storage.file_batches import FileBatchRecord
from ragq.storage.ingests import Attachment
from ragq.storage.store_files import StoreFileRecord
from ragq.storage.vector_stores import StoreRecord

router = APIRouter(prefix="/v1/vector_stores/{vector_store_id}/files", route_class=CheckedRoute)

FileStatus = Literal["in_progress", "completed", "failed", "cancelled"]


class FileCounts(TypedDict):
    """The number of files by status."""

    in_progress: int
    completed: int
    failed: int
    cancelled: int
    total: int


class IngestProgress(TypedDict):
    """The progress of a file in its stage: `done` of `total`."""

    stage: Literal["parse", "embed", "store"]
    done: int
    total: int


class IngestError(TypedDict):
    """Why a file cannot be searched: `code` is one of OpenAI's, `reason` says more."""

    code: Literal["server_error", "unsupported_file", "invalid_file"]
    message: str
    reason: str


class StoreFile(TypedDict):
    """A file in a store; its id is the file's. `progress` is set while the file is ingested.

    `title` and `encoding` are the file's own, if it has any; `warnings` say what of it could not be read. `readers` are the groups
    that may read it; null for all of the tenant.
    """

    id: str
    object: Literal["vector_store.file"]
    created_at: int
    vector_store_id: str
    status: str
    last_error: IngestError | None
    usage_bytes: int
    attributes: dict[str, Any]
    readers: list[str] | None
    chunking_strategy: dict[str, Any]
    filename: str
    chunk_count: int
    title: str
    encoding: str
    warnings: list[str]
    progress: NotRequired[IngestProgress | None]


class DocumentText(TypedDict):
    """The text of a document."""

    type: Literal["text"]
    text: str


class FileText(TypedDict):
    """The text of a file, as parsed."""

    object: Literal["vector_store.file_content.page"]
    data: list[DocumentText]
    has_more: Literal[False]
    next_page: None


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


Readers = Annotated[
    list[Group], Field(min_length=1, max_length=MAX_GROUPS, description="Groups that may read it; null for all.")
]
ChunkingStrategy = Annotated[AutoStrategy | StaticStrategy, Field(discriminator="type")]


class StoreFileCreate(Body):
    """A file to put into a store. If it is there already, omitted fields are left unchanged."""

    file_id: str
    attributes: AttributeValues | None = None
    readers: Readers | None = None
    chunking_strategy: ChunkingStrategy | None = None
    replace_same_name: bool = Field(
        False, description="When this file becomes visible, files of the same name leave the store in the same step."
    )

    def to_attachment(self) -> Attachment:
        """Convert to the record that the store takes."""
        static = self.chunking_strategy.static if isinstance(self.chunking_strategy, StaticStrategy) else None
        return Attachment(
            self.file_id,
            self.attributes,
            max_chunk_tokens=static.max_chunk_size_tokens if static else None,
            chunk_overlap_tokens=static.chunk_overlap_tokens if static else None,
            replace_same_name=self.replace_same_name,
            keeps_chunking=self.chunking_strategy is None,
            readers=self.readers,
        )


class StoreFileUpdate(Body):
    """New attributes or readers, replacing the old. Omitted fields are left unchanged; `readers: null` lets all read it."""

    attributes: AttributeValues | None = None
    readers: Readers | None = None

    @model_validator(mode="after")
    def _changes_something(self) -> StoreFileUpdate:
        if self.attributes is None and "readers" not in self.model_fields_set:
            raise ValueError("send attributes, readers or both")
        return self


@router.post("")
async def create_store_file(
    vector_store_id: str,
    body: StoreFileCreate,
    response: Response,
    context: ContextDependency,
    tenant: UserTenant,
    change: Annotated[Change, audited("vector_store.file.added")],
) -> StoreFile:
    """Put a file into a store and start to ingest it. If it is there already, only changed fields are applied."""
    store_id = await context.stores.resolve(tenant, vector_store_id, to_use=True, to_change=True)
    await check_files(context, tenant, [body])
    async with change(tenant, body.file_id, vector_store_id=store_id):
        await context.ingests.attach_many(tenant, store_id, [body.to_attachment()])
    await enqueue_files(context, tenant.id, store_id, [body.file_id])
    pace_polling(response, None)
    return render_store_file(await context.store_files.get(tenant, store_id, body.file_id))


@router.get("")
async def list_store_files(
    vector_store_id: str,
    page: PageDependency,
    context: ContextDependency,
    tenant: Tenant,
    status: Annotated[FileStatus | None, Query(alias="filter")] = None,
    filename: Annotated[str | None, Query(max_length=255)] = None,
) -> Listing[StoreFile]:
    """List a store's files by age."""
    store_id = await context.stores.resolve(tenant, vector_store_id)
    records = await context.store_files.list_files(tenant, store_id, page, status, filename=filename)
    return listing([render_store_file(record) for record in records], page)


@router.get("/{file_id}")
async def get_store_file(
    vector_store_id: str, file_id: str, response: Response, context: ContextDependency, tenant: Tenant
) -> StoreFile:
    """Show a file in a store, with its progress while it is ingested."""
    store_id = await context.stores.resolve(tenant, vector_store_id)
    record = await context.store_files.get(tenant, store_id, file_id)
    rendered = render_store_file(record)
    if record.status == "in_progress":
        job = await context.queue.fetch(document_job_id(record), tenant.id)
        pace_polling(response, job)
        progress = job.meta.progress if job else None
        shown: IngestProgress | None = None
        if progress:
            shown = {"stage": progress.stage, "done": progress.done, "total": progress.total}
        rendered["progress"] = shown
    return rendered


@router.post("/{file_id}")
async def update_store_file(
    vector_store_id: str,
    file_id: str,
    body: StoreFileUpdate,
    context: ContextDependency,
    tenant: UserTenant,
    change: Annotated[Change, audited("vector_store.file.updated")],
) -> StoreFile:
    """Replace the attributes of a file in a store, or the groups that may read it."""
    store_id = await context.stores.resolve(tenant, vector_store_id, to_change=True)
    await context.store_files.get(tenant, store_id, file_id)
    given = {"readers": body.readers} if "readers" in body.model_fields_set else {}
    if given:
        check_readers(tenant, body.readers)
    async with change(tenant, file_id, vector_store_id=store_id, **given):
        if given:
            await context.store_files.set_readers(tenant, store_id, file_id, body.readers)
        if body.attributes is not None:
            await context.store_files.set_attributes(tenant, store_id, file_id, body.attributes)
    return render_store_file(await context.store_files.get(tenant, store_id, file_id))


@router.get("/{file_id}/content")
async def get_store_file_content(
    vector_store_id: str, file_id: str, context: ContextDependency, tenant: Tenant
) -> FileText:
    """Show the parsed text of a file. Offsets of citations count its characters."""
    store_id = await context.stores.resolve(tenant, vector_store_id)
    text = await context.store_files.get_text(tenant, store_id, file_id)
    return {
        "object": "vector_store.file_content.page",
        "data": [] if text is None else [{"type": "text", "text": text}],
        "has_more": False,
        "next_page": None,
    }


@router.delete("/{file_id}")
async def delete_store_file(
    vector_store_id: str,
    file_id: str,
    context: ContextDependency,
    tenant: UserTenant,
    change: Annotated[Change, audited("vector_store.file.removed")],
) -> Deleted:
    """Remove a file and its chunks from a store. The file itself is kept."""
    store_id = await context.stores.resolve(tenant, vector_store_id, to_change=True)
    async with change(tenant, file_id, vector_store_id=store_id):
        await context.store_files.detach(tenant, store_id, file_id)
    return {"id": file_id, "object": "vector_store.file.deleted", "deleted": True}


async def check_files(context: Context, tenant: TenantView, files: Sequence[StoreFileCreate]) -> None:
    """Check that files exist and are documents, and who is to read them, before they are put into a store.

    Raises:
        NotFoundError: A file does not exist.
        DocumentError: A file's kind is not supported.
        InvalidRequestError: The caller would not be among its readers.
    """
    for readers in {tuple(file.readers) for file in files if file.readers}:
        check_readers(tenant, readers)
    for file in await context.files.get_many(tenant, [file.file_id for file in files]):
        check_supported(file.filename)


def check_readers(tenant: TenantView, readers: Sequence[str] | None) -> None:
    """Check that a caller does not hide a document from itself.

    Raises:
        InvalidRequestError: None of the groups is its own.
    """
    if readers is not None and tenant.groups is not None and not set(readers) & set(tenant.groups):
        raise InvalidRequestError(
            "Name at least one group of your own key among the readers, or use an admin's key.",
            param="readers",
            code="not_among_readers",
        )


async def enqueue_files(context: Context, tenant: str, store_id: str, file_ids: list[str]) -> None:
    """Queue the ingests of those of the files that are in progress."""
    records = await context.store_files.find_in_progress(tenant, store_id, file_ids)
    await enqueue_documents(context.queue, context.settings, records)


def render_counts(record: StoreRecord | FileBatchRecord) -> FileCounts:
    """Render the number of files by status."""
    return {
        "in_progress": record.in_progress,
        "completed": record.completed,
        "failed": record.failed,
        "cancelled": record.cancelled,
        "total": record.in_progress + record.completed + record.failed + record.cancelled,
    }


def render_store_file(record: StoreFileRecord) -> StoreFile:
    """Render a file in a store as OpenAI's vector store file object; its id is the file's."""
    strategy: dict[str, Any] = {"type": "auto"}
    if record.max_chunk_tokens is not None:
        sizes = {
            "max_chunk_size_tokens": record.max_chunk_tokens,
            "chunk_overlap_tokens": record.chunk_overlap_tokens,
        }
        strategy = {"type": "static", "static": sizes}
    error: IngestError | None = None
    if record.error_code:
        error = {
            "code": _openai_code(record.error_code),
            "message": record.error_message or "",
            "reason": record.error_code,
        }
    return {
        "id": record.file_id,
        "object": "vector_store.file",
        "created_at": int(record.created_at.timestamp()),
        "vector_store_id": record.vector_store_id,
        "status": record.status,
        "last_error": error,
        "usage_bytes": record.usage_bytes,
        "attributes": record.attributes,
        "readers": record.readers,
        "chunking_strategy": strategy,
        "filename": record.filename,
        "chunk_count": record.chunk_count,
        "title": record.title,
        "encoding": record.encoding,
        "warnings": record.warnings,
    }


def _openai_code(reason: str) -> Literal["server_error", "unsupported_file", "invalid_file"]:
    if reason == "unsupported_file":
        return "unsupported_file"
    return "invalid_file" if reason in DOCUMENT_CODES else "server_error"
