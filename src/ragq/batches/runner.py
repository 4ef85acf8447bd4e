"""Run batches: each API process takes a step of each unfinished batch that no other process has locked.

All state is in PostgreSQL and every step is idempotent, so that after a kill the next step continues.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from io import BufferedRandom

import structlog

from ragq.accounts.payer import Payer, paid_by
from ragq.batches.lines import KINDS, job_ids_of, suffix_of
from ragq.client.job import NewJob
from ragq.context import Context
from ragq.errors import NotFoundError, OverloadedError, PermanentError, RagqError, TransientError
from ragq.models import Lane, QueueName
from ragq.records import BatchRequest, Job
from ragq.schemas.batch_lines import InputReader
from ragq.schemas.objects import error_body
from ragq.storage.batches import AskedLine, BatchRecord, EndedLine, FinalStatus

log = structlog.get_logger(__name__)

STEP_SECONDS = 0.5
UNFINISHED_BATCHES = 50  # read at once, oldest first
STOPPING_LINES = 1000  # ended by one step of a batch that is stopping
READ_BYTES = 1 << 16  # validated between two turns of the event loop
UNRECORDED_SECONDS = 7 * 86_400  # how long a job waits for an API process to record it, unless it is archived
WAS_CANCELLED = {"code": "cancelled", "message": "The response was cancelled."}
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
            await (
                _write_files(context, batch)
                if stop is CANCELLED
                else context.batches.finalize(batch.tenant_id, batch.id)
            )


async def _validate(context: Context, batch: BatchRecord) -> None:
    reader = InputReader(batch.endpoint)

    async def read() -> AsyncIterator[list[tuple[int, BatchRequest]]]:
        file = await context.files.get(batch.asker, batch.input_file_id)
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
    lines = await context.batches.asked(batch.tenant_id, batch.id, limit=limit)
    found = await _find_jobs(context, batch, lines)
    payer = await context.limits.payer_of(batch.tenant_id, batch.key_id)
    outcomes, unfinished = list[EndedLine](), sum(len(jobs.running) for jobs in found.values())
    for line in lines:
        jobs = found[line.line]
        outcome = await _outcome(context, batch, line, jobs, stop)
        if stop:
            for job_id in jobs.running:
                await context.queue.cancel(job_id)
        elif outcome is None and jobs.missing and unfinished < limit:
            try:
                outcome = await _try_to_ask(context, batch, line, jobs.missing, payer)
                unfinished += len(jobs.missing)
            except OverloadedError:
                unfinished = limit
        if outcome:
            outcomes.append(outcome)
    if outcomes:
        await context.batches.end_lines(batch.tenant_id, batch.id, outcomes)
        await _delete_jobs(context, [found[outcome.line] for outcome in outcomes])
    return bool(lines)


async def _outcome(
    context: Context, batch: BatchRecord, line: AskedLine, jobs: _LineJobs, stop: dict[str, str] | None
) -> EndedLine | None:
    """The outcome of a line: of its jobs, or because the batch is stopping; None while it runs."""
    if jobs.is_unreadable:
        return _write(batch, line, error=UNREADABLE)
    if jobs.ended:
        return await _outcome_of(context, batch, line, jobs.ended, stop)
    return _write(batch, line, error=stop) if stop and not jobs.running else None


async def _try_to_ask(
    context: Context, batch: BatchRecord, line: AskedLine, missing: set[str], payer: Payer
) -> EndedLine | None:
    """Queue a line's missing jobs; an error in it ends only this line.

    Raises:
        TransientError: Try again later; `OverloadedError` if the queue is full or a limit is reached.
    """
    try:
        await _ask(context, batch, line, missing, payer)
    except PermanentError as error:
        return _write(batch, line, status_code=error.status, body=json.dumps(error_body(error)))
    except TransientError:
        raise
    except Exception:  # one line must not stop the others
        log.exception("batch_line_failed", batch_id=batch.id, line=line.line)
        return _write(batch, line, error=BROKEN)
    return None


@dataclass(frozen=True, slots=True)
class _LineJobs:
    """The jobs of a line.

    Attributes:
        missing: Ids of those that are not queued yet, or that Valkey lost.
        running: Ids of those that have not ended.
        ended: All of them, if all have ended; else none.
        is_unreadable: One has ended but cannot be read.
    """

    missing: set[str]
    running: set[str]
    ended: list[Job]
    is_unreadable: bool = False


async def _find_jobs(context: Context, batch: BatchRecord, lines: list[AskedLine]) -> dict[int, _LineJobs]:
    """Read the jobs of lines, from Valkey or the archive; results only of lines whose jobs have all ended."""
    ids_of = {line.line: job_ids_of(batch, line) for line in lines}
    ids = [id_ for ids in ids_of.values() for id_ in ids]
    if not ids:
        return {}
    statuses = dict(zip(ids, await context.queue.statuses(ids), strict=True))
    final = {id_ for id_, status in statuses.items() if status and status.is_final}
    read = [id_ for ids in ids_of.values() if final.issuperset(ids) for id_ in ids]
    jobs = await asyncio.gather(*(context.queue.fetch(id_, batch.tenant_id) for id_ in read))
    ended = {job.id: job for job in jobs if job and job.status.is_final}
    elsewhere = [id_ for id_ in ids if not statuses[id_] or (id_ in read and id_ not in ended)]
    ended |= {job.id: job for job in await context.archive.fetch_many(elsewhere, batch.tenant_id)}
    unreadable = {id_ for id_, job in zip(read, jobs, strict=True) if job is None} - ended.keys()
    return {
        line: _LineJobs(
            missing={id_ for id_ in ids if not statuses[id_] and id_ not in ended},
            running={id_ for id_ in ids if statuses[id_]} - final - ended.keys(),
            ended=[ended[id_] for id_ in ids] if ended.keys() >= set(ids) else [],
            is_unreadable=not unreadable.isdisjoint(ids),
        )
        for line, ids in ids_of.items()
    }


async def _ask(context: Context, batch: BatchRecord, line: AskedLine, missing: set[str], payer: Payer) -> None:
    """Queue a line's missing jobs on the flex lane, for as long as the batch may take.

    Raises:
        OverloadedError: The queue is full.
        PermanentError: The line's request is not valid.
    """
    wanted = await KINDS[batch.endpoint].read(context, batch.asker, line.request.body)
    jobs = [job for job in zip(job_ids_of(batch, line), wanted, strict=True) if job[0] in missing]
    with paid_by(payer.for_another_request()):
        for job_id, job in jobs:
            await context.queue.enqueue(
                NewJob(
                    id=job_id,
                    arguments=job.arguments,
                    queue=QueueName.QUERIES,
                    lane=Lane.FLEX,
                    tenant_id=batch.tenant_id,
                    deadline_seconds=max(1.0, batch.expires_at.timestamp() - time.time()),
                    request=job.request,
                    archive=job.request.store,
                    keep_seconds=None if job.request.store else UNRECORDED_SECONDS,
                )
            )


async def _delete_jobs(context: Context, ended: list[_LineJobs]) -> None:
    """Delete the jobs of recorded lines that are not in the archive; those of a killed process are kept for a while."""
    for job in [job for jobs in ended for job in jobs.ended if not job.request.store]:
        await context.queue.delete(job.id)
        await context.queue.requests.discard(job)


async def _outcome_of(
    context: Context, batch: BatchRecord, line: AskedLine, jobs: list[Job], stop: dict[str, str] | None
) -> EndedLine:
    try:
        body = await KINDS[batch.endpoint].render(context, line.request.body, jobs)
    except RagqError as error:
        has_failed = any(job.error for job in jobs)
        failure = {"code": error.code, "message": error.message}
        return _write(batch, line, error=failure if has_failed else stop or WAS_CANCELLED)
    return _write(batch, line, status_code=200, body=body)


def _write(
    batch: BatchRecord, line: AskedLine, *, status_code: int = 0, body: str = "", error: dict[str, str] | None = None
) -> EndedLine:
    """Serialize a line of the output file: an HTTP response, or the error in its place.

    Args:
        body: JSON.
    """
    suffix = suffix_of(batch.id, line.line)
    response = f'{{"status_code": {status_code}, "request_id": "req_{suffix}", "body": {body}}}' if body else "null"
    custom_id = json.dumps(line.request.custom_id)
    outcome = f'{{"id": "batch_req_{suffix}", "custom_id": {custom_id}, "response": {response}, "error": {json.dumps(error)}}}'
    return EndedLine(line.line, "completed" if status_code == 200 else "failed", outcome)


async def _write_files(context: Context, batch: BatchRecord) -> None:
    """Store the output file, in the input's order, and the failed lines also as the error file; end the batch."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as failures:
        after = 0
        limit = KINDS[batch.endpoint].written_at_once
        while lines := await context.batches.ended_lines(batch.tenant_id, batch.id, after=after, limit=limit):
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
            batch.asker, filename=f"{batch.id}_{name}.jsonl", purpose="batch_output", size=size, sha256=sha256
        )
    return record.id
