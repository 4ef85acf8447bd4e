"""The job functions: answer a question, search, embed, ingest a document.

Each takes the job, the worker's context and its arguments, and returns its result; arguments and result are records.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import structlog

from ragq.client.embedding_client import EmbeddingClient, create_embedding_client
from ragq.client.llm_client import LlmClient
from ragq.client.llm_stream import Completion
from ragq.client.model_faults import ContextTooLongError
from ragq.client.rq_client import JobQueue
from ragq.context import Context
from ragq.errors import DocumentError, PermanentError, RagqError, TransientError, UnavailableError
from ragq.models import Answer, JobFunction, Question, SearchResult
from ragq.parsing.parser import Parser
from ragq.rag.answer import answer_in_steps
from ragq.rag.cite import CitedStream, cite_in_steps
from ragq.rag.cite_json import cite_values
from ragq.rag.conversation import bound_history, bound_text
from ragq.rag.json_form import FormError, WholeJson, check_answer, is_structured, unwrap
from ragq.rag.prompt import build_messages
from ragq.rag.rewrite import build_rewriting, join_questions
from ragq.rag.split import split
from ragq.records import (
    Arguments,
    DocumentArguments,
    DocumentResult,
    EmbeddingArguments,
    EmbeddingResult,
    Event,
    Meta,
    Progress,
    QueryArguments,
    QueryResult,
    ReasoningAdded,
    Reference,
    Result,
    SearchArguments,
    SearchEnded,
    SearchResults,
    SearchStarted,
    TextAdded,
    UnreadableRecordError,
    read_payload,
)
from ragq.settings import LOCAL_EMBEDDING_MODEL, Settings
from ragq.storage.blobs import BlobStore
from ragq.storage.database import Database
from ragq.storage.search import Chunks
from ragq.storage.store_files import StoreFileRecord
from ragq.tasks import Turns, end_tasks, give_back_memory

log = structlog.get_logger(__name__)

DEFAULT_CHUNK_SHARE = 0.8  # of the embedding model's window; the rest is for its special tokens
DEFAULT_OVERLAP_SHARE = 0.2  # of a chunk
WANTED_SECONDS = 1.0  # between checks that a document is still wanted
REWRITE_SECONDS = 10.0  # after this, the original question is searched for
REWRITE_TOKENS = 200


@dataclass(kw_only=True)
class WorkerContext(Context):
    """The connections and models that all jobs of a worker share.

    Attributes:
        llm: None without `RAGQ_LLM_BASE_URL`; answers are then extractive.
    """

    chunks: Chunks
    embedding: EmbeddingClient
    llm: LlmClient | None
    parser: Parser = field(default_factory=Parser)
    turns: Turns = field(default_factory=Turns)

    @classmethod
    async def open(cls, settings: Settings, queue: JobQueue, database_url: str) -> WorkerContext:
        """Open all except the queue, which the caller opened."""
        blobs, embedding = (
            BlobStore(settings),
            create_embedding_client(settings),
        )  # first, because they may refuse the settings
        llm = LlmClient(settings) if settings.llm_base_url else None
        database = await Database.open(settings, database_url)
        return cls(
            settings=settings,
            queue=queue,
            database=database,
            blobs=blobs,
            chunks=Chunks(settings, database),
            embedding=embedding,
            llm=llm,
        )

    async def close(self) -> None:
        """Close all except the queue."""
        if self.llm:
            await self.llm.close()
        await self.parser.close()
        await self.embedding.close()
        await self.database.close()


@dataclass(slots=True)
class RunningJob:
    """A job in flight, as its function sees it.

    Attributes:
        deadline: `loop.time()` at which the job fails.
        meta: Timings in ms, and progress; stored with the next heartbeat and with the result.
        pending_events: Stream events that are not in the job's event log yet.
    """

    id: str
    attempt: int
    tenant_id: str
    deadline: float
    meta: Meta = field(default_factory=Meta)
    meta_changed: bool = False
    pending_events: list[Event] = field(default_factory=list)

    def note(self, **meta: Any) -> None:
        """Set fields of `meta`."""
        for name, value in meta.items():
            setattr(self.meta, name, value)
        self.meta_changed = True

    def note_progress(self, stage: Literal["parse", "embed", "store"]) -> Callable[[int, int], None]:
        """Make a callback that stores the progress of a stage in `meta`."""
        return lambda done, total: self.note(progress=Progress(stage, done, total))

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Store the duration of a stage in `meta`."""
        started = time.monotonic()
        yield
        self.note(**{f"{stage}_ms": _ms_since(started)})


