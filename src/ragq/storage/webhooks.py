"""Webhook endpoints and the outbox of their deliveries in PostgreSQL."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from ragq.errors import NotFoundError
from ragq.models import JobStatus, new_id
from ragq.records import Job
from ragq.storage.database import Database
from ragq.storage.paging import Listed, Page, read_page

SECRET_PREFIX = "whsec_"  # noqa: S105  (a prefix from Standard Webhooks)
EXPIRY_BATCH = 1000
ENDINGS = {
    JobStatus.FINISHED: "response.completed",
    JobStatus.FAILED: "response.failed",
    JobStatus.CANCELED: "response.cancelled",
    JobStatus.STOPPED: "response.cancelled",
}


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a tenant's object; `at` is in seconds since 1970."""

    tenant_id: str
    type: str
    object_id: str
    at: float

    @property
    def id(self) -> str:
        """Derived from the event, so that a repeated event has the same id."""
        text = f"{self.object_id}\n{self.type}\n{self.at:.3f}"
        return "evt_" + hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class EndpointRecord:
    """A tenant's endpoint; an empty `events` subscribes to all."""

    id: str
    url: str
    events: list[str]
    description: str | None
    secret: str = field(repr=False)
    status: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """The state of a delivery; `id` is the event's."""

    id: str
    type: str
    object_id: str
    status: str
    attempts: int
    last_status_code: int | None
    last_error: str | None
    next_attempt_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ClaimedDelivery:
    """A delivery claimed by this process; `attempts` includes this one."""

    endpoint_id: str
    event_id: str
    type: str
    object_id: str
    event_at: datetime
    attempts: int
    url: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Attempt:
    """The outcome of an attempt: the target's status code, or why there is none."""

    status_code: int | None
    error: str | None


_ENDPOINTS = Listed(
    "webhook_endpoints",
    """SELECT id, url, events, description, secret, status, created_at
       FROM webhook_endpoints WHERE tenant_id = %(tenant)s""",
    "tenant_id = %(tenant)s",
)
_DELIVERIES = Listed(
    "webhook_deliveries",
    """SELECT event_id AS id, type, object_id, status, attempts, last_status_code, last_error, next_attempt_at, created_at
       FROM webhook_deliveries WHERE endpoint_id = %(endpoint)s""",
    "endpoint_id = %(endpoint)s",
    key="event_id",
)
_CLAIM = """
    WITH due AS (
        SELECT d.endpoint_id, d.event_id, e.url, e.secret
        FROM webhook_endpoints e CROSS JOIN LATERAL (
            SELECT endpoint_id, event_id, next_attempt_at FROM webhook_deliveries
            WHERE endpoint_id = e.id AND status = 'pending' AND next_attempt_at <= now()
              AND (leased_until IS NULL OR leased_until < now())
            ORDER BY next_attempt_at
            LIMIT greatest(0, %(per_endpoint)s - (
                SELECT count(*) FROM webhook_deliveries
                WHERE endpoint_id = e.id AND status = 'pending' AND leased_until >= now()))
            FOR UPDATE SKIP LOCKED) d
        WHERE e.status = 'enabled'
        ORDER BY d.next_attempt_at LIMIT %(limit)s)
    UPDATE webhook_deliveries d
    SET attempts = d.attempts + 1, leased_until = now() + make_interval(secs => %(lease)s)
    FROM due WHERE d.endpoint_id = due.endpoint_id AND d.event_id = due.event_id
    RETURNING d.endpoint_id, d.event_id, d.type, d.object_id, d.event_at, d.attempts, due.url, due.secret
"""


def ended_event(job: Job) -> Event | None:
    """The event of an ended question; None if it is being run again."""
    type_ = ENDINGS.get(job.status)
    if job.answered and job.answered.answer.truncated:
        type_ = "response.incomplete"
    return Event(job.tenant_id, type_, job.id, job.ended_at or job.created_at) if type_ else None


async def add_deliveries(connection: AsyncConnection[Any], events: Iterable[Event]) -> None:
    """Add events to the outbox of each subscribed endpoint, in the caller's transaction. Idempotent."""
    events = list(events)
    if not events:
        return
    # FOR SHARE: a concurrent delete waits for us, and a concurrent disable sees these rows.
    await connection.execute(
        """INSERT INTO webhook_deliveries (endpoint_id, event_id, type, object_id, event_at)
           SELECT e.id, n.event_id, n.type, n.object_id, to_timestamp(n.at)
           FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::float8[])
                AS n (tenant_id, event_id, type, object_id, at)
           JOIN webhook_endpoints e ON e.tenant_id = n.tenant_id
           WHERE e.status = 'enabled' AND (e.events = '{}' OR n.type = ANY (e.events))
           FOR SHARE OF e
           ON CONFLICT DO NOTHING""",
        [
            [event.tenant_id for event in events],
            [event.id for event in events],
            [event.type for event in events],
            [event.object_id for event in events],
            [event.at for event in events],
        ],
    )


