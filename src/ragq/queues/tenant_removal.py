"""Remove everything of a tenant that was deleted: from Valkey, PostgreSQL and the blob store."""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from ragq.context import Context
from ragq.errors import NotFoundError
from ragq.models import Orphan
from ragq.storage.uploads import blob_of

log = structlog.get_logger(__name__)

PASS_SECONDS = (
    2.0  # after which a pass that found nothing is made again: an answer may have been on its way to the archive
)
LEFT = "It is left of the tenant. If the tenant was deleted, report it."


async def remove_tenants(context: Context) -> None:
    """Remove the tenants that were deleted. It may be cut short at any point, and run again, or twice at once."""
    for tenant_id in await context.tenants.list_deleted():
        await remove_tenant(context, tenant_id)
        log.info("tenant_removed", tenant=tenant_id)


async def remove_tenant(context: Context, tenant_id: str) -> None:
    """Remove all data of a tenant, and the tenant at last.

    Jobs that run are ended, and what they bring is refused. Bytes that another tenant has as well stay.
    """
    clean = 0
    while clean < 2:
        if await _remove_some(context, tenant_id):
            clean = 0
        else:
            clean += 1
            await asyncio.sleep(PASS_SECONDS)
    await context.queue.tenants.forget(tenant_id)
    await context.tenants.forget(tenant_id)


async def _remove_some(context: Context, tenant_id: str) -> int:
    """Remove what is found; returns how much."""
    count = await _remove_jobs(context, tenant_id)
    for upload_id, part_id in await context.tenants.list_parts(tenant_id):
        await context.blobs.delete(blob_of(upload_id, part_id))
    count += await context.tenants.delete_rows(tenant_id)
    while store_ids := await context.tenants.list_of(tenant_id, "vector_stores"):
        for store_id in store_ids:
            with contextlib.suppress(NotFoundError):
                await context.stores.delete(tenant_id, store_id)
        count += len(store_ids)
    while file_ids := await context.tenants.list_of(tenant_id, "files"):
        for file_id in file_ids:
            await _remove_file(context, tenant_id, file_id)
        count += len(file_ids)
    return count


async def _remove_jobs(context: Context, tenant_id: str) -> int:
    """Delete jobs, and the large parts of requests, also of those in the archive."""
    queue = context.queue
    job_ids = set(await queue.tenants.list_jobs(tenant_id))
    requests = await queue.requests.list_settled(0)
    archived = await context.tenants.find_jobs(tenant_id, list(set(requests.values())))
    for job_id in job_ids:
        await queue.delete(job_id)
    for name, job_id in requests.items():
        if job_id in job_ids | archived:
            await queue.requests.delete(name)
    return len(job_ids)


async def _remove_file(context: Context, tenant_id: str, file_id: str) -> None:
    with contextlib.suppress(NotFoundError):
        record = await context.files.get(tenant_id, file_id)
        async with context.files.locked_bytes(record.sha256):
            if orphan := await context.files.delete(tenant_id, file_id):
                await context.blobs.delete(orphan)


async def find_left(context: Context, tenant_id: str) -> list[Orphan]:
    """Find what is left of a tenant, by looking at every table and every key for its name. Read-only."""
    rows = await context.tenants.count_left(tenant_id)
    keys = await context.queue.tenants.find_left(tenant_id)
    return [
        *(Orphan("rows_of_tenant", f"{table}: {count}", LEFT) for table, count in rows.items()),
        *(Orphan("key_of_tenant", key, LEFT) for key in keys),
    ]
