"""Uploads in PostgreSQL: files that come in parts, which are in the blob store meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from ragq.accounts.views import Viewer, tenant_of
from ragq.errors import InvalidRequestError, NotFoundError
from ragq.models import new_id
from ragq.storage.database import Database
from ragq.storage.tenancy.limits import room_for
from ragq.storage.tenancy.visibility import see_own, values_of

UploadStatus = Literal["pending", "completed", "cancelled", "expired"]
FOLDER = "uploads"  # of the blob store
LIFE_SECONDS = 3600.0  # of an upload, from its creation
KNOWN_SECONDS = 86_400.0  # after its expiry, so that a late call is told what happened


@dataclass(frozen=True, slots=True)
class UploadRecord:
    """An upload; `file_seconds` is the life of its file, and `received` counts the bytes of its parts."""

    id: str
    filename: str
    purpose: str
    bytes: int
    file_seconds: int | None
    status: UploadStatus
    file_id: str | None
    created_at: datetime
    expires_at: datetime
    received: int


@dataclass(frozen=True, slots=True)
class PartRecord:
    """A part of an upload."""

    id: str
    upload_id: str
    bytes: int
    created_at: datetime

    @property
    def blob(self) -> str:
        """Name of its bytes in the blob store."""
        return blob_of(self.upload_id, self.id)


_UPLOAD = """
    SELECT u.id, u.filename, u.purpose, u.bytes, u.file_seconds, u.file_id, u.created_at, u.expires_at,
           CASE WHEN u.status = 'pending' AND u.expires_at <= now() THEN 'expired' ELSE u.status END AS status,
           coalesce((SELECT sum(p.bytes) FROM upload_parts p WHERE p.upload_id = u.id), 0)::bigint AS received
    FROM uploads u WHERE u.tenant_id = %(tenant)s AND u.id = %(id)s"""

_CREATE = """
    INSERT INTO uploads (id, tenant_id, key_id, filename, purpose, bytes, file_seconds, expires_at)
    VALUES (%(id)s, %(tenant)s, %(view_key)s, %(filename)s, %(purpose)s, %(bytes)s, %(seconds)s,
            now() + make_interval(secs => %(life)s))"""


class Uploads:
    """All uploads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, tenant: Viewer, *, filename: str, purpose: str, size: int, file_seconds: int | None
    ) -> UploadRecord:
        """Begin an upload.

        Raises:
            QuotaError: The tenant may not store so much.
        """
        upload_id = new_id("upload_")
        values = {
            "id": upload_id,
            "filename": filename,
            "purpose": purpose,
            "bytes": size,
            "seconds": file_seconds,
            "life": LIFE_SECONDS,
            **values_of(tenant),
        }
        async with (
            self._database.for_tenant(tenant).transaction() as connection,
            room_for(connection, tenant_of(tenant), size),
        ):
            await connection.execute(_CREATE, values)
        return await self.get(tenant, upload_id)

    async def get(self, tenant: Viewer, upload_id: str) -> UploadRecord:
        """Find an upload.

        Raises:
            NotFoundError: This tenant has no upload with this id.
        """
        query = _UPLOAD + see_own(tenant, "u.key_id")
        records = await self._database.for_tenant(tenant).records(UploadRecord, query, id=upload_id)
        if not records:
            raise NotFoundError(f"No upload found with id '{upload_id[:80]}'.", param="upload_id")
        return records[0]

    async def get_pending(self, tenant: Viewer, upload_id: str) -> UploadRecord:
        """Find an upload that takes parts.

        Raises:
            NotFoundError: This tenant has no upload with this id.
            InvalidRequestError: It is completed or cancelled, or has expired.
        """
        upload = await self.get(tenant, upload_id)
        if upload.status != "pending":
            raise _ended(upload)
        return upload

    async def add_part(self, tenant_id: str, upload_id: str, part_id: str, size: int) -> PartRecord:
        """Record a part whose bytes are stored.

        Raises:
            NotFoundError: This tenant has no upload with this id.
            InvalidRequestError: The upload takes no part, or none as large as this.
        """
        parts = await self._database.for_tenant(tenant_id).records(
            PartRecord,
            """WITH upload AS (
                   SELECT id, bytes FROM uploads
                   WHERE tenant_id = %(tenant)s AND id = %(upload)s AND status = 'pending' AND expires_at > now()
                   FOR UPDATE
               )
               INSERT INTO upload_parts (id, upload_id, bytes)
               SELECT %(part)s, id, %(bytes)s FROM upload
               WHERE (SELECT coalesce(sum(p.bytes), 0) FROM upload_parts p WHERE p.upload_id = upload.id) + %(bytes)s
                     <= upload.bytes
               RETURNING id, upload_id, bytes, created_at""",
            upload=upload_id,
            part=part_id,
            bytes=size,
        )
        if not parts:
            upload = await self.get_pending(tenant_id, upload_id)
            raise too_much(upload, size)
        return parts[0]

    async def list_parts(self, tenant_id: str, upload_id: str) -> dict[str, PartRecord]:
        """The parts of an upload, by id; none if this tenant has no such upload."""
        query = """SELECT p.id, p.upload_id, p.bytes, p.created_at FROM upload_parts p JOIN uploads u ON u.id = p.upload_id
                   WHERE u.tenant_id = %(tenant)s AND u.id = %(upload)s"""
        parts = await self._database.for_tenant(tenant_id).records(PartRecord, query, upload=upload_id)
        return {part.id: part for part in parts}

    async def complete(self, tenant_id: str, upload_id: str) -> None:
        """Complete an upload whose file does not exist yet; from now on it cannot be cancelled.

        Raises:
            InvalidRequestError: It is cancelled, or has expired.
        """
        await self._end(
            tenant_id,
            upload_id,
            "UPDATE uploads SET status = 'completed' WHERE tenant_id = %(tenant)s AND id = %(id)s AND file_id IS NULL"
            " AND (status = 'completed' OR status = 'pending' AND expires_at > now()) RETURNING id",
        )

    async def set_file(self, tenant_id: str, upload_id: str, file_id: str) -> None:
        """Record the file of a completed upload, and forget its parts."""
        await self._database.for_tenant(tenant_id).row(
            """WITH parts AS (DELETE FROM upload_parts p USING uploads u
                             WHERE u.id = p.upload_id AND u.tenant_id = %(tenant)s AND u.id = %(id)s)
               UPDATE uploads SET file_id = %(file)s WHERE tenant_id = %(tenant)s AND id = %(id)s RETURNING id""",
            id=upload_id,
            file=file_id,
        )

    async def cancel(self, tenant_id: str, upload_id: str) -> None:
        """Cancel an upload. Idempotent.

        Raises:
            InvalidRequestError: It is completed, or has expired.
        """
        await self._end(
            tenant_id,
            upload_id,
            "UPDATE uploads SET status = 'cancelled' WHERE tenant_id = %(tenant)s AND id = %(id)s"
            " AND (status = 'cancelled' OR status = 'pending' AND expires_at > now()) RETURNING id",
        )

    async def _end(self, tenant_id: str, upload_id: str, query: str) -> None:
        if await self._database.for_tenant(tenant_id).row(query, id=upload_id) is None:
            raise _ended(await self.get(tenant_id, upload_id))

    async def expire(self) -> None:
        """Forget uploads that ended long ago, of all tenants."""
        query = "DELETE FROM uploads WHERE expires_at < now() - make_interval(secs => %(known)s) RETURNING id"
        await self._database.for_all().row(query, known=KNOWN_SECONDS)


def blob_of(upload_id: str, part_id: str) -> str:
    return f"{FOLDER}/{upload_id}.{part_id}"


def upload_of(blob: str) -> str:
    """The id of the upload that the bytes of this name are a part of."""
    return blob.removeprefix(f"{FOLDER}/").partition(".")[0]


def too_much(upload: UploadRecord, size: int) -> InvalidRequestError:
    return InvalidRequestError(
        f"A part of {size} bytes is too much: the upload was created for {upload.bytes} bytes, of which "
        f"{upload.bytes - upload.received} are missing.",
        param="data",
    )


def _ended(upload: UploadRecord) -> InvalidRequestError:
    fault = "has expired" if upload.status == "expired" else f"is {upload.status}"
    return InvalidRequestError(
        f"The upload '{upload.id}' {fault}: create another one.", code=f"upload_{upload.status}", param="upload_id"
    )
