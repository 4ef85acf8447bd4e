"""Jobs of questions and documents: list and search them, look at one, and run it again, cancel or delete it."""

from __future__ import annotations

import math
import time
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from msgspec.structs import replace
from typing_extensions import TypedDict

from ragq.accounts.roles import Role
from ragq.accounts.usage import read_prices
from ragq.console.timeline import JobTimeline, make_timeline
from ragq.http.audit import Change, audited
from ragq.http.callers import Caller
from ragq.http.input import CheckedRoute
from ragq.http.openapi import refusals
from ragq.queues.upkeep.job_actions import act, check_state, count_jobs, find_jobs, find_row
from ragq.routes.context import Admin, ApiContext, ContextDependency
from ragq.schemas.objects import Deleted
from ragq.settings import Settings
from ragq.storage.console.job_actions import JobAction
from ragq.storage.console.jobs import EXTRACTIVE, JobRow
from ragq.storage.console.selection import JobState, Selection

router = APIRouter(prefix="/v1/admin/jobs", route_class=CheckedRoute)

LAST_SECOND = 2**33  # in the year 2242
MILLION = 1_000_000
Name = Annotated[str | None, Query(max_length=128)]
Second = Annotated[float | None, Query(ge=0, le=LAST_SECOND)]


class JobObject(TypedDict):
    """A job. What is not known yet, or of this kind of job, is null."""

    id: str
    object: Literal["job"]
    tenant: str
    api_key_id: str | None
    queue: str
    lane: str
    kind: str
    state: str
    created_at: float
    started_at: float | None
    ended_at: float | None
    attempts: int
    error_code: str | None
    model: str | None
    input_tokens: int
    output_tokens: int
    cost: float | None
    waited_ms: int | None
    ran_ms: int | None
    worker: str | None
    excerpt: str


class JobList(TypedDict):
    """A page of jobs. `next` is the cursor with which the list goes on, and may be set though the page is not full."""

    object: Literal["list"]
    data: list[JobObject]
    next: str | None


class JobCount(TypedDict):
    """How many jobs a selection has; one that is not exact has more. Give `until` to an action on what was counted."""

    object: Literal["job.count"]
    count: int
    is_exact: bool
    until: float


class JobActed(TypedDict):
    """A job to which something was done."""

    id: str
    object: Literal["job"]
    action: JobAction


class OneJob(JobObject):
    """A job, and what happened to it."""

    timeline: JobTimeline


def seen_tenant(caller: Caller, named: str | None) -> str | None:
    """The tenant whose jobs a caller sees; None for all, which only the operator does.

    Raises:
        ForbiddenError: It names another than its own, and is not the operator.
    """
    if named not in (None, caller.tenant):
        caller.require(Role.OPERATOR)
    return named if caller.role is Role.OPERATOR else caller.tenant


async def _search(
    text: Annotated[str | None, Query(max_length=500)] = None,
    error_code: Name = None,
    since: Second = None,
    until: Second = None,
) -> Selection:
    return Selection(error_code=error_code or None, text=(text or "").strip() or None, since=since, until=until)


async def _select(
    caller: Admin,
    searched: Annotated[Selection, Depends(_search)],
    state: Annotated[JobState | None, Query()] = None,
    queue: Annotated[Literal["queries", "documents"] | None, Query()] = None,
    tenant: Annotated[str | None, Query(max_length=64)] = None,
    key: Name = None,
    worker: Name = None,
) -> Selection:
    tenant = seen_tenant(caller, tenant)
    return replace(searched, tenant=tenant, state=state, queue=queue, key=key or None, worker=worker or None)


Selected = Annotated[Selection, Depends(_select)]


@router.get("")
async def list_jobs(
    context: ContextDependency,
    _caller: Admin,
    selection: Selected,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    after: Annotated[str | None, Query(max_length=200)] = None,
) -> JobList:
    """List jobs: those that have not ended, then the others, the latest first."""
    page = await find_jobs(context, selection, limit=limit, cursor=after)
    return {"object": "list", "data": [render_job(row, context.settings) for row in page.jobs], "next": page.next}


@router.get("/count")
async def count_selected_jobs(context: ContextDependency, _caller: Admin, selection: Selected) -> JobCount:
    """Count the jobs of a selection, up to 100,000 ended ones and among 10,000 others."""
    until = min(selection.until or math.inf, time.time())
    count, is_exact = await count_jobs(context, replace(selection, until=until))
    return {"object": "job.count", "count": count, "is_exact": is_exact, "until": until}


@router.get("/{job_id}")
async def get_job(job_id: str, context: ContextDependency, caller: Admin) -> OneJob:
    """Show a job with its timeline."""
    row = await find_row(context, seen_tenant(caller, None), job_id)
    timeline = await make_timeline(context, row)
    return {**render_job(row, context.settings), "timeline": timeline}


@router.post("/{job_id}/retry", responses=refusals(409))
async def retry_job(
    job_id: str,
    context: ContextDependency,
    caller: Admin,
    change: Annotated[Change, audited("job.retried")],
) -> JobActed:
    """Run a failed or cancelled job again, as long as it is in the queue's memory."""
    await _act(context, caller, job_id, "retry", change)
    return {"id": job_id, "object": "job", "action": "retry"}


@router.post("/{job_id}/cancel", responses=refusals(409))
async def cancel_job(
    job_id: str,
    context: ContextDependency,
    caller: Admin,
    change: Annotated[Change, audited("job.cancelled")],
) -> JobActed:
    """Cancel a job that has not ended."""
    await _act(context, caller, job_id, "cancel", change)
    return {"id": job_id, "object": "job", "action": "cancel"}


@router.delete("/{job_id}", responses=refusals(409))
async def delete_job(
    job_id: str,
    context: ContextDependency,
    caller: Admin,
    change: Annotated[Change, audited("job.deleted")],
) -> Deleted:
    """Delete a job, and the answer of a question. One that has not ended is cancelled."""
    await _act(context, caller, job_id, "delete", change)
    return {"id": job_id, "object": "job", "deleted": True}


async def _act(context: ApiContext, caller: Caller, job_id: str, action: JobAction, change: Change) -> None:
    row = await find_row(context, seen_tenant(caller, None), job_id)
    check_state(row, action)
    async with change.outside(row.tenant_id, job_id):
        await act(context, row, action)


def render_job(row: JobRow, settings: Settings) -> JobObject:
    """Render a job."""
    return {
        "id": row.id,
        "object": "job",
        "tenant": row.tenant_id,
        "api_key_id": row.key_id or None,
        "queue": row.queue,
        "lane": row.lane or "default",
        "kind": row.kind,
        "state": row.state,
        "created_at": row.created_at.timestamp(),
        "started_at": row.started_at.timestamp() if row.started_at else None,
        "ended_at": row.ended_at.timestamp() if row.ended_at else None,
        "attempts": row.attempts,
        "error_code": row.error_code,
        "model": row.model,
        "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens,
        "cost": _cost(row, settings),
        "waited_ms": row.waited_ms,
        "ran_ms": row.ran_ms,
        "worker": row.worker,
        "excerpt": row.excerpt,
    }


def _cost(row: JobRow, settings: Settings) -> float | None:
    """What the tokens cost at today's price of the LLM; None without a price."""
    price = read_prices(settings.prices).get(settings.llm_model or "")
    if price is None or row.model == EXTRACTIVE:
        return None
    return (row.input_tokens * price.input + row.output_tokens * price.output) / MILLION
