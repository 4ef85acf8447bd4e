"""OpenAI's Responses: a question is a job, which is rendered as OpenAI's response object."""

from __future__ import annotations

import hashlib
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from ragq import records
from ragq.accounts.views import TenantView
from ragq.client.job import Enqueued
from ragq.errors import ConflictError, InvalidRequestError
from ragq.http.input import CheckedRoute
from ragq.http.openapi import refusals, shows
from ragq.models import new_id
from ragq.queues.compaction import COMPACTION_PREFIX, read_conversation, render_compaction
from ragq.queues.conversations import settle
from ragq.queues.history import delete_job, find_response
from ragq.queues.questions import ask, read_question
from ragq.queues.token_count import count_tokens
from ragq.records import Job
from ragq.routes.context import (
    CLIENT_GONE,
    FOREGROUND_SECONDS,
    ApiContext,
    ContextDependency,
    Include,
    PageDependency,
    Tenant,
    cut_page,
    fingerprint_of,
    pace_polling,
    wait_or_cancel,
)
from ragq.schemas.messages import input_of
from ragq.schemas.objects import Deleted, Listing
from ragq.schemas.questions import SEARCH_RESULTS, ResponseCompact, ResponseCreate, stream_of
from ragq.schemas.response_events import ResponseEvents
from ragq.schemas.response_objects import CompactedResponse, InputObject, InputTokens, ResponseObject
from ragq.schemas.responses import RESPONSE_PREFIX, render_input, write_response

router = APIRouter(prefix="/v1/responses", route_class=CheckedRoute)


@router.post("", response_model=None, responses=shows(ResponseObject, or_events=True) | refusals(404, 409, 410, 429))
async def create_response(
    body: ResponseCreate,
    context: ContextDependency,
    tenant: Tenant,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
    x_stainless_retry_count: Annotated[int, Header(ge=0)] = 0,
) -> Response:
    """Queue a question. `stream` sends events, `background` returns at once; otherwise wait for the answer."""
    enqueued = await _ask(body, context, tenant, idempotency_key, is_repeat=x_stainless_retry_count > 0)
    job = enqueued.job
    if not (body.background or body.stream or (job and job.status.is_final)):
        job = await context.queue.wait(enqueued.job_id, tenant.id, timeout_seconds=FOREGROUND_SECONDS)
        if job and not job.status.is_final:
            job = None  # read again below, with its position in the queue
    job = job or await find_response(context, tenant, enqueued.job_id)
    if body.stream:
        return _open_stream(context, job, cancel=enqueued.created and not body.background)
    return _show(context, job, results=_shows_results(job))


async def _ask(
    body: ResponseCreate, context: ApiContext, tenant: TenantView, idempotency_key: str | None, *, is_repeat: bool
) -> Enqueued:
    """Queue a question, or find the response that the same request created before.

    Raises:
        ConflictError: The Idempotency-Key was used with another request.
    """
    asked = await read_question(body, context, tenant)
    fingerprint = fingerprint_of("", body, tenant)
    response_id, archived = new_id(RESPONSE_PREFIX), None
    if idempotency_key:
        response_id = RESPONSE_PREFIX + hashlib.sha256(f"{tenant.owner}\n{idempotency_key}".encode()).hexdigest()[:32]
        archived = await context.archive.fetch(response_id, tenant)
    if archived:
        enqueued = Enqueued(response_id, created=False, fingerprint=archived.fingerprint, job=archived)
    else:
        enqueued = await ask(
            context,
            tenant,
            response_id,
            asked.question,
            asked.request,
            fingerprint=fingerprint,
            stream=stream_of(body),
            is_repeat=None if idempotency_key else is_repeat,
        )
    if enqueued.fingerprint != fingerprint:
        raise ConflictError(
            "This Idempotency-Key was used with another request: use a new one.", param="idempotency_key"
        )
    return enqueued


