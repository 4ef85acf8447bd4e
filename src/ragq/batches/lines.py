"""What the lines of a batch are, by its endpoint: jobs that are found again by their ids, and what the endpoint would answer."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel

from ragq.accounts.views import Viewer, view_of
from ragq.context import Context
from ragq.errors import InvalidRequestError, RagqError
from ragq.queues.embeddings import join_results, read_texts, split_sizes
from ragq.queues.questions import Asked, answer_of, check_question, read_chat_question, read_question
from ragq.records import Arguments, EmbeddingArguments, EmbeddingResult, Job, QueryArguments, Request, change_request
from ragq.schemas.batch_lines import EMBEDDINGS
from ragq.schemas.chat import ChatCompletionCreate
from ragq.schemas.chat_completions import render_chat
from ragq.schemas.checks import MAX_VALUES, check_json
from ragq.schemas.completions import TEXT_PREFIX, CompletionCreate, as_chat, read_prompt, render_completion
from ragq.schemas.embeddings import MAX_EMBEDDING_VALUES, EmbeddingCreate, render_embeddings
from ragq.schemas.objects import validate
from ragq.schemas.questions import SEARCH_RESULTS, ResponseCreate
from ragq.schemas.responses import RESPONSE_PREFIX, render_response
from ragq.storage.archive import CHAT_PREFIX
from ragq.storage.batches import AskedLine, BatchRecord

Create = TypeVar("Create", bound=BaseModel)
FLEX = {"service_tier": "flex"}
CHARACTERS_OF_TOKEN = 4
CANCELLED = "The request was cancelled."


@dataclass(frozen=True, slots=True)
class Wanted:
    """A job that a line needs; it is archived if its request says `store`."""

    arguments: Arguments
    request: Request


class Kind(Protocol):
    """The lines of one endpoint.

    Attributes:
        prefix: Begins the ids of the jobs.
        written_at_once: Lines of the output file in memory at once.
    """

    prefix: str
    written_at_once: int

    def count_jobs(self, body: Any) -> int:
        """The number of a line's jobs, which is the same at each look."""

    async def read(self, context: Context, tenant: Viewer, body: Any) -> list[Wanted]:
        """Validate a line and build its jobs.

        Raises:
            PermanentError: The line's request is not valid.
        """

    async def render(self, context: Context, body: Any, jobs: list[Job]) -> str:
        """Serialize what the endpoint would have answered.

        Raises:
            RagqError: A job has no result.
        """


def job_ids_of(batch: BatchRecord, line: AskedLine) -> list[str]:
    """The ids of a line's jobs; they are always the same, so that queueing the line again finds its jobs."""
    kind = KINDS[batch.endpoint]
    name = kind.prefix + suffix_of(batch.id, line.line)
    count = kind.count_jobs(line.request.body)
    return [name] if count == 1 else [f"{name}-{number}" for number in range(count)]


def suffix_of(batch_id: str, line: int) -> str:
    """What the ids of a line have in common."""
    return hashlib.sha256(f"{batch_id}\n{line}".encode()).hexdigest()[:32]


class _Answers:
    """Lines that are one question each."""

    written_at_once = 100

    def count_jobs(self, body: Any) -> int:
        del body
        return 1


class _Responses(_Answers):
    prefix = RESPONSE_PREFIX

    async def read(self, context: Context, tenant: Viewer, body: Any) -> list[Wanted]:
        create = _read(ResponseCreate, body)
        return _ask(await read_question(create.model_copy(update=FLEX | {"background": True}), context, tenant), tenant)

    async def render(self, context: Context, body: Any, jobs: list[Job]) -> str:
        del body
        (job,) = jobs
        answer_of(job)
        results = SEARCH_RESULTS in job.request.include
        return json.dumps(render_response(job, results=results, page=context.settings.page_url))


class _Chats(_Answers):
    prefix = CHAT_PREFIX

    async def read(self, context: Context, tenant: Viewer, body: Any) -> list[Wanted]:
        create = _read(ChatCompletionCreate, body)
        return _ask(await read_chat_question(create.model_copy(update=FLEX), context, tenant), tenant)

    async def render(self, context: Context, body: Any, jobs: list[Job]) -> str:
        del body
        (job,) = jobs
        return json.dumps(render_chat(job, answer_of(job), page=context.settings.page_url))


class _Texts(_Answers):
    prefix = TEXT_PREFIX

    async def read(self, context: Context, tenant: Viewer, body: Any) -> list[Wanted]:
        create = _read(CompletionCreate, body)
        prompt = read_prompt(create)
        check_question(prompt, param="prompt")
        chat = as_chat(create, prompt).model_copy(update=FLEX)
        return _ask(await read_chat_question(chat, context, tenant), tenant)

    async def render(self, context: Context, body: Any, jobs: list[Job]) -> str:
        (job,) = jobs
        create = CompletionCreate.model_validate(body)
        echoed = read_prompt(create) if create.echo else ""
        return json.dumps(render_completion(job, answer_of(job), prompt=echoed, page=context.settings.page_url))


class _Embeddings:
    """Lines with many texts are several jobs, so that questions are answered in between."""

    prefix = "emb_"
    written_at_once = 4

    def count_jobs(self, body: Any) -> int:
        return len(_split_input(body.get("input")))

    async def read(self, context: Context, tenant: Viewer, body: Any) -> list[Wanted]:
        del tenant
        create = _read(EmbeddingCreate, body, max_values=MAX_EMBEDDING_VALUES)
        texts = await read_texts(create, context.settings)
        return [Wanted(EmbeddingArguments(texts[part]), Request(store=False)) for part in _split_input(create.input)]

    async def render(self, context: Context, body: Any, jobs: list[Job]) -> str:
        results = [job.result for job in jobs if isinstance(job.result, EmbeddingResult)]
        if len(results) < len(jobs):
            raise _failure_of(jobs)
        model = body.get("model") or context.settings.embedding_name
        as_numbers = body.get("encoding_format") != "base64"
        written = await asyncio.to_thread(render_embeddings, join_results(results), model, as_numbers=as_numbers)
        return written.decode()


KINDS: dict[str, Kind] = {
    "/v1/responses": _Responses(),
    "/v1/chat/completions": _Chats(),
    "/v1/completions": _Texts(),
    EMBEDDINGS: _Embeddings(),
}


def _read(create: type[Create], body: Any, *, max_values: int = MAX_VALUES) -> Create:
    check_json(body, max_values=max_values)
    read = validate(create, body)
    if getattr(read, "stream", None):
        raise InvalidRequestError("A batch answers with a file, not with a stream: leave out stream.", param="stream")
    return read


def _ask(asked: Asked, tenant: Viewer) -> list[Wanted]:
    view = view_of(tenant)
    arguments = QueryArguments(asked.question, view=view)
    return [Wanted(arguments, change_request(asked.request, key_id=view.key_id))]


def _split_input(given: Any) -> list[slice]:
    """Split the input of an embedding by its sizes alone, since tokens take long to decode."""
    items = given if isinstance(given, list) and not (given and isinstance(given[0], int)) else [given]
    return list(split_sizes(_size_of(item) for item in items))


def _size_of(item: Any) -> int:
    if isinstance(item, str):
        return len(item)
    return CHARACTERS_OF_TOKEN * len(item) if isinstance(item, list) else 1


def _failure_of(jobs: list[Job]) -> RagqError:
    errors = [job.error for job in jobs if job.error]
    return RagqError(errors[0].message, code=errors[0].code) if errors else RagqError(CANCELLED, code="cancelled")
