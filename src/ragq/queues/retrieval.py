"""Find the sources of a question: in the stores, and in files that it brings along."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import structlog

from ragq import tracing
from ragq.errors import DocumentError, RagqError
from ragq.models import AttachedFile, Question, SearchResult
from ragq.parsing.parser import OcrSettings
from ragq.queues.running import RunningJob, WorkerContext
from ragq.rag.blocks import asks_what_to_do
from ragq.rag.comparison import compares
from ragq.rag.names import name_document
from ragq.rag.sources import choose_sources
from ragq.rag.split import split
from ragq.rag.titles import prefer_titles
from ragq.schemas.messages import decode_file, name_file

log = structlog.get_logger(__name__)

DEFAULT_CHUNK_SHARE = 0.8  # of the embedding model's window; the rest is for its special tokens
WHOLE_SHARE = 0.5  # of the prompt's budget, up to which the files of a question are read whole
SPARE = 4  # results beyond those wanted, to take the places of what says the same
COMPARED = 32  # results from which the sources of a comparison are chosen
MOST_CHOSEN_FROM = 50  # if that is not enough
MAX_CHARACTERS = 1_000_000  # of a file that comes with a question; what is longer belongs into a store


async def retrieve(job: RunningJob, context: WorkerContext, question: Question) -> list[SearchResult]:
    """Search the stores of a question; returns as many results as it wants, best first."""
    limit = question.max_results or context.settings.max_results
    return (await _search(job, context, question, most=limit))[:limit]


async def retrieve_sources(
    job: RunningJob, context: WorkerContext, question: Question, *, beside: list[SearchResult]
) -> list[SearchResult]:
    """Retrieve the sources of an answer: none that says the same as another, or as one of those beside them.

    Without an LLM, what is to be done is looked for in a quarter more than is usual: the best of them less often says it.
    """
    limit = question.max_results or context.settings.max_results
    if not question.max_results and context.llm is None and asks_what_to_do(question.text):
        limit += limit // 4
    first = max(limit, COMPARED) if compares(question.text) else limit + SPARE
    sources: list[SearchResult] = []
    for most in dict.fromkeys((first, max(first, MOST_CHOSEN_FROM))):
        found = await _search(job, context, question, most=most)
        sources = choose_sources(question.text, found, limit=limit, beside=beside)
        if len(sources) == limit or len(found) < most:
            break
    return sources


async def read_on(
    job: RunningJob, context: WorkerContext, question: Question, results: list[SearchResult]
) -> SearchResult | None:
    """Read what follows the best source in its document, if the question asks what to do: steps often go on there."""
    if not results or not question.vector_store_ids or not asks_what_to_do(question.text):
        return None
    following = await context.chunks.read_next(job.viewer, question.vector_store_ids, results[0])
    return None if following is None or following.location.unit == "row" else following


async def _search(job: RunningJob, context: WorkerContext, question: Question, *, most: int) -> list[SearchResult]:
    """Search and rerank; returns `most` results, or those that were reranked if they are more.

    The least score of the settings is one of the search, that of a question one of what it is shown.
    """
    if not question.vector_store_ids:
        return []
    settings = context.settings
    if context.reranker:
        most = max(most, settings.rerank_candidates)
    with tracing.span("search") as span:
        scope, vector = await asyncio.gather(
            context.chunks.find_scope(job.viewer, question.vector_store_ids, question.text, question.filters),
            context.embedding.embed_query(question.text),
        )
        found = await context.chunks.search(scope, vector, limit=most, meaning=question.meaning_weight)
        results = prefer_titles(question.text, found)
        span.set({"ragq.results": len(results)})
        if tracing.captures_texts():
            span.set({"ragq.query": question.text})
    if question.score_threshold is None:
        return await _rerank(job, context, question, [one for one in results if one.score >= settings.min_score])
    reranked = await _rerank(job, context, question, results)
    return [one for one in reranked if one.score >= question.score_threshold]


async def _rerank(
    job: RunningJob, context: WorkerContext, question: Question, results: list[SearchResult]
) -> list[SearchResult]:
    """Put results in the reranker's order, with its scores; when it fails, they stay as the search gave them."""
    if context.reranker is None or not results:
        return results
    passages = [
        "\n".join(filter(None, [name_document(result.filename, ""), result.heading, result.text])) for result in results
    ]
    try:
        scores = await context.reranker.score(question.text, passages)
    except RagqError as error:
        log.warning("results_not_reranked", job_id=job.id, error=str(error))
        return results
    scored = [replace(result, score=score) for result, score in zip(results, scores, strict=True)]
    return sorted(scored, key=lambda one: -one.score)


async def read_attached(job: RunningJob, context: WorkerContext, question: Question) -> list[SearchResult]:
    """Read the files that a question brings along: whole if they are small, else the chunks nearest to the question.

    Raises:
        DocumentError: A file cannot be read.
        NotFoundError: There is no such file.
    """
    if not question.files:
        return []
    found: list[SearchResult] = []
    for file in question.files:
        found += await _read_file(job, context, file)
    if sum(result.token_count for result in found) <= context.settings.prompt_tokens * WHOLE_SHARE:
        return found
    asked = await context.embedding.embed_query(question.text)  # first: if it fails, the file is not embedded in vain
    passages = [result.text for result in found]
    similarities = await context.embedding.embed_documents(passages, tenant_id=job.tenant_id) @ asked
    best = sorted(range(len(found)), key=lambda place: -similarities[place])
    return [
        replace(found[place], score=max(0.0, float(similarities[place])), similarity=float(similarities[place]))
        for place in best[: question.max_results or context.settings.max_results]
    ]


async def _read_file(job: RunningJob, context: WorkerContext, file: AttachedFile) -> list[SearchResult]:
    async with _open_file(job, context, file) as (path, file_id, filename):
        document = await context.parser.parse(
            path,
            filename,
            timeout_seconds=context.settings.parse_timeout_seconds,
            memory_bytes=context.settings.parse_memory_bytes,
            ocr=OcrSettings(context.settings.ocr_languages, context.settings.ocr_page_seconds),
            max_characters=MAX_CHARACTERS,
        )
    size = int(context.embedding.window_tokens * DEFAULT_CHUNK_SHARE)
    chunks = await asyncio.to_thread(
        split, document, context.embedding.tokenizer, max_tokens=size, overlap_tokens=0, is_wanted=lambda: True
    )
    return [
        SearchResult(
            file_id=file_id,
            filename=filename,
            text=chunk.text,
            start=chunk.start,
            end=chunk.end,
            page=chunk.page,
            heading=chunk.heading,
            location=chunk.location,
            token_count=chunk.token_count,
            score=1.0,
        )
        for chunk in chunks
    ]


@contextlib.asynccontextmanager
async def _open_file(
    job: RunningJob, context: WorkerContext, file: AttachedFile
) -> AsyncIterator[tuple[Path, str, str]]:
    """Yield the path, the id and the name of an uploaded file, or of one that came with the request."""
    if file.file_id:
        record = await context.files.get(job.viewer, file.file_id)
        if reason := await context.files.find_poison(record.sha256):
            raise DocumentError(reason)
        async with context.blobs.as_file(record.sha256) as path:
            yield path, record.id, record.filename
        return
    data = file.file_data or ""
    content = decode_file(data)
    with tempfile.NamedTemporaryFile() as written:
        await asyncio.to_thread(written.write, content)
        written.flush()
        yield Path(written.name), f"file-{hashlib.sha256(content).hexdigest()[:32]}", name_file(file.filename, data)