class Webhooks:
    """Endpoints and deliveries."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create_endpoint(
        self, tenant_id: str, *, url: str, events: list[str], description: str | None
    ) -> EndpointRecord:
        """Create an endpoint with a new secret."""
        id_ = new_id("we_")
        await self._database.for_tenant(tenant_id).row(
            """INSERT INTO webhook_endpoints (id, tenant_id, url, events, description, secret)
               VALUES (%(id)s, %(tenant)s, %(url)s, %(events)s, %(description)s, %(secret)s) RETURNING id""",
            id=id_,
            url=url,
            events=events,
            description=description,
            secret=SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode(),
        )
        return await self.get_endpoint(tenant_id, id_)

    async def get_endpoint(self, tenant_id: str, endpoint_id: str) -> EndpointRecord:
        """Find an endpoint.

        Raises:
            NotFoundError: This tenant has no endpoint with this id.
        """
        query = _ENDPOINTS.query + " AND id = %(id)s"
        id_ = endpoint_id.replace("\0", "")
        found = await self._database.for_tenant(tenant_id).records(EndpointRecord, query, id=id_)
        if not found:
            raise _not_found(endpoint_id)
        return found[0]

    async def list_endpoints(self, tenant_id: str, page: Page) -> list[EndpointRecord]:
        """List endpoints by age; one more than `page.limit` if there are more."""
        return await read_page(self._database.for_tenant(tenant_id), EndpointRecord, _ENDPOINTS, page)

    async def delete_endpoint(self, tenant_id: str, endpoint_id: str) -> None:
        """Delete an endpoint with its deliveries; a delivery that is being sent may still arrive."""
        await self.get_endpoint(tenant_id, endpoint_id)
        await self._database.for_tenant(tenant_id).row(
            "DELETE FROM webhook_endpoints WHERE tenant_id = %(tenant)s AND id = %(id)s RETURNING id",
            id=endpoint_id,
        )

    async def list_deliveries(self, tenant_id: str, endpoint_id: str, page: Page) -> list[DeliveryRecord]:
        """List an endpoint's deliveries by age; one more than `page.limit` if there are more."""
        await self.get_endpoint(tenant_id, endpoint_id)
        return await read_page(
            self._database.for_tenant(tenant_id), DeliveryRecord, _DELIVERIES, page, endpoint=endpoint_id
        )

    async def claim(self, limit: int, *, per_endpoint: int, lease_seconds: float) -> list[ClaimedDelivery]:
        """Claim the due deliveries of all tenants. One that is not settled before its lease ends may be claimed again.

        Args:
            per_endpoint: Most concurrent deliveries to an endpoint, over all processes.
        """
        return await self._database.for_all().records(
            ClaimedDelivery, _CLAIM, limit=limit, per_endpoint=per_endpoint, lease=lease_seconds
        )

    async def find_trace(self, object_id: str) -> str:
        """The `traceparent` of the run that answered a question; "" if it was not traced, and for other objects."""
        row = await self._database.for_all().row(
            "SELECT job::json #>> '{meta,trace}' AS trace FROM responses WHERE id = %(id)s", id=object_id
        )
        return (row and row["trace"]) or ""

    async def settle(
        self, delivery: ClaimedDelivery, attempt: Attempt, status: str, *, retry_seconds: float | None = None
    ) -> None:
        """Store the outcome of an attempt, if this process still holds the delivery.

        Args:
            status: `delivered`, `failed`, or `pending` with the seconds until the next attempt.
        """
        await self._database.for_all().row(
            """UPDATE webhook_deliveries
               SET status = %(status)s, last_status_code = %(code)s, last_error = %(error)s, leased_until = NULL,
                   next_attempt_at = now() + make_interval(secs => %(retry)s)
               WHERE endpoint_id = %(endpoint)s AND event_id = %(event)s AND attempts = %(attempts)s
                 AND status = 'pending' RETURNING event_id""",
            status=status,
            code=attempt.status_code,
            error=attempt.error,
            retry=retry_seconds,
            endpoint=delivery.endpoint_id,
            event=delivery.event_id,
            attempts=delivery.attempts,
        )

    async def disable(self, endpoint_id: str, reason: str) -> None:
        """Disable an endpoint and fail its pending deliveries."""
        async with self._database.for_all().connection() as connection, connection.transaction():
            await connection.execute("UPDATE webhook_endpoints SET status = 'disabled' WHERE id = %s", [endpoint_id])
            await connection.execute(
                """UPDATE webhook_deliveries SET status = 'failed', last_error = %s, next_attempt_at = NULL
                   WHERE endpoint_id = %s AND status = 'pending'""",
                [reason, endpoint_id],
            )

    async def expire(self, older_than_seconds: float) -> None:
        """Delete ended deliveries that were created longer ago."""
        deleted = EXPIRY_BATCH
        while deleted == EXPIRY_BATCH:
            async with self._database.for_all().connection() as connection:
                cursor = await connection.execute(
                    """DELETE FROM webhook_deliveries WHERE (endpoint_id, event_id) IN (
                           SELECT endpoint_id, event_id FROM webhook_deliveries
                           WHERE status <> 'pending' AND created_at < now() - make_interval(secs => %s)
                           ORDER BY created_at LIMIT %s FOR UPDATE SKIP LOCKED)""",
                    [older_than_seconds, EXPIRY_BATCH],
                )
                deleted = cursor.rowcount


def _not_found(endpoint_id: str) -> NotFoundError:
    return NotFoundError(f"No webhook endpoint found with id '{endpoint_id[:80]}'.", param="webhook_endpoint_id")
