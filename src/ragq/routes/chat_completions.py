"""OpenAI's Chat Completions: the same job as for a response, while the client's request waits for it."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Request, Response
from pydantic import Field
from typing_extensions import TypedDict

from ragq.client.job import Enqueued
from ragq.context import Context
from ragq.errors import InvalidRequestError, RagqError, UnavailableError
from ragq.http.input import CheckedRoute
from ragq.http.openapi import refusals, shows
from ragq.models import DEFAULT_STORE_NAME, Question, new_id
from ragq.queues.questions import ask, check_model, check_question
from ragq.rag.rewrite import bound_history
from ragq.records import Job
from ragq.records import Request as JobRequest
from ragq.routes.context import ApiContext, ContextDependency, Tenant, wait_connected
from ragq.routes.responses import FOREGROUND_SECONDS
from ragq.schemas.chat_chunks import ChatChunks, CompletionUsage, finish_reason_of, usage_of
from ragq.schemas.objects import Body
from ragq.schemas.questions import RULES, Metadata, TextFormat
from ragq.schemas.responses import MODEL, render_citations

router = APIRouter(prefix="/v1/chat/completions", route_class=CheckedRoute)

COMPLETION_PREFIX = "chatcmpl-"
NOT_ANSWERED = "The question was cancelled or was not answered in time: ask again."
CLIENT_GONE = 499  # seen only by the metrics


class CompletionMessage(TypedDict):
    """The answer."""

    role: Literal["assistant"]
    content: str
    refusal: None
    annotations: list[dict[str, Any]]


class Choice(TypedDict):
    """The only choice."""

    index: int
    message: CompletionMessage
    logprobs: None
    finish_reason: Literal["stop", "length"]


class ChatCompletion(TypedDict):
    """OpenAI's chat completion."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: CompletionUsage


class TextPart(Body):
    """A piece of a message."""

    type: Literal["text"]
    text: str


class ChatMessage(Body):
    """A message. Fields that our own answers carry are accepted, so that clients can send them back unchanged."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(fail_fast=True)]
    annotations: list[dict[str, Any]] | None = None
    refusal: None = None

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)


class StreamOptions(Body):
    """Options of a stream."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ChatCompletionCreate(Body):
    """A conversation; its last question is answered from the documents."""

    messages: list[ChatMessage] = Field(min_length=1, fail_fast=True)
    model: str | None = Field(None, description="`ragq`, or the configured LLM's name.")
    vector_store_ids: list[str] | None = Field(
        None, max_length=16, description="Stores to search, ragq's own field; the default store when left out."
    )
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    n: Literal[1] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: TextFormat | None = None
    service_tier: Literal["auto", "default", "flex", "priority"] | None = None
    metadata: Metadata | None = None
    user: str | None = Field(None, max_length=512)


@router.post("", response_model=None, responses=shows(ChatCompletion, or_events=True) | refusals(404, 429))
async def create_chat_completion(
    body: ChatCompletionCreate,
    request: Request,
    context: ContextDependency,
    tenant: Tenant,
    x_stainless_retry_count: Annotated[int, Header(ge=0)] = 0,
) -> ChatCompletion | Response:
    """Answer the last question of a conversation, in pieces with `stream`. A client that disconnects cancels it."""
    question = await _question(body, context, tenant)
    payload = f"chat\n{json.dumps(body.model_dump(mode='json'), sort_keys=True)}"
    enqueued = await ask(
        context,
        tenant,
        new_id(COMPLETION_PREFIX),
        question,
        JobRequest(store=False, model=body.model, service_tier=body.service_tier or "default"),
        fingerprint=hashlib.sha256(payload.encode()).hexdigest(),
        stream="text" if body.stream else "nothing",
        is_repeat=x_stainless_retry_count > 0,
    )
    if body.stream:
        return await _open_stream(context, tenant, enqueued, body)
    waiting = context.queue.wait(enqueued.job_id, tenant, timeout_seconds=FOREGROUND_SECONDS)
    job = await wait_connected(request, waiting)
    if enqueued.created and (job is None or not job.status.is_final):
        await context.queue.cancel(enqueued.job_id)
    return Response(status_code=CLIENT_GONE) if job is None else _render(job)


async def _question(body: ChatCompletionCreate, context: Context, tenant: str) -> Question:
    check_model(body.model, context.settings.llm_model)
    rules = [message.text for message in body.messages if message.role in RULES]
    turns = [message for message in body.messages if message.role not in RULES]
    if not turns or turns[-1].role != "user":
        raise InvalidRequestError("The last message must be the user's question.", param="messages")
    *history, last = turns
    check_question(context, last.text, param="messages")
    if body.vector_store_ids is None:
        store_ids = [DEFAULT_STORE_NAME]
    else:
        store_ids = [await context.stores.resolve(tenant, id_, to_use=True) for id_ in body.vector_store_ids]
    return Question(
        text=last.text,
        vector_store_ids=store_ids,
        instructions="\n".join(rules) or None,
        max_output_tokens=body.max_completion_tokens or body.max_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        history=bound_history([{"role": message.role, "content": message.text} for message in history]),
    )


async def _open_stream(context: ApiContext, tenant: str, enqueued: Enqueued, body: ChatCompletionCreate) -> Response:
    job = await context.queue.fetch(enqueued.job_id, tenant)
    if job is None:
        raise UnavailableError(NOT_ANSWERED, code="not_answered")
    usage = bool(body.stream_options and body.stream_options.include_usage)
    return context.streams.open(job, ChatChunks(job, usage=usage), kind=f"chat usage={usage}", cancel=enqueued.created)


def _render(job: Job) -> ChatCompletion:
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
        "content": answer.text,
        "refusal": None,
        "annotations": render_citations(answer),
    }
    return {
        "id": job.id,
        "object": "chat.completion",
        "created": int(job.created_at),
        "model": job.request.model or MODEL,
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": None,
                "finish_reason": finish_reason_of(answer),
            }
        ],
        "usage": usage_of(answer),
    }
