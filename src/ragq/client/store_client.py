"""The catalogue in PostgreSQL: files, vector stores, and which file is in which store.

A method that takes the tenant sees that tenant's rows alone. The others are for the service itself, not for routes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from ragq.client.database import Database, Record
from ragq.client.paging import Listed, Page, read_page
from ragq.errors import InvalidRequestError, NotFoundError, TransientError
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
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class StoreRecord:
    """A vector store with the true counts of its files by status; an expired one is empty, or will be within a minute."""

    id: str
    name: str
    description: str | None
    metadata: dict[str, str]
    created_at: datetime
    last_active_at: datetime
    expires_after_days: int | None
    expires_at: datetime | None
    expired: bool
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
class Attachment:
    """A file to put into a store, with how to chunk it; None for the model's own sizes."""

    file_id: str
    attributes: Attributes
    max_chunk_tokens: int | None = None
    chunk_overlap_tokens: int | None = None
    replace_same_name: bool = False


_STORE = """
    SELECT s.id, s.name, s.description, s.metadata, s.created_at, s.last_active_at,
           s.expires_after_days, s.expires_at, coalesce(s.expires_at <= now(), false) AS expired,
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
_FILE = "SELECT id, filename, purpose, bytes, sha256, created_at, expires_at FROM files WHERE tenant_id = %(tenant)s"
_ATTACH = f"""
    INSERT INTO vector_store_files AS v (vector_store_id, file_id, tenant_id, attributes, max_chunk_tokens,
                                         chunk_overlap_tokens, replace_same_name, status, error_code, error_message)
    SELECT s.id, f.id, s.tenant_id, a.attributes::jsonb, a.size, a.overlap, a.replace,
           CASE WHEN p.sha256 IS NULL THEN 'in_progress' ELSE 'failed' END, p.code, {_POISON_REASON}
    FROM unnest(%(files)s::text[], %(attributes)s::text[], %(sizes)s::int[], %(overlaps)s::int[], %(replace)s::bool[])
         AS a (file_id, attributes, size, overlap, replace)
         JOIN files f ON f.id = a.file_id AND f.tenant_id = %(tenant)s
         JOIN vector_stores s ON s.id = %(store)s AND s.tenant_id = %(tenant)s
         LEFT JOIN poison p USING (sha256)
    ORDER BY f.id
    ON CONFLICT (vector_store_id, file_id) DO UPDATE
    SET status = excluded.status, error_code = excluded.error_code, error_message = excluded.error_message,
        generation = v.generation + 1, attempt = 0, created_at = clock_timestamp(),
        max_chunk_tokens = excluded.max_chunk_tokens, chunk_overlap_tokens = excluded.chunk_overlap_tokens,
        attributes = excluded.attributes, replace_same_name = excluded.replace_same_name
    WHERE v.status IN ('failed', 'cancelled')
       OR (v.max_chunk_tokens, v.chunk_overlap_tokens)
          IS DISTINCT FROM (excluded.max_chunk_tokens, excluded.chunk_overlap_tokens)
