"""Delete a tenant with everything that it has: jobs, files, bytes, rows, and at last the tenant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import structlog

from ragq.context import Context
from ragq.errors import InvalidRequestError, NotFoundError
from ragq.models import DEFAULT_TENANT
from ragq.storage.tenancy.tenant_data import TenantData
from ragq.storage.tenancy.tenants import Tenants
from ragq.storage.uploads import FOLDER, upload_of

log = structlog.get_logger(__name__)

CLOSED_SECONDS = 3600.0  # for which Valkey refuses the tenant's jobs: longer than any request that began before
FILES_BATCH = 500
JOBS_BATCH = 500


@dataclass(frozen=True, slots=True)
class Removed:
    """A step of a removal: `what` is "jobs", "uploads", "files" or the name of a table, `count` how many of these went."""

    what: str
    count: int


async def remove_tenant(
    context: Context, tenant_id: str, deleted_at: datetime | None = None
) -> AsyncGenerator[Removed, None]:
    """Delete a tenant and everything of it, in steps; yields each step that deleted something.

    First its keys stop to work and its jobs are refused, also for an hour after the end. Then go jobs (running ones are cancelled and
    cannot commit), files with the bytes that no other tenant shares, and rows. The row in `tenants` is the last, in a transaction that
    finds no other row, so a removal that was cut short is completed by calling this again. It is no error if there is no such tenant:
    what may be left of it is deleted. Iterate to the end: a step is taken when it is asked for.

    Nothing is done while another process removes the tenant.

    Args:
        deleted_at: When the tenant was deleted. A new one of the same name has another time, or none, and is left alone. None: remove
            the tenant as it is.

    Raises:
        InvalidRequestError: It is the tenant `default`.
        UnavailableError: A server does not answer: call this again.
    """
    if tenant_id == DEFAULT_TENANT:
        raise InvalidRequestError(f"The tenant '{DEFAULT_TENANT}' cannot be deleted.", param="tenant_id")
    data = TenantData(context.database)
    async with data.claimed(tenant_id, deleted_at) as claim:
        while await claim.holds():
            async for removed in _remove_all(context, data, tenant_id):
                yield removed
                if not await claim.holds():
                    return
            if await data.delete_tenant(tenant_id, deleted_at):
                log.info("tenant_deleted", tenant=tenant_id)
                return


async def _remove_all(context: Context, data: TenantData, tenant_id: str) -> AsyncIterator[Removed]:
    """Delete everything but the tenant's own row."""
    with suppress(NotFoundError):
        await Tenants(context.database).suspend(tenant_id, suspended=True)
    await context.queue.tenant_jobs.close(tenant_id, seconds=CLOSED_SECONDS)
    for part in (_remove_jobs, _remove_uploads, _remove_files):
        async for removed in part(context, data, tenant_id):
            yield removed
    async for table, count in data.delete_rows(tenant_id):
        yield Removed(table, count)


async def _remove_jobs(context: Context, data: TenantData, tenant_id: str) -> AsyncIterator[Removed]:
    """Delete jobs, and the large parts of their requests before them: without its job, nothing tells whose such a part is."""
    jobs, requests = context.queue.tenant_jobs, context.queue.requests
    parts = defaultdict[str, list[str]](list)
    for name, job_id in (await requests.list_settled(0)).items():
        parts[job_id].append(name)

    async def delete_parts(job_ids: list[str]) -> None:
        for name in [name for job_id in job_ids for name in parts.get(job_id, ())]:
            await context.blobs.delete(name)

    await jobs.clear(tenant_id)  # first, since to take each job out of a long list would take long
    async for job_ids in jobs.find(tenant_id):
        await delete_parts(job_ids)
        await jobs.delete(job_ids)
        yield Removed("jobs", len(job_ids))
    await jobs.clear(tenant_id)
    others = list(parts)
    for start in range(0, len(others), JOBS_BATCH):
        await delete_parts(await data.list_responses(tenant_id, others[start : start + JOBS_BATCH]))


async def _remove_uploads(context: Context, data: TenantData, tenant_id: str) -> AsyncIterator[Removed]:
    """Delete the parts of uploads; their rows go with the others."""
    uploads = await data.list_uploads(tenant_id)
    names = (
        [name for name in await context.blobs.list_older(FOLDER, 0) if upload_of(name) in uploads] if uploads else []
    )
    for name in names:
        await context.blobs.delete(name)
    if names:
        yield Removed("uploads", len(names))


async def _remove_files(context: Context, data: TenantData, tenant_id: str) -> AsyncIterator[Removed]:
    """Delete files with their chunks; the bytes go first, so that a kill in between leaves none without a row."""
    while files := await data.list_files(tenant_id, limit=FILES_BATCH):
        for file_id, sha256 in files:
            async with context.files.locked_bytes(sha256):
                if await data.release_bytes(tenant_id, sha256):
                    await context.blobs.delete(sha256)
                with suppress(NotFoundError):  # another removal of the tenant was faster
                    await context.files.delete(tenant_id, file_id)
        yield Removed("files", len(files))
