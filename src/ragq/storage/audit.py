"""Find files, bytes and chunks that contradict each other. Read-only."""

from __future__ import annotations

import re

from ragq.models import Orphan
from ragq.storage.blobs import BlobStore
from ragq.storage.files import Files
from ragq.storage.store_files import StoreFiles

KINDS = {
    "bytes_missing": "The file's bytes are not in the blob store: restore them, or delete the file and upload it again.",
    "bytes_without_file": "No file uses these bytes of the blob store: delete them to free the space.",
    "wrong_chunk_count": "The file's chunks are wrong: remove it from the store, if it is there, and put it in again.",
}
_SHA256 = re.compile(r"[0-9a-f]{64}")


async def audit_store(files: Files, store_files: StoreFiles, blobs: BlobStore) -> list[Orphan]:
    """Find orphans. Each suspected one is checked again under the lock of its bytes, so that they cannot change.

    Raises:
        UnavailableError: PostgreSQL or the blob store does not answer.
    """
    stored = {name for name in await blobs.list_names() if _SHA256.fullmatch(name)}
    named = await files.list_bytes()
    orphans: list[Orphan] = []
    for sha256 in sorted(stored ^ named):
        async with files.locked_bytes(sha256):
            file_ids, exists = await files.list_files_of(sha256), await blobs.exists(sha256)
        if exists and not file_ids:
            orphans.append(_orphan("bytes_without_file", sha256))
        if not exists:
            orphans += [_orphan("bytes_missing", file_id) for file_id in file_ids]
    wrong = await store_files.list_wrong_chunk_counts()
    return orphans + [_orphan("wrong_chunk_count", f"{store_id}/{file_id}") for store_id, file_id in wrong]


def _orphan(kind: str, id_: str) -> Orphan:
    return Orphan(kind, id_, KINDS[kind])
