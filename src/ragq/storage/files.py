"""Uploaded files in PostgreSQL, the names of their bytes, and poison.

A method that takes the tenant reads only what its viewer may see. The others are for the service itself, not for routes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import kwargs_row

from ragq.accounts.views import Viewer, tenant_of
from ragq.errors import NotFoundError
from ragq.models import new_id
from ragq.storage.database import Database
from ragq.storage.paging import Listed, Page, read_page
from ragq.storage.removal import remove_files
from ragq.storage.tenancy.limits import room_for
from ragq.storage.tenancy.visibility import find_file, see_documents, see_files, see_no_uploads, values_of

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


_FILE = "SELECT id, filename, purpose, bytes, sha256, created_at, expires_at FROM files WHERE "
_CREATE = """
    WITH file AS (
        INSERT INTO files AS f (id, tenant_id, filename, purpose, bytes, sha256, created_at, expires_at)
        SELECT %(id)s, t.id, %(filename)s, %(purpose)s, %(bytes)s, %(sha256)s, now(), now() + make_interval(secs => %(seconds)s)
        FROM tenants t WHERE t.id = %(tenant)s
        ON CONFLICT (tenant_id, sha256, filename, purpose) DO UPDATE
        SET expires_at = CASE WHEN f.expires_at IS NOT NULL AND excluded.expires_at IS NOT NULL
                              THEN greatest(f.expires_at, excluded.expires_at) END
        RETURNING id, filename, purpose, bytes, sha256, created_at, expires_at
    ), noted AS (
        INSERT INTO file_keys (file_id, key_id, tenant_id)
        SELECT id, %(view_key)s, %(tenant)s FROM file WHERE %(view_key)s <> '' ON CONFLICT DO NOTHING
    )
    SELECT * FROM file"""

_TOO_OLD = "f.created_at < now() - (SELECT keep_files_days * interval '24 hours' FROM tenants WHERE id = f.tenant_id)"
_EXPIRED = """
    SELECT tenant_id, id, sha256 FROM files WHERE expires_at <= now()
    UNION
    SELECT t.id, f.id, f.sha256
    FROM tenants t JOIN files f ON f.tenant_id = t.id AND f.created_at < now() - t.keep_files_days * interval '24 hours'
    WHERE t.keep_files_days IS NOT NULL
    LIMIT %s"""


def _files(viewer: Viewer) -> Listed:
    seen = "tenant_id = %(tenant)s" + see_files(viewer, "files")
    return Listed("files", _FILE + seen, seen)


class Files:
    """All uploaded files."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._byte_locks = asyncio.Semaphore(BYTE_LOCKS)

    async def create(
        self,
        tenant: Viewer,
        *,
        filename: str,
        purpose: str,
        size: int,
        sha256: str,
        expires_after_seconds: int | None = None,
    ) -> FileRecord:
        """Record uploaded bytes; the same bytes under the same name and purpose are the same file.

        A repeated upload keeps the later expiry; no expiry counts as the latest. The viewer's key is noted.

        Raises:
            NotFoundError: The tenant was deleted.
            QuotaError: The tenant may not store so much.
        """
        values = {
            "id": new_id("file-"),
            "filename": filename,
            "purpose": purpose,
            "bytes": size,
            "sha256": sha256,
            "seconds": expires_after_seconds,
            **values_of(tenant),
        }
        async with (
            self._database.for_tenant(tenant).transaction() as connection,
            room_for(connection, tenant_of(tenant), size, unless_there=(sha256, filename, purpose)),
            connection.cursor(row_factory=kwargs_row(FileRecord)) as cursor,
        ):
            await cursor.execute(_CREATE, values)
            record = await cursor.fetchone()
        if record is None:
            raise NotFoundError("The tenant was deleted, so it takes no files.")
        return record

    async def get(self, tenant: Viewer, file_id: str) -> FileRecord:
        """Find a file, of this tenant or in a store that another one shares with it.

        Raises:
            NotFoundError: The viewer sees no file with this id.
        """
        query = f"{_FILE}id = %(id)s AND {find_file(tenant, 'files')}"
        records = await self._database.for_tenant(tenant).records(FileRecord, query, id=file_id)
        if not records:
            raise _not_found(file_id)
        return records[0]

    async def get_many(self, tenant: Viewer, file_ids: Sequence[str]) -> list[FileRecord]:
        """Find files, each once.

        Raises:
            NotFoundError: This tenant has no file with one of the ids.
        """
        query = _files(tenant).query + " AND id = ANY(%(ids)s)"
        records = await self._database.for_tenant(tenant).records(FileRecord, query, ids=list(file_ids))
        if missing := set(file_ids) - {record.id for record in records}:
            raise _not_found(min(missing))
        return records

    async def list_files(self, tenant: Viewer, page: Page, purpose: str | None) -> list[FileRecord]:
        """List files by age; one more than `page.limit` if there are more."""
        condition = " AND purpose = %(purpose)s" if purpose else ""
        return await read_page(
            self._database.for_tenant(tenant), FileRecord, _files(tenant), page, condition=condition, purpose=purpose
        )

    async def list_expired(self, *, limit: int) -> list[tuple[str, str, str]]:
        """List (tenant, file, SHA-256) of files of all tenants that have expired, or are older than their tenant keeps them."""
        async with self._database.for_all().connection() as connection:
            rows = await (await connection.execute(_EXPIRED, [limit])).fetchall()
        return [(str(row[0]), str(row[1]), str(row[2])) for row in rows]

    async def delete(self, tenant: Viewer, file_id: str, *, if_expired: bool = False) -> str | None:
        """Delete a file with its chunks in every store; returns the SHA-256 if no other file shares the bytes.

        In stores that the viewer does not see the document stays, and the file with it; so does one that another key has
        uploaded, too, if the viewer sees only its own.

        Raises:
            NotFoundError: This tenant has no file with this id or, with `if_expired`, the file has not expired.
        """
        values = {"id": file_id, "if_expired": if_expired, **values_of(tenant)}
        async with self._database.for_tenant(tenant).transaction() as connection:
            found = await connection.execute(
                f"""SELECT sha256 FROM files f WHERE tenant_id = %(tenant)s AND id = %(id)s
                    AND (NOT %(if_expired)s OR expires_at <= now() OR {_TOO_OLD}){see_files(tenant, "f")} FOR UPDATE""",  # noqa: S608
                values,
            )
            row = await found.fetchone()
            if row is None:
                raise _not_found(file_id)
            await remove_files(connection, "v.file_id = %(id)s" + see_documents(tenant, "v"), values)
            await connection.execute("DELETE FROM file_keys WHERE file_id = %(id)s AND key_id = %(view_key)s", values)
            goes = await connection.execute(
                f"""SELECT FROM files f WHERE id = %(id)s AND NOT EXISTS (
                        SELECT FROM vector_store_files m WHERE m.file_id = f.id){see_no_uploads(tenant, "f")}""",  # noqa: S608
                values,
            )
            if not goes.rowcount:
                return None
            await connection.execute("DELETE FROM uploads WHERE file_id = %(id)s", values)  # they have its name
            await connection.execute("DELETE FROM files WHERE id = %(id)s", values)
        return None if await self.list_files_of(row[0]) else str(row[0])

    @contextlib.asynccontextmanager
    async def locked_bytes(self, sha256: str) -> AsyncIterator[None]:
        """Lock the bytes of this name against being stored or deleted by others."""
        async with self._byte_locks, self._database.for_all().connection() as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [sha256])
            yield

    async def list_bytes(self) -> set[str]:
        """List the SHA-256 of all files' bytes, of all tenants."""
        async with self._database.for_all().connection() as connection:
            rows = await (await connection.execute("SELECT DISTINCT sha256 FROM files")).fetchall()
        return {str(row[0]) for row in rows}

    async def list_files_of(self, sha256: str) -> list[str]:
        """List the ids of the files of all tenants that share these bytes."""
        async with self._database.for_all().connection() as connection:
            query = "SELECT id FROM files WHERE sha256 = %s ORDER BY id"
            rows = await (await connection.execute(query, [sha256])).fetchall()
        return [str(row[0]) for row in rows]

    async def find_poison(self, sha256: str) -> str | None:
        """The reason why these bytes must not be read again, and how to allow it; None if they are not poison."""
        query = f"SELECT {POISON_REASON} AS reason FROM poison p WHERE sha256 = %(sha256)s"  # noqa: S608  (a constant)
        row = await self._database.for_all().row(query, sha256=sha256)
        return str(row["reason"]) if row else None

    async def forgive_poison(self, sha256: str) -> None:
        """Allow bytes to be read again.

        Raises:
            NotFoundError: They are not poison.
        """
        row = await self._database.for_all().row(
            "DELETE FROM poison WHERE sha256 = %(sha256)s RETURNING sha256", sha256=sha256
        )
        if row is None:
            raise NotFoundError(f"No poison with the SHA-256 '{sha256[:80]}' is known, so there is nothing to forgive.")


def _not_found(file_id: str) -> NotFoundError:
    return NotFoundError(f"No file found with id '{file_id[:80]}'.", param="file_id")
