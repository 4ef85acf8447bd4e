"""Health, readiness and status."""

from __future__ import annotations

from typing import Any, NotRequired

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from typing_extensions import TypedDict

from ragq import __version__
from ragq.accounts.roles import Role
from ragq.client.queue_monitor import ListState, WorkerState
from ragq.http.input import CheckedRoute
from ragq.http.openapi import shows
from ragq.models import QueueName
from ragq.routes.context import AnyCaller, ContextDependency

router = APIRouter(route_class=CheckedRoute)

NOT_READY: dict[int | str, dict[str, Any]] = {
    503: {"model": dict[str, str], "description": "A required service is not ready."}
}


class Status(TypedDict):
    """The kind of answers; for the operator, queues and workers, too.

    Attributes:
        oldest_seconds: For each queue, how long its first job has waited; 0 if none waits. Autoscalers read it.
    """

    version: str
    answers: dict[str, str | None]
    queues: NotRequired[list[ListState]]
    workers: NotRequired[list[WorkerState]]
    oldest_seconds: NotRequired[dict[str, float]]


@router.get("/healthz")
async def check_health() -> dict[str, str]:
    """Show that the process answers."""
    return {"status": "ok"}


@router.get("/readyz", responses=shows(dict[str, str]) | NOT_READY)
async def check_readiness(request: Request, context: ContextDependency) -> JSONResponse:
    """Show whether Valkey, PostgreSQL and the migrations are ready; to the operator, also why not."""
    faults: dict[str, str] = {}
    if context.not_ready:
        faults["start"] = context.not_ready
    faults |= await context.readiness.find_faults(
        {"valkey": context.queue.ping, "postgresql": context.database.check_ready}
    )
    if not request.state.is_trusted:
        faults = dict.fromkeys(faults, "not ready")
    if faults:
        return JSONResponse({"status": "not ready", **faults}, 503, headers={"Retry-After": "2"})
    return JSONResponse({"status": "ready"})


@router.get("/status")
async def show_status(context: ContextDependency, caller: AnyCaller) -> Status:
    """Show the kind of answers; to the operator, queues and workers, too."""
    settings = context.settings
    status: Status = {
        "version": __version__,
        "answers": {"kind": "generated", "model": settings.llm_model}
        if settings.llm_base_url
        else {"kind": "extractive"},
    }
    if caller.role is Role.OPERATOR:
        described = await context.queue.monitor.describe()
        status |= {
            "queues": described.queues,
            "workers": described.workers,
            "oldest_seconds": {str(name): described.oldest_seconds(name) for name in QueueName},
        }
    return status
