"""Delete what has expired: files, the content of vector stores, and bytes that no file or job uses."""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from ragq.client.request_client import UNUSED_SECONDS
from ragq.client.rq_client import JobQueue
from ragq.errors import NotFoundError
from ragq.models import Orphan
from ragq.storage.archive import Archive
from ragq.storage.blobs import BlobStore
from ragq.storage.files import Files
from ragq.storage.uploads import FOLDER, LIFE_SECONDS, Uploads
from ragq.storage.vector_stores import Stores

log = structlog.get_logger(__name__)

RECHECK_SECONDS = 5.0
JOBS_BATCH = 500  # looked up at once
LEFT_SECONDS = 3600.0
LEFT = "Harmless: no job uses these bytes of a request. The housekeeping deletes them: is an API or a worker running?"
PARTS_SECONDS = 2 * LIFE_SECONDS  # an older part is of an upload that has expired, or has ended
EXPIRY_BATCH = 100  # files deleted by one transaction; each may have many chunks


async def expire_files_and_stores(files: Files, stores: Stores, blobs: BlobStore) -> None:
    """Delete expired files, and empty expired stores. Safe to run in any number of processes at once."""
    while expired := await files.list_expired(limit=EXPIRY_BATCH):
        for tenant_id, file_id, sha256 in expired:
            with contextlib.suppress(NotFoundError):  # deleted or uploaded again meanwhile
                async with files.locked_bytes(sha256):
                    if orphan := await files.delete(tenant_id, file_id, if_expired=True):
                        await blobs.delete(orphan)
        log.info("files_expired", count=len(expired))
    while count := await stores.empty_expired(limit=EXPIRY_BATCH):
        log.info("stores_expired", files=count)
    await delete_unfinished_bytes(files, blobs)


async def expire_uploads(uploads: Uploads, blobs: BlobStore) -> None:
    """Forget old uploads, and delete the parts of those that were neither completed nor cancelled."""
    await uploads.expire()
    await blobs.delete_old_parts(FOLDER, PARTS_SECONDS)
    for name in await blobs.list_older(FOLDER, PARTS_SECONDS):
        await blobs.delete(name)


async def delete_unfinished_bytes(files: Files, blobs: BlobStore) -> None:
    """Delete the bytes of uploads that were cut short by a kill."""
    for sha256 in await blobs.list_unfinished():
        async with files.locked_bytes(sha256):  # held by a process that is writing them
            await blobs.delete_unfinished(sha256)
        log.info("unfinished_bytes_deleted", sha256=sha256)


async def delete_unused_requests(queue: JobQueue, archive: Archive) -> int:
    """Delete the parts of requests whose job is neither in Valkey nor in the archive; returns how many.

    Each is checked twice, since its job may just be being queued by a slow process.
    """
    await queue.requests.delete_parts()
    unused = await _find_unused(queue, archive, UNUSED_SECONDS)
    if unused:
        await asyncio.sleep(RECHECK_SECONDS)
        unused &= await _find_unused(queue, archive, UNUSED_SECONDS)
    for name in unused:
        await queue.requests.delete(name)
    if unused:
        log.info("requests_deleted", count=len(unused))
    return len(unused)


async def find_left_requests(queue: JobQueue, archive: Archive) -> list[Orphan]:
    """Find parts of requests that should have been deleted long ago. Read-only."""
    found = await _find_unused(queue, archive, LEFT_SECONDS)
    return [Orphan("request_without_job", name, LEFT, harmless=True) for name in sorted(found)]


async def find_unused_requests(queue: JobQueue, archive: Archive) -> set[str]:
    """Find parts of requests, however young, whose job is neither in Valkey nor in the archive. Read-only."""
    return await _find_unused(queue, archive, 0)


async def _find_unused(queue: JobQueue, archive: Archive, older_than_seconds: float) -> set[str]:
    names = list((await queue.requests.list_settled(older_than_seconds)).items())
    unused: set[str] = set()
    for start in range(0, len(names), JOBS_BATCH):
        batch = dict(names[start : start + JOBS_BATCH])
        statuses = await queue.statuses(list(batch.values()))
        missing = {name: id_ for (name, id_), status in zip(batch.items(), statuses, strict=True) if status is None}
        kept = await archive.list_kept(
            list(missing.values())
        )  # checked after Valkey: a job leaves it only for the archive
        unused |= {name for name, id_ in missing.items() if id_ not in kept}
    return unused
