"""Queue a question, and find its job and response again."""

from __future__ import annotations

from typing import TypeVar

from ragq.client.job import Enqueued, NewJob
from ragq.context import Context
from ragq.errors import InvalidRequestError, NotFoundError, UnavailableError
from ragq.models import DEFAULT_STORE_NAME, Lane, Question, QueueName, new_id
from ragq.rag.rewrite import bound_history
from ragq.records import Arguments, Job, QueryArguments, Request, Result, Stream
from ragq.schemas.filters import make_filter
from ragq.schemas.questions import LANES, ResponseCreate, messages_of, read_input
from ragq.schemas.responses import MODEL, RESPONSE_PREFIX, STATUS_WORDS

NOW_SECONDS = 30.0  # time limit for a job that an HTTP request waits for
NOW_KEPT_SECONDS = 60
UNSTORED_SECONDS = 60  # how long a response with store=false is kept, in case the client lost the answer

ResultT = TypeVar("ResultT", bound=Result)


def check_question(context: Context, text: str, *, param: str) -> None:
    """Refuse an empty or oversized question.

    Raises:
        InvalidRequestError: The error names the field.
    """
    limit = context.settings.max_question_characters
    if not text.strip():
        raise InvalidRequestError("The question is empty: write one.", code="empty_question", param=param)
    if len(text) > limit:
        raise InvalidRequestError(
            f"The question has {len(text)} characters; the limit is {limit}. Shorten it.",
            code="question_too_long",
            param=param,
        )


async def ask(
    context: Context,
    tenant: str,
    response_id: str,
    question: Question,
    request: Request,
    *,
    fingerprint: str = "",
    stream: Stream = "nothing",
    is_repeat: bool | None = None,
) -> Enqueued:
    """Queue a question. With `store: false` in its request it is not archived and soon deleted.

    Args:
        is_repeat: Whether the client resends a request without an `Idempotency-Key`; None with a key.
    """
    return await context.queue.enqueue(
        NewJob(
            id=response_id,
            arguments=QueryArguments(question, stream),
            queue=QueueName.QUERIES,
            lane=LANES.get(request.service_tier, Lane.DEFAULT),
            tenant_id=tenant,
            deadline_seconds=context.settings.query_deadline_seconds,
            request=request,
            fingerprint=fingerprint,
            archive=request.store,
            keep_seconds=None if request.store else UNSTORED_SECONDS,
            max_wait_seconds=context.settings.max_wait_seconds,
            is_repeat=is_repeat,
        )
    )


def check_model(model: str | None, configured: str | None) -> None:
    """Refuse a model that is neither `ragq` nor the configured one.

    Raises:
        NotFoundError: The model does not exist.
    """
    if model not in (None, MODEL, configured):
        raise NotFoundError(
            f"The model '{model}' does not exist: use '{MODEL}', which stands for the configured model.",
            code="model_not_found",
            param="model",
        )


async def read_question(body: ResponseCreate, context: Context, tenant: str) -> Question:
    """Validate a request and build the question for its job.

    Raises:
        InvalidRequestError: The error names the field.
        NotFoundError: The model, a store or the previous response does not exist.
    """
    check_model(body.model, context.settings.llm_model)
    if body.background and body.store is False:
        raise InvalidRequestError("A background response must be stored: leave out store=false.", param="store")
    text, instructions, turns = read_input(body)
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
        filters=make_filter(tool.filters) if tool and tool.filters else None,
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
        InvalidRequestError: The response was not stored or is not completed.
    """
    param = "previous_response_id"
    job = await find_response(context, tenant, response_id, param=param, whole=True)
    if not job.request.store:
        raise InvalidRequestError(f"The response '{response_id}' was not stored.", param=param)
    if job.answered is None:
        status = STATUS_WORDS[job.status]
        raise InvalidRequestError(
            f"The response '{response_id}' is {status}: only a completed one can be continued.", param=param
        )
    *_, question = [text for role, text in messages_of(job) if role == "user"]
    last = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": job.answered.answer.text},
    ]
    return [*job.request.history, *last]


async def find_response(
    context: Context, tenant: str, response_id: str, *, param: str = "response_id", whole: bool = False
) -> Job:
    """Find a response.

    Args:
        whole: Also read the input and history of its request, which may be in the blob store.

    Raises:
        GoneError: The response has expired, or a part of its request is lost.
        NotFoundError: This tenant has no response with this id.
    """
    job = await find_job(context, tenant, response_id) if response_id.startswith(RESPONSE_PREFIX) else None
    if job is None:
        raise NotFoundError(f"No response found with id '{response_id[:80]}'.", param=param)
    return await context.queue.requests.complete(job) if whole else job


async def find_job(context: Context, tenant: str, job_id: str) -> Job | None:
    """Read a job, from the archive if it has left Valkey; None if this tenant has no job with this id.

    Raises:
        GoneError: The job has expired.
    """
    return await context.queue.fetch(job_id, tenant) or await context.archive.fetch(job_id, tenant)


async def perform_now(context: Context, tenant: str, arguments: Arguments, expected: type[ResultT]) -> ResultT:
    """Run a job on the priority lane and wait for its result: the API process has no embedding model, so a worker does it.

    Args:
        expected: Type of the job function's result.

    Raises:
        UnavailableError: No worker finished the job in time.
    """
    job_id = new_id("now_")
    enqueued = await context.queue.enqueue(
        NewJob(
            id=job_id,
            arguments=arguments,
            queue=QueueName.QUERIES,
            lane=Lane.PRIORITY,
            tenant_id=tenant,
            deadline_seconds=NOW_SECONDS,
            keep_seconds=NOW_KEPT_SECONDS,
        )
    )
    try:
        job = await context.queue.wait(job_id, tenant, timeout_seconds=NOW_SECONDS)
        if job and isinstance(job.result, expected):
            return job.result
        await context.queue.cancel(job_id)
    finally:
        await context.queue.requests.discard(enqueued.job)
    no_worker = "no query worker took it. Check that one is running: `ragq status`."
    reason = job.error.message if job and job.error else no_worker
    raise UnavailableError(
        f"No result within {NOW_SECONDS:g} s: {reason}", code="not_done_in_time", retry_after_seconds=2
    )
