"""The catalogue in PostgreSQL: files, vector stores, and which file is in which store.

A method that takes the tenant sees that tenant's rows alone. The others are for the service itself, not for routes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ragq.client.database import Database, Record
from ragq.errors import NotFoundError, TransientError
from ragq.models import DEFAULT_STORE_NAME, Attributes, new_id

BYTE_LOCKS = 4  # held at once by a process: each keeps a connection while its holder needs another from the pool


@dataclass(frozen=True, slots=True)
class FileRecord:
    """An uploaded file; `sha256` names its bytes in the blob store."""

    id: str
    filename: str
    purpose: str
    bytes: int
    sha256: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class StoreRecord:
    """A vector store with the true counts of its files by status."""

    id: str
    name: str
    description: str | None
    metadata: dict[str, str]
    created_at: datetime
    last_active_at: datetime
    in_progress: int
    completed: int
    failed: int
    cancelled: int
    usage_bytes: int


@dataclass(frozen=True, slots=True)
class StoreFileRecord:
    """A file in a store; `generation` counts its ingests, `attempt` is the last attempt that began this one."""

    tenant_id: str
    vector_store_id: str
    file_id: str
    filename: str
    sha256: str
    status: str
    error_code: str | None
    error_message: str | None
    attributes: Attributes
    max_chunk_tokens: int | None
    chunk_overlap_tokens: int | None
    generation: int
    attempt: int
    chunk_count: int
    usage_bytes: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Page:
    """Where a listing starts and how far it goes."""

    limit: int = 20
    descending: bool = True
    after: str | None = None


_STORE = """
    SELECT s.id, s.name, s.description, s.metadata, s.created_at, s.last_active_at,
           count(*) FILTER (WHERE f.status = 'in_progress') AS in_progress,
           count(*) FILTER (WHERE f.status = 'completed') AS completed,
           count(*) FILTER (WHERE f.status = 'failed') AS failed,
           count(*) FILTER (WHERE f.status = 'cancelled') AS cancelled,
           coalesce(sum(f.usage_bytes), 0)::bigint AS usage_bytes
    FROM vector_stores s LEFT JOIN vector_store_files f ON f.vector_store_id = s.id
    WHERE s.tenant_id = %(tenant)s
"""
_ANY_STORE_FILE = """
    SELECT v.tenant_id, v.vector_store_id, v.file_id, f.filename, f.sha256, v.status, v.error_code, v.error_message, v.attributes,
           v.max_chunk_tokens, v.chunk_overlap_tokens, v.generation, v.attempt, v.chunk_count, v.usage_bytes,
           v.created_at
    FROM vector_store_files v JOIN files f ON f.id = v.file_id
