"""File batches in PostgreSQL: files that one request puts into a store, tracked and cancelled together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ragq.accounts.views import Viewer, tenant_of
from ragq.errors import NotFoundError
from ragq.models import new_id
from ragq.storage.database import Database
from ragq.storage.ingests import Attachment, attach_with, cancel_batch
from ragq.storage.tenancy.visibility import see_readers


@dataclass(frozen=True, slots=True)
class FileBatchRecord:
    """A batch with the counts of its files by status; a file removed from its store is removed from its batches."""

    id: str
    vector_store_id: str
    created_at: datetime
    cancelled_at: datetime | None
    in_progress: int
    completed: int
    failed: int
    cancelled: int


class FileBatches:
    """The batches of all stores."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, tenant: Viewer, store_id: str, attachments: Sequence[Attachment]) -> str:
        """Put files into a store in one transaction; returns the batch's id. Unknown files are left out."""
        batch_id, files, tenant_id = new_id("vsfb_"), [one.file_id for one in attachments], tenant_of(tenant)
        async with self._database.for_tenant(tenant).transaction() as connection:
            await connection.execute(
                """INSERT INTO vector_store_file_batches (id, tenant_id, vector_store_id)
                   SELECT %s, tenant_id, id FROM vector_stores WHERE tenant_id = %s AND id = %s""",
                [batch_id, tenant_id, store_id],
            )
            await attach_with(connection, tenant, store_id, attachments)
            await connection.execute(
                """INSERT INTO vector_store_file_batch_files (batch_id, vector_store_id, file_id)
                   SELECT %s, vector_store_id, file_id FROM vector_store_files
                   WHERE tenant_id = %s AND vector_store_id = %s AND file_id = ANY(%s)""",
                [batch_id, tenant_id, store_id, files],
            )
        return batch_id

    async def get(self, tenant: Viewer, store_id: str, batch_id: str) -> FileBatchRecord:
        """Find a batch of a store.

        Raises:
            NotFoundError: The store has no batch with this id.
        """
        records = await self._database.for_tenant(tenant).records(
            FileBatchRecord,
            f"""SELECT b.id, b.vector_store_id, b.created_at, b.cancelled_at,
                      count(*) FILTER (WHERE v.status = 'in_progress') AS in_progress,
                      count(*) FILTER (WHERE v.status = 'completed') AS completed,
                      count(*) FILTER (WHERE v.status = 'failed') AS failed,
                      count(*) FILTER (WHERE v.status = 'cancelled') AS cancelled
               FROM vector_store_file_batches b LEFT JOIN vector_store_file_batch_files f ON f.batch_id = b.id
                    LEFT JOIN vector_store_files v ON (v.vector_store_id, v.file_id) = (f.vector_store_id, f.file_id)
                                                   {see_readers(tenant, "v.")}
               WHERE b.tenant_id = %(tenant)s AND b.vector_store_id = %(store)s AND b.id = %(batch)s GROUP BY b.id""",  # noqa: S608
            store=store_id,
            batch=batch_id,
        )
        if not records:
            raise NotFoundError(f"No file batch found with id '{batch_id[:80]}'.", param="batch_id")
        return records[0]

    async def cancel(self, tenant: Viewer, store_id: str, batch_id: str) -> list[tuple[str, int]]:
        """Cancel the files in progress; returns (file, generation) of each cancelled ingest.

        A new generation keeps the ingest from writing. A batch without files in progress is left unchanged.
        """
        async with self._database.for_tenant(tenant).transaction() as connection:
            cancelled = await cancel_batch(connection, tenant, store_id, batch_id)
            if cancelled:
                await connection.execute(
                    "UPDATE vector_store_file_batches SET cancelled_at = now() WHERE id = %s", [batch_id]
                )
        return cancelled
