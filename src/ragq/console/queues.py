"""Queues and workers: how much waits and for how long, pauses and drains."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from typing_extensions import TypedDict

from ragq.client.queue_monitor import ListState, WorkerState
from ragq.console.jobs import seen_tenant
from ragq.errors import NotFoundError
from ragq.http.audit import Change, audited
from ragq.http.input import CheckedRoute
from ragq.models import DEFAULT_TENANT, QueueName
from ragq.routes.context import Admin, ContextDependency, Operator
from ragq.storage.console.jobs import RATE_SECONDS, Rate

router = APIRouter(prefix="/v1/admin", route_class=CheckedRoute)


class QueueRate(TypedDict):
    """Jobs that ended within ten seconds, and the medians and 95th percentiles of their times, in ms."""

    at: float
    ended: int
    failed: int
    waited_p50: float | None
    waited_p95: float | None
    ran_p50: float | None
    ran_p95: float | None


class QueueObject(TypedDict):
    """A queue: its jobs in all lanes, of one tenant or of all, and what ended lately.

    `rates` leaves out the seconds in which nothing ended.
    """

    id: str
    object: Literal["queue"]
    paused: bool
    queued: int
    in_flight: int
    scheduled: int
    oldest_seconds: float | None
    rates: list[QueueRate]


class QueueList(TypedDict):
    """All queues; `until` is the time up to which the rates are complete."""

    object: Literal["list"]
    until: float
    data: list[QueueObject]


class WorkerList(TypedDict):
    """The live workers."""

    object: Literal["list"]
    data: list[WorkerState]


class WorkerDrained(TypedDict):
    """A worker that was told to end."""

    id: str
    object: Literal["worker"]
    state: Literal["draining"]


class QueuePaused(TypedDict):
    """A queue that was paused, or resumed."""

    id: str
    object: Literal["queue"]
    paused: bool


@router.get("/queues")
async def list_queues(
    context: ContextDependency,
    caller: Admin,
    tenant: Annotated[str | None, Query(max_length=64)] = None,
    seconds: Annotated[int, Query(ge=10, le=3600)] = 300,
) -> QueueList:
    """Show the queues: to the operator of all tenants, or of the one that it names; to an admin of its own."""
    whose = seen_tenant(caller, tenant)
    described = await context.queue.monitor.describe()
    paused = await context.queue.controls.list_paused()
    rates = await context.jobs.list_rates(whose, seconds=seconds)
    lists = [one for one in described.queues if whose in (None, one.name.partition("@")[2] or DEFAULT_TENANT)]
    until = time.time() // RATE_SECONDS * RATE_SECONDS
    queues = [
        _render_queue(str(queue), lists, [one for one in rates if one.queue == queue], is_paused=queue in paused)
        for queue in QueueName
    ]
    return {"object": "list", "until": until, "data": queues}


@router.post("/queues/{queue}/pause")
async def pause_queue(
    queue: QueueName,
    context: ContextDependency,
    _caller: Operator,
    change: Annotated[Change, audited("queue.paused")],
) -> QueuePaused:
    """Let no worker claim jobs of a queue. What is accepted waits, and its deadline counts; what runs goes on."""
    async with change.outside(DEFAULT_TENANT, queue):
        await context.queue.controls.set_paused(queue, paused=True)
    return {"id": queue, "object": "queue", "paused": True}


@router.post("/queues/{queue}/resume")
async def resume_queue(
    queue: QueueName,
    context: ContextDependency,
    _caller: Operator,
    change: Annotated[Change, audited("queue.resumed")],
) -> QueuePaused:
    """Let workers claim jobs of a queue again."""
    async with change.outside(DEFAULT_TENANT, queue):
        await context.queue.controls.set_paused(queue, paused=False)
    return {"id": queue, "object": "queue", "paused": False}


@router.get("/workers")
async def list_workers(context: ContextDependency, _caller: Operator) -> WorkerList:
    """Show the live workers."""
    described = await context.queue.monitor.describe()
    return {"object": "list", "data": sorted(described.workers, key=lambda one: one.name)}


@router.post("/workers/{worker}/drain")
async def drain_worker(
    worker: str,
    context: ContextDependency,
    _caller: Operator,
    change: Annotated[Change, audited("worker.drained")],
) -> WorkerDrained:
    """Let a worker finish its jobs, claim no others, and end. What started it, as `ragq up`, may start another."""
    described = await context.queue.monitor.describe()
    missing = NotFoundError(f"No live worker has the name '{worker[:80]}'.", param="worker")
    if worker not in {one.name for one in described.workers}:
        raise missing
    async with change.outside(DEFAULT_TENANT, worker):
        if not await context.queue.controls.drain(worker):  # it has ended since, or is cut off from Valkey
            raise missing
    return {"id": worker, "object": "worker", "state": "draining"}


def _render_queue(queue: str, lists: list[ListState], rates: list[Rate], *, is_paused: bool) -> QueueObject:
    own = [one for one in lists if one.name.partition("@")[0].partition(".")[0] == queue]
    waiting = [one.oldest_seconds for one in own if one.oldest_seconds is not None]
    return {
        "id": queue,
        "object": "queue",
        "paused": is_paused,
        "queued": sum(one.queued for one in own),
        "in_flight": sum(one.in_flight for one in own),
        "scheduled": sum(one.scheduled for one in own),
        "oldest_seconds": max(waiting, default=None),
        "rates": [
            {
                "at": rate.at,
                "ended": rate.ended,
                "failed": rate.failed,
                "waited_p50": rate.waited_p50,
                "waited_p95": rate.waited_p95,
                "ran_p50": rate.ran_p50,
                "ran_p95": rate.ran_p95,
            }
            for rate in rates
        ],
    }
