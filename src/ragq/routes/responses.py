"""OpenAI's Responses: a question is a job; the response object is the job, shown in OpenAI's form."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from ragq.client.job import Enqueued, Job
from ragq.errors import ConflictError, InvalidRequestError, NotFoundError
from ragq.models import JobFunction, Lane, QueueName, new_id
from ragq.models import Query as Question
from ragq.routes.context import Body, Context, ContextDependency, Tenant, find_job, pace_polling
from ragq.routes.filters import Filter
from ragq.routes.rendering import MODEL, RESPONSE_PREFIX, render_response

router = APIRouter(prefix="/v1/responses")

SEARCH_RESULTS = "file_search_call.results"
FOREGROUND_SECONDS = 590.0  # just below the official clients' time-out
LANES = {"priority": Lane.PRIORITY, "flex": Lane.FLEX}

Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]


class RankingOptions(Body):
    """How results are ranked."""

    ranker: Literal["auto"] = "auto"
    score_threshold: float = Field(0.0, ge=0, le=1)


class FileSearchTool(Body):
    """Where to search."""

    type: Literal["file_search"]
    vector_store_ids: list[str] = Field(min_length=1, max_length=16)
    max_num_results: int | None = Field(None, ge=1, le=50)
    ranking_options: RankingOptions | None = None
    filters: Filter | None = None


class ToolChoice(Body):
    """OpenAI's object form of a tool choice."""

    type: Literal["file_search"]


class InputText(Body):
    """A piece of a message."""

    type: Literal["input_text"]
    text: str


class InputMessage(Body):
    """A message: the user's is the question, a system's or developer's adds to the instructions."""

    type: Literal["message"] = "message"
    role: Literal["user", "system", "developer"]
    content: str | list[InputText]

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)


class TextFormat(Body):
    """The only output format there is."""

    type: Literal["text"] = "text"


class TextOptions(Body):
    """OpenAI's `text` field."""

    format: TextFormat = TextFormat()


class ResponseCreate(Body):
    """A question to be answered from the documents."""

    model: str | None = Field(None, description="`ragq`, or the configured LLM's name.")
    input: str | list[InputMessage]
    instructions: str | None = Field(None, max_length=20_000)
    background: bool | None = False
    stream: bool | None = None
    store: Literal[True] | None = None
    include: list[Literal["file_search_call.results"]] | None = None
    tools: list[FileSearchTool] | None = Field(None, max_length=1)
    tool_choice: Literal["auto", "none", "required"] | ToolChoice | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    metadata: Metadata | None = None
    service_tier: Literal["auto", "default", "flex", "priority"] | None = None
    text: TextOptions | None = None
    truncation: Literal["auto", "disabled"] | None = None
    parallel_tool_calls: bool | None = None
    user: str | None = Field(None, max_length=512)


