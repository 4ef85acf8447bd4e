"""The housekeeping. There is no leader: every process runs these loops.

Valkey decides which process does the work in each period, so that it is done once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial

import structlog

from ragq import metrics
from ragq.client.rq_client import JobQueue
from ragq.context import Context
from ragq.errors import TransientError
from ragq.queues.conversations import settle
from ragq.queues.upkeep.expiry import delete_unused_requests, expire_files_and_stores, expire_uploads
from ragq.queues.upkeep.job_actions import run_actions_forever
from ragq.queues.upkeep.sweeper import sweep
from ragq.queues.upkeep.tenant_removal import remove_tenant
from ragq.queues.upkeep.usage import add_usage_forever
from ragq.queues.webhooks import deliver_forever
from ragq.records import Job
from ragq.storage.vector_index import is_index_due, make_index

log = structlog.get_logger(__name__)

START_SECONDS = 0.05  # between two loops, or a process opens three connections to PostgreSQL at its start, not one
RETRY_SECONDS = 0.3  # short, because leases that expired in an outage get only a short extension (reap.lua)
FAILURES_A_LINE = 30
SETTLED_SECONDS = 5.0
REAP_SECONDS = 1.0
ARCHIVE_SECONDS = 1.0
ARCHIVE_BATCH = 100
RESPONSE_EXPIRY_SECONDS = 600.0
SWEEP_SECONDS = 10.0
FILE_EXPIRY_SECONDS = 60.0
REQUESTS_SECONDS = 300.0
TENANTS_SECONDS = 5.0
SHARES_SECONDS = 10.0
INDEX_SECONDS = 10.0
INDEX_AGAIN_SECONDS = 600.0  # after it failed, as on a full disk: a try may take long


def start_housekeeping(context: Context) -> list[asyncio.Task[None]]:
    """Start the loops of a process, one after the other; the caller cancels the returned tasks."""
    parts = {
        "reap": partial(reap_forever, context.queue),
        "archive": partial(archive_forever, context),
        "usage": partial(add_usage_forever, context),
        "sweep": partial(sweep_forever, context),
        "expire": partial(expire_forever, context),
        "requests": partial(clear_requests_forever, context),
        "tenants": partial(remove_tenants_forever, context),
        "shares": partial(copy_shares_forever, context),
        "index": partial(index_forever, context),
        "job-actions": partial(run_actions_forever, context),
        "webhooks": partial(deliver_forever, context.settings, context.webhooks),
    }
    return [
        asyncio.create_task(_start(part, name, position * START_SECONDS), name=name)
        for position, (name, part) in enumerate(parts.items())
    ]


async def _start(part: Callable[[], Awaitable[None]], name: str, delay_seconds: float) -> None:
    await asyncio.sleep(delay_seconds)
    await restart_on_error(part, name)


async def restart_on_error(part: Callable[[], Awaitable[None]], name: str) -> None:
    """Run a loop forever: log any error and start the loop again."""
    failures = 0
    while True:
        started = time.monotonic()
        try:
            return await part()
        except TransientError as error:
            failures = 0 if time.monotonic() - started > SETTLED_SECONDS else failures + 1
            if failures % FAILURES_A_LINE <= 1:
                log.warning("waiting_for_service", part=name, error=str(error))
            await asyncio.sleep(RETRY_SECONDS)
        except Exception:  # the outermost loop of a part
            log.exception("part_failed", part=name)
            await asyncio.sleep(1)


async def reap_forever(queue: JobQueue) -> None:
    while True:
        await reap(queue)
        await asyncio.sleep(REAP_SECONDS)


async def reap(queue: JobQueue) -> None:
    """Put back jobs of silent workers, wake delayed jobs, and fail queued ones past their deadline."""
    reaped = await queue.reap()
    for job_id in reaped.put_back:
        log.warning("job_put_back", job_id=job_id, reason="its worker was silent for a whole lease")
    for job_id in reaped.late:
        log.warning("job_late", job_id=job_id, reason="no worker started it before its deadline")
    metrics.PUT_BACK.inc(len(reaped.put_back))
    metrics.LATE.inc(len(reaped.late))


async def archive_forever(context: Context) -> None:
    """Copy ended questions to PostgreSQL as they end, and delete expired responses and deliveries."""
    queue, retention = context.queue, context.settings.response_retention_seconds
    while True:
        if await queue.claim_period("archive", every_seconds=ARCHIVE_SECONDS):
            await archive_ended(context)
        if await queue.claim_period("expire-responses", every_seconds=RESPONSE_EXPIRY_SECONDS):
            await context.archive.expire(retention)
            await context.jobs.expire(retention)
            await context.job_actions.expire()
            await context.webhooks.expire(retention)
            if count := await context.audit_log.expire(context.settings.audit_retention_seconds):
                log.info("audit_entries_expired", count=count)
        await asyncio.sleep(ARCHIVE_SECONDS)


async def archive_ended(context: Context) -> None:
    """Archive ended jobs; a job leaves Valkey only after PostgreSQL has it, and its conversation."""
    queue = context.queue
    while jobs := await queue.unarchived(ARCHIVE_BATCH):
        await context.archive.store(jobs)
        for job in jobs:
            await _settle(context, job)
        await queue.mark_archived(jobs)
        metrics.ARCHIVED.inc(len(jobs))


async def _settle(context: Context, job: Job) -> None:
    try:
        await settle(context, job)
    except TransientError:
        raise
    except Exception:  # one broken response must not stop the archive
        log.exception("conversation_not_settled", response_id=job.id)


async def sweep_forever(context: Context) -> None:
    """Queue or fail, periodically, documents that no job works on."""
    while True:
        if await context.queue.claim_period("sweep", every_seconds=SWEEP_SECONDS):
            swept = await sweep(context.settings, context.store_files, context.ingests, context.queue)
            metrics.SWEPT.inc(swept)
        await asyncio.sleep(SWEEP_SECONDS / 2)


async def expire_forever(context: Context) -> None:
    """Delete expired files and stores periodically."""
    while True:
        if await context.queue.claim_period("expire-files", every_seconds=FILE_EXPIRY_SECONDS):
            await expire_files_and_stores(context.files, context.stores, context.blobs)
            await expire_uploads(context.uploads, context.blobs)
        await asyncio.sleep(FILE_EXPIRY_SECONDS / 4)


async def clear_requests_forever(context: Context) -> None:
    """Delete the large parts of deleted requests periodically."""
    while True:
        if await context.queue.claim_period("requests", every_seconds=REQUESTS_SECONDS):
            await delete_unused_requests(context.queue, context.archive)
        await asyncio.sleep(REQUESTS_SECONDS / 4)


async def remove_tenants_forever(context: Context) -> None:
    """Remove, periodically, the data of tenants that were deleted."""
    while True:
        if await context.queue.claim_period("tenants", every_seconds=TENANTS_SECONDS):
            await context.sessions.expire()
            for tenant_id, deleted_at in await context.tenants.list_deleted():
                async with aclosing(remove_tenant(context, tenant_id, deleted_at)) as steps:
                    async for removed in steps:
                        log.info("tenant_shrinks", tenant=tenant_id, what=removed.what, count=removed.count)
        await asyncio.sleep(TENANTS_SECONDS / 2)


async def copy_shares_forever(context: Context) -> None:
    """Copy the tenants' weights and limits to Valkey periodically, which may have lost them."""
    while True:
        if await context.queue.claim_period("shares", every_seconds=SHARES_SECONDS):
            await context.queue.tenant_jobs.set_shares(await context.tenants.read_shares())
        await asyncio.sleep(SHARES_SECONDS / 2)


async def index_forever(context: Context) -> None:
    """Check periodically whether there are enough vectors to need an index."""
    queue, database = context.queue, context.database
    while True:
        if (
            await queue.claim_period("index", every_seconds=INDEX_SECONDS)
            and await is_index_due(database)
            and await queue.claim_period("make-index", every_seconds=INDEX_AGAIN_SECONDS)
        ):
            await make_index(database)
        await asyncio.sleep(INDEX_SECONDS / 2)