"""
_STORE_FILE = _ANY_STORE_FILE + "WHERE v.tenant_id = %(tenant)s"
_POISON_REASON = """p.reason || ' These bytes are not tried again. To allow it: ragq doctor --forgive ' || p.sha256
    || ', then put the file into the store again.'"""
_FILE = "SELECT id, filename, purpose, bytes, sha256, created_at FROM files WHERE tenant_id = %(tenant)s"


class Store:
    """Files and vector stores."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._byte_locks = asyncio.Semaphore(BYTE_LOCKS)

    async def _page(self, record: type[Record], query: str, page: Page, table: str, **parameters: Any) -> list[Record]:
        """Read one row more than the page holds, so that the caller knows whether there are more."""
        comparison, order = ("<", "DESC") if page.descending else (">", "ASC")
        alias, key = {"files": ("files", "id"), "vector_stores": ("s", "id"), "vector_store_files": ("v", "file_id")}[
            table
        ]
        after = ""
        if page.after is not None:
            scope = " AND vector_store_id = %(store)s" if table == "vector_store_files" else ""
            cursor = (
                f"(SELECT created_at, {key} FROM {table} WHERE {key} = %(after)s AND tenant_id = %(tenant)s{scope})"  # noqa: S608  (names from the table above)
            )
            after = f" AND ({alias}.created_at, {alias}.{key}) {comparison} {cursor}"
        group = " GROUP BY s.id" if table == "vector_stores" else ""
        order_by = f" ORDER BY {alias}.created_at {order}, {alias}.{key} {order} LIMIT %(limit)s"
        return await self._database.records(
            record, query + after + group + order_by, after=page.after, limit=page.limit + 1, **parameters
        )

    # Files

    async def create_file(self, tenant_id: str, *, filename: str, purpose: str, size: int, sha256: str) -> FileRecord:
        """Record uploaded bytes; the same bytes under the same name and purpose are the same file."""
        parameters = {"filename": filename, "purpose": purpose, "bytes": size, "sha256": sha256}
        await self._database.row(
            """INSERT INTO files (id, tenant_id, filename, purpose, bytes, sha256)
               VALUES (%(id)s, %(tenant)s, %(filename)s, %(purpose)s, %(bytes)s, %(sha256)s)
               ON CONFLICT DO NOTHING RETURNING id""",
            id=new_id("file-"),
            tenant=tenant_id,
            **parameters,
        )
        records = await self._database.records(
            FileRecord,
            _FILE + " AND sha256 = %(sha256)s AND filename = %(filename)s AND purpose = %(purpose)s",
            tenant=tenant_id,
            **parameters,
        )
        if not records:
            raise TransientError("The file was deleted while it was uploaded: upload it again.")
        return records[0]

    async def get_file(self, tenant_id: str, file_id: str) -> FileRecord:
        """Find a file.

        Raises:
            NotFoundError: This tenant has none of that id.
        """
        return _one(
            await self._database.records(FileRecord, _FILE + " AND id = %(id)s", tenant=tenant_id, id=file_id),
            "file",
            file_id,
        )

    async def list_files(self, tenant_id: str, page: Page, purpose: str | None) -> list[FileRecord]:
        """List files by age; one more than `page.limit` when there are more."""
        query = _FILE + (" AND purpose = %(purpose)s" if purpose else "")
        return await self._page(FileRecord, query, page, "files", tenant=tenant_id, purpose=purpose)

    async def delete_file(self, tenant_id: str, file_id: str) -> str | None:
        """Delete a file with its chunks in every store; returns the bytes' name when no other file shares them."""
        async with self._database.connection() as connection, connection.transaction():
            found = await connection.execute(
                "DELETE FROM files WHERE tenant_id = %s AND id = %s RETURNING sha256", [tenant_id, file_id]
            )
            row = await found.fetchone()
            if row is None:
                raise _not_found("file", file_id)
            shared = await connection.execute("SELECT 1 FROM files WHERE sha256 = %s LIMIT 1", [row[0]])
            return None if await shared.fetchone() else str(row[0])

    @contextlib.asynccontextmanager
    async def locked_bytes(self, sha256: str) -> AsyncIterator[None]:
        """Hold off whoever else would store or delete the bytes of this name."""
        async with self._byte_locks, self._database.connection() as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [sha256])
            yield

    async def list_bytes(self) -> set[str]:
        """List the SHA-256 of all files' bytes, of all tenants."""
        async with self._database.connection() as connection:
            rows = await (await connection.execute("SELECT DISTINCT sha256 FROM files")).fetchall()
        return {str(row[0]) for row in rows}

    async def list_files_of(self, sha256: str) -> list[str]:
        """List the ids of the files of all tenants that share these bytes."""
        async with self._database.connection() as connection:
            query = "SELECT id FROM files WHERE sha256 = %s ORDER BY id"
            rows = await (await connection.execute(query, [sha256])).fetchall()
        return [str(row[0]) for row in rows]

    async def list_wrong_chunk_counts(self) -> list[tuple[str, str]]:
        """List (store, file) of all tenants whose row and chunks differ in number."""
        async with self._database.connection() as connection:
            found = await connection.execute(
                """SELECT v.vector_store_id, v.file_id
                   FROM vector_store_files v LEFT JOIN chunks c USING (vector_store_id, file_id)
                   GROUP BY v.vector_store_id, v.file_id HAVING v.chunk_count <> count(c.ordinal)
                   ORDER BY v.vector_store_id, v.file_id"""
            )
            return [(str(row[0]), str(row[1])) for row in await found.fetchall()]

    async def find_poison(self, sha256: str) -> str | None:
        """Say why these bytes must not be read again, and how to allow it; None when they may."""
        query = f"SELECT {_POISON_REASON} AS reason FROM poison p WHERE sha256 = %(sha256)s"  # noqa: S608  (a constant)
        row = await self._database.row(query, sha256=sha256)
        return str(row["reason"]) if row else None

    async def forgive_poison(self, sha256: str) -> None:
        """Allow bytes to be read again.

        Raises:
            NotFoundError: They are not poison.
        """
        row = await self._database.row("DELETE FROM poison WHERE sha256 = %(sha256)s RETURNING sha256", sha256=sha256)
        if row is None:
            raise NotFoundError(f"No poisonous bytes of the SHA-256 '{sha256[:80]}' are known: nothing to forgive.")

    # Vector stores

    async def create_store(
        self, tenant_id: str, *, name: str, description: str | None, metadata: dict[str, str]
    ) -> StoreRecord:
        """Make an empty store."""
        id_ = new_id("vs_")
        await self._database.row(
            "INSERT INTO vector_stores (id, tenant_id, name, description, metadata)"
            " VALUES (%(id)s, %(tenant)s, %(name)s, %(description)s, %(metadata)s) RETURNING id",
            id=id_,
            tenant=tenant_id,
            name=name,
            description=description,
            metadata=json.dumps(metadata),
        )
        return await self.get_store(tenant_id, id_)

    async def default_store(self, tenant_id: str) -> str:
        """Return the id of the tenant's default store, making it at first use."""
        query = "SELECT id FROM vector_stores WHERE tenant_id = %(tenant)s AND is_default"
        row = await self._database.row(query, tenant=tenant_id)
        if row is None:
            await self._database.row(
                "INSERT INTO vector_stores (id, tenant_id, name, is_default) VALUES (%(id)s, %(tenant)s, %(name)s, true)"
                " ON CONFLICT (tenant_id) WHERE is_default DO NOTHING RETURNING id",
                id=new_id("vs_"),
                tenant=tenant_id,
                name=DEFAULT_STORE_NAME,
            )
            row = await self._database.row(query, tenant=tenant_id)
        if row is None:
            raise TransientError("The default store was deleted at the same moment: try again.")
        return str(row["id"])

    async def resolve_store(self, tenant_id: str, store_id: str) -> str:
        """Return the id of a store that exists; `default` names the tenant's default store.

        Raises:
            NotFoundError: This tenant has none of that id.
        """
        if store_id == DEFAULT_STORE_NAME:
            return await self.default_store(tenant_id)
        query = "SELECT id FROM vector_stores WHERE tenant_id = %(tenant)s AND id = %(id)s"
        if await self._database.row(query, tenant=tenant_id, id=store_id) is None:
            raise _not_found("vector store", store_id)
        return store_id

    async def get_store(self, tenant_id: str, store_id: str) -> StoreRecord:
        """Find a store.

        Raises:
            NotFoundError: This tenant has none of that id.
        """
        query = _STORE + " AND s.id = %(id)s GROUP BY s.id"
        return _one(
            await self._database.records(StoreRecord, query, tenant=tenant_id, id=store_id), "vector store", store_id
        )

    async def list_stores(self, tenant_id: str, page: Page) -> list[StoreRecord]:
        """List stores by age; one more than `page.limit` when there are more."""
        return await self._page(StoreRecord, _STORE, page, "vector_stores", tenant=tenant_id)

    async def update_store(
        self, tenant_id: str, store_id: str, *, name: str | None, metadata: dict[str, str] | None
    ) -> StoreRecord:
        """Change what is not None."""
        await self._database.row(
            """UPDATE vector_stores SET name = coalesce(%(name)s, name), metadata = coalesce(%(metadata)s::jsonb, metadata)
               WHERE tenant_id = %(tenant)s AND id = %(id)s RETURNING id""",
            tenant=tenant_id,
            id=store_id,
            name=name,
            metadata=None if metadata is None else json.dumps(metadata),
        )
        return await self.get_store(tenant_id, store_id)

    async def delete_store(self, tenant_id: str, store_id: str) -> None:
        """Delete a store with its chunks; the files stay."""
        row = await self._database.row(
            "DELETE FROM vector_stores WHERE tenant_id = %(tenant)s AND id = %(id)s RETURNING id",
            tenant=tenant_id,
            id=store_id,
        )
        if row is None:
            raise _not_found("vector store", store_id)

    # Files in stores

    async def attach_file(
        self,
        tenant_id: str,
        store_id: str,
        file_id: str,
        *,
        attributes: Attributes,
        max_chunk_tokens: int | None = None,
        chunk_overlap_tokens: int | None = None,
        replace_same_name: bool = False,
    ) -> StoreFileRecord:
        """Put a file into a store, to be ingested; one that is there stays unless it failed or its chunking differs.

        A file of poisonous bytes has failed at once.
        """
        await self._database.row(
            f"""INSERT INTO vector_store_files AS v (vector_store_id, file_id, tenant_id, attributes, max_chunk_tokens,
                                                    chunk_overlap_tokens, replace_same_name, status, error_code,
                                                    error_message)
               SELECT s.id, f.id, %(tenant)s, %(attributes)s, %(size)s, %(overlap)s, %(replace)s,
                      CASE WHEN p.sha256 IS NULL THEN 'in_progress' ELSE 'failed' END, p.code, {_POISON_REASON}
               FROM vector_stores s, files f LEFT JOIN poison p USING (sha256)
               WHERE s.tenant_id = %(tenant)s AND s.id = %(store)s AND f.tenant_id = %(tenant)s AND f.id = %(file)s
               ON CONFLICT (vector_store_id, file_id) DO UPDATE
               SET status = excluded.status, error_code = excluded.error_code, error_message = excluded.error_message,
                   generation = v.generation + 1, attempt = 0, created_at = clock_timestamp(),
                   max_chunk_tokens = excluded.max_chunk_tokens, chunk_overlap_tokens = excluded.chunk_overlap_tokens,
                   attributes = excluded.attributes, replace_same_name = excluded.replace_same_name
               WHERE v.status IN ('failed', 'cancelled')
                  OR (v.max_chunk_tokens, v.chunk_overlap_tokens)
                     IS DISTINCT FROM (excluded.max_chunk_tokens, excluded.chunk_overlap_tokens)
               RETURNING file_id""",  # noqa: S608  (a constant)
            tenant=tenant_id,
            store=store_id,
            file=file_id,
            attributes=json.dumps(attributes),
            size=max_chunk_tokens,
            overlap=chunk_overlap_tokens,
            replace=replace_same_name,
        )
        return await self.get_store_file(tenant_id, store_id, file_id)

    async def get_store_file(self, tenant_id: str, store_id: str, file_id: str) -> StoreFileRecord:
        """Find a file in a store.

        Raises:
            NotFoundError: It is not there.
        """
        query = _STORE_FILE + " AND v.vector_store_id = %(store)s AND v.file_id = %(file)s"
        records = await self._database.records(StoreFileRecord, query, tenant=tenant_id, store=store_id, file=file_id)
        return _one(records, "vector store file", file_id)

    async def list_store_files(
        self, tenant_id: str, store_id: str, page: Page, status: str | None
    ) -> list[StoreFileRecord]:
        """List a store's files by age; one more than `page.limit` when there are more."""
        query = _STORE_FILE + " AND v.vector_store_id = %(store)s" + (" AND v.status = %(status)s" if status else "")
        return await self._page(
            StoreFileRecord, query, page, "vector_store_files", tenant=tenant_id, store=store_id, status=status
        )

    async def list_unfinished(
        self, older_than_seconds: float, *, limit: int, after: StoreFileRecord | None = None
    ) -> list[StoreFileRecord]:
        """List files of all tenants that have been in progress for so long, oldest first.

        Args:
            after: The last file of the page before.
        """
        query = (
            _ANY_STORE_FILE + "WHERE v.status = 'in_progress' AND v.created_at < now() - make_interval(secs => %(age)s)"
        )
        if after:
            query += (
                " AND (v.created_at, v.vector_store_id, v.file_id) > (%(after_time)s, %(after_store)s, %(after_file)s)"
            )
        return await self._database.records(
            StoreFileRecord,
            query + " ORDER BY v.created_at, v.vector_store_id, v.file_id LIMIT %(limit)s",
            age=older_than_seconds,
            limit=limit,
            after_time=after and after.created_at,
            after_store=after and after.vector_store_id,
            after_file=after and after.file_id,
        )

    async def set_attributes(
        self, tenant_id: str, store_id: str, file_id: str, attributes: Attributes
    ) -> StoreFileRecord:
        """Replace the attributes of a file in a store."""
        await self._database.row(
            """UPDATE vector_store_files SET attributes = %(attributes)s
               WHERE tenant_id = %(tenant)s AND vector_store_id = %(store)s AND file_id = %(file)s RETURNING file_id""",
            tenant=tenant_id,
            store=store_id,
            file=file_id,
            attributes=json.dumps(attributes),
        )
        return await self.get_store_file(tenant_id, store_id, file_id)

    async def detach_file(self, tenant_id: str, store_id: str, file_id: str) -> None:
        """Take a file and its chunks out of a store; an ingest that runs finds nothing to write to."""
        row = await self._database.row(
            """DELETE FROM vector_store_files
               WHERE tenant_id = %(tenant)s AND vector_store_id = %(store)s AND file_id = %(file)s RETURNING file_id""",
            tenant=tenant_id,
            store=store_id,
            file=file_id,
        )
        if row is None:
            raise _not_found("vector store file", file_id)

    async def get_text(self, tenant_id: str, store_id: str, file_id: str) -> str | None:
        """Return the text that offsets of citations count in; None before the file is ingested."""
        row = await self._database.row(
            """SELECT text FROM vector_store_files
               WHERE tenant_id = %(tenant)s AND vector_store_id = %(store)s AND file_id = %(file)s""",
            tenant=tenant_id,
            store=store_id,
            file=file_id,
        )
        if row is None:
            raise _not_found("vector store file", file_id)
        text: str | None = row["text"]
        return text


def _one(records: list[Record], noun: str, id_: str) -> Record:
    if not records:
        raise _not_found(noun, id_)
    return records[0]


def _not_found(noun: str, id_: str) -> NotFoundError:
    return NotFoundError(f"No {noun} found with id '{id_[:80]}'.", param=noun.replace(" ", "_") + "_id")
