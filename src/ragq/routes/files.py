"""OpenAI's Files: a tenant's uploads."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any, BinaryIO, Literal
from unicodedata import category
from urllib.parse import quote

from fastapi import APIRouter, Depends, File, Form, Query, Request, UploadFile
from fastapi.responses import Response, StreamingResponse
from typing_extensions import TypedDict

from ragq.accounts.views import TenantView
from ragq.context import Context
from ragq.errors import DocumentError, ForbiddenError, InvalidRequestError, NotFoundError, QuotaError, TooLargeError
from ragq.http.audit import Change, audited
from ragq.http.input import CheckedRoute
from ragq.http.openapi import refusals
from ragq.parsing.parser import check_supported
from ragq.queues.upkeep.file_purge import purge_file
from ragq.routes.context import ApiContext, ContextDependency, Cursor, Order, Tenant, UserTenant, listing
from ragq.schemas.objects import Deleted, Listing
from ragq.storage.files import FileRecord
from ragq.storage.paging import Page

router = APIRouter(prefix="/v1/files", route_class=CheckedRoute)

AROUND_CHARACTERS = 2000  # shown on each side of a passage
MAX_PASSAGE_CHARACTERS = 100_000
DRAWING_SECONDS = 5
LAST_OFFSET = 2**31 - MAX_PASSAGE_CHARACTERS - AROUND_CHARACTERS - 2
Offset = Annotated[int, Query(ge=0, le=LAST_OFFSET)]
Purpose = Literal["assistants", "batch", "user_data"]
AnyPurpose = Literal[Purpose, "batch_output"]
MAX_FILENAME_CHARACTERS = 255
SEPARATORS = "/\\:"  # of paths, on any system
BYTES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}

PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}}}

# Limits for the form fields beside the file, 64 KB in total.
FORM_LIMITS: Any = {"max_files": 1, "max_fields": 8, "max_part_size": 8 << 10}


class FileObject(TypedDict):
    """An uploaded file."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["processed"]
    status_details: None


class FilePassage(TypedDict):
    """A passage of a document, with what stands around it; ragq's own."""

    object: Literal["file.passage"]
    file_id: str
    filename: str
    start: int
    end: int
    page: int | None
    location: str
    before: str
    quote: str
    after: str


async def _check_form(request: Request) -> None:
    form = await request.form()  # already parsed, within FORM_LIMITS
    if len(form.getlist("file")) > 1:
        raise InvalidRequestError("Send one file: a form has one part named 'file'.", code="invalid_form", param="file")


@router.post("", dependencies=[Depends(_check_form)], form_limits=FORM_LIMITS, responses=refusals(429))
async def create_file(
    file: Annotated[UploadFile, File()],
    purpose: Annotated[Purpose, Form()],
    context: ContextDependency,
    tenant: UserTenant,
    change: Annotated[Change, audited("file.created")],
    anchor: Annotated[Literal["created_at"] | None, Form(alias="expires_after[anchor]")] = None,
    seconds: Annotated[int | None, Form(alias="expires_after[seconds]", ge=3600, le=2_592_000)] = None,
) -> FileObject:
    """Upload a file. The same bytes under the same name and purpose are the same file."""
    if (anchor is None) != (seconds is None):
        raise InvalidRequestError("An expiry has an anchor and seconds: send both, or none.", param="expires_after")
    record = await save_file(
        context,
        tenant,
        file.file,
        change,
        filename=file.filename or "",
        purpose=purpose,
        size=file.size or 0,
        expires_after_seconds=seconds,
    )
    return render_file(record)


async def save_file(
    context: Context,
    tenant: TenantView,
    content: BinaryIO,
    change: Change,
    *,
    filename: str,
    purpose: str,
    size: int,
    expires_after_seconds: int | None = None,
) -> FileRecord:
    """Check and store a file. The same bytes under the same name and purpose are the same file.

    Raises:
        PermanentError: As `check_file`.
        QuotaError: The tenant may not store so much.
    """
    check_file(context, filename=filename, purpose=purpose, size=size)
    sha256 = await asyncio.to_thread(_hash, content)
    async with context.files.locked_bytes(sha256):
        await context.blobs.put(sha256, content)
        try:
            async with change(tenant, purpose=purpose, bytes=size) as entry:
                record = await context.files.create(
                    tenant,
                    filename=filename,
                    purpose=purpose,
                    size=size,
                    sha256=sha256,
                    expires_after_seconds=expires_after_seconds,
                )
                entry.object_id = record.id
                return record
        except (NotFoundError, QuotaError):
            if not await context.files.list_files_of(sha256):
                await context.blobs.delete(sha256)
            raise


def check_file(context: Context, *, filename: str, purpose: str, size: int) -> None:
    """Check what is known of a file before its bytes are read.

    Raises:
        InvalidRequestError: Its name is not allowed, or it is empty.
        TooLargeError: It is over the limit.
        DocumentError: Its kind is not supported.
    """
    _check_filename(filename)
    if purpose != "batch":
        check_supported(filename)
    _check_size(context, size)


def _check_filename(filename: str) -> None:
    if not filename or len(filename) > MAX_FILENAME_CHARACTERS or re.search(r"[\x00-\x1f\x7f]", filename):
        raise InvalidRequestError(
            f"The file needs a name of at most {MAX_FILENAME_CHARACTERS} characters without control characters.",
            param="file",
        )


def _check_size(context: Context, size: int) -> None:
    limit = context.settings.max_file_bytes
    if size == 0:
        raise InvalidRequestError("The file is empty: upload one with content.", code="empty_file", param="file")
    if size > limit:
        raise TooLargeError(f"The file has {size} bytes; the limit is {limit}.", param="file")