@router.post("/input_tokens", responses=refusals(404, 410))
async def count_input_tokens(body: ResponseCreate, context: ContextDependency, tenant: Tenant) -> InputTokens:
    """Estimate the tokens of a question with its instructions, conversation and tools. Nothing is asked."""
    asked = await read_question(body, context, tenant)
    return {"object": "response.input_tokens", "input_tokens": await count_tokens(asked.question)}


@router.post("/compact", response_model=None, responses=shows(CompactedResponse) | refusals(404, 410, 429))
async def compact_conversation(
    body: ResponseCompact,
    request: Request,
    context: ContextDependency,
    tenant: Tenant,
    x_stainless_retry_count: Annotated[int, Header(ge=0)] = 0,
) -> CompactedResponse | Response:
    """Make a conversation short. A client that disconnects cancels it."""
    compacting, job = await read_conversation(body, context, tenant), None
    compaction_id = new_id(COMPACTION_PREFIX)
    if compacting.question:
        enqueued = await ask(
            context,
            tenant,
            compaction_id,
            compacting.question,
            records.Request(store=False, model=body.model, service_tier=body.service_tier or "default"),
            fingerprint=fingerprint_of("compact", body, tenant),
            is_repeat=x_stainless_retry_count > 0,
        )
        job = await wait_or_cancel(request, context, tenant, enqueued)
        if job is None:
            return Response(status_code=CLIENT_GONE)
    return render_compaction(compacting, job.id if job else compaction_id, job)


@router.get("/{response_id}", response_model=None, responses=shows(ResponseObject, or_events=True) | refusals(410))
async def get_response(
    response_id: str,
    context: ContextDependency,
    tenant: Tenant,
    include: Include,
    stream: bool = False,
    starting_after: Annotated[int, Query(ge=-1)] = -1,
    last_event_id: Annotated[int, Header(ge=-1)] = -1,
    _include_obfuscation: Annotated[bool, Query(alias="include_obfuscation")] = False,
) -> Response:
    """Show a response or, with `stream`, its events after a number."""
    job = await find_response(context, tenant, response_id)
    if stream:
        return _open_stream(context, job, after=max(starting_after, last_event_id))
    results = SEARCH_RESULTS in include or _shows_results(job)
    return _show(context, job, results=results)


def _show(context: ApiContext, job: Job, *, results: bool) -> Response:
    written = write_response(job, results=results, page=context.settings.page_url)
    shown = Response(written, media_type="application/json")
    if not job.status.is_final:
        pace_polling(shown, job)
    return shown


def _shows_results(job: Job) -> bool:
    return SEARCH_RESULTS in job.request.include


def _open_stream(context: ApiContext, job: Job, *, after: int = -1, cancel: bool = False) -> StreamingResponse:
    made = ResponseEvents(job, results=_shows_results(job), page=context.settings.page_url)
    return context.streams.open(job, made, kind="response", after=after, cancel=cancel)


@router.post("/{response_id}/cancel", response_model=None, responses=shows(ResponseObject) | refusals(410))
async def cancel_response(response_id: str, context: ContextDependency, tenant: Tenant) -> Response:
    """Cancel a background response. A response that has ended is left unchanged."""
    job = await find_response(context, tenant, response_id)
    if not job.request.background:
        raise InvalidRequestError("Only a response created with background=true can be cancelled.", param="response_id")
    await context.queue.cancel(response_id)
    return _show(context, await find_response(context, tenant, response_id), results=False)


@router.delete("/{response_id}", responses=refusals(410))
async def delete_response(response_id: str, context: ContextDependency, tenant: Tenant) -> Deleted:
    """Delete a response. If it has not ended, it is cancelled."""
    job = await find_response(context, tenant, response_id)
    await settle(context, job)
    await delete_job(context, job)
    return {"id": response_id, "object": "response", "deleted": True}


@router.get("/{response_id}/input_items", responses=refusals(410))
async def list_input_items(
    response_id: str, page: PageDependency, context: ContextDependency, tenant: Tenant
) -> Listing[InputObject]:
    """List the input messages of a response."""
    items = render_input(response_id, input_of(await find_response(context, tenant, response_id, whole=True)))
    return cut_page(items, page)
