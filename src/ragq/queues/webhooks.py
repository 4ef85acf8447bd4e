"""Deliver webhooks: any process claims due deliveries from the outbox, sends them, and stores the outcome."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import random
from typing import TYPE_CHECKING

import structlog

from ragq import metrics, tracing
from ragq.errors import RagqError
from ragq.settings import Settings
from ragq.storage.webhooks import Attempt, ClaimedDelivery, Webhooks
from ragq.tasks import end_tasks

if TYPE_CHECKING:
    from ragq.client.webhooks.client import WebhookClient

log = structlog.get_logger(__name__)

IDLE_SECONDS = 1.0  # between claims from the outbox
PAUSE_SECONDS = 0.05  # least time between two claims
GONE = 410
# Waits between attempts as multiples of the first: 5 s, 30 s, 2 min, 10 min, 1 h and 6 h; then the delivery fails.
WAITS = (1, 6, 24, 120, 720, 4320)


async def deliver_forever(settings: Settings, webhooks: Webhooks) -> None:
    """Send due deliveries concurrently, so that a slow target does not delay the others."""
    in_flight, ended = set[asyncio.Task[None]](), asyncio.Event()

    def remove(task: asyncio.Task[None]) -> None:
        in_flight.discard(task)
        ended.set()

    async with contextlib.AsyncExitStack() as stack:
        client: WebhookClient | None = None
        try:
            while True:
                ended.clear()
                free = settings.webhook_concurrency - len(in_flight)
                claimed = await webhooks.claim(
                    free,
                    per_endpoint=settings.webhook_endpoint_concurrency,
                    lease_seconds=3 * settings.webhook_timeout_seconds,
                )
                for delivery in claimed:
                    if client is None:
                        client = await stack.enter_async_context(await _make_client(settings))
                    task = asyncio.create_task(_deliver(settings, webhooks, client, delivery))
                    in_flight.add(task)
                    task.add_done_callback(remove)
                await asyncio.sleep(PAUSE_SECONDS)
                with contextlib.suppress(TimeoutError):  # wait until a delivery ends and frees a slot
                    async with asyncio.timeout(IDLE_SECONDS):
                        await ended.wait()
        finally:
            await end_tasks(in_flight)


async def _make_client(settings: Settings) -> WebhookClient:
    """Import the HTTP client on first use, in a thread: the import takes a fifth of the API's start time."""
    module = await asyncio.to_thread(importlib.import_module, "ragq.client.webhooks.client")
    client: WebhookClient = module.WebhookClient(settings)
    return client


async def _deliver(settings: Settings, webhooks: Webhooks, client: WebhookClient, delivery: ClaimedDelivery) -> None:
    attributes = {"ragq.event_id": delivery.event_id, "ragq.event": delivery.type, "ragq.attempt": delivery.attempts}
    headers = {"traceparent": await _find_trace(webhooks, delivery)}
    with tracing.begin("deliver webhook", attributes, kind="client", headers=headers) as span:
        attempt = await client.send(delivery)
        span.set({"http.response.status_code": attempt.status_code})
        try:
            outcome = await _settle(settings, webhooks, delivery, attempt)
        except RagqError as error:  # its lease expires, and a process sends it again
            log.warning("webhook_not_settled", event_id=delivery.event_id, error=str(error))
            span.fail(error.code)
            return
        if outcome != "delivered":
            span.fail(outcome)
    metrics.WEBHOOKS.labels(outcome).inc()
    if outcome != "delivered":
        log.warning(
            "webhook_not_delivered",
            outcome=outcome,
            endpoint_id=delivery.endpoint_id,
            event_id=delivery.event_id,
            attempt=delivery.attempts,
            status_code=attempt.status_code,
            error=attempt.error,
        )


async def _find_trace(webhooks: Webhooks, delivery: ClaimedDelivery) -> str:
    """The trace of the question whose end is told; "" if there is none, or while PostgreSQL is away."""
    if not tracing.is_on():
        return ""
    with contextlib.suppress(RagqError):
        return await webhooks.find_trace(delivery.object_id)
    return ""


async def _settle(settings: Settings, webhooks: Webhooks, delivery: ClaimedDelivery, attempt: Attempt) -> str:
    """Store an attempt's outcome; returns its name for logs and metrics."""
    code = attempt.status_code
    if code and 200 <= code < 300:
        await webhooks.settle(delivery, attempt, "delivered")
        return "delivered"
    if code == GONE or delivery.attempts > len(WAITS):
        await webhooks.settle(delivery, attempt, "failed")
        if code == GONE:
            await webhooks.disable(delivery.endpoint_id, "The endpoint answered 410 and is disabled.")
        return "disabled" if code == GONE else "failed"
    wait = settings.webhook_backoff_seconds * WAITS[delivery.attempts - 1] * random.uniform(0.8, 1.2)
    await webhooks.settle(delivery, attempt, "pending", retry_seconds=wait)
    return "retried"
