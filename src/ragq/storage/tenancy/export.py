"""All that a tenant has, to be written elsewhere: rows as JSON values, without the hashes of keys and without vectors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from ragq.storage.database import Database

PAGE_ROWS = 100

# Of each table that is a part: the key in whose order it is read, and the columns.
PARTS = {
    "files": ("id", "id, filename, purpose, bytes, sha256, created_at, expires_at"),
    "vector_stores": ("id", "id, name, description, is_default, metadata, expires_after_days, created_at"),
    "vector_store_files": (
        "vector_store_id || '/' || file_id",
        """vector_store_id, file_id, status, error_message, attributes, readers, max_chunk_tokens, chunk_overlap_tokens,
           created_at""",
    ),
    "responses": ("id", "id, job"),
    "feedback": ("id", "id, key_id, created_at, rating, comment"),
    "conversations": ("id", "id, key_id, metadata, created_at"),
    "conversation_items": ("id", "id, conversation_id, created_at, item"),
    "batches": (
        "id",
        """id, endpoint, status, input_file_id, output_file_id, error_file_id, metadata, total, completed, failed,
           created_at""",
    ),
    "webhook_endpoints": ("id", "id, url, events, description, status, created_at"),
    "api_keys": ("id", "id, name, role, hint, vector_store_ids, groups, created_at, expires_at, last_used_at"),
}
_EMPTY = {"responses": "job IS NOT NULL"}  # deleted and expired ones are rows without a job


async def export_rows(database: Database, tenant_id: str, part: str) -> AsyncIterator[list[dict[str, Any]]]:
    """Yield a part of what a tenant has, by its key, some rows at a time. What changes meanwhile is shown as it is then."""
    key, columns = PARTS[part]
    query = f"""SELECT {key} AS export_key, {columns} FROM {part}
                WHERE tenant_id = %(tenant)s AND {key} > %(after)s AND {_EMPTY.get(part, "true")}
                ORDER BY 1 LIMIT {PAGE_ROWS}"""  # noqa: S608  (constants)
    after, rows = "", list[dict[str, Any]]()
    while not after or len(rows) == PAGE_ROWS:
        rows = await database.for_tenant(tenant_id).records(dict, query, after=after)
        if not rows:
            return
        after = str(rows[-1]["export_key"])
        yield [{name: value for name, value in row.items() if name != "export_key"} for row in rows]
