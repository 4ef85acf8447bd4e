"""The job functions: answer a question, search, embed, ingest a document.

Each takes the job, the worker's context and its arguments, and returns its result; arguments and result are records.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from ragq.accounts.views import TenantView
from ragq.errors import DocumentError, PermanentError, RagqError, TransientError
from ragq.json_records import UnreadableRecordError
from ragq.models import Answer, Chunk, JobFunction, ParsedDocument, Question, SearchResult
from ragq.parsing.parser import OcrSettings
from ragq.queues.answers import generate, make_standalone
from ragq.queues.reading import read_draft
from ragq.queues.retrieval import DEFAULT_CHUNK_SHARE, read_attached, read_on, retrieve, retrieve_sources
from ragq.queues.running import RunningJob, WorkerContext, ms_since
from ragq.rag.answer import draft_in_steps
from ragq.rag.names import name_document
from ragq.rag.split import searched_text, split
from ragq.records import (
    Arguments,
    DocumentArguments,
    DocumentResult,
    EmbeddingArguments,
    EmbeddingResult,
    QueryArguments,
    QueryResult,
    Reference,
    Result,
    SearchArguments,
    SearchEnded,
    SearchResults,
    SearchStarted,
    read_payload,
)
from ragq.settings import LOCAL_EMBEDDING_MODEL
from ragq.storage.store_files import StoreFileRecord
from ragq.tasks import end_tasks

DEFAULT_OVERLAP_SHARE = 0.2  # of a chunk
WANTED_SECONDS = 1.0  # between checks that a document is still wanted


async def process_query(job: RunningJob, context: WorkerContext, arguments: QueryArguments) -> QueryResult:
    """Answer a question from the tenant's documents, with citations."""
    question, stream = arguments.query, arguments.stream
    job.view = arguments.view or TenantView(job.tenant_id)
    if context.llm:
        context.llm.endpoint.check_breaker()
    started = time.monotonic()
    searched = await make_standalone(job, context, question)
    if stream != "nothing":
        job.pending_events.append(SearchStarted([searched.text] if searched.vector_store_ids else []))
    attached = await read_attached(job, context, searched)
    results = [*attached, *await retrieve_sources(job, context, searched, beside=attached)]
    retrieve_ms = ms_since(started)
    job.note(retrieve_ms=retrieve_ms)
    if stream != "nothing":
        job.pending_events.append(SearchEnded(results if stream == "results" else None))
    if context.llm:
        answer = await generate(
            job, context, question, results, searched=searched.text, is_streamed=stream != "nothing"
        )
    else:
        following = await read_on(job, context, searched, results)
        answer = await _answer_extractively(context, searched.text, results, following)
    job.note(answer_ms=ms_since(started) - retrieve_ms)
    return QueryResult(searched.text, answer, results)


async def _answer_extractively(
    context: WorkerContext, question: str, results: list[SearchResult], following: SearchResult | None = None
) -> Answer:
    """Answer without an LLM. Where the words leave it in doubt, sentences are read."""
    calibrated = context.settings.embedding_name == LOCAL_EMBEDDING_MODEL
    synonyms = context.chunks.synonyms
    steps = draft_in_steps(question, results, following, trust_similarity=calibrated, synonyms=synonyms)
    draft = await context.turns.run(steps)
    return draft if isinstance(draft, Answer) else await read_draft(context.cross_encoder, draft)


async def process_search(job: RunningJob, context: WorkerContext, arguments: SearchArguments) -> SearchResults:
    """Search stores for each query; a chunk's best score counts."""
    job.view = arguments.view or TenantView(job.tenant_id)
    found: dict[tuple[str, int], SearchResult] = {}
    for text in arguments.queries:
        question = Question(
            text,
            arguments.vector_store_ids,
            arguments.filters,
            max_results=arguments.max_results,
            score_threshold=arguments.score_threshold,
            meaning_weight=arguments.meaning_weight,
        )
        for result in await retrieve(job, context, question):
            key = (result.file_id, result.start)
            found[key] = max(result, found.get(key, result), key=lambda one: one.score)
    return SearchResults(sorted(found.values(), key=lambda one: -one.score)[: arguments.max_results])


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
        context.trimmer.trim_soon()
    if chunk_count is None:
        return DocumentResult("superseded")
    job.usage.documents = 1
    return DocumentResult("completed", chunk_count)


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
                ocr=OcrSettings(settings.ocr_languages, settings.ocr_page_seconds),
                max_characters=settings.max_file_bytes,
                progress=job.note_progress("parse"),
            )
    job.usage.pages = len(document.places)
    with job.timed("split"):
        chunks = await _split(context, record, document)
    with job.timed("embed"):
        vectors = await embedding.embed_documents(
            [searched_text(chunk) for chunk in chunks],
            progress=job.note_progress("embed"),
            tenant_id=job.tenant_id,
        )
    with job.timed("store"):
        stored = await context.ingests.complete_ingest(
            record,
            job.attempt,
            document,
            chunks,
            vectors,
            language=document.language or settings.language,
            progress=job.note_progress("store"),
        )
    return len(chunks) if stored else None


async def _split(context: WorkerContext, record: StoreFileRecord, document: ParsedDocument) -> list[Chunk]:
    """Split in a thread, which stops early once this task has ended."""
    size = record.max_chunk_tokens or int(context.embedding.window_tokens * DEFAULT_CHUNK_SHARE)
    overlap = record.chunk_overlap_tokens
    task = asyncio.current_task()
    assert task
    return await asyncio.to_thread(
        split,
        document,
        context.embedding.tokenizer,
        max_tokens=size,
        overlap_tokens=int(size * DEFAULT_OVERLAP_SHARE) if overlap is None else overlap,
        context=name_document(record.filename, document.title),
        is_wanted=lambda: not task.done(),
    )


async def document_failed(
    job: RunningJob, context: WorkerContext, error: RagqError, arguments: DocumentArguments
) -> None:
    """Record in the store why a document's job failed."""
    store_id, file_id, generation = arguments.vector_store_id, arguments.file_id, arguments.generation
    await context.ingests.fail_ingest(job.tenant_id, store_id, file_id, generation, job.attempt, error)


async def process_embedding(job: RunningJob, context: WorkerContext, arguments: EmbeddingArguments) -> EmbeddingResult:
    """Embed texts."""
    texts = arguments.texts
    vectors = await context.embedding.embed_documents(texts, tenant_id=job.tenant_id)
    encodings = await asyncio.to_thread(context.embedding.tokenizer.encode_batch, texts, add_special_tokens=False)
    job.usage.input_tokens = sum(len(encoding.ids) for encoding in encodings)
    return EmbeddingResult(
        embeddings=[base64.b64encode(vector.astype("<f4").tobytes()).decode() for vector in vectors],
        tokens=job.usage.input_tokens,
    )


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
