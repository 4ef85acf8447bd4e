"""OpenAI's Chat Completions: the same job as for a response, while the client's request waits for it."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from ragq.client.job import Enqueued
from ragq.http.input import CheckedRoute
from ragq.http.openapi import refusals, shows
from ragq.models import new_id
from ragq.queues.questions import answer_of, ask, read_chat_question
from ragq.routes.context import CLIENT_GONE, ApiContext, ContextDependency, Tenant, find_asked, wait_or_cancel
from ragq.schemas.chat import ChatCompletionCreate
from ragq.schemas.chat_chunks import ChatChunks
from ragq.schemas.chat_completions import ChatCompletion, render_chat

router = APIRouter(prefix="/v1/chat/completions", route_class=CheckedRoute)

COMPLETION_PREFIX = "chatcmpl-"


@router.post("", response_model=None, responses=shows(ChatCompletion, or_events=True) | refusals(404, 429))
async def create_chat_completion(
    body: ChatCompletionCreate,
    request: Request,
    context: ContextDependency,
    tenant: Tenant,
    x_stainless_retry_count: Annotated[int, Header(ge=0)] = 0,
) -> ChatCompletion | Response:
    """Answer the last question of a conversation, in pieces with `stream`. A client that disconnects cancels it."""
    asked = await read_chat_question(body, context, tenant)
    payload = f"chat\n{json.dumps(body.model_dump(mode='json'), sort_keys=True)}"
    enqueued = await ask(
        context,
        tenant,
        new_id(COMPLETION_PREFIX),
        asked.question,
        asked.request,
        fingerprint=hashlib.sha256(payload.encode()).hexdigest(),
        stream="text" if body.stream else "nothing",
        is_repeat=x_stainless_retry_count > 0,
    )
    if body.stream:
        return await _open_stream(context, tenant, enqueued, body)
    job = await wait_or_cancel(request, context, tenant, enqueued)
    if job is None:
        return Response(status_code=CLIENT_GONE)
    return render_chat(job, answer_of(job), page=context.settings.page_url)


async def _open_stream(context: ApiContext, tenant: str, enqueued: Enqueued, body: ChatCompletionCreate) -> Response:
    job = await find_asked(context, tenant, enqueued)
    usage = bool(body.stream_options and body.stream_options.include_usage)
    chunks = ChatChunks(job, usage=usage, page=context.settings.page_url)
    return context.streams.open(job, chunks, kind=f"chat usage={usage}", cancel=enqueued.created)
