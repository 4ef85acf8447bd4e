"""All that a tenant has, for its admin to take away."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated, Any

import orjson
import structlog
from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from ragq.admin.keys import KeysTenant
from ragq.errors import PermanentError
from ragq.http.audit import Change, audited
from ragq.http.input import CheckedRoute
from ragq.http.openapi import refusals
from ragq.records import change_request, read_job, write_record
from ragq.routes.context import ApiContext, ContextDependency
from ragq.routes.files import BYTES
from ragq.storage.tenancy.export import PartName, export_rows

log = structlog.get_logger(__name__)
router = APIRouter(prefix="/v1/admin/export", route_class=CheckedRoute)

LINES: dict[int | str, dict[str, Any]] = {200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}}


@router.get("", response_class=StreamingResponse, responses=LINES | refusals(404))
async def export_part(
    part: PartName,
    context: ContextDependency,
    tenant: KeysTenant,
    change: Annotated[Change, audited("tenant.exported")],
) -> StreamingResponse:
    """Show all objects of a kind, as lines of JSON: answers whole, keys without their values."""
    await context.tenants.get(tenant)
    await change.note(tenant, tenant, part=part)
    return StreamingResponse(_write_lines(context, tenant, part), media_type="application/x-ndjson")


@router.get("/files/{file_id}", response_class=StreamingResponse, responses=BYTES)
async def export_file(file_id: str, context: ContextDependency, tenant: KeysTenant) -> StreamingResponse:
    """Download a file's bytes."""
    record = await context.files.get(tenant, file_id)
    return StreamingResponse(context.blobs.stream(record.sha256), media_type="application/octet-stream")


async def _write_lines(context: ApiContext, tenant: str, part: PartName) -> AsyncIterator[bytes]:
    async for rows in export_rows(context.database, tenant, part):
        if part == "responses":
            for row in rows:  # each with its whole request, which may be large
                yield await _write_answer(context, row["job"], row["metadata"]) + b"\n"
        else:
            yield b"".join(orjson.dumps(_parse(row)) + b"\n" for row in rows)


def _parse(row: dict[str, Any]) -> dict[str, Any]:
    """Parse what the database keeps as text."""
    kept_as_text = {name: row[name] for name in ("item", "metadata") if isinstance(row.get(name), str)}
    return row | {name: json.loads(text) for name, text in kept_as_text.items()}


async def _write_answer(context: ApiContext, written: str, metadata: dict[str, str] | None) -> bytes:
    """Write an answered question with the whole request, of which a large part is in the blob store.

    Args:
        metadata: Of a stored chat completion, as it is now.
    """
    job = read_job(written)
    if metadata is not None:
        job = replace(job, request=change_request(job.request, metadata=metadata))
    try:
        return write_record(await context.queue.requests.complete(job))
    except PermanentError as error:
        log.warning("exported_without_input", response_id=job.id, error=str(error))
        return write_record(job)
