"""Find files, bytes and chunks that contradict each other. Read-only."""

from __future__ import annotations

import re

from ragq.models import Orphan
from ragq.storage.blobs import BlobStore
from ragq.storage.database import Database
from ragq.storage.files import Files
from ragq.storage.store_files import StoreFiles
from ragq.storage.uploads import FOLDER

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


# What a tenant has left

# Each table whose rows hang on rows of another, and the columns that join them.
_REFERENCES = """
    SELECT c.conrelid::regclass::text AS child, c.confrelid::regclass::text AS parent,
           string_agg(format('child.%I = parent.%I', a.attname, b.attname), ' AND ') AS joined
    FROM pg_constraint c CROSS JOIN LATERAL unnest(c.conkey, c.confkey) AS k (own, other)
         JOIN pg_attribute a ON (a.attrelid, a.attnum) = (c.conrelid, k.own)
         JOIN pg_attribute b ON (b.attrelid, b.attnum) = (c.confrelid, k.other)
    WHERE c.contype = 'f' AND c.connamespace = current_schema()::regnamespace GROUP BY c.oid, c.conrelid, c.confrelid"""
_NAMED = """
    SELECT quote_ident(table_name) FROM information_schema.columns
    WHERE table_schema = current_schema() AND column_name = 'tenant_id' ORDER BY table_name"""


async def count_rows_of(database: Database, tenant_id: str) -> dict[str, int]:
    """Count a tenant's rows by table: those that name it, and those that hang on them. Tables without any are left out.

    The tables are read from the database's own catalogue.
    """
    counts: dict[str, int] = {}
    async with database.for_all().connection() as connection, connection.transaction():
        await connection.execute("SET LOCAL statement_timeout = 0")
        named = [row[0] for row in await (await connection.execute(_NAMED)).fetchall()]
        references = await (await connection.execute(_REFERENCES)).fetchall()
        queries = {table: f"SELECT count(*) FROM {table} WHERE tenant_id = %s" for table in named}  # noqa: S608
        queries["tenants"] = "SELECT count(*) FROM tenants WHERE id = %s"
        for child, parent, joined in references:
            if child not in queries and parent in named:
                queries[child] = (
                    f"SELECT count(*) FROM {child} child JOIN {parent} parent ON {joined} WHERE parent.tenant_id = %s"  # noqa: S608
                )
        for table, query in queries.items():
            row = await (await connection.execute(query, [tenant_id])).fetchone()
            if row and row[0]:
                counts[table] = row[0]
    return counts


async def list_unowned_bytes(database: Database, blobs: BlobStore) -> set[str]:
    """List names of files' bytes and of parts of uploads in the blob store that no row names: nobody knows whose they are."""
    names = await blobs.list_names()  # before the rows: bytes are stored before their row
    async with database.for_all().connection() as connection:
        query = "SELECT sha256 FROM files UNION SELECT concat(%s::text, '/', upload_id, '.', id) FROM upload_parts"
        known = {row[0] for row in await (await connection.execute(query, [FOLDER])).fetchall()}
    return {name for name in names if _SHA256.fullmatch(name) or name.startswith(f"{FOLDER}/")} - known
