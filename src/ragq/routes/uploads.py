"""OpenAI's Uploads: a file in parts, which become an ordinary file at the end."""

from __future__ import annotations

import hashlib
import tempfile
from contextlib import AsyncExitStack
from typing import Annotated, BinaryIO, Literal

from fastapi import APIRouter, File, UploadFile
from pydantic import Field
from typing_extensions import TypedDict

from ragq.accounts.views import TenantView
from ragq.context import Context
from ragq.errors import InvalidRequestError
from ragq.http.audit import Change, audited
from ragq.http.input import CheckedRoute
from ragq.http.openapi import refusals
from ragq.models import new_id
from ragq.routes.context import ContextDependency, UserTenant
from ragq.routes.files import FORM_LIMITS, FileObject, Purpose, check_file, render_file, save_file
from ragq.schemas.objects import Body
from ragq.storage.uploads import PartRecord, UploadRecord, blob_of, too_much

router = APIRouter(prefix="/v1/uploads", route_class=CheckedRoute)


class Upload(TypedDict):
    """A file that comes in parts; `file` is set once it is completed."""

    id: str
    object: Literal["upload"]
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: Literal["pending", "completed", "cancelled", "expired"]
    file: FileObject | None


class UploadPart(TypedDict):
    """A part of an upload."""

    id: str
    object: Literal["upload.part"]
    created_at: int
    upload_id: str


class FileExpiry(Body):
    """When the file expires, counted from its creation."""

    anchor: Literal["created_at"]
    seconds: int = Field(ge=3600, le=2_592_000)


class UploadCreate(Body):
    """A file that is to come in parts."""

    filename: str
    bytes: int
    purpose: Purpose
    mime_type: str | None = Field(None, description="Ignored: the name's extension tells the format.")
    expires_after: FileExpiry | None = None


class UploadComplete(Body):
    """The parts, in the file's order."""

    part_ids: list[str] = Field(min_length=1)
    md5: str | None = Field(None, description="The MD5 of the whole file, in hex, which is checked.")


@router.post("", responses=refusals(429))
async def create_upload(body: UploadCreate, context: ContextDependency, tenant: UserTenant) -> Upload:
    """Begin a file that comes in parts. It must be completed within an hour."""
    check_file(context, filename=body.filename, purpose=body.purpose, size=body.bytes)
    seconds = body.expires_after.seconds if body.expires_after else None
    upload = await context.uploads.create(
        tenant, filename=body.filename, purpose=body.purpose, size=body.bytes, file_seconds=seconds
    )
    return await _render(context, tenant, upload)


@router.post("/{upload_id}/parts", form_limits=FORM_LIMITS)
async def create_part(
    upload_id: str, data: Annotated[UploadFile, File()], context: ContextDependency, tenant: UserTenant
) -> UploadPart:
    """Add a part. Parts may come in any order, and several at once."""
    size = data.size or 0
    upload = await context.uploads.get_pending(tenant, upload_id)
    if size == 0:
        raise InvalidRequestError("The part is empty: leave it out.", param="data")
    if size > upload.bytes - upload.received:
        raise too_much(upload, size)
    part_id = new_id("part_")
    async with AsyncExitStack() as on_error:
        await context.blobs.put(blob_of(upload_id, part_id), data.file)
        on_error.push_async_callback(context.blobs.delete, blob_of(upload_id, part_id))
        part = await context.uploads.add_part(tenant.id, upload_id, part_id, size)
        on_error.pop_all()
    return {
        "id": part.id,
        "object": "upload.part",
        "created_at": int(part.created_at.timestamp()),
        "upload_id": upload_id,
    }


@router.post("/{upload_id}/complete", responses=refusals(429))
async def complete_upload(
    upload_id: str,
    body: UploadComplete,
    context: ContextDependency,
    tenant: UserTenant,
    change: Annotated[Change, audited("file.created")],
) -> Upload:
    """Join the parts to an ordinary file. A repeat shows the same file."""
    upload = await context.uploads.get(tenant, upload_id)
    if upload.status != "completed":
        upload = await context.uploads.get_pending(tenant, upload_id)
    if upload.file_id is None:
        all_parts = await context.uploads.list_parts(tenant.id, upload_id)
        with tempfile.TemporaryFile() as file:
            await _join(context, _choose(upload, all_parts, body.part_ids), file, md5=body.md5)
            await context.uploads.complete(tenant.id, upload_id)
            record = await save_file(
                context,
                tenant,
                file,
                change,
                filename=upload.filename,
                purpose=upload.purpose,
                size=upload.bytes,
                expires_after_seconds=upload.file_seconds,
            )
        await context.uploads.set_file(tenant.id, upload_id, record.id)
        await _delete_bytes(context, all_parts)
    return await _render(context, tenant, await context.uploads.get(tenant, upload_id))


@router.post("/{upload_id}/cancel")
async def cancel_upload(upload_id: str, context: ContextDependency, tenant: UserTenant) -> Upload:
    """Cancel an upload, and delete its parts."""
    await context.uploads.get(tenant, upload_id)
    await context.uploads.cancel(tenant.id, upload_id)
    await _delete_bytes(context, await context.uploads.list_parts(tenant.id, upload_id))
    return await _render(context, tenant, await context.uploads.get(tenant, upload_id))


def _choose(upload: UploadRecord, all_parts: dict[str, PartRecord], part_ids: list[str]) -> list[PartRecord]:
    for part_id in part_ids:
        if part_id not in all_parts:
            raise InvalidRequestError(f"The upload has no part '{part_id[:80]}'.", param="part_ids")
    parts = [all_parts[part_id] for part_id in part_ids]
    if (found := sum(part.bytes for part in parts)) != upload.bytes:
        raise InvalidRequestError(
            f"The parts have {found} bytes, but the upload was created for {upload.bytes}.", param="part_ids"
        )
    return parts


async def _join(context: Context, parts: list[PartRecord], file: BinaryIO, *, md5: str | None) -> None:
    """Write the parts to a file on disk.

    Raises:
        InvalidRequestError: The checksum differs.
    """
    digest = hashlib.md5(usedforsecurity=False)
    for part in parts:
        async for piece in context.blobs.stream(part.blob):
            file.write(piece)
            digest.update(piece)
    if md5 is not None and md5.lower() != digest.hexdigest():
        raise InvalidRequestError(
            f"The MD5 of the parts is {digest.hexdigest()}, not '{md5[:80]}': send them again.", param="md5"
        )
    file.seek(0)


async def _delete_bytes(context: Context, parts: dict[str, PartRecord]) -> None:
    for part in parts.values():
        await context.blobs.delete(part.blob)


async def _render(context: Context, tenant: TenantView, upload: UploadRecord) -> Upload:
    file = render_file(await context.files.get(tenant, upload.file_id)) if upload.file_id else None
    return {
        "id": upload.id,
        "object": "upload",
        "bytes": upload.bytes,
        "created_at": int(upload.created_at.timestamp()),
        "expires_at": int(upload.expires_at.timestamp()),
        "filename": upload.filename,
        "purpose": upload.purpose,
        "status": upload.status,
        "file": file,
    }
