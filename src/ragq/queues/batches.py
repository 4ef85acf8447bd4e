"""Run batches: each API process takes a step of each unfinished batch that no other process has locked.

All state is in PostgreSQL and every step is idempotent, so that after a kill the next step continues.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from io import BufferedRandom
from typing import Any

import structlog
from pydantic import ValidationError

from ragq.client.job import NewJob
from ragq.context import Context
from ragq.errors import InvalidRequestError, NotFoundError, OverloadedError, PermanentError, TransientError
from ragq.models import Lane, QueueName
from ragq.queues.questions import read_question
from ragq.records import BatchRequest, Job, QueryArguments
from ragq.schemas.batch_lines import InputReader
from ragq.schemas.checks import check_json
from ragq.schemas.objects import error_body, explain_faults
from ragq.schemas.questions import SEARCH_RESULTS, ResponseCreate
from ragq.schemas.responses import RESPONSE_PREFIX, render_response
from ragq.storage.batches import AskedLine, BatchRecord, EndedLine, FinalStatus

log = structlog.get_logger(__name__)

STEP_SECONDS = 0.5
UNFINISHED_BATCHES = 50  # read at once, oldest first
STOPPING_LINES = 1000  # ended by one step of a batch that is stopping
READ_BYTES = 1 << 16  # validated between two turns of the event loop
WRITTEN_LINES = 100  # in memory at once
CANCELLED = {"code": "batch_cancelled", "message": "The batch was cancelled before this request ended."}
UNREADABLE = {"code": "server_error", "message": "The response has ended but cannot be read: send the request again."}
BROKEN = {"code": "server_error", "message": "The request could not be queued: see the server's log."}
EXPIRED = {"code": "batch_expired", "message": "The request did not end within the completion window."}


class _InputError(PermanentError):
    """The input file is not valid; the reader has the errors."""


async def run_batches_forever(context: Context) -> None:
    """Advance every unfinished batch, step by step."""
    batches = context.batches
    while True:
        for batch in await batches.list_unfinished(UNFINISHED_BATCHES) if context.not_ready is None else []:
            try:
                async with batches.lock(batch.id) as is_ours:
                    if is_ours:
                        await take_step(context, await batches.get(batch.tenant_id, batch.id))
            except TransientError as error:
                log.warning("batch_waits", batch_id=batch.id, error=str(error))
            except Exception:  # one broken batch must not stop the others
                log.exception("batch_step_failed", batch_id=batch.id)
        await asyncio.sleep(STEP_SECONDS)


async def take_step(context: Context, batch: BatchRecord) -> None:
    """Take a batch's next step."""
    is_late = time.time() > batch.expires_at.timestamp()
    if batch.status == "validating" and not is_late:
        await _validate(context, batch)
    elif batch.status in ("validating", "finalizing"):
        await _write_files(context, batch)
    elif batch.status in ("in_progress", "cancelling"):
        stop = CANCELLED if batch.status == "cancelling" else EXPIRED if is_late else None
        if not await _bring_forward(context, batch, stop):
            await (_write_files(context, batch) if stop is CANCELLED else context.batches.finalize(batch.id))


async def _validate(context: Context, batch: BatchRecord) -> None:
    reader = InputReader(batch.endpoint)

    async def read() -> AsyncIterator[list[tuple[int, BatchRequest]]]:
        file = await context.files.get(batch.tenant_id, batch.input_file_id)
        async for piece in context.blobs.stream(file.sha256):
            for start in range(0, len(piece), READ_BYTES):
                yield reader.feed(piece[start : start + READ_BYTES])
            if reader.is_hopeless:
                break
        yield reader.end()
        if reader.errors:
            raise _InputError("The input file is wrong.")

    try:
        await context.batches.begin(batch, read())
    except _InputError:
        await context.batches.finish(batch, "failed", errors=reader.errors)
    except NotFoundError as error:
        fault = {"code": error.code, "message": error.message, "param": "input_file_id", "line": None}
        await context.batches.finish(batch, "failed", errors=[fault])


