"""The archive of finished questions in PostgreSQL, read when Valkey no longer has them, and its stored chat completions."""

from __future__ import annotations

import json
from dataclasses import dataclass

from ragq.errors import GoneError, NotFoundError
from ragq.records import Job, read_job, write_record
from ragq.storage.database import Database
from ragq.storage.paging import Listed, Page, read_page
from ragq.storage.webhooks import add_deliveries, ended_event

EXPIRY_BATCH = 1000  # rows emptied or dropped by one statement
TOMBSTONE_SECONDS = 365 * 86_400
CHAT_PREFIX = "chatcmpl-"


@dataclass(frozen=True, slots=True)
class ChatRecord:
    """A stored chat completion; its metadata may differ from that of its job, which is JSON."""

    id: str
    job: str
    metadata: dict[str, str]


_CHATS = Listed(
    "responses",
    "SELECT id, job, metadata FROM responses WHERE tenant_id = %(tenant)s AND metadata IS NOT NULL",
    "tenant_id = %(tenant)s AND metadata IS NOT NULL",
)


def is_kept(job: Job) -> bool:
    """Whether a job is a chat completion to keep."""
    return job.id.startswith(CHAT_PREFIX) and job.request.store and job.answered is not None


class Archive:
    """Finished jobs by id."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def store(self, jobs: list[Job]) -> None:
        """Archive finished jobs, and put their events into the outbox, in one transaction.

        Idempotent: of two versions of a job the one with the later end is kept, and an end that is known adds no event. Jobs of a
        tenant that was deleted are left out; the lock on its row lets the deletion of a tenant wait for this.
        """
        latest = {job.id: job for job in sorted(jobs, key=_ended_at)}
        if not latest:
            return
        async with self._database.connection() as connection, connection.transaction():
            stored = await connection.execute(
                """INSERT INTO responses AS r (id, tenant_id, created_at, ended_at, job, model, metadata)
                   SELECT j.id, tenant_id, to_timestamp(j.created_at), to_timestamp(ended_at), job, model, metadata::jsonb
                   FROM unnest(%s::text[], %s::text[], %s::float8[], %s::float8[], %s::text[], %s::text[], %s::text[])
                        AS j (id, tenant_id, created_at, ended_at, job, model, metadata)
                        JOIN tenants t ON t.id = j.tenant_id
                   ORDER BY j.id FOR KEY SHARE OF t
                   ON CONFLICT (id) DO UPDATE
                   SET job = excluded.job, created_at = excluded.created_at, ended_at = excluded.ended_at,
                       archived_at = excluded.archived_at, model = excluded.model,
                       metadata = coalesce(r.metadata, excluded.metadata)
                   WHERE excluded.ended_at > r.ended_at AND excluded.tenant_id = r.tenant_id
                         AND r.job IS NOT NULL
                   RETURNING r.id""",
                [
                    list(latest),
                    [job.tenant_id for job in latest.values()],
                    [job.created_at for job in latest.values()],
                    [_ended_at(job) for job in latest.values()],
                    [write_record(job).decode() for job in latest.values()],
                    [job.request.model if is_kept(job) else None for job in latest.values()],
                    [json.dumps(job.request.metadata) if is_kept(job) else None for job in latest.values()],
                ],
            )
            ended = [latest[row[0]] for row in await stored.fetchall()]
            events = [ended_event(job) for job in ended if not job.id.startswith(CHAT_PREFIX)]
            await add_deliveries(connection, [event for event in events if event])

    async def fetch(self, job_id: str, tenant_id: str) -> Job | None:
        """Read an archived job; None if this tenant has no job with this id.

        Raises:
            GoneError: The job has expired.
            NotFoundError: The tenant deleted the job.
        """
        if "\0" in job_id:  # PostgreSQL cannot store U+0000
            return None
        row = await self._database.row(
            """SELECT job, job IS NULL AND ended_at < created_at AS deleted FROM responses
               WHERE id = %(id)s AND tenant_id = %(tenant)s""",
            id=job_id,
            tenant=tenant_id,
        )
        if row is None:
            return None
        if row["deleted"]:
            raise NotFoundError(
                f"The response '{job_id}' was deleted. Ask again, with another Idempotency-Key if you sent one.",
                param="response_id",
            )
        if row["job"] is None:
            raise GoneError(f"The response '{job_id}' has expired and was deleted. Ask again for a new one.")
        return read_job(row["job"])

    async def fetch_many(self, job_ids: list[str], tenant_id: str) -> list[Job]:
        """Read jobs from this tenant's archive; expired and unknown ones are left out."""
        if not job_ids:
            return []
        async with self._database.connection() as connection:
            query = "SELECT job FROM responses WHERE id = ANY (%s) AND tenant_id = %s AND job IS NOT NULL"
            rows = await (await connection.execute(query, [job_ids, tenant_id])).fetchall()
        return [read_job(row[0]) for row in rows]

    async def list_kept(self, job_ids: list[str]) -> set[str]:
        """List which of these jobs are in the archive and have not expired, of all tenants."""
        if not job_ids:
            return set()
        async with self._database.connection() as connection:
            query = "SELECT id FROM responses WHERE id = ANY (%s) AND job IS NOT NULL"
            rows = await (await connection.execute(query, [job_ids])).fetchall()
        return {str(row[0]) for row in rows}

    async def delete(self, job_id: str, tenant_id: str) -> None:
        """Delete a job, also if it is only now being archived.

        An empty row remains, with an end before its creation, so that the archive does not store the job again. The
        row is deleted when an answer of today would expire.
        """
        async with self._database.connection() as connection:
            await connection.execute(
                """INSERT INTO responses AS r (id, tenant_id, created_at, ended_at)
                   SELECT %(id)s, t.id, now(), now() - make_interval(secs => %(seconds)s)
                   FROM tenants t WHERE t.id = %(tenant)s FOR KEY SHARE OF t
                   ON CONFLICT (id) DO UPDATE
                   SET job = NULL, metadata = NULL, created_at = excluded.created_at, ended_at = excluded.ended_at
                   WHERE r.tenant_id = excluded.tenant_id""",
                {"id": job_id, "tenant": tenant_id, "seconds": TOMBSTONE_SECONDS},
            )

    async def expire(self, older_than_seconds: float) -> int:
        """Empty jobs that ended longer ago, and delete rows emptied a year ago; returns the number emptied."""
        await self._in_batches(
            """DELETE FROM responses WHERE id IN (
                   SELECT id FROM responses WHERE job IS NULL AND ended_at < now() - make_interval(secs => %s)
                   ORDER BY ended_at LIMIT %s FOR UPDATE SKIP LOCKED)""",
            older_than_seconds + TOMBSTONE_SECONDS,
        )
        return await self._in_batches(
            """UPDATE responses SET job = NULL, metadata = NULL WHERE id IN (
                   SELECT id FROM responses WHERE job IS NOT NULL AND ended_at < now() - make_interval(secs => %s)
                   ORDER BY ended_at LIMIT %s FOR UPDATE SKIP LOCKED)""",
            older_than_seconds,
        )

    async def _in_batches(self, statement: str, seconds: float) -> int:
        """Run a statement until it affects less than a batch; returns the total number of rows."""
        changed = 0
        while True:
            async with self._database.connection() as connection:
                batch = (await connection.execute(statement, [seconds, EXPIRY_BATCH])).rowcount
            changed += batch
            if batch < EXPIRY_BATCH:
                return changed


