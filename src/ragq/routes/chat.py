"""The tutorial's two routes: queue a question, fetch its answer later."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from fastapi import APIRouter, Query
from pydantic import Field
from typing_extensions import TypedDict

from ragq.errors import InvalidRequestError, NotFoundError
from ragq.http.input import CheckedRoute
from ragq.http.openapi import refusals
from ragq.models import Citation, Question, new_id
from ragq.queues.history import find_job
from ragq.queues.questions import ask, check_question, stores_of
from ragq.records import Request
from ragq.routes.context import ContextDependency, Tenant
from ragq.schemas.objects import Body, JobError
from ragq.schemas.response_objects import AnswerConfidence, AnswerSupport, Timing
from ragq.schemas.responses import (
    RESPONSE_PREFIX,
    STATUS_WORDS,
    StatusWord,
    render_confidence,
    render_support,
    timing_of,
)

router = APIRouter(route_class=CheckedRoute)


class Accepted(TypedDict):
    """A queued question."""

    status: Literal["queued"]
    job_id: str


class Result(TypedDict):
    """An answer with its sources."""

    answer: str
    kind: Literal["extractive", "generated"]
    confidence: AnswerConfidence | None
    support: AnswerSupport | None
    sources: list[Citation]
    timing: Timing


class JobState(TypedDict):
    """The status of a question."""

    status: StatusWord
    result: Result | None
    error: NotRequired[JobError]
    position: NotRequired[int]
    eta_seconds: NotRequired[float | None]


class ChatCreate(Body):
    """The question, if it is not sent as `?query=`."""

    query: str = Field(description="The question.")


@router.post("/chat", responses=refusals(429))
async def chat(
    context: ContextDependency,
    tenant: Tenant,
    query: Annotated[str | None, Query(description="The question.")] = None,
    body: ChatCreate | None = None,
) -> Accepted:
    """Queue a question about the documents of the default store."""
    text = query if query is not None else body.query if body else None
    if text is None:
        raise InvalidRequestError('Send the question as ?query=… or as a JSON body {"query": "…"}.', param="query")
    check_question(text, param="query")
    request = Request(background=True, input=text)
    enqueued = await ask(context, tenant, new_id(RESPONSE_PREFIX), Question(text, stores_of(tenant)), request)
    return {"status": "queued", "job_id": enqueued.job_id}


@router.get("/job-status", responses=refusals(404, 410))
async def job_status(job_id: str, context: ContextDependency, tenant: Tenant) -> JobState:
    """Show the status of a question, and its answer once it has one."""
    job = await find_job(context, tenant, job_id) if job_id.startswith(RESPONSE_PREFIX) else None
    if job is None:
        raise NotFoundError(f"No job found with id '{job_id[:80]}'.", param="job_id")
    status: JobState = {"status": STATUS_WORDS[job.status], "result": None}
    if job.answered:
        answer = job.answered.answer
        status["result"] = {
            "answer": answer.text,
            "kind": answer.kind,
            "confidence": render_confidence(answer),
            "support": render_support(answer),
            "sources": answer.citations,
            "timing": timing_of(job),
        }
    if job.error:
        status["error"] = {"code": job.error.code, "message": job.error.message}
    if job.position:
        status |= {"position": job.position, "eta_seconds": job.eta_seconds}
    return status
