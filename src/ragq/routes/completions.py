"""OpenAI's old completions, for clients that know no chats: the same job as for a chat completion."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from ragq.http.input import CheckedRoute
from ragq.http.openapi import refusals, shows
from ragq.models import new_id
from ragq.queues.questions import answer_of, check_question, read_chat_question
from ragq.routes.context import CLIENT_GONE, ContextDependency, Tenant, ask_chat, find_asked, wait_or_cancel
from ragq.schemas.completions import (
    TEXT_PREFIX,
    Completion,
    CompletionCreate,
    TextChunks,
    as_chat,
    read_prompt,
    render_completion,
)

router = APIRouter(prefix="/v1/completions", route_class=CheckedRoute)


@router.post("", response_model=None, responses=shows(Completion, or_events=True) | refusals(404, 429))
async def create_completion(
    body: CompletionCreate,
    request: Request,
    context: ContextDependency,
    tenant: Tenant,
    x_stainless_retry_count: Annotated[int, Header(ge=0)] = 0,
) -> Completion | Response:
    """Answer a text, in pieces with `stream`. A client that disconnects cancels it."""
    prompt = read_prompt(body)
    check_question(prompt, param="prompt")
    asked = await read_chat_question(as_chat(body, prompt), context, tenant)
    enqueued = await ask_chat(
        context, tenant, new_id(TEXT_PREFIX), asked, body, kind="text", is_repeat=x_stainless_retry_count > 0
    )
    echoed, page = prompt if body.echo else "", context.settings.page_url
    if body.stream:
        job = await find_asked(context, tenant, enqueued)
        usage = bool(body.stream_options and body.stream_options.include_usage)
        chunks = TextChunks(job, prompt=echoed, usage=usage, page=page)
        return context.streams.open(job, chunks, kind=f"text usage={usage}", cancel=enqueued.created)
    done = await wait_or_cancel(request, context, tenant, enqueued)
    if done is None:
        return Response(status_code=CLIENT_GONE)
    return render_completion(done, answer_of(done), prompt=echoed, page=page)
