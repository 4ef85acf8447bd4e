"""Read a question from a request, and queue it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ragq.accounts.views import Viewer, tenant_of, view_of
from ragq.client.job import Enqueued, NewJob
from ragq.context import Context
from ragq.errors import (
    CONTEXT_TOO_LONG,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    RagqError,
    UnavailableError,
)
from ragq.models import DEFAULT_STORE_NAME, Answer, Lane, Message, Question, QueueName, new_id
from ragq.queues.conversations import read_stored
from ragq.queues.history import last_question, read_history, resolve_references
from ragq.rag.compact import shorten
from ragq.rag.conversation import read_conversation
from ragq.records import Arguments, Job, QueryArguments, Request, Result, Stream, change_request
from ragq.schemas.chat import ChatCompletionCreate
from ragq.schemas.chat import options_of as chat_options_of
from ragq.schemas.chat import request_of as request_of_chat
from ragq.schemas.filters import make_filter
from ragq.schemas.messages import check_files, check_outputs, read_chat, read_items
from ragq.schemas.options import Tools, read_tools, refuse_without_llm
from ragq.schemas.questions import (
    LANES,
    FileSearchTool,
    ResponseCreate,
    options_of,
    read_instructions,
    request_of,
)
from ragq.schemas.responses import MODEL
from ragq.settings import Settings, split_list

NOT_ANSWERED = "The question was cancelled or was not answered in time: ask again."
NOW_SECONDS = 30.0  # time limit for a job that an HTTP request waits for
NOW_KEPT_SECONDS = 60
UNSTORED_SECONDS = 60  # how long a response with store=false is kept, in case the client lost the answer

ResultT = TypeVar("ResultT", bound=Result)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was read: the question for its job, and what of the request is stored."""

    question: Question
    request: Request


def check_question(text: str, *, param: str) -> None:
    """Refuse an empty question.

    Raises:
        InvalidRequestError: The error names the field.
    """
    if not text.strip():
        raise InvalidRequestError("The question is empty: write one.", code="empty_question", param=param)