async def process_query(job: RunningJob, context: WorkerContext, arguments: QueryArguments) -> QueryResult:
    """Answer a question from the tenant's documents, with citations."""
    question, stream = arguments.query, arguments.stream
    if context.llm:
        context.llm.endpoint.check_breaker()
    started = time.monotonic()
    searched = await _rewrite_question(job, context, question)
    if stream != "nothing":
        job.pending_events.append(SearchStarted([searched.text] if searched.vector_store_ids else []))
    results = await _retrieve(job, context, searched)
    retrieve_ms = _ms_since(started)
    job.note(retrieve_ms=retrieve_ms)
    if stream != "nothing":
        job.pending_events.append(SearchEnded(results if stream == "results" else None))
    if context.llm:
        answer = await _generate(job, context, question, results, is_streamed=stream != "nothing")
    else:
        calibrated = context.settings.embedding_name == LOCAL_EMBEDDING_MODEL
        answer = await context.turns.run(answer_in_steps(searched.text, results, trust_similarity=calibrated))
    job.note(answer_ms=_ms_since(started) - retrieve_ms)
    return QueryResult(searched.text, answer, results)


async def _retrieve(job: RunningJob, context: WorkerContext, question: Question) -> list[SearchResult]:
    if not question.vector_store_ids:
        return []
    scope, vector = await asyncio.gather(
        context.chunks.find_scope(job.tenant_id, question.vector_store_ids, question.text, question.filters),
        context.embedding.embed_query(question.text),
    )
    results = await context.chunks.search(scope, vector, limit=question.max_results or context.settings.max_results)
    return [result for result in results if result.score >= question.score_threshold]


