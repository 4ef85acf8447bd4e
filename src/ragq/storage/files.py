"""Uploaded files in PostgreSQL, the names of their bytes, and poison.

A method that takes the tenant reads only that tenant's rows. The others are for the service itself, not for routes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from ragq.errors import NotFoundError
from ragq.models import new_id
from ragq.storage.database import Database
from ragq.storage.paging import Listed, Page, read_page
from ragq.storage.removal import remove_files

BYTE_LOCKS = 4  # at once in a process: each holds a connection while its holder needs another from the pool
POISON_REASON = """p.reason || ' These bytes are not tried again. To allow it: ragq doctor --forgive ' || p.sha256
    || ', then put the file into the store again.'"""


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


_FILE = "SELECT id, filename, purpose, bytes, sha256, created_at, expires_at FROM files WHERE tenant_id = %(tenant)s"
_FILES = Listed("files", _FILE, "tenant_id = %(tenant)s")


class Files:
    """All uploaded files."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._byte_locks = asyncio.Semaphore(BYTE_LOCKS)

    async def create(
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

        A repeated upload keeps the later expiry; no expiry counts as the latest.

        Raises:
            NotFoundError: The tenant was deleted.
        """
        records = await self._database.records(
            FileRecord,
            """INSERT INTO files AS f (id, tenant_id, filename, purpose, bytes, sha256, created_at, expires_at)
               SELECT %(id)s, t.id, %(filename)s, %(purpose)s, %(bytes)s, %(sha256)s, now(),
                      now() + make_interval(secs => %(seconds)s)
               FROM tenants t WHERE t.id = %(tenant)s
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
        if not records:
            raise NotFoundError("The tenant was deleted, so it takes no files.")
        return records[0]

    async def get(self, tenant_id: str, file_id: str) -> FileRecord:
        """Find a file.

        Raises:
            NotFoundError: This tenant has no file with this id.
        """
        records = await self._database.records(FileRecord, _FILE + " AND id = %(id)s", tenant=tenant_id, id=file_id)
        if not records:
            raise _not_found(file_id)
        return records[0]

    async def get_many(self, tenant_id: str, file_ids: Sequence[str]) -> list[FileRecord]:
        """Find files, each once.

        Raises:
            NotFoundError: This tenant has no file with one of the ids.
        """
        query = _FILE + " AND id = ANY(%(ids)s)"
        records = await self._database.records(FileRecord, query, tenant=tenant_id, ids=list(file_ids))
        if missing := set(file_ids) - {record.id for record in records}:
            raise _not_found(min(missing))
        return records

    async def list_files(self, tenant_id: str, page: Page, purpose: str | None) -> list[FileRecord]:
        """List files by age; one more than `page.limit` if there are more."""
        condition = " AND purpose = %(purpose)s" if purpose else ""
        return await read_page(
            self._database, FileRecord, _FILES, page, condition=condition, tenant=tenant_id, purpose=purpose
        )

    async def list_expired(self, *, limit: int) -> list[tuple[str, str, str]]:
        """List (tenant, file, SHA-256) of expired files of all tenants, earliest expiry first."""
        async with self._database.connection() as connection:
            query = "SELECT tenant_id, id, sha256 FROM files WHERE expires_at <= now() ORDER BY expires_at, id LIMIT %s"
            rows = await (await connection.execute(query, [limit])).fetchall()
        return [(str(row[0]), str(row[1]), str(row[2])) for row in rows]

    async def delete(self, tenant_id: str, file_id: str, *, if_expired: bool = False) -> str | None:
        """Delete a file with its chunks in every store; returns the SHA-256 if no other file shares the bytes.

        Raises:
            NotFoundError: This tenant has no file with this id or, with `if_expired`, the file has not expired.
        """
        async with self._database.connection() as connection, connection.transaction():
            found = await connection.execute(
                """SELECT sha256 FROM files WHERE tenant_id = %s AND id = %s AND (NOT %s OR expires_at <= now())
                   FOR UPDATE""",
                [tenant_id, file_id, if_expired],
            )
            row = await found.fetchone()
            if row is None:
                raise _not_found(file_id)
            await remove_files(connection, "v.file_id = %s", file_id)
            await connection.execute("DELETE FROM files WHERE id = %s", [file_id])
            shared = await connection.execute("SELECT 1 FROM files WHERE sha256 = %s LIMIT 1", [row[0]])
            return None if await shared.fetchone() else str(row[0])

    @contextlib.asynccontextmanager
    async def locked_bytes(self, sha256: str) -> AsyncIterator[None]:
        """Lock the bytes of this name against being stored or deleted by others."""
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

    async def find_poison(self, sha256: str) -> str | None:
        """The reason why these bytes must not be read again, and how to allow it; None if they are not poison."""
        query = f"SELECT {POISON_REASON} AS reason FROM poison p WHERE sha256 = %(sha256)s"  # noqa: S608  (a constant)
        row = await self._database.row(query, sha256=sha256)
        return str(row["reason"]) if row else None

    async def forgive_poison(self, sha256: str) -> None:
        """Allow bytes to be read again.

        Raises:
            NotFoundError: They are not poison.
        """
        row = await self._database.row("DELETE FROM poison WHERE sha256 = %(sha256)s RETURNING sha256", sha256=sha256)
        if row is None:
            raise NotFoundError(f"No poison with the SHA-256 '{sha256[:80]}' is known, so there is nothing to forgive.")


def _not_found(file_id: str) -> NotFoundError:
    return NotFoundError(f"No file found with id '{file_id[:80]}'.", param="file_id")