async def ask(
    context: Context,
    tenant: Viewer,
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
    view = view_of(tenant)
    job = NewJob(
        id=response_id,
        arguments=QueryArguments(question, stream, view),
        queue=QueueName.QUERIES,
        lane=LANES.get(request.service_tier, Lane.DEFAULT),
        tenant_id=view.id,
        deadline_seconds=context.settings.query_deadline_seconds,
        request=change_request(request, key_id=view.key_id) if view.key_id else request,
        fingerprint=fingerprint,
        is_repeat=is_repeat,
        archive=request.store,
        keep_seconds=None if request.store else UNSTORED_SECONDS,
        max_wait_seconds=context.settings.max_wait_seconds,
    )
    if request.conversation:
        return await _enqueue_in_conversation(context, request.conversation, job)
    return await context.queue.enqueue(job)


async def _enqueue_in_conversation(context: Context, conversation: str, job: NewJob) -> Enqueued:
    """Queue a question whose response the conversation waits for."""
    await context.conversations.open_response(job.tenant_id, conversation, job.id)
    try:
        enqueued = await context.queue.enqueue(job)
    except OverloadedError:
        await context.conversations.forget_response(job.tenant_id, job.id)
        raise
    if enqueued.job_id != job.id:
        await context.conversations.forget_response(job.tenant_id, job.id)
    return enqueued


def answer_of(job: Job | None) -> Answer:
    """The answer of an ended job.

    Raises:
        RagqError: It has none.
    """
    if job and job.error:
        is_askers = job.error.code == CONTEXT_TOO_LONG  # an SDK would send a 500 again
        raise (InvalidRequestError if is_askers else RagqError)(job.error.message, code=job.error.code)
    if job is None or job.answered is None:
        raise UnavailableError(NOT_ANSWERED, code="not_answered")
    return job.answered.answer


def check_model(settings: Settings, model: str | None, configured: str | None) -> None:
    """Refuse a model that is neither `ragq` nor the configured one, unless the settings accept any.

    Raises:
        NotFoundError: The model does not exist.
    """
    if model not in (None, MODEL, configured) and not settings.accept_any_model:
        raise NotFoundError(
            f"The model '{model}' does not exist: use '{MODEL}', which stands for the configured model, or have the "
            "service accept any name with RAGQ_ACCEPT_ANY_MODEL=true.",
            code="model_not_found",
            param="model",
        )


async def read_question(
    body: ResponseCreate, context: Context, tenant: Viewer, *, remembered: Job | None = None
) -> Asked:
    """Validate a request for a response and build the question for its job.

    Args:
        remembered: A response that was not stored and that this client may yet continue.

    Raises:
        InvalidRequestError: The error names the field.
        NotFoundError: The model, a store, an item or the previous response does not exist.
    """
    settings = context.settings
    _check_request(body, settings)
    body = body.model_copy(update={"input": await resolve_references(body.input, context, tenant)})
    own = read_items(body.input)
    earlier = await _read_earlier(body, own, context, tenant, remembered)
    rules = [{"role": "system", "content": text} for text in read_instructions(body)]
    tools = read_tools(body.other_tools, body.tool_choice, has_search=bool(body.searches) or not body.tools)
    search = _join_searches(body.searches)
    options = options_of(body, split_list(settings.llm_extra_fields))
    question, notes = await _make_question(
        [*rules, *earlier, *own],
        await _find_stores(context, tenant, _named_stores(body, search)),
        options,
        tools,
        context,
        tenant,
        param="input",
        place_of_format="text.format",
    )
    limits: dict[str, Any] = {
        "max_output_tokens": body.max_output_tokens,
        "temperature": body.temperature,
        "top_p": body.top_p,
    }
    question = replace(question, **limits, **_search_fields(search))
    before = [*earlier, *own[: last_question(own)]]
    kept = before if question.options.get("tools") and not body.conversation_id else shorten(before)
    return Asked(question, request_of(body, kept, notes))


def _check_request(body: ResponseCreate, settings: Settings) -> None:
    check_model(settings, body.model, settings.llm_model)
    if body.background and body.store is False:
        raise InvalidRequestError("A background response must be stored: leave out store=false.", param="store")
    if body.prompt:
        raise InvalidRequestError(
            "ragq keeps no prompt templates: send their text as instructions.",
            code="unsupported_parameter",
            param="prompt",
        )


def _named_stores(body: ResponseCreate, search: FileSearchTool | None) -> list[str] | None:
    """The stores that a request names: an empty list for no search, None for the default store.

    Raises:
        InvalidRequestError: It names them twice.
    """
    if search is None:
        return body.vector_store_ids
    if body.vector_store_ids is not None:
        raise InvalidRequestError(
            "Name the stores in the file_search tool or in vector_store_ids, not in both.", param="vector_store_ids"
        )
    return [] if body.tool_choice == "none" else search.vector_store_ids


def stores_of(tenant: Viewer) -> list[str]:
    """The stores that a question is about which names none."""
    limited_to = view_of(tenant).stores
    return [DEFAULT_STORE_NAME] if limited_to is None else list(limited_to)


async def _find_stores(context: Context, tenant: Viewer, named: list[str] | None) -> list[str]:
    """The ids of the stores to search; those that the caller's key is limited to, or the default store, if none is named."""
    if named is None:
        return stores_of(tenant)
    return [await context.stores.resolve(tenant, id_, to_use=True) for id_ in named]


def _search_fields(search: FileSearchTool | None) -> dict[str, Any]:
    if search is None:
        return {}
    ranking = search.ranking_options
    return {
        "filters": make_filter(search.filters) if search.filters else None,
        "max_results": search.max_num_results,
        "score_threshold": ranking.score_threshold if ranking else None,
        "meaning_weight": ranking.meaning_weight if ranking else None,
    }


async def _read_earlier(
    body: ResponseCreate, own: list[Message], context: Context, tenant: Viewer, remembered: Job | None
) -> list[Message]:
    """Read what was said before the input, in the conversation or the chain of responses that it continues."""
    if body.conversation_id and body.previous_response_id:
        raise InvalidRequestError(
            "Continue either a conversation or previous_response_id, not both.", param="conversation"
        )
    if body.conversation_id and body.store is False:
        raise InvalidRequestError(
            "The response of a conversation must be stored: leave out store=false.", param="store"
        )
    if body.conversation_id:
        return await read_stored(context, tenant, body.conversation_id)
    if not body.previous_response_id:
        return []
    earlier = await read_history(context, tenant, body.previous_response_id, remembered)
    check_outputs(earlier, own)
    return earlier


async def read_chat_question(body: ChatCompletionCreate, context: Context, tenant: Viewer) -> Asked:
    """Validate a request for a chat completion and build the question for its job.

    Raises:
        InvalidRequestError: The error names the field.
        NotFoundError: The model or a store does not exist.
    """
    settings = context.settings
    check_model(settings, body.model, settings.llm_model)
    tools = read_tools(body.tools or [], body.tool_choice)
    store_ids = await _find_stores(context, tenant, body.vector_store_ids)
    options = chat_options_of(body, split_list(settings.llm_extra_fields))
    question, notes = await _make_question(
        read_chat(body.messages),
        store_ids,
        options,
        tools,
        context,
        tenant,
        param="messages",
        place_of_format="response_format",
    )
    question = replace(
        question,
        max_output_tokens=body.max_completion_tokens or body.max_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
    )
    return Asked(question, request_of_chat(body, notes))


async def _make_question(
    messages: list[Message],
    store_ids: list[str],
    options: dict[str, Any],
    tools: Tools,
    context: Context,
    tenant: Viewer,
    *,
    param: str,
    place_of_format: str,
) -> tuple[Question, list[str]]:
    """Build a question from a whole conversation, and note what of it is ignored.

    Only with tools, whose calls rest on each other, is the whole conversation kept.
    """
    options = options | tools.options
    conversation = read_conversation(messages)
    if conversation is None:
        raise InvalidRequestError("There is no question: add a message of the user.", param=param)
    has_llm = bool(context.settings.llm_base_url)
    if not has_llm:
        refuse_without_llm(options, place_of_format=place_of_format)
    check_files(conversation.files, param)
    for file in conversation.files:
        if file.file_id:
            await context.files.get(tenant, file.file_id)
    if not (conversation.files or (has_llm and conversation.media)):
        check_question(conversation.text, param=param)
    history = conversation.history
    question = Question(
        text=conversation.text,
        vector_store_ids=store_ids,
        instructions=conversation.instructions,
        history=history if options.get("tools") else shorten(history),
        following=conversation.following if has_llm else [],
        media=conversation.media if has_llm else [],
        files=conversation.files,
        options=options if has_llm else {},
    )
    return question, _note_ignored(tools, has_media=bool(conversation.media), has_llm=has_llm)


def _note_ignored(tools: Tools, *, has_media: bool, has_llm: bool) -> list[str]:
    """Tell the caller what changes nothing, in a sentence each."""
    notes = [f"ragq has no tools of type {', '.join(tools.ignored)}: they were ignored."] if tools.ignored else []
    if tools.functions and not has_llm:
        notes.append("No LLM is configured, so no function is called.")
    if has_media and not has_llm:
        notes.append("No LLM is configured, so images and sound were ignored.")
    return notes


def _join_searches(searches: list[FileSearchTool]) -> FileSearchTool | None:
    """Join file searches into one over all of their stores.

    Raises:
        InvalidRequestError: They differ in more than their stores.
    """
    if not searches:
        return None
    first = searches[0]
    if any(other.model_copy(update={"vector_store_ids": first.vector_store_ids}) != first for other in searches):
        raise InvalidRequestError(
            "Several file_search tools may differ in their vector_store_ids only: use one, or ask twice.", param="tools"
        )
    ids = dict.fromkeys(id_ for search in searches for id_ in search.vector_store_ids)
    return first.model_copy(update={"vector_store_ids": list(ids)})


async def perform_now(
    context: Context,
    tenant: Viewer,
    arguments: Arguments,
    expected: type[ResultT],
    *,
    lane: Lane = Lane.PRIORITY,
    seconds: float = NOW_SECONDS,
) -> ResultT:
    """Run a job and wait for its result: the API process has no embedding model, so a worker does it.

    Args:
        expected: Type of the job function's result.
        seconds: Time limit.

    Raises:
        UnavailableError: No worker finished the job in time.
    """
    job_id = new_id("now_")
    enqueued = await context.queue.enqueue(
        NewJob(
            id=job_id,
            arguments=arguments,
            queue=QueueName.QUERIES,
            lane=lane,
            tenant_id=tenant_of(tenant),
            deadline_seconds=seconds,
            keep_seconds=NOW_KEPT_SECONDS,
        )
    )
    try:
        job = await context.queue.wait(job_id, tenant_of(tenant), timeout_seconds=seconds)
        if job and isinstance(job.result, expected):
            return job.result
        await context.queue.cancel(job_id)
    finally:
        await context.queue.requests.discard(enqueued.job)
    no_worker = "no query worker took it. Check that one is running: `ragq status`."
    reason = job.error.message if job and job.error else no_worker
    raise UnavailableError(f"No result within {seconds:g} s: {reason}", code="not_done_in_time", retry_after_seconds=2)