async def _generate(
    job: RunningJob, context: WorkerContext, question: Question, results: list[SearchResult], *, is_streamed: bool
) -> Answer:
    budget = context.settings.prompt_tokens
    try:
        completion, sources = await _ask_llm(job, context, question, results, budget, is_streamed=is_streamed)
    except ContextTooLongError:
        question = replace(question, history=bound_history(question.history))
        try:
            completion, sources = await _ask_llm(job, context, question, results, budget // 2, is_streamed=is_streamed)
        except ContextTooLongError as error:
            raise error.otherwise or error from error
    text = completion.text
    if is_structured(question):
        text = unwrap(text)
        if completion.finish_reason == "stop":
            await _check_form(text, question)
        citations = await context.turns.run(cite_values(text, sources))
    else:
        text, citations = await context.turns.run(cite_in_steps(text, sources))
    job.note(first_token_ms=round(completion.first_token_seconds * 1000))
    return Answer(
        text,
        citations,
        "generated",
        completion.usage,
        truncated=completion.finish_reason == "length",
        reasoning=completion.reasoning,
        refusal=completion.refusal,
        tool_calls=completion.tool_calls,
        logprobs=completion.logprobs,
    )


async def _check_form(text: str, question: Question) -> None:
    """Check that an answer in JSON is what was asked for; the next try may be.

    Raises:
        UnavailableError: It is not.
    """
    try:
        await asyncio.to_thread(check_answer, text, question.options["response_format"])
    except FormError as error:
        raise UnavailableError(
            f"The LLM's answer does not have the form asked for: {error}.", code="llm_wrong_form"
        ) from error


async def _ask_llm(
    job: RunningJob,
    context: WorkerContext,
    question: Question,
    results: list[SearchResult],
    budget_tokens: int,
    *,
    is_streamed: bool,
) -> tuple[Completion, list[SearchResult]]:
    assert context.llm
    messages, sources = build_messages(question, results, budget_tokens=budget_tokens)
    shown = WholeJson() if is_structured(question) else CitedStream(len(sources))

    def say(kind: Literal["text", "reasoning"], piece: str) -> None:
        if kind == "reasoning":
            job.pending_events.append(ReasoningAdded(piece))
        elif more := shown.add(piece):
            job.pending_events.append(TextAdded(more))

    limits = {"max_tokens": question.max_output_tokens, "temperature": question.temperature, "top_p": question.top_p}
    completion = await context.llm.complete(
        messages, options=question.options | limits, deadline=job.deadline, on_delta=say if is_streamed else None
    )
    return completion, sources


async def process_search(job: RunningJob, context: WorkerContext, arguments: SearchArguments) -> SearchResults:
    """Search stores for each query; a chunk's best score counts."""
    most, threshold = arguments.max_results, arguments.score_threshold
    found: dict[tuple[str, int], SearchResult] = {}
    for text in arguments.queries:
        question = Question(
            text, arguments.vector_store_ids, arguments.filters, max_results=most, score_threshold=threshold
        )
        for result in await _retrieve(job, context, question):
            key = (result.file_id, result.start)
            found[key] = max(result, found.get(key, result), key=lambda one: one.score)
    return SearchResults(sorted(found.values(), key=lambda one: -one.score)[:most])


async def process_document(job: RunningJob, context: WorkerContext, arguments: DocumentArguments) -> DocumentResult:
    """Ingest a file into a store: read, split, embed, then make it visible in one transaction."""
    store_id, file_id = arguments.vector_store_id, arguments.file_id
    if not await context.ingests.begin_ingest(job.tenant_id, store_id, file_id, arguments.generation, job.attempt):
        return DocumentResult("superseded")
    record = await context.store_files.get(job.tenant_id, store_id, file_id)
    if reason := await context.files.find_poison(record.sha256):  # may have been found after this job was queued
        raise DocumentError(reason)
    try:
        chunk_count = await _while_wanted(context, record, job.attempt, _ingest(job, context, record))
    finally:
        await asyncio.to_thread(give_back_memory)
    return DocumentResult("superseded" if chunk_count is None else "completed", chunk_count)


async def _while_wanted(
    context: WorkerContext, record: StoreFileRecord, attempt: int, ingest: Coroutine[Any, Any, int | None]
) -> int | None:
    """Run an ingest, but stop it when its file was removed from the store, expired, or was ingested again.

    It polls PostgreSQL, which records all of these, rather than rely on a message that could be lost.
    """
    task = asyncio.create_task(ingest)
    try:
        while not (await asyncio.wait([task], timeout=WANTED_SECONDS))[0]:
            with contextlib.suppress(TransientError):
                if not await context.ingests.is_ingest_of(record, attempt):
                    return None
        return task.result()
    finally:
        await end_tasks([task])


async def _ingest(job: RunningJob, context: WorkerContext, record: StoreFileRecord) -> int | None:
    settings, embedding = context.settings, context.embedding
    with job.timed("parse"):
        async with context.blobs.as_file(record.sha256) as path:
            document = await context.parser.parse(
                path,
                record.filename,
                timeout_seconds=settings.parse_timeout_seconds,
                memory_bytes=settings.parse_memory_bytes,
                max_characters=settings.max_file_bytes,
                progress=job.note_progress("parse"),
            )
    size = record.max_chunk_tokens or int(embedding.window_tokens * DEFAULT_CHUNK_SHARE)
    overlap = record.chunk_overlap_tokens
    task = asyncio.current_task()
    assert task
    with job.timed("split"):
        chunks = await asyncio.to_thread(
            split,
            document,
            embedding.tokenizer,
            max_tokens=size,
            overlap_tokens=int(size * DEFAULT_OVERLAP_SHARE) if overlap is None else overlap,
            is_wanted=lambda: not task.done(),
        )
    with job.timed("embed"):
        vectors = await embedding.embed_documents(
            [f"{chunk.heading}\n{chunk.text}" if chunk.heading else chunk.text for chunk in chunks],
            progress=job.note_progress("embed"),
        )
    with job.timed("store"):
        stored = await context.ingests.complete_ingest(
            record, job.attempt, document, chunks, vectors, progress=job.note_progress("store")
        )
    return len(chunks) if stored else None


async def document_failed(
    job: RunningJob, context: WorkerContext, error: RagqError, arguments: DocumentArguments
) -> None:
    """Record in the store why a document's job failed."""
    store_id, file_id, generation = arguments.vector_store_id, arguments.file_id, arguments.generation
    await context.ingests.fail_ingest(job.tenant_id, store_id, file_id, generation, job.attempt, error)


async def process_embedding(job: RunningJob, context: WorkerContext, arguments: EmbeddingArguments) -> EmbeddingResult:
    """Embed texts."""
    del job
    texts = arguments.texts
    vectors = await context.embedding.embed_documents(texts)
    encodings = await asyncio.to_thread(context.embedding.tokenizer.encode_batch, texts, add_special_tokens=False)
    return EmbeddingResult(
        embeddings=[base64.b64encode(vector.astype("<f4").tobytes()).decode() for vector in vectors],
        tokens=sum(len(encoding.ids) for encoding in encodings),
    )


async def _rewrite_question(job: RunningJob, context: WorkerContext, question: Question) -> Question:
    """Make the text to search for: a follow-up question is rewritten so that it stands alone, and a long text is bounded.

    Between the calls of tools there is no rewriting, which would cost a call each time. On an error, the question is
    searched for as it is.
    """
    question = replace(question, text=bound_text(question.text, context.settings.max_question_characters))
    if not question.history or not question.vector_store_ids:
        return question
    if context.llm is None or question.following:
        return replace(question, text=join_questions(question))
    deadline = min(job.deadline, asyncio.get_running_loop().time() + REWRITE_SECONDS)
    try:
        completion = await context.llm.complete(
            build_rewriting(question), options={"max_tokens": REWRITE_TOKENS}, deadline=deadline
        )
    except RagqError as error:
        log.warning("question_not_rewritten", job_id=job.id, error=str(error))
        return question
    return replace(question, text=" ".join(completion.text.split()) or question.text)


def _ms_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)


JobCoroutine = Callable[..., Awaitable[Result]]

FUNCTIONS: dict[JobFunction, JobCoroutine] = {
    JobFunction.PROCESS_QUERY: process_query,
    JobFunction.PROCESS_SEARCH: process_search,
    JobFunction.PROCESS_DOCUMENT: process_document,
    JobFunction.PROCESS_EMBEDDING: process_embedding,
}
"""The functions a payload may name. Nothing else is ever imported or called for a payload."""


def check_payload(data: bytes) -> tuple[JobFunction, Arguments | Reference]:
    """Parse and validate a payload.

    Raises:
        PermanentError: The payload cannot be parsed, or it names a function that is not a job function.
    """
    try:
        return read_payload(data)
    except UnreadableRecordError as error:
        raise PermanentError(
            "The job was not run: its payload is unreadable or names a function that is not allowed.",
            code="invalid_payload",
        ) from error
