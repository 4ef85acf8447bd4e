"""OpenAI's Chat Completions: the same job as for a response, while the client's request waits for it."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, NotRequired

from fastapi import APIRouter, Header, Request, Response
from typing_extensions import TypedDict

from ragq.client.job import Enqueued
from ragq.errors import RagqError, UnavailableError
from ragq.http.input import CheckedRoute
from ragq.http.openapi import refusals, shows
from ragq.models import new_id
from ragq.queues.questions import ask, read_chat_question
from ragq.records import Job
from ragq.routes.context import CLIENT_GONE, ApiContext, ContextDependency, Tenant, wait_or_cancel
from ragq.schemas.chat import ChatCompletionCreate
from ragq.schemas.chat_chunks import (
    ChatChunks,
    CompletionUsage,
    FunctionCall,
    UrlAnnotation,
    finish_reason_of,
    render_annotations,
    render_calls,
    render_logprobs,
    usage_of,
)
from ragq.schemas.responses import MODEL

router = APIRouter(prefix="/v1/chat/completions", route_class=CheckedRoute)

COMPLETION_PREFIX = "chatcmpl-"
NOT_ANSWERED = "The question was cancelled or was not answered in time: ask again."


class CompletionMessage(TypedDict):
    """The answer."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    annotations: list[UrlAnnotation]
    tool_calls: NotRequired[list[FunctionCall]]
    reasoning_content: NotRequired[str]


class Choice(TypedDict):
    """The only choice."""

    index: int
    message: CompletionMessage
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatCompletion(TypedDict):
    """OpenAI's chat completion; `notes` is ragq's own, and tells what of the request was ignored."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: CompletionUsage
    notes: list[str]


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
    return Response(status_code=CLIENT_GONE) if job is None else _render(job, page=context.settings.page_url)


async def _open_stream(context: ApiContext, tenant: str, enqueued: Enqueued, body: ChatCompletionCreate) -> Response:
    job = await context.queue.fetch(enqueued.job_id, tenant)
    if job is None:
        raise UnavailableError(NOT_ANSWERED, code="not_answered")
    usage = bool(body.stream_options and body.stream_options.include_usage)
    chunks = ChatChunks(job, usage=usage, page=context.settings.page_url)
    return context.streams.open(job, chunks, kind=f"chat usage={usage}", cancel=enqueued.created)


def _render(job: Job, *, page: str) -> ChatCompletion:
    """Render a finished job as OpenAI's chat completion.

    Raises:
        RagqError: The job has no answer.
    """
    if job.error:
        raise RagqError(job.error.message, code=job.error.code)
    if job.answered is None:
        raise UnavailableError(NOT_ANSWERED, code="not_answered")
    answer = job.answered.answer
    message: CompletionMessage = {
        "role": "assistant",
        "content": answer.text or None,
        "refusal": answer.refusal or None,
        "annotations": render_annotations(answer, page),
    }
    if answer.tool_calls:
        message["tool_calls"] = render_calls(answer)
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    return {
        "id": job.id,
        "object": "chat.completion",
        "created": int(job.created_at),
        "model": job.request.model or MODEL,
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": render_logprobs(answer),
                "finish_reason": finish_reason_of(answer),
            }
        ],
        "usage": usage_of(answer),
        "notes": job.request.notes,
    }