async def _bring_forward(context: Context, batch: BatchRecord, stop: dict[str, str] | None) -> bool:
    """Queue lines, record those that ended, and end the rest if the batch is stopping; False when none is left."""
    limit = STOPPING_LINES if stop else context.settings.batch_outstanding
    lines = await context.batches.asked(batch.id, limit=limit)
    found = await _find_jobs(context, batch, lines)
    outcomes, is_full = list[EndedLine](), False
    for line in lines:
        job_id = job_id_of(batch.id, line.line)
        outcome = _outcome(context, batch, line, found, stop)
        if job_id in found.running:
            if stop:
                await context.queue.cancel(job_id)
        elif outcome is None and not is_full:
            try:
                outcome = await _try_to_ask(context, batch, line)
            except OverloadedError:
                is_full = True
        if outcome:
            outcomes.append(outcome)
    if outcomes:
        await context.batches.end_lines(batch.id, outcomes)
    return bool(lines)


def _outcome(
    context: Context, batch: BatchRecord, line: AskedLine, found: _Found, stop: dict[str, str] | None
) -> EndedLine | None:
    """The outcome of a line: of its job, or because the batch is stopping; None while it runs."""
    job_id = job_id_of(batch.id, line.line)
    if job := found.ended.get(job_id):
        return _outcome_of(context, batch, line, job, stop)
    if job_id in found.unreadable:
        return _write(batch, line, error=UNREADABLE)
    return _write(batch, line, error=stop) if stop and job_id not in found.running else None


async def _try_to_ask(context: Context, batch: BatchRecord, line: AskedLine) -> EndedLine | None:
    """Queue a line; an error in it ends only this line.

    Raises:
        TransientError: Try again later; `OverloadedError` if the queue is full.
    """
    try:
        await _ask(context, batch, line)
    except PermanentError as error:
        return _refuse(batch, line, error)
    except TransientError:
        raise
    except Exception:  # one line must not stop the others
        log.exception("batch_line_failed", batch_id=batch.id, line=line.line)
        return _write(batch, line, error=BROKEN)
    return None


def job_id_of(batch_id: str, line: int) -> str:
    """The job id of a line; it is always the same, so that queueing the line again finds its job."""
    return RESPONSE_PREFIX + hashlib.sha256(f"{batch_id}\n{line}".encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class _Found:
    running: set[str] = field(default_factory=set)
    ended: dict[str, Job] = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)


async def _find_jobs(context: Context, batch: BatchRecord, lines: list[AskedLine]) -> _Found:
    """Read the jobs of lines, from Valkey or the archive."""
    ids = [job_id_of(batch.id, line.line) for line in lines]
    if not ids:
        return _Found()
    found = dict(zip(ids, await context.queue.statuses(ids), strict=True))
    final = [id_ for id_, status in found.items() if status and status.is_final]
    jobs = await asyncio.gather(*(context.queue.fetch(id_, batch.tenant_id) for id_ in final))
    ended = {job.id: job for job in jobs if job and job.status.is_final}
    elsewhere = [id_ for id_ in ids if not found[id_] or (id_ in final and id_ not in ended)]
    ended |= {job.id: job for job in await context.archive.fetch_many(elsewhere, batch.tenant_id)}
    unreadable = {id_ for id_, job in zip(final, jobs, strict=True) if job is None} - ended.keys()
    return _Found({id_ for id_, status in found.items() if status} - ended.keys() - unreadable, ended, unreadable)


