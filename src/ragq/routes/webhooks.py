"""Webhook endpoints and their deliveries."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from fastapi import APIRouter
from pydantic import Field
from typing_extensions import TypedDict

from ragq.client.webhooks.target import check_url
from ragq.http.audit import Change, audited
from ragq.http.input import CheckedRoute
from ragq.routes.context import AdminTenant, ContextDependency, PageDependency, listing
from ragq.schemas.objects import Body, Deleted, Listing
from ragq.storage.webhooks import DeliveryRecord, EndpointRecord

router = APIRouter(prefix="/v1/webhook_endpoints", route_class=CheckedRoute)

EventType = Literal[
    "response.completed",
    "response.failed",
    "response.cancelled",
    "response.incomplete",
    "batch.completed",
    "batch.failed",
    "batch.expired",
    "batch.cancelled",
    "budget.warning",
    "budget.exceeded",
]


class WebhookEndpoint(TypedDict):
    """An endpoint for events; empty `events` means all, and only the creation shows the `secret`."""

    id: str
    object: Literal["webhook_endpoint"]
    url: str
    events: list[str] | None
    description: str | None
    status: str
    created_at: int
    secret: NotRequired[str]


class WebhookDelivery(TypedDict):
    """The delivery of an event; its id is the event's."""

    id: str
    object: Literal["webhook_delivery"]
    type: str
    data: dict[str, str]
    status: str
    attempts: int
    last_status_code: int | None
    last_error: str | None
    next_attempt_at: int | None
    created_at: int


class WebhookEndpointCreate(Body):
    """An endpoint, and its events; all if omitted."""

    url: str = Field(max_length=2048, pattern=r"^[\x21-\x7e]+$")
    events: Annotated[list[EventType], Field(min_length=1, max_length=16)] | None = None
    description: str | None = Field(None, max_length=512)


@router.post("")
async def create_webhook_endpoint(
    body: WebhookEndpointCreate,
    context: ContextDependency,
    tenant: AdminTenant,
    change: Annotated[Change, audited("webhook_endpoint.created")],
) -> WebhookEndpoint:
    """Create an endpoint. The secret is shown only now."""
    check_url(context.settings, body.url)
    async with change(tenant) as entry:
        record = await context.webhooks.create_endpoint(
            tenant, url=body.url, events=sorted(set(body.events or [])), description=body.description
        )
        entry.object_id = record.id
    return render_endpoint(record) | {"secret": record.secret}


@router.get("")
async def list_webhook_endpoints(
    page: PageDependency, context: ContextDependency, tenant: AdminTenant
) -> Listing[WebhookEndpoint]:
    """List endpoints by age."""
    records = await context.webhooks.list_endpoints(tenant, page)
    return listing([render_endpoint(record) for record in records], page)


@router.get("/{webhook_endpoint_id}")
async def get_webhook_endpoint(
    webhook_endpoint_id: str, context: ContextDependency, tenant: AdminTenant
) -> WebhookEndpoint:
    """Show an endpoint."""
    return render_endpoint(await context.webhooks.get_endpoint(tenant, webhook_endpoint_id))


@router.delete("/{webhook_endpoint_id}")
async def delete_webhook_endpoint(
    webhook_endpoint_id: str,
    context: ContextDependency,
    tenant: AdminTenant,
    change: Annotated[Change, audited("webhook_endpoint.deleted")],
) -> Deleted:
    """Delete an endpoint and its deliveries."""
    async with change(tenant, webhook_endpoint_id):
        await context.webhooks.delete_endpoint(tenant, webhook_endpoint_id)
    return {"id": webhook_endpoint_id, "object": "webhook_endpoint", "deleted": True}


@router.get("/{webhook_endpoint_id}/deliveries")
async def list_webhook_deliveries(
    webhook_endpoint_id: str, page: PageDependency, context: ContextDependency, tenant: AdminTenant
) -> Listing[WebhookDelivery]:
    """List an endpoint's deliveries by age."""
    records = await context.webhooks.list_deliveries(tenant, webhook_endpoint_id, page)
    return listing([render_delivery(record) for record in records], page)


def render_endpoint(record: EndpointRecord) -> WebhookEndpoint:
    """Render an endpoint, without its secret."""
    return {
        "id": record.id,
        "object": "webhook_endpoint",
        "url": record.url,
        "events": record.events or None,
        "description": record.description,
        "status": record.status,
        "created_at": int(record.created_at.timestamp()),
    }


def render_delivery(record: DeliveryRecord) -> WebhookDelivery:
    """Render a delivery; its id is the event's."""
    return {
        "id": record.id,
        "object": "webhook_delivery",
        "type": record.type,
        "data": {"id": record.object_id},
        "status": record.status,
        "attempts": record.attempts,
        "last_status_code": record.last_status_code,
        "last_error": record.last_error,
        "next_attempt_at": int(record.next_attempt_at.timestamp()) if record.next_attempt_at else None,
        "created_at": int(record.created_at.timestamp()),
    }