class StoredChats:
    """Stored chat completions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, tenant_id: str, chat_id: str) -> ChatRecord:
        """Find a chat completion.

        Raises:
            NotFoundError: This tenant stored no chat completion with this id.
        """
        query = _CHATS.query + " AND id = %(id)s"
        found = await self._database.records(ChatRecord, query, tenant=tenant_id, id=chat_id.replace("\0", ""))
        if not found:
            raise NotFoundError(f"No stored chat completion found with id '{chat_id[:80]}'.", param="completion_id")
        return found[0]

    async def list_chats(
        self, tenant_id: str, page: Page, *, model: str | None, metadata: dict[str, str]
    ) -> list[ChatRecord]:
        """List chat completions by age; one more than `page.limit` if there are more.

        Args:
            metadata: Pairs that they must have.
        """
        return await read_page(
            self._database,
            ChatRecord,
            _CHATS,
            page,
            condition=" AND metadata @> %(metadata)s::jsonb AND coalesce(model = %(model)s, %(model)s::text IS NULL)",
            tenant=tenant_id,
            model=model,
            metadata=json.dumps(metadata),
        )

    async def update(self, tenant_id: str, chat_id: str, metadata: dict[str, str]) -> ChatRecord:
        """Replace the metadata."""
        await self._database.row(
            """UPDATE responses SET metadata = %(metadata)s
               WHERE tenant_id = %(tenant)s AND id = %(id)s AND metadata IS NOT NULL RETURNING id""",
            tenant=tenant_id,
            id=chat_id.replace("\0", ""),
            metadata=json.dumps(metadata),
        )
        return await self.get(tenant_id, chat_id)


def job_of(record: ChatRecord) -> Job:
    return read_job(record.job)


def _ended_at(job: Job) -> float:
    return job.ended_at or job.created_at  # RQ's tools end a job without setting our `ended_ms`
