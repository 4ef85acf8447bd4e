"""OpenAI's Batches: a file of questions, answered in a file."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Literal

from fastapi import APIRouter
from pydantic import Field
from typing_extensions import TypedDict

from ragq.errors import InvalidRequestError
from ragq.http.input import CheckedRoute
from ragq.http.openapi import refusals
from ragq.routes.context import ContextDependency, PageDependency, Tenant, UserTenant, listing
from ragq.schemas.batch_lines import Endpoint
from ragq.schemas.objects import Body, Listing
from ragq.schemas.questions import Metadata
from ragq.storage.batches import BatchRecord

router = APIRouter(prefix="/v1/batches", route_class=CheckedRoute)

WINDOW_SECONDS = {"24h": 86_400}


class BatchFault(TypedDict):
    """An error in a line of a batch's input, or in the whole input."""

    code: str
    message: str
    param: str | None
    line: int | None


class BatchFaults(TypedDict):
    """The errors in a batch's input."""

    object: Literal["list"]
    data: list[BatchFault]


class RequestCounts(TypedDict):
    """The lines of a batch by outcome."""

    total: int
    completed: int
    failed: int


class Batch(TypedDict):
    """A file of questions that are answered in a file."""

    id: str
    object: Literal["batch"]
    endpoint: str
    errors: BatchFaults | None
    input_file_id: str
    completion_window: str
    status: str
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    expires_at: int
    in_progress_at: int | None
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    metadata: dict[str, str] | None


class BatchCreate(Body):
    """A file of requests, and the endpoint for them."""

    input_file_id: str = Field(pattern=r"^[^\x00]*$")
    endpoint: Endpoint
    completion_window: Literal["24h"]
    metadata: Metadata | None = None


@router.post("", responses=refusals(404))
async def create_batch(body: BatchCreate, context: ContextDependency, tenant: UserTenant) -> Batch:
    """Create a batch. It is validated and run in the background."""
    file = await context.files.get(tenant, body.input_file_id)
    if file.purpose != "batch":
        raise InvalidRequestError(
            f"The file was uploaded with purpose '{file.purpose}': upload it with purpose 'batch'.",
            param="input_file_id",
        )
    record = await context.batches.create(
        tenant,
        input_file_id=file.id,
        endpoint=body.endpoint,
        completion_window=body.completion_window,
        window_seconds=WINDOW_SECONDS[body.completion_window],
        metadata=body.metadata,
    )
    return render_batch(record)


@router.get("")
async def list_batches(page: PageDependency, context: ContextDependency, tenant: Tenant) -> Listing[Batch]:
    """List batches by age."""
    records = await context.batches.list_batches(tenant, page)
    return listing([render_batch(record) for record in records], page)


@router.get("/{batch_id}")
async def get_batch(batch_id: str, context: ContextDependency, tenant: Tenant) -> Batch:
    """Show a batch."""
    return render_batch(await context.batches.get(tenant, batch_id))


@router.post("/{batch_id}/cancel")
async def cancel_batch(batch_id: str, context: ContextDependency, tenant: UserTenant) -> Batch:
    """Cancel a batch's unfinished requests. A batch that has ended or is being written is left unchanged."""
    return render_batch(await context.batches.cancel(tenant, batch_id))


def render_batch(record: BatchRecord) -> Batch:
    """Render a batch as OpenAI's batch object."""

    def seconds(at: datetime | None) -> int | None:
        return int(at.timestamp()) if at else None

    return {
        "id": record.id,
        "object": "batch",
        "endpoint": record.endpoint,
        "errors": {"object": "list", "data": json.loads(record.errors)} if record.errors else None,
        "input_file_id": record.input_file_id,
        "completion_window": record.completion_window,
        "status": record.status,
        "output_file_id": record.output_file_id,
        "error_file_id": record.error_file_id,
        "created_at": int(record.created_at.timestamp()),
        "expires_at": int(record.expires_at.timestamp()),
        "in_progress_at": seconds(record.in_progress_at),
        "finalizing_at": seconds(record.finalizing_at),
        "completed_at": seconds(record.completed_at),
        "failed_at": seconds(record.failed_at),
        "expired_at": seconds(record.expired_at),
        "cancelling_at": seconds(record.cancelling_at),
        "cancelled_at": seconds(record.cancelled_at),
        "request_counts": {"total": record.total, "completed": record.completed, "failed": record.failed},
        "metadata": json.loads(record.metadata) if record.metadata else None,
    }
