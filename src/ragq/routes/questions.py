"""A question as it comes in a request in OpenAI's form, and how it gets into the queue."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ragq.client.job import Enqueued
from ragq.errors import InvalidRequestError, NotFoundError
from ragq.models import DEFAULT_STORE_NAME, Job, JobFunction, JobStatus, Lane, QueueName
from ragq.models import Query as Question
from ragq.rag.rewrite import bound_history
from ragq.routes.context import Body, Context, find_job
from ragq.routes.filters import Filter
from ragq.routes.rendering import MODEL, RESPONSE_PREFIX, STATUS_WORDS

RULES = ("system", "developer")
LANES = {"priority": Lane.PRIORITY, "flex": Lane.FLEX}
UNSTORED_SECONDS = 60  # a response that is not stored stays so long, for a client that has lost the answer

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


class OutputText(Body):
    """A piece of an answer, as it comes back in a conversation."""

    type: Literal["output_text"]
    text: str
    annotations: list[dict[str, Any]] | None = None
    logprobs: list[dict[str, Any]] | None = None


class InputMessage(Body):
    """A message: the last is the user's question; a system's or developer's adds to the instructions.

    What an answer of ours carries is taken back with it, so that it can be sent again as it came.
    """

    type: Literal["message"] = "message"
    role: Literal["user", "system", "developer", "assistant"]
    content: str | Annotated[list[InputText | OutputText], Field(fail_fast=True)]
    id: str | None = None
    status: str | None = None
    kind: Literal["extractive", "generated"] | None = None

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)


class EarlierSearch(Body):
    """The search of an earlier answer, as it comes back in a conversation; the documents are searched anew."""

    type: Literal["file_search_call"]
    id: str
    queries: list[str]
    status: str | None = None
    results: list[dict[str, Any]] | None = None


class TextFormat(Body):
    """The only output format there is."""

    type: Literal["text"] = "text"


class TextOptions(Body):
    """OpenAI's `text` field."""

    format: TextFormat = TextFormat()


class ResponseCreate(Body):
    """A question to be answered from the documents."""

    model: str | None = Field(None, description="`ragq`, or the configured LLM's name.")
    input: str | Annotated[list[InputMessage | EarlierSearch], Field(fail_fast=True)]
    instructions: str | None = Field(None, max_length=20_000)
    background: bool | None = False
    stream: bool | None = None
    store: bool | None = None
    previous_response_id: str | None = Field(None, max_length=100)
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
    is_repeat: bool | None = None,
) -> Enqueued:
    """Queue a question; with `store: false` in the request it is not archived, and soon gone.

    Args:
        stream: As in `process_query`.
        is_repeat: Whether the client has sent the same before, without an `Idempotency-Key`; None with one.
    """
    is_stored = request.get("store") is not False
    return await context.queue.enqueue(
        JobFunction.PROCESS_QUERY,
        {"query": question.as_arguments(), "stream": stream},
        job_id=response_id,
        queue=QueueName.QUERIES,
        lane=lane,
        tenant_id=tenant,
        deadline_seconds=context.settings.query_deadline_seconds,
        request=request,
        fingerprint=fingerprint,
        archive=is_stored,
        keep_seconds=None if is_stored else UNSTORED_SECONDS,
        max_wait_seconds=context.settings.max_wait_seconds,
        is_repeat=is_repeat,
    )


def check_model(model: str | None, configured: str | None) -> None:
    """Refuse a model that is neither `ragq` nor the configured one.

    Raises:
        NotFoundError: There is no such model.
    """
    if model not in (None, MODEL, configured):
        raise NotFoundError(
            f"The model '{model}' does not exist: use '{MODEL}', which stands for what is configured.",
            code="model_not_found",
            param="model",
        )


async def read_question(body: ResponseCreate, context: Context, tenant: str) -> Question:
    """Check a request and make of it the question that travels in a job.

    Raises:
        InvalidRequestError: Naming the field.
        NotFoundError: It names a model, a store or a response that is not there.
    """
    check_model(body.model, context.settings.llm_model)
    if body.background and body.store is False:
        raise InvalidRequestError("A background response must be stored: leave out store=false.", param="store")
    text, instructions, turns = _read_input(body)
    check_question(context, text, param="input")
    tool = body.tools[0] if body.tools else None
    if body.tool_choice == "none":
        store_ids = []
    elif tool:
        store_ids = [await context.stores.resolve(tenant, id_, to_use=True) for id_ in tool.vector_store_ids]
    else:
        store_ids = [DEFAULT_STORE_NAME]
    ranking = tool.ranking_options if tool else None
    earlier = await _history(context, tenant, body.previous_response_id) if body.previous_response_id else []
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
        history=bound_history([*earlier, *turns]),
    )


async def _history(context: Context, tenant: str, response_id: str) -> list[dict[str, str]]:
    """Read the conversation that ends with a response.

    Raises:
        InvalidRequestError: Nothing can follow that response.
    """
    param = "previous_response_id"
    job = await find_response(context, tenant, response_id, param=param, whole=True)
    if job.request.get("store") is False:
        raise InvalidRequestError(f"The response '{response_id}' was not stored.", param=param)
    if job.status is not JobStatus.FINISHED or job.result is None:
        status = STATUS_WORDS[job.status]
        raise InvalidRequestError(
            f"The response '{response_id}' is {status}: only a completed one can be followed.", param=param
        )
    *_, question = [text for role, text in messages_of(job) if role == "user"]
    last = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": job.result["answer"]["text"]},
    ]
    return [*job.request.get("history", []), *last]


def messages_of(job: Job) -> list[tuple[str, str]]:
    """Role and text of each message that a job was asked with."""
    given = job.request.get("input", [])
    if isinstance(given, str):
        return [("user", given)]
    messages = (InputMessage.model_validate(item) for item in given if item["type"] == "message")
    return [(message.role, message.text) for message in messages]


def _read_input(body: ResponseCreate) -> tuple[str, str | None, list[dict[str, str]]]:
    """Split the input into the question, the instructions and the conversation before the question."""
    if isinstance(body.input, str):
        return body.input, body.instructions, []
    messages = [item for item in body.input if isinstance(item, InputMessage)]
    rules = [message.text for message in messages if message.role in RULES]
    turns = [message for message in messages if message.role not in RULES]
    if not turns or turns[-1].role != "user":
        raise InvalidRequestError("The last message of the input must be the user's question.", param="input")
    *earlier, last = turns
    instructions = "\n".join([*([body.instructions] if body.instructions else []), *rules]) or None
    return last.text, instructions, [{"role": message.role, "content": message.text} for message in earlier]


def stream_of(body: ResponseCreate) -> str:
    """What the worker is to say while it works, as in `process_query`."""
    if not body.stream:
        return "nothing"
    return "results" if body.include else "text"


def echo_of(body: ResponseCreate) -> dict[str, Any]:
    """Keep what the response object must show again."""
    return body.model_dump(mode="json", exclude={"stream"}, exclude_none=True)


async def find_response(
    context: Context, tenant: str, response_id: str, *, param: str = "response_id", whole: bool = False
) -> Job:
    """Find a response.

    Args:
        whole: With the input and the history of its request, which may be in the blob store.

    Raises:
        GoneError: It has expired, or a part of its request is lost.
        NotFoundError: This tenant has none of that id.
    """
    job = await find_job(context, tenant, response_id) if response_id.startswith(RESPONSE_PREFIX) else None
    if job is None:
        raise NotFoundError(f"No response found with id '{response_id[:80]}'.", param=param)
    return await context.queue.requests.complete(job) if whole else job
