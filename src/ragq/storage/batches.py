"""Batches in PostgreSQL: their whole state, so that any process can continue any batch."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from psycopg import Rollback, sql

from ragq.accounts.views import TenantView, Viewer, read_view, view_of, write_view
from ragq.errors import NotFoundError
from ragq.models import new_id
from ragq.records import BatchRequest, read_batch_request, write_record
from ragq.storage.database import Database
from ragq.storage.paging import Listed, Page, read_page
from ragq.storage.tenancy.visibility import see_own
from ragq.storage.webhooks import Event, add_deliveries

TURN = 1  # seed of the lock ids, different from that of the locks of bytes
FinalStatus = Literal["completed", "failed", "expired", "cancelled"]


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """A batch with the counts of its lines; `metadata`, `errors` and `view` are JSON."""

    id: str
    tenant_id: str
    key_id: str
    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: str | None
    status: str
    errors: str | None
    output_file_id: str | None
    error_file_id: str | None
    total: int
    completed: int
    failed: int
    created_at: datetime
    expires_at: datetime
    in_progress_at: datetime | None
    finalizing_at: datetime | None
    completed_at: datetime | None
    failed_at: datetime | None
    expired_at: datetime | None
    cancelling_at: datetime | None
    cancelled_at: datetime | None
    view: str | None

    @property
    def asker(self) -> TenantView:
        """Who asks its questions."""
        return TenantView(self.tenant_id) if self.view is None else read_view(self.view)


@dataclass(frozen=True, slots=True)
class AskedLine:
    """A line whose job is queued or about to be."""

    line: int
    request: BatchRequest


@dataclass(frozen=True, slots=True)
class EndedLine:
    """An ended line; `outcome` is its line of the output file."""

    line: int
    state: Literal["completed", "failed"]
    outcome: str


_SELECT = f"SELECT {', '.join(BatchRecord.__slots__)} FROM batches"  # noqa: S608  (a constant)


def _batches(viewer: Viewer) -> Listed:
    seen = "tenant_id = %(tenant)s" + see_own(viewer)
    return Listed("batches", f"{_SELECT} WHERE {seen}", seen)


class Batches:
    """Batches and their lines."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        tenant: Viewer,
        *,
        input_file_id: str,
        endpoint: str,
        completion_window: str,
        window_seconds: float,
        metadata: dict[str, str] | None,
    ) -> BatchRecord:
        """Accept a batch; it is validated later. Its lines count for the limits of the key that created it."""
        id_ = new_id("batch_")
        await self._database.for_tenant(tenant).row(
            """INSERT INTO batches (id, tenant_id, key_id, view, input_file_id, endpoint, completion_window, metadata,
                                    expires_at)
               VALUES (%(id)s, %(tenant)s, %(view_key)s, %(view)s, %(file)s, %(endpoint)s, %(completion_window)s,
                       %(metadata)s, now() + make_interval(secs => %(seconds)s)) RETURNING id""",
            id=id_,
            view=write_view(view_of(tenant)),
            file=input_file_id,
            endpoint=endpoint,
            completion_window=completion_window,
            seconds=window_seconds,
            metadata=None if metadata is None else json.dumps(metadata),
        )
        return await self.get(tenant, id_)

    async def get(self, tenant: Viewer, batch_id: str) -> BatchRecord:
        """Find a batch.

        Raises:
            NotFoundError: This tenant has no batch with this id.
        """
        query = _batches(tenant).query + " AND id = %(id)s"
        found = await self._database.for_tenant(tenant).records(BatchRecord, query, id=batch_id.replace("\0", ""))
        if not found:
            raise NotFoundError(f"No batch found with id '{batch_id[:80]}'.", param="batch_id")
        return found[0]

    async def list_batches(self, tenant: Viewer, page: Page) -> list[BatchRecord]:
        """List batches by age; one more than `page.limit` if there are more."""
        return await read_page(self._database.for_tenant(tenant), BatchRecord, _batches(tenant), page)

    async def cancel(self, tenant: Viewer, batch_id: str) -> BatchRecord:
        """Start to cancel a batch; one that is being written or has ended is left unchanged."""
        await self._database.for_tenant(tenant).row(
            f"""UPDATE batches SET status = 'cancelling', cancelling_at = now()
                WHERE tenant_id = %(tenant)s AND id = %(id)s AND status IN ('validating', 'in_progress'){see_own(tenant)}
                RETURNING id""",  # noqa: S608
            id=batch_id.replace("\0", ""),
        )
        return await self.get(tenant, batch_id)

    async def list_unfinished(self, limit: int) -> list[BatchRecord]:
        """List the oldest unfinished batches of all tenants."""
        return await self._database.for_all().records(
            BatchRecord,
            _SELECT + " WHERE status IN ('validating', 'in_progress', 'finalizing', 'cancelling')"
            " ORDER BY created_at, id LIMIT %(limit)s",
            limit=limit,
        )

    @contextlib.asynccontextmanager
    async def lock(self, batch_id: str) -> AsyncIterator[bool]:
        """Try to lock a batch for this process. Yields whether it did; released at the end of the block."""
        async with self._database.for_all().connection() as connection, connection.transaction():
            query = "SELECT pg_try_advisory_xact_lock(hashtextextended(%s, %s))"
            row = await (await connection.execute(query, [batch_id, TURN])).fetchone()
            yield bool(row and row[0])

    async def begin(self, batch: BatchRecord, pieces: AsyncIterator[list[tuple[int, BatchRequest]]]) -> bool:
        """Store all (line, request) of a batch and set it to in progress, or nothing if it is no longer validating."""
        async with self._database.for_tenant(batch.tenant_id).transaction() as connection:
            total = 0
            async for piece in pieces:
                total += len(piece)
                await connection.execute(
                    """INSERT INTO batch_lines (batch_id, line, request)
                       SELECT %s, * FROM unnest(%s::int[], %s::text[])""",
                    [batch.id, [line for line, _ in piece], [write_record(request).decode() for _, request in piece]],
                )
            begun = await connection.execute(
                """UPDATE batches SET status = 'in_progress', in_progress_at = now(), total = %s
                   WHERE id = %s AND status = 'validating'""",
                [total, batch.id],
            )
            if not begun.rowcount:
                raise Rollback
            return True
        return False

    async def asked(self, tenant_id: str, batch_id: str, *, limit: int) -> list[AskedLine]:
        """List lines in the state `asked`, after moving waiting lines to it up to the limit."""
        async with self._database.for_tenant(tenant_id).transaction() as connection, connection.cursor() as cursor:
            await cursor.execute(
                """UPDATE batch_lines SET state = 'asked' WHERE batch_id = %(batch)s AND line IN (
                       SELECT line FROM batch_lines WHERE batch_id = %(batch)s AND state = 'waiting' ORDER BY line
                       LIMIT greatest(0, %(limit)s - (
                           SELECT count(*) FROM batch_lines WHERE batch_id = %(batch)s AND state = 'asked')))""",
                {"batch": batch_id, "limit": limit},
            )
            await cursor.execute(
                "SELECT line, request FROM batch_lines WHERE batch_id = %s AND state = 'asked' ORDER BY line LIMIT %s",
                [batch_id, limit],
            )
            return [AskedLine(line, read_batch_request(request)) async for line, request in cursor]

    async def end_lines(self, tenant_id: str, batch_id: str, lines: list[EndedLine]) -> None:
        """Store the outcomes of lines and count them, in one statement. Idempotent."""
        await self._database.for_tenant(tenant_id).row(
            """WITH ended AS (
                   UPDATE batch_lines l SET state = n.state, outcome = n.outcome
                   FROM unnest(%(lines)s::int[], %(states)s::text[], %(outcomes)s::text[]) AS n (line, state, outcome)
                   WHERE l.batch_id = %(batch)s AND l.line = n.line AND l.state = 'asked' RETURNING l.state)
               UPDATE batches b SET completed = b.completed + n.completed, failed = b.failed + n.failed
               FROM (SELECT count(*) FILTER (WHERE state = 'completed') AS completed,
                            count(*) FILTER (WHERE state = 'failed') AS failed FROM ended) n
               WHERE b.id = %(batch)s RETURNING b.id""",
            batch=batch_id,
            lines=[line.line for line in lines],
            states=[line.state for line in lines],
            outcomes=[line.outcome for line in lines],
        )

    async def finalize(self, tenant_id: str, batch_id: str) -> None:
        """Set a batch whose lines have all ended to `finalizing`, unless it is being cancelled."""
        await self._database.for_tenant(tenant_id).row(
            """UPDATE batches SET status = 'finalizing', finalizing_at = now()
               WHERE id = %(batch)s AND status = 'in_progress' RETURNING id""",
            batch=batch_id,
        )

    async def ended_lines(self, tenant_id: str, batch_id: str, *, after: int, limit: int) -> list[EndedLine]:
        """List ended lines after line `after`, in order."""
        return await self._database.for_tenant(tenant_id).records(
            EndedLine,
            """SELECT line, state, outcome FROM batch_lines
               WHERE batch_id = %(batch)s AND line > %(after)s AND outcome IS NOT NULL ORDER BY line LIMIT %(limit)s""",
            batch=batch_id,
            after=after,
            limit=limit,
        )

    async def finish(
        self,
        batch: BatchRecord,
        status: FinalStatus,
        *,
        output_file_id: str | None = None,
        error_file_id: str | None = None,
        errors: list[dict[str, Any]] | None = None,
    ) -> bool:
        """End a batch whose status has not changed, delete its lines and add its event, in one transaction."""
        async with self._database.for_tenant(batch.tenant_id).transaction() as connection:
            query = sql.SQL(
                """UPDATE batches SET status = %s, {at} = now(), output_file_id = %s, error_file_id = %s, errors = %s
                   WHERE id = %s AND status = %s"""
            ).format(at=sql.Identifier(f"{status}_at"))
            written = None if errors is None else json.dumps(errors)
            changed = await connection.execute(
                query, [status, output_file_id, error_file_id, written, batch.id, batch.status]
            )
            if changed.rowcount:
                await connection.execute("DELETE FROM batch_lines WHERE batch_id = %s", [batch.id])
                event = Event(batch.tenant_id, f"batch.{status}", batch.id, time.time())
                await add_deliveries(connection, [event])
            return bool(changed.rowcount)