"""  # noqa: S608  (a constant)
_OF_BATCH = "SELECT b.file_id FROM vector_store_file_batch_files b WHERE b.batch_id = %(batch)s"
_TENANT = "tenant_id = %(tenant)s"
_FILES = Listed("files", _FILE, _TENANT)
_STORES = Listed("vector_stores", _STORE, _TENANT, alias="s", group=" GROUP BY s.id")
_STORE_FILES = Listed(
    "vector_store_files",
    _STORE_FILE + " AND v.vector_store_id = %(store)s",
    _TENANT + " AND vector_store_id = %(store)s",
    key="file_id",
    alias="v",
)


class Store:
    """Files and vector stores."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._byte_locks = asyncio.Semaphore(BYTE_LOCKS)

    # Files

    async def create_file(
        self,
        tenant_id: str,
        *,
        filename: str,
        purpose: str,
        size: int,
        sha256: str,
        expires_after_seconds: int | None = None,
    ) -> FileRecord:
        """Record uploaded bytes; the same bytes under the same name and purpose are the same file.

        Of two expiries of a file the later stays, and none is the latest.
        """
        records = await self._database.records(
            FileRecord,
            """INSERT INTO files AS f (id, tenant_id, filename, purpose, bytes, sha256, created_at, expires_at)
               VALUES (%(id)s, %(tenant)s, %(filename)s, %(purpose)s, %(bytes)s, %(sha256)s, now(),
                       now() + make_interval(secs => %(seconds)s))
               ON CONFLICT (tenant_id, sha256, filename, purpose) DO UPDATE
               SET expires_at = CASE WHEN f.expires_at IS NOT NULL AND excluded.expires_at IS NOT NULL
                                     THEN greatest(f.expires_at, excluded.expires_at) END
               RETURNING id, filename, purpose, bytes, sha256, created_at, expires_at""",
            id=new_id("file-"),
            tenant=tenant_id,
            filename=filename,
            purpose=purpose,
            bytes=size,
            sha256=sha256,
            seconds=expires_after_seconds,
        )
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

    async def get_files(self, tenant_id: str, file_ids: Sequence[str]) -> list[FileRecord]:
        """Find files, each once.

        Raises:
            NotFoundError: This tenant has none of one of the ids.
        """
        query = _FILE + " AND id = ANY(%(ids)s)"
        records = await self._database.records(FileRecord, query, tenant=tenant_id, ids=list(file_ids))
        if missing := set(file_ids) - {record.id for record in records}:
            raise _not_found("file", min(missing))
        return records

    async def list_files(self, tenant_id: str, page: Page, purpose: str | None) -> list[FileRecord]:
        """List files by age; one more than `page.limit` when there are more."""
        condition = " AND purpose = %(purpose)s" if purpose else ""
        return await read_page(
            self._database, FileRecord, _FILES, page, condition=condition, tenant=tenant_id, purpose=purpose
        )

    async def list_expired_files(self, *, limit: int) -> list[tuple[str, str, str]]:
        """List (tenant, file, bytes' name) of files of all tenants that have expired, the longest first."""
        async with self._database.connection() as connection:
            query = "SELECT tenant_id, id, sha256 FROM files WHERE expires_at <= now() ORDER BY expires_at, id LIMIT %s"
            rows = await (await connection.execute(query, [limit])).fetchall()
        return [(str(row[0]), str(row[1]), str(row[2])) for row in rows]

    async def delete_file(self, tenant_id: str, file_id: str, *, if_expired: bool = False) -> str | None:
        """Delete a file with its chunks in every store; returns the bytes' name when no other file shares them.

        Raises:
            NotFoundError: This tenant has none of that id, or, with `if_expired`, it has not expired.
        """
        async with self._database.connection() as connection, connection.transaction():
            found = await connection.execute(
                "DELETE FROM files WHERE tenant_id = %s AND id = %s AND (NOT %s OR expires_at <= now()) RETURNING sha256",
                [tenant_id, file_id, if_expired],
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
        self,
        tenant_id: str,
        *,
        name: str,
        description: str | None,
        metadata: dict[str, str],
        expires_after_days: int | None = None,
    ) -> StoreRecord:
        """Make an empty store."""
        id_ = new_id("vs_")
        await self._database.row(
            """INSERT INTO vector_stores (id, tenant_id, name, description, metadata, last_active_at, expires_after_days,
                                          expires_at)
               VALUES (%(id)s, %(tenant)s, %(name)s, %(description)s, %(metadata)s, now(), %(days)s::int,
                       now() + %(days)s * interval '24 hours') RETURNING id""",
            id=id_,
            tenant=tenant_id,
            name=name,
            description=description,
            metadata=json.dumps(metadata),
            days=expires_after_days,
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

    async def resolve_store(self, tenant_id: str, store_id: str, *, to_use: bool = False) -> str:
        """Return the id of a store that exists; `default` names the tenant's default store.

        Args:
            to_use: It is to be searched or filled, which an expired one cannot be.

        Raises:
            NotFoundError: This tenant has none of that id.
            InvalidRequestError: It has expired.
        """
        if store_id == DEFAULT_STORE_NAME:
            return await self.default_store(tenant_id)
        query = "SELECT expires_at <= now() AS expired FROM vector_stores WHERE tenant_id = %(tenant)s AND id = %(id)s"
        row = await self._database.row(query, tenant=tenant_id, id=store_id)
        if row is None:
            raise _not_found("vector store", store_id)
        if to_use and row["expired"]:
            raise _expired(store_id)
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
        return await read_page(self._database, StoreRecord, _STORES, page, tenant=tenant_id)

    async def update_store(
        self, tenant_id: str, store_id: str, *, name: str | None = None, metadata: dict[str, str] | None = None
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

    async def set_expiry(self, tenant_id: str, store_id: str, days: int | None) -> None:
        """Let a store expire when it was not active for so long, from now on, or never.

        Raises:
            InvalidRequestError: It has expired already, or is the default store.
        """
        row = await self._database.row(
            """UPDATE vector_stores SET last_active_at = now(), expires_after_days = %(days)s::int,
                                        expires_at = now() + %(days)s * interval '24 hours'
               WHERE tenant_id = %(tenant)s AND id = %(id)s AND (expires_at IS NULL OR expires_at > now())
                 AND NOT (is_default AND %(days)s::int IS NOT NULL)
               RETURNING id""",
            tenant=tenant_id,
            id=store_id,
            days=days,
        )
        if row is None:
            await self.resolve_store(tenant_id, store_id, to_use=True)
            raise InvalidRequestError("The default store does not expire.", param="expires_after")

    async def empty_expired_stores(self, *, limit: int) -> int:
        """Take up to so many files out of stores of all tenants that have expired; returns how many."""
        async with self._database.connection() as connection:
            deleted = await connection.execute(
                """DELETE FROM vector_store_files WHERE (vector_store_id, file_id) IN (
                       SELECT v.vector_store_id, v.file_id
                       FROM vector_stores s JOIN vector_store_files v ON v.vector_store_id = s.id
                       WHERE s.expires_at <= now() LIMIT %s)""",
                [limit],
            )
            return deleted.rowcount

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
        """Put a file into a store, as `attach_files` does."""
        attachment = Attachment(file_id, attributes, max_chunk_tokens, chunk_overlap_tokens, replace_same_name)
        await self.attach_files(tenant_id, store_id, [attachment])
        return await self.get_store_file(tenant_id, store_id, file_id)

    async def attach_files(self, tenant_id: str, store_id: str, attachments: Sequence[Attachment]) -> None:
        """Put files into a store, to be ingested; one that is there stays unless it failed or its chunking differs.

        A file of poisonous bytes has failed at once.
        """
        async with self._database.connection() as connection:
            await attach(connection, tenant_id, store_id, attachments)

    async def get_store_file(self, tenant_id: str, store_id: str, file_id: str) -> StoreFileRecord:
        """Find a file in a store.

        Raises:
            NotFoundError: It is not there.
        """
        query = _STORE_FILE + " AND v.vector_store_id = %(store)s AND v.file_id = %(file)s"
        records = await self._database.records(StoreFileRecord, query, tenant=tenant_id, store=store_id, file=file_id)
        return _one(records, "vector store file", file_id)

    async def list_store_files(
        self, tenant_id: str, store_id: str, page: Page, status: str | None, batch_id: str | None = None
    ) -> list[StoreFileRecord]:
        """List a store's files, or those of one of its batches, by age; one more than `page.limit` if there are more."""
        condition = " AND v.status = %(status)s" if status else ""
        if batch_id:
            condition += f" AND v.file_id IN ({_OF_BATCH})"
        return await read_page(
            self._database,
            StoreFileRecord,
            _STORE_FILES,
            page,
            condition=condition,
            tenant=tenant_id,
            store=store_id,
            status=status,
            batch=batch_id,
        )

    async def find_in_progress(self, tenant_id: str, store_id: str, file_ids: Sequence[str]) -> list[StoreFileRecord]:
        """Find those of a store's files that wait for their ingest or are in it."""
        query = _STORE_FILE + " AND v.vector_store_id = %(store)s AND v.file_id = ANY(%(files)s)"
        return await self._database.records(
            StoreFileRecord,
            query + " AND v.status = 'in_progress'",
            tenant=tenant_id,
            store=store_id,
            files=list(file_ids),
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


async def attach(
    connection: AsyncConnection[Any], tenant_id: str, store_id: str, attachments: Sequence[Attachment]
) -> None:
    """Put files into a store, as `Store.attach_files` does, in the caller's transaction."""
    wanted = list({one.file_id: one for one in attachments}.values())
    columns = {
        "files": [one.file_id for one in wanted],
        "attributes": [json.dumps(one.attributes) for one in wanted],
        "sizes": [one.max_chunk_tokens for one in wanted],
        "overlaps": [one.chunk_overlap_tokens for one in wanted],
        "replace": [one.replace_same_name for one in wanted],
    }
    await connection.execute(_ATTACH, {"tenant": tenant_id, "store": store_id, **columns})


def _one(records: list[Record], noun: str, id_: str) -> Record:
    if not records:
        raise _not_found(noun, id_)
    return records[0]


def _expired(store_id: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"The vector store '{store_id}' has expired and is empty: make a new one.",
        code="vector_store_expired",
        param="vector_store_id",
    )


def _not_found(noun: str, id_: str) -> NotFoundError:
    return NotFoundError(f"No {noun} found with id '{id_[:80]}'.", param=noun.replace(" ", "_") + "_id")
