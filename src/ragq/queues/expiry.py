"""What has passed its time is deleted: uploaded files with their bytes, the content of stores, and parts of bytes."""

from __future__ import annotations

import contextlib

import structlog

from ragq.client.blob_client import BlobStore
from ragq.client.file_client import Files
from ragq.client.store_client import Stores
from ragq.errors import NotFoundError

log = structlog.get_logger(__name__)

EXPIRY_BATCH = 100  # files, of which each may have many chunks, deleted by one transaction


async def expire_files_and_stores(files: Files, stores: Stores, blobs: BlobStore) -> None:
    """Delete expired files, and empty expired stores. Any number of processes may do so at once."""
    while expired := await files.list_expired(limit=EXPIRY_BATCH):
        for tenant_id, file_id, sha256 in expired:
            with contextlib.suppress(NotFoundError):  # deleted, or uploaded again, in the meantime
                async with files.locked_bytes(sha256):
                    if orphan := await files.delete(tenant_id, file_id, if_expired=True):
                        await blobs.delete(orphan)
        log.info("files_expired", count=len(expired))
    while count := await stores.empty_expired(limit=EXPIRY_BATCH):
        log.info("stores_expired", files=count)
    await delete_unfinished_bytes(files, blobs)


async def delete_unfinished_bytes(files: Files, blobs: BlobStore) -> None:
    """Delete what processes that were killed in the middle of an upload have left in the folder of bytes."""
    for sha256 in await blobs.list_unfinished():
        async with files.locked_bytes(sha256):  # whoever is writing them has this lock
            await blobs.delete_unfinished(sha256)
        log.info("unfinished_bytes_deleted", sha256=sha256)
