"""Actions on many jobs: on some by their ids, or on all of a selection, in the background."""

from __future__ import annotations

import time
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter
from pydantic import ConfigDict, Field, StringConstraints, model_validator
from typing_extensions import TypedDict

from ragq.console.jobs import LAST_SECOND, seen_tenant
from ragq.http.audit import Change, audited
from ragq.http.callers import Caller
from ragq.http.input import CheckedRoute
from ragq.http.openapi import refusals
from ragq.queues.upkeep.job_actions import BATCH, count_jobs
from ragq.routes.context import Admin, ContextDependency
from ragq.schemas.objects import Body
from ragq.storage.console.job_actions import ActionRecord, JobAction
from ragq.storage.console.selection import LIVE, JobState, Selection

router = APIRouter(prefix="/v1/admin/job_actions", route_class=CheckedRoute)

Name = Field(None, min_length=1, max_length=128)
Second = Field(None, ge=0, le=LAST_SECOND)


class JobSelection(Body):
    """Which jobs: as in `GET /v1/admin/jobs`, or by their ids. An unknown field is refused, since without it there would be more."""

    model_config = ConfigDict(extra="forbid")

    state: JobState | None = None
    queue: Literal["queries", "documents"] | None = None
    tenant: str | None = Field(None, max_length=64)
    key: str | None = Name
    worker: str | None = Name
    error_code: str | None = Name
    text: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)] | None = None
    since: float | None = Second
    until: float | None = Second
    ids: list[str] | None = Field(None, min_length=1, max_length=BATCH)


class JobActionCreate(Body):
    """What to do to which jobs. `retry` and `cancel` of a selection without ids need its state."""

    action: JobAction
    jobs: JobSelection

    @model_validator(mode="after")
    def _fits(self) -> JobActionCreate:
        state, needs_state = self.jobs.state, self.jobs.ids is None
        if needs_state and self.action == "retry" and state not in ("failed", "canceled"):
            raise ValueError("to retry a selection, give it the state failed or canceled")
        if needs_state and self.action == "cancel" and state not in LIVE:
            raise ValueError("to cancel a selection, give it the state queued, scheduled or started")
        return self


class JobActionObject(TypedDict):
    """What is done to many jobs, and how far it is.

    `total` counts the selection at the beginning, `skipped` jobs that were in no state for it.
    """

    id: str
    object: Literal["job_action"]
    tenant: str
    action: str
    state: str
    total: int
    done: int
    skipped: int
    created_at: int
    ended_at: int | None


@router.post("")
async def create_job_action(
    body: JobActionCreate,
    context: ContextDependency,
    caller: Admin,
    change: Annotated[Change, audited("job_action.created")],
) -> JobActionObject:
    """Retry, cancel or delete jobs in the background, a hundred at a time. What begins or ends later is left out."""
    selection = _selection_of(body.jobs, caller)
    total, _ = await count_jobs(context, selection)
    async with change(caller.tenant, action=body.action, total=total) as entry:
        begun = await context.job_actions.begin(caller.tenant, body.action, selection, total=total)
        entry.object_id = begun.id
    return render_action(begun)


@router.get("/{action_id}", responses=refusals(404))
async def get_job_action(action_id: str, context: ContextDependency, caller: Admin) -> JobActionObject:
    """Show how far an action is."""
    return render_action(await context.job_actions.get(seen_tenant(caller, None), action_id))


@router.post("/{action_id}/stop", responses=refusals(404))
async def stop_job_action(
    action_id: str,
    context: ContextDependency,
    caller: Admin,
    change: Annotated[Change, audited("job_action.stopped")],
) -> JobActionObject:
    """Stop an action; what it has done stays. One that has ended is left unchanged."""
    async with change(caller.tenant, action_id) as entry:
        stopped = await context.job_actions.stop(seen_tenant(caller, None), action_id)
        entry.data = {"state": stopped.state}
    return render_action(stopped)


def _selection_of(given: JobSelection, caller: Caller) -> Selection:
    """The jobs of a selection, up to now and as far as the caller sees them."""
    now = time.time()
    fields = given.model_dump(exclude_none=True)
    fields |= {
        "tenant": seen_tenant(caller, given.tenant),
        "until": now if given.until is None else min(given.until, now),
    }
    return msgspec.convert(fields, Selection)


def render_action(record: ActionRecord) -> JobActionObject:
    """Render an action on many jobs."""
    return {
        "id": record.id,
        "object": "job_action",
        "tenant": record.tenant_id,
        "action": record.action,
        "state": record.state,
        "total": record.total,
        "done": record.done,
        "skipped": record.skipped,
        "created_at": int(record.created_at.timestamp()),
        "ended_at": int(record.ended_at.timestamp()) if record.ended_at else None,
    }