def _hash(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while piece := file.read(1 << 20):
        digest.update(piece)
    file.seek(0)
    return digest.hexdigest()


async def _page(
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Order = "desc",
    after: Cursor = None,
    before: Cursor = None,
) -> Page:
    return Page(limit, descending=order == "desc", after=after, before=before)


@router.get("")
async def list_files(
    page: Annotated[Page, Depends(_page)], context: ContextDependency, tenant: Tenant, purpose: AnyPurpose | None = None
) -> Listing[FileObject]:
    """List files by age."""
    records = await context.files.list_files(tenant, page, purpose)
    return listing([render_file(record) for record in records], page)


@router.get("/{file_id}")
async def get_file(file_id: str, context: ContextDependency, tenant: Tenant) -> FileObject:
    """Show a file."""
    return render_file(await context.files.get(tenant, file_id))


@router.get("/{file_id}/passage")
async def get_passage(
    file_id: str, context: ContextDependency, tenant: Tenant, start: Offset = 0, end: Offset = 0
) -> FilePassage:
    """Show `text[start:end]` of a document, as a citation names it, and what stands around it."""
    end = min(max(start, end), start + MAX_PASSAGE_CHARACTERS)
    found = await context.store_files.get_passage(tenant, file_id, start, end, around=AROUND_CHARACTERS)
    return {
        "object": "file.passage",
        "file_id": file_id,
        "filename": found.filename,
        "start": start,
        "end": end,
        "page": found.page,
        "location": str(found.place.locate()) if found.place else "",
        "before": found.before,
        "quote": found.quote,
        "after": found.after,
    }


@router.get("/{file_id}/passage/page", response_class=Response, responses=PNG)
async def draw_passage(
    file_id: str, context: ContextDependency, tenant: Tenant, start: Offset = 0, end: Offset = 0
) -> Response:
    """Draw the page of a PDF on which `text[start:end]` begins, with the passage marked."""
    end = min(max(start, end), start + MAX_PASSAGE_CHARACTERS)
    file = await context.files.get(tenant, file_id)
    found = await context.store_files.get_passage(tenant, file_id, start, end, around=0)
    if not found.page or (found.place and found.place.within):
        raise NotFoundError("This passage has no page that could be drawn: only PDFs have.", param="file_id")
    if reason := await context.files.find_poison(file.sha256):
        raise DocumentError(reason)
    async with context.drawings.take(), context.blobs.as_file(file.sha256) as path:
        png = await context.parser.draw(
            path,
            found.page,
            found.quote,
            timeout_seconds=DRAWING_SECONDS,
            memory_bytes=context.settings.parse_memory_bytes,
        )
    return Response(png, media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})


@router.get("/{file_id}/content", response_class=StreamingResponse, responses=BYTES)
async def get_file_content(file_id: str, context: ContextDependency, tenant: Tenant) -> StreamingResponse:
    """Download a file's bytes, as an attachment that browsers do not open."""
    record = await context.files.get(tenant, file_id)
    headers = {
        "Content-Disposition": _attachment(record.filename),
        "X-Content-Type-Options": "nosniff",
    }
    return StreamingResponse(
        context.blobs.stream(record.sha256), media_type="application/octet-stream", headers=headers
    )


def _attachment(filename: str) -> str:
    """The header that names a download (RFC 6266); the name cannot lead out of the receiver's folder."""
    name = "".join("_" if one in SEPARATORS or category(one)[0] == "C" else one for one in filename)
    start = len(name) - len(name.lstrip(". "))
    return f"attachment; filename*=UTF-8''{quote('_' * start + name[start:], safe='')}"


@router.delete("/{file_id}")
async def delete_file(
    file_id: str,
    context: ContextDependency,
    tenant: UserTenant,
    change: Annotated[Change, audited("file.deleted")],
    purge: Annotated[bool, Query()] = False,
) -> Deleted:
    """Delete a file and its chunks in every store; with `purge`, also the answers that cite it or found it."""
    if purge and tenant.own_only:
        raise ForbiddenError("Answers of others may cite it: purge needs an admin's key.", code="insufficient_role")
    (record,) = await context.files.get_many(tenant, [file_id])  # its own, not one that another tenant shares
    if not purge:
        await _delete_file(context, tenant, record, change(tenant, file_id, purge=False))
    else:
        async with change.outside(tenant, file_id, purge=True):  # answers are in Valkey, too
            await purge_file(context, tenant.id, file_id)  # before, so that it can be repeated if it fails halfway
            await _delete_file(context, tenant, record, contextlib.nullcontext())
            await purge_file(context, tenant.id, file_id)
    return {"id": file_id, "object": "file", "deleted": True}


async def _delete_file(
    context: ApiContext, tenant: TenantView, record: FileRecord, recorded: AbstractAsyncContextManager[object]
) -> None:
    """Delete a file, and its bytes if no other has them. `recorded` is around the change of rows."""
    async with context.files.locked_bytes(record.sha256):
        async with recorded:
            orphan = await context.files.delete(tenant, record.id)
        if orphan:
            await context.blobs.delete(orphan)


def render_file(record: FileRecord) -> FileObject:
    """Render a file as OpenAI's file object."""
    return {
        "id": record.id,
        "object": "file",
        "bytes": record.bytes,
        "created_at": int(record.created_at.timestamp()),
        "expires_at": int(record.expires_at.timestamp()) if record.expires_at else None,
        "filename": record.filename,
        "purpose": record.purpose,
        "status": "processed",
        "status_details": None,
    }
