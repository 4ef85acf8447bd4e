"""What has passed its time is deleted: uploaded files with their bytes, and the content of vector stores."""

from __future__ import annotations

import contextlib

import structlog

from ragq.client.blob_client import BlobStore
from ragq.client.store_client import Store
from ragq.errors import NotFoundError

log = structlog.get_logger(__name__)

EXPIRY_BATCH = 100  # files, of which each may have many chunks, deleted by one statement


async def expire_files_and_stores(store: Store, blobs: BlobStore) -> None:
    """Delete expired files, and empty expired stores. Any number of processes may do so at once."""
    while files := await store.list_expired_files(limit=EXPIRY_BATCH):
        for tenant_id, file_id, sha256 in files:
            with contextlib.suppress(NotFoundError):  # deleted, or uploaded again, in the meantime
                async with store.locked_bytes(sha256):
                    if orphan := await store.delete_file(tenant_id, file_id, if_expired=True):
                        await blobs.delete(orphan)
        log.info("files_expired", count=len(files))
    while count := await store.empty_expired_stores(limit=EXPIRY_BATCH):
        log.info("stores_expired", files=count)