@router.post("", response_model=None)
async def create_response(
    body: ResponseCreate,
    response: Response,
    context: ContextDependency,
    tenant: Tenant,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> dict[str, Any] | StreamingResponse:
    """Queue a question; answer with events, or at once with `background`, else when the job has ended."""
    question = await _question(body, context, tenant)
    fingerprint = hashlib.sha256(json.dumps(body.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()
    response_id, job = new_id(RESPONSE_PREFIX), None
    if idempotency_key:
        response_id = RESPONSE_PREFIX + hashlib.sha256(f"{tenant}\n{idempotency_key}".encode()).hexdigest()[:32]
        job = await context.archive.fetch(response_id, tenant)
    if job is None:
        lane = LANES.get(body.service_tier or "", Lane.DEFAULT)
        said, echo = _stream(body), _echo(body)
        await ask(context, tenant, response_id, question, request=echo, lane=lane, fingerprint=fingerprint, stream=said)
        job = await find_job(context, tenant, response_id)
    if job is None:
        raise _not_found(response_id)
    if job.fingerprint != fingerprint:
        raise ConflictError(
            "This Idempotency-Key was used with another request: use a new one.", param="idempotency_key"
        )
    if body.stream:
        return context.streams.open(job, results=bool(body.include), cancel=not body.background)
    if not body.background and not job.status.is_final:
        job = await context.queue.wait(response_id, tenant, timeout_seconds=FOREGROUND_SECONDS) or job
    if not job.status.is_final:
        pace_polling(response, job)
    return render_response(job, results=bool(body.include))


@router.get("/{response_id}", response_model=None)
async def get_response(
    response_id: str,
    response: Response,
    context: ContextDependency,
    tenant: Tenant,
    include: Annotated[list[Literal["file_search_call.results"]] | None, Query()] = None,
    include_list: Annotated[list[Literal["file_search_call.results"]] | None, Query(alias="include[]")] = None,
    stream: bool = False,
    starting_after: Annotated[int, Query(ge=-1)] = -1,
    last_event_id: Annotated[int, Header(ge=-1)] = -1,
    _include_obfuscation: Annotated[bool, Query(alias="include_obfuscation")] = False,
) -> dict[str, Any] | StreamingResponse:
    """Show a response as it stands, or its events after a number."""
    job = await _find(context, tenant, response_id)
    if stream:
        results = SEARCH_RESULTS in (job.request.get("include") or [])
        return context.streams.open(job, results=results, after=max(starting_after, last_event_id))
    if not job.status.is_final:
        pace_polling(response, job)
    return render_response(
        job, results=bool(include or include_list) or SEARCH_RESULTS in (job.request.get("include") or [])
    )


@router.post("/{response_id}/cancel")
async def cancel_response(response_id: str, context: ContextDependency, tenant: Tenant) -> dict[str, Any]:
    """Cancel a background response; one that has ended stays as it is."""
    job = await _find(context, tenant, response_id)
    if not job.request.get("background"):
        raise InvalidRequestError("Only a response created with background=true can be cancelled.", param="response_id")
    await context.queue.cancel(response_id)
    return render_response(await _find(context, tenant, response_id), results=False)


def check_question(context: Context, text: str, *, param: str) -> None:
    """Refuse an empty or oversized question.

    Raises:
        InvalidRequestError: Naming the field.
    """
    limit = context.settings.max_question_characters
    if not text.strip():
        raise InvalidRequestError("The question is empty: write one.", code="empty_question", param=param)
    if len(text) > limit:
        raise InvalidRequestError(
            f"The question has {len(text)} characters; at most {limit} are taken. Shorten it.",
            code="question_too_long",
            param=param,
        )


async def ask(
    context: Context,
    tenant: str,
    response_id: str,
    question: Question,
    *,
    request: dict[str, Any],
    lane: Lane = Lane.DEFAULT,
    fingerprint: str = "",
    stream: str = "nothing",
) -> Enqueued:
    """Queue a question; `stream` is as in `process_query`."""
    return await context.queue.enqueue(
        JobFunction.PROCESS_QUERY,
        {"query": asdict(question), "stream": stream},
        job_id=response_id,
        queue=QueueName.QUERIES,
        lane=lane,
        tenant_id=tenant,
        deadline_seconds=context.settings.query_deadline_seconds,
        request=request,
        fingerprint=fingerprint,
        archive=True,
        max_wait_seconds=context.settings.max_wait_seconds,
    )


async def _question(body: ResponseCreate, context: Context, tenant: str) -> Question:
    if body.model not in (None, MODEL, context.settings.llm_model):
        raise NotFoundError(
            f"The model '{body.model}' does not exist: use '{MODEL}', which stands for what is configured.",
            code="model_not_found",
            param="model",
        )
    text, instructions = _read_input(body)
    check_question(context, text, param="input")
    tool = body.tools[0] if body.tools else None
    if body.tool_choice == "none":
        store_ids = []
    elif tool:
        store_ids = [await context.store.resolve_store(tenant, id_, to_use=True) for id_ in tool.vector_store_ids]
    else:
        store_ids = [await context.store.default_store(tenant)]
    ranking = tool.ranking_options if tool else None
    return Question(
        text=text,
        vector_store_ids=store_ids,
        filters=tool.filters.model_dump() if tool and tool.filters else None,
        max_results=tool.max_num_results if tool else None,
        score_threshold=ranking.score_threshold if ranking else 0.0,
        instructions=instructions,
        max_output_tokens=body.max_output_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
    )


def _read_input(body: ResponseCreate) -> tuple[str, str | None]:
    """Split the input into the question and the instructions."""
    if isinstance(body.input, str):
        return body.input, body.instructions
    questions = [message.text for message in body.input if message.role == "user"]
    if len(questions) != 1:
        raise InvalidRequestError(
            f"The input has {len(questions)} user messages; exactly one, the question, is supported.", param="input"
        )
    extra = [message.text for message in body.input if message.role != "user"]
    return questions[0], "\n".join([*([body.instructions] if body.instructions else []), *extra]) or None


def _stream(body: ResponseCreate) -> str:
    if not body.stream:
        return "nothing"
    return "results" if body.include else "text"


def _echo(body: ResponseCreate) -> dict[str, Any]:
    """Keep what the response object must show again."""
    return body.model_dump(mode="json", exclude={"stream", "store"}, exclude_none=True)


async def _find(context: Context, tenant: str, response_id: str) -> Job:
    job = await find_job(context, tenant, response_id) if response_id.startswith(RESPONSE_PREFIX) else None
    if job is None:
        raise _not_found(response_id)
    return job


def _not_found(response_id: str) -> NotFoundError:
    return NotFoundError(f"No response found with id '{response_id[:80]}'.", param="response_id")
