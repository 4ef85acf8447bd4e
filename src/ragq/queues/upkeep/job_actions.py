"""Find jobs, of which some are in Valkey and the others in PostgreSQL, and retry, cancel or delete them, one or many."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from ragq.context import Context
from ragq.errors import ConflictError, GoneError, NotFoundError, RagqError, TransientError
from ragq.queues.documents import document_of, enqueue_document
from ragq.queues.history import delete_job, find_job
from ragq.storage.console.job_actions import ActionRecord, JobAction
from ragq.storage.console.jobs import MOST_COUNTED, JobRow, row_of
from ragq.storage.console.selection import START_OF_ENDED, Selection, read_place
from ragq.storage.ingests import Attachment

log = structlog.get_logger(__name__)

ACTION_SECONDS = 1.0  # between two looks for actions
BATCH = 100  # jobs between two notes of the progress


@dataclass(frozen=True, slots=True)
class JobPage:
    """Jobs of a list, and the cursor with which it goes on; None at its end."""

    jobs: list[JobRow]
    next: str | None


async def find_jobs(context: Context, selection: Selection, *, limit: int, cursor: str | None) -> JobPage:
    """List jobs: those that have not ended, then the others, the latest first.

    A page may have fewer than `limit` though the list goes on, since a look at Valkey is bounded.

    Raises:
        InvalidRequestError: The cursor is none.
    """
    place = read_place(cursor) if cursor else None
    found: list[JobRow] = []
    if selection.has_live and (place is None or place.kind == "live"):
        live = await context.queue.live.list_jobs(selection, limit=limit, after=place)
        found, place = live.jobs, None
        if live.next:
            return JobPage(found, live.next.write())
    if not selection.has_ended:
        return JobPage(found, None)
    room = limit - len(found)
    if room <= 0:
        return JobPage(found, START_OF_ENDED.write())
    ended = await context.jobs.list_jobs(selection, limit=room + 1, after=place)
    return JobPage(found + ended[:room], ended[room - 1].place.write() if len(ended) > room else None)


async def count_jobs(context: Context, selection: Selection) -> tuple[int, bool]:
    """Count the jobs of a selection; also whether the count is exact."""
    live, is_exact = await context.queue.live.count(selection) if selection.has_live else (0, True)
    ended = await context.jobs.count(selection) if selection.has_ended else 0
    return live + min(ended, MOST_COUNTED), is_exact and ended <= MOST_COUNTED


async def find_row(context: Context, tenant_id: str | None, job_id: str) -> JobRow:
    """Find a job, of any tenant with None.

    Raises:
        NotFoundError: There is none with this id.
    """
    row = None
    if "\0" not in job_id:
        # By the tenant first, so that another's job costs what an unknown one does.
        whose = tenant_id or (await context.queue.live.read_record(job_id)).get("tenant")
        job = await context.queue.fetch(job_id, whose) if whose else None
        if whose and job and not job.status.is_final:
            row = await context.queue.live.find(job_id)
            job = job if row else await context.queue.fetch(job_id, whose)  # it may have ended since
        row = row or await context.jobs.find(job_id, tenant_id)
        if row is None and job and job.status.is_final:
            row = row_of(job)  # the archive does not have it yet, or never gets it
    if row is None:
        raise NotFoundError(f"No job found with id '{job_id[:80]}'.", param="job_id")
    return row


async def act(context: Context, row: JobRow, action: JobAction) -> None:
    """Retry, cancel or delete a job.

    Raises:
        ConflictError: The job is not in a state for it, or has left the queue.
        NotFoundError: The document has left its store.
    """
    await {"retry": _retry, "cancel": _cancel, "delete": _delete}[action](context, row)


def check_state(row: JobRow, action: JobAction) -> None:
    """Check that an action fits the state of a job.

    Raises:
        ConflictError: It does not.
    """
    if action == "retry" and row.state not in ("failed", "canceled"):
        raise ConflictError("Only a job that failed or was cancelled can be run again.", code="job_not_failed")
    if action == "cancel" and row.ended_at:
        raise ConflictError("The job has ended.", code="job_ended")
    if action == "delete" and row.kind == "document" and not row.ended_at:
        raise ConflictError("The document is being ingested: cancel the job first.", code="job_not_ended")


async def _retry(context: Context, row: JobRow) -> None:
    check_state(row, "retry")
    if document := document_of(row.id):
        store_id, file_id = document
        await context.store_files.get(row.tenant_id, store_id, file_id)  # it may have left the store
        await context.ingests.attach_many(row.tenant_id, store_id, [Attachment(file_id, keeps_chunking=True)])
        records = await context.store_files.find_in_progress(row.tenant_id, store_id, [file_id])
        if not records:
            raise ConflictError("The document cannot be ingested again: its store says why.", code="job_gone")
        for record in records:
            queued = await enqueue_document(context.queue, context.settings, record)
            if not queued.created:  # the job of this ingest has ended, and the sweeper has not seen it yet
                await context.queue.live.retry(queued.job_id)
    elif not await context.queue.live.retry(row.id):
        raise ConflictError(
            "The job has left the queue, so it cannot be run again: ask the question again.", code="job_gone"
        )
    await context.jobs.remove(row)


async def _cancel(context: Context, row: JobRow) -> None:
    check_state(row, "cancel")
    if (before := await context.queue.cancel(row.id)) is None or before.is_final:
        raise ConflictError("The job has ended.", code="job_ended")


async def _delete(context: Context, row: JobRow) -> None:
    check_state(row, "delete")
    if row.kind == "document":  # its state is the document's
        await context.jobs.remove(row)
        return
    try:
        job = await find_job(context, row.tenant_id, row.id)
    except (GoneError, NotFoundError):
        job = None
    if job and row.ended_at and not job.status.is_final:
        raise ConflictError("The job runs again: cancel it first.", code="job_runs_again")
    if job:
        await delete_job(context, job)
    if row.ended_at:
        await context.jobs.remove(row)


async def run_actions_forever(context: Context) -> None:
    """Do, in the background, what was begun on many jobs."""
    while True:
        if await context.queue.claim_period("job-actions", every_seconds=ACTION_SECONDS):
            while action := await context.job_actions.claim():
                await run_action(context, action)
        await asyncio.sleep(ACTION_SECONDS / 2)


async def run_action(context: Context, action: ActionRecord) -> None:
    """Do an action from where it is to its end, a batch at a time; another process goes on if this one dies."""
    selection, after = action.jobs, action.after
    while True:
        page = await find_jobs(context, selection, limit=BATCH, cursor=after)
        done = sum([await _try(context, row, action.action) for row in page.jobs])
        skipped, before, after = len(page.jobs) - done, after, page.next
        if not await context.job_actions.advance(action.id, before, done=done, skipped=skipped, after=after):
            break
    log.info("job_action_ended", action_id=action.id, action=action.action)


async def _try(context: Context, row: JobRow, action: JobAction) -> bool:
    try:
        await act(context, row, action)
    except TransientError:
        raise
    except RagqError as error:
        log.info("job_action_skipped", job_id=row.id, action=action, reason=error.message)
        return False
    return True
