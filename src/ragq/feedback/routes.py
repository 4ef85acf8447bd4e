"""Rate an answer, and read what was said of answers."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from ragq import metrics
from ragq.accounts.views import TenantView
from ragq.admin.keys import choose_tenant
from ragq.errors import InvalidRequestError, PermanentError
from ragq.feedback.objects import (
    FeedbackCreate,
    FeedbackObject,
    RatedAnswerObject,
    render_feedback,
    render_rated,
)
from ragq.http.input import CheckedRoute
from ragq.http.openapi import refusals
from ragq.queues.history import find_job, find_response
from ragq.records import Job, read_job
from ragq.routes.context import Admin, ApiContext, ContextDependency, PageDependency, Tenant, listing
from ragq.schemas.objects import Deleted, Listing
from ragq.storage.archive import CHAT_PREFIX
from ragq.storage.feedback import FeedbackFilter, RatedAnswer, Rating

router = APIRouter(prefix="/v1", route_class=CheckedRoute)

LAST_SECOND = 2**33  # in the year 2242
Second = Annotated[int | None, Query(ge=0, le=LAST_SECOND)]


@router.post("/responses/{response_id}/feedback", responses=refusals(410))
async def rate_response(
    response_id: str, body: FeedbackCreate, context: ContextDependency, tenant: Tenant
) -> FeedbackObject:
    """Rate an answer, in place of what was said of it before."""
    job = await _find_answer(context, tenant, response_id)
    if not job.request.store:
        raise InvalidRequestError(
            f"'{response_id}' is not stored, so it takes no feedback: ask with store=true.", param="response_id"
        )
    if job.answered is None:
        raise InvalidRequestError(f"'{response_id}' has no answer that could be rated.", param="response_id")
    await context.archive.store([job])  # the archiver may not have been here yet
    record = await context.feedback.put(tenant, response_id, rating=body.rating, comment=body.comment or None)
    metrics.FEEDBACK.labels(body.rating).inc()
    return render_feedback(response_id, record)


@router.get("/responses/{response_id}/feedback", responses=refusals(410))
async def show_feedback(response_id: str, context: ContextDependency, tenant: Tenant) -> FeedbackObject:
    """Show the feedback on an answer."""
    await _find_answer(context, tenant, response_id)
    return render_feedback(response_id, await context.feedback.find(tenant, response_id))


@router.delete("/responses/{response_id}/feedback", responses=refusals(410))
async def delete_feedback(response_id: str, context: ContextDependency, tenant: Tenant) -> Deleted:
    """Take back the feedback on an answer, if there is any."""
    await _find_answer(context, tenant, response_id)
    await context.feedback.delete(tenant, response_id)
    return {"id": response_id, "object": "response.feedback", "deleted": True}


async def _find_answer(context: ApiContext, tenant: TenantView, response_id: str) -> Job:
    """Find a response or a chat completion.

    Raises:
        NotFoundError: The caller has none with this id.
    """
    if response_id.startswith(CHAT_PREFIX) and (job := await find_job(context, tenant, response_id)):
        return job
    return await find_response(context, tenant, response_id)


async def _filter(rating: Rating | None = None, since: Second = None, until: Second = None) -> FeedbackFilter:
    return FeedbackFilter(rating, since, until)


@router.get("/admin/feedback", responses=refusals(404))
async def list_feedback(
    page: PageDependency,
    context: ContextDependency,
    caller: Admin,
    wanted: Annotated[FeedbackFilter, Depends(_filter)],
    tenant: Annotated[str | None, Query(max_length=64)] = None,
) -> Listing[RatedAnswerObject]:
    """List feedback by age, with questions and answers: the caller's tenant's or, to the operator, that of the tenant it names."""
    records = await context.feedback.list_rated(choose_tenant(caller, tenant), page, wanted)
    return listing([render_rated(record, await _read_job(context, record)) for record in records], page)


async def _read_job(context: ApiContext, record: RatedAnswer) -> Job:
    """Read an answer with its whole request, as far as that is still there."""
    job = read_job(record.job)
    try:
        return await context.queue.requests.complete(job)
    except PermanentError:
        return job
