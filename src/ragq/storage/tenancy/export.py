"""All that a tenant has, to be written elsewhere: rows as JSON values, without the hashes of keys and without vectors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from ragq.storage.database import Database

PartName = Literal[
    "files",
    "tenants",
    "vector_stores",
    "vector_store_files",
    "store_shares",
    "responses",
    "feedback",
    "conversations",
    "conversation_items",
    "batches",
    "webhook_endpoints",
    "api_keys",
    "usage",
    "audit_log",
]


class _Part(NamedTuple):
    """What is read of the table of this name.

    Attributes:
        key: In whose order it is read.
        rows: Read at a time; few, where one of them may have megabytes.
    """

    key: str
    columns: str
    condition: str = "tenant_id = %(tenant)s"
    rows: int = 100


PARTS: Mapping[PartName, _Part] = {
    "files": _Part("id", "id, filename, purpose, bytes, sha256, created_at, expires_at"),
    "tenants": _Part(
        "id",
        "id, created_at, weight, max_running, keep_responses_days, keep_files_days, keep_logs_days, limits",
        "id = %(tenant)s",
    ),
    "vector_stores": _Part("id", "id, name, description, is_default, metadata, expires_after_days, created_at"),
    "vector_store_files": _Part(
        "vector_store_id || '/' || file_id",
        """vector_store_id, file_id, status, error_message, attributes, readers, max_chunk_tokens, chunk_overlap_tokens,
           created_at""",
    ),
    "store_shares": _Part("vector_store_id || '/' || with_tenant_id", "vector_store_id, with_tenant_id, created_at"),
    # Deleted and expired ones are rows without a job.
    "responses": _Part("id", "job, metadata", "tenant_id = %(tenant)s AND job IS NOT NULL", rows=10),
    "feedback": _Part("id", "id, key_id, created_at, rating, comment"),
    "conversations": _Part("id", "id, key_id, metadata, created_at"),
    "conversation_items": _Part("id", "id, conversation_id, created_at, item", rows=10),
    "batches": _Part(
        "id",
        """id, endpoint, status, input_file_id, output_file_id, error_file_id, metadata, total, completed, failed,
           created_at""",
    ),
    "webhook_endpoints": _Part("id", "id, url, events, description, status, created_at"),
    "api_keys": _Part(
        "id", "id, name, role, hint, vector_store_ids, groups, limits, created_at, expires_at, last_used_at"
    ),
    "usage": _Part(
        "day::text || '/' || key_id || '/' || model",
        """day, key_id, model, requests, input_tokens, output_tokens, cached_tokens, estimated_tokens, waited_ms, retrieve_ms,
           answer_ms, documents, pages, cost::float8 AS cost""",
    ),
    "audit_log": _Part(
        "id",
        """id, created_at, action, object_id, code, count, actor_type, actor_id, actor_name, actor_role, actor_tenant, address,
           data""",
    ),
}


async def export_rows(database: Database, tenant_id: str, part: PartName) -> AsyncIterator[list[dict[str, Any]]]:
    """Yield a part of what a tenant has, by its key, some rows at a time. What changes meanwhile is shown as it is then."""
    key, columns, condition, most = PARTS[part]
    query = f"""SELECT {key} AS export_key, {columns} FROM {part}
                WHERE {condition} AND {key} > %(after)s ORDER BY 1 LIMIT {most}"""  # noqa: S608  (constants)
    after, rows = "", list[dict[str, Any]]()
    while not after or len(rows) == most:
        rows = await database.for_tenant(tenant_id).records(dict, query, after=after)
        if not rows:
            return
        after = str(rows[-1]["export_key"])
        yield [{name: value for name, value in row.items() if name != "export_key"} for row in rows]