async def _ask(context: Context, batch: BatchRecord, line: AskedLine) -> None:
    """Queue a line on the flex lane, for as long as the batch may take.

    Raises:
        OverloadedError: The queue is full.
        PermanentError: The line's request is not valid.
    """
    try:
        check_json(line.request.body)
        body = ResponseCreate.model_validate(line.request.body)
    except ValidationError as error:
        raise explain_faults(error.errors(include_url=False), line.request.body, skip=0) from error
    if body.stream:
        raise InvalidRequestError("A batch answers with a file, not with a stream: leave out stream.", param="stream")
    body = body.model_copy(update={"service_tier": "flex", "background": True})
    read = await read_question(body, context, batch.tenant_id)
    await context.queue.enqueue(
        NewJob(
            id=job_id_of(batch.id, line.line),
            arguments=QueryArguments(read.question),
            queue=QueueName.QUERIES,
            lane=Lane.FLEX,
            tenant_id=batch.tenant_id,
            deadline_seconds=max(1.0, batch.expires_at.timestamp() - time.time()),
            request=read.request,
            archive=True,
        )
    )


def _outcome_of(
    context: Context, batch: BatchRecord, line: AskedLine, job: Job, stop: dict[str, str] | None
) -> EndedLine:
    body = render_response(job, results=SEARCH_RESULTS in job.request.include, page=context.settings.page_url)
    if body["status"] in ("completed", "incomplete"):
        return _write(batch, line, status_code=200, body=body)
    was_cancelled = {"code": "cancelled", "message": "The response was cancelled."}
    error: Any = body["error"] or stop or was_cancelled
    return _write(batch, line, error=error)


def _refuse(batch: BatchRecord, line: AskedLine, error: PermanentError) -> EndedLine:
    return _write(batch, line, status_code=error.status, body=error_body(error))


def _write(
    batch: BatchRecord,
    line: AskedLine,
    *,
    status_code: int = 0,
    body: Mapping[str, Any] | None = None,
    error: Mapping[str, str] | None = None,
) -> EndedLine:
    """Serialize a line of the output file: an HTTP response, or the error in its place."""
    suffix = job_id_of(batch.id, line.line).removeprefix(RESPONSE_PREFIX)
    outcome = {
        "id": f"batch_req_{suffix}",
        "custom_id": line.request.custom_id,
        "response": {"status_code": status_code, "request_id": f"req_{suffix}", "body": body} if body else None,
        "error": error,
    }
    return EndedLine(line.line, "completed" if status_code == 200 else "failed", json.dumps(outcome))


async def _write_files(context: Context, batch: BatchRecord) -> None:
    """Store the output file, in the input's order, and the failed lines also as the error file; end the batch."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as failures:
        after = 0
        while lines := await context.batches.ended_lines(batch.id, after=after, limit=WRITTEN_LINES):
            for line in lines:
                text = line.outcome.encode() + b"\n"
                output.write(text)
                if line.state == "failed":
                    failures.write(text)
            after = lines[-1].line
        output_id = await _store(context, batch, output, "output")
        error_id = await _store(context, batch, failures, "errors")
    is_late = batch.finalizing_at is None or batch.finalizing_at > batch.expires_at
    status: FinalStatus = "cancelled" if batch.status == "cancelling" else "expired" if is_late else "completed"
    if await context.batches.finish(batch, status, output_file_id=output_id, error_file_id=error_id):
        log.info("batch_ended", batch_id=batch.id, status=status, completed=batch.completed, failed=batch.failed)


async def _store(context: Context, batch: BatchRecord, file: BufferedRandom, name: str) -> str | None:
    """Store a finished output as a file of the tenant; None if it is empty. Idempotent."""
    if not (size := file.tell()):
        return None
    file.seek(0)
    sha256 = (await asyncio.to_thread(hashlib.file_digest, file, "sha256")).hexdigest()
    file.seek(0)
    async with context.files.locked_bytes(sha256):
        await context.blobs.put(sha256, file)
        record = await context.files.create(
            batch.tenant_id, filename=f"{batch.id}_{name}.jsonl", purpose="batch_output", size=size, sha256=sha256
        )
    return record.id
