"""The archive of finished questions in PostgreSQL, read when Valkey no longer has them, and its stored chat completions."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection

from ragq.accounts.views import Viewer
from ragq.errors import GoneError, NotFoundError
from ragq.models import JobFunction
from ragq.records import Job, read_job, write_record
from ragq.storage.console.jobs import add_jobs
from ragq.storage.database import Database
from ragq.storage.paging import Listed, Page, read_page
from ragq.storage.tenancy.visibility import see_own
from ragq.storage.webhooks import add_deliveries, ended_event

EXPIRY_BATCH = 1000  # rows emptied or dropped by one statement
TOMBSTONE_SECONDS = 365 * 86_400
CHAT_PREFIX = "chatcmpl-"
DOCUMENT = JobFunction.PROCESS_DOCUMENT.rpartition(".")[2]


@dataclass(frozen=True, slots=True)
class ChatRecord:
    """A stored chat completion; its metadata may differ from that of its job, which is JSON."""

    id: str
    job: str
    metadata: dict[str, str]


def _chats(viewer: Viewer) -> Listed:
    seen = "tenant_id = %(tenant)s AND metadata IS NOT NULL" + see_own(viewer)
    return Listed("responses", f"SELECT id, job, metadata FROM responses WHERE {seen}", seen)  # noqa: S608


def is_kept(job: Job) -> bool:
    """Whether a job is a chat completion to keep."""
    return job.id.startswith(CHAT_PREFIX) and job.request.store and job.answered is not None


# For each tenant that has answers, found one after the other in the index, those that have expired.
EXPIRE = """
    UPDATE responses SET job = NULL, metadata = NULL WHERE id IN (
        WITH RECURSIVE owners AS (
            (SELECT tenant_id FROM responses WHERE job IS NOT NULL ORDER BY tenant_id LIMIT 1)
            UNION ALL
            SELECT (SELECT r.tenant_id FROM responses r WHERE r.job IS NOT NULL AND r.tenant_id > o.tenant_id
                    ORDER BY r.tenant_id LIMIT 1)
            FROM owners o WHERE o.tenant_id IS NOT NULL
        )
        SELECT expired.id FROM owners o LEFT JOIN tenants t ON t.id = o.tenant_id
        CROSS JOIN LATERAL (
            SELECT r.id FROM responses r
            WHERE r.tenant_id = o.tenant_id AND r.job IS NOT NULL
              AND r.ended_at < now() - coalesce(t.keep_responses_days * interval '24 hours', make_interval(secs => %s))
            FOR UPDATE SKIP LOCKED) expired
        LIMIT %s)
"""


# The lock on the tenant's row lets its deletion wait for this.
STORE = """
    INSERT INTO responses AS r (id, tenant_id, key_id, created_at, ended_at, job, model, metadata)
    SELECT j.id, tenant_id, key_id, to_timestamp(j.created_at), to_timestamp(ended_at), job, model, metadata::jsonb
    FROM unnest(%s::text[], %s::text[], %s::text[], %s::float8[], %s::float8[], %s::text[], %s::text[], %s::text[])
         AS j (id, tenant_id, key_id, created_at, ended_at, job, model, metadata)
         JOIN tenants t ON t.id = j.tenant_id
    ORDER BY j.id FOR KEY SHARE OF t
    ON CONFLICT (id) DO UPDATE
    SET job = excluded.job, created_at = excluded.created_at, ended_at = excluded.ended_at,
        archived_at = excluded.archived_at, model = excluded.model, metadata = coalesce(r.metadata, excluded.metadata)
    WHERE excluded.ended_at > r.ended_at AND excluded.tenant_id = r.tenant_id AND r.job IS NOT NULL
    RETURNING r.id
"""


class Archive:
    """Finished jobs by id."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def store(self, jobs: list[Job]) -> None:
        """Archive finished jobs, and put the events of questions into the outbox, in one transaction.

        Of documents nothing is kept but what is listed.

        Idempotent: of two versions of a job the one with the later end is kept, and an end that is known adds no event. Jobs of a
        tenant that was deleted are left out; the lock on its row lets the deletion of a tenant wait for this.
        """
        ended_jobs = {job.id: job for job in sorted(jobs, key=_ended_at)}
        latest = {job_id: job for job_id, job in ended_jobs.items() if job.function != DOCUMENT}
        if not ended_jobs:
            return
        async with self._database.for_all().connection() as connection, connection.transaction():
            ended = await _insert(connection, latest)
            found = await connection.execute(
                "SELECT id FROM responses WHERE id = ANY(%s) AND job IS NULL", [list(latest)]
            )
            deleted = {row[0] for row in await found.fetchall()}
            await add_jobs(connection, [job for job_id, job in ended_jobs.items() if job_id not in deleted])
            events = [ended_event(job) for job in ended if not job.id.startswith(CHAT_PREFIX)]
            await add_deliveries(connection, [event for event in events if event])

    async def fetch(self, job_id: str, tenant: Viewer) -> Job | None:
        """Read an archived job; None if the viewer sees no job with this id.

        Raises:
            GoneError: The job has expired.
            NotFoundError: The tenant deleted the job.
        """
        if "\0" in job_id:  # PostgreSQL cannot store U+0000
            return None
        row = await self._database.for_tenant(tenant).row(
            f"""SELECT job, job IS NULL AND ended_at < created_at AS deleted FROM responses
                WHERE id = %(id)s AND tenant_id = %(tenant)s{see_own(tenant)}""",  # noqa: S608
            id=job_id,
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
        query = "SELECT job FROM responses WHERE id = ANY (%(ids)s) AND tenant_id = %(tenant)s AND job IS NOT NULL"
        rows: list[dict[str, str]] = await self._database.for_tenant(tenant_id).records(dict, query, ids=job_ids)
        return [read_job(row["job"]) for row in rows]

    async def find_mentions(self, tenant_id: str, text: str) -> AsyncIterator[list[str]]:
        """Yield the ids of a tenant's jobs in whose record a text stands, in batches. It reads all of them, by short statements."""
        after = ""
        while True:
            query = """SELECT id, strpos(job, %(text)s) > 0 AS mentions FROM responses
                       WHERE tenant_id = %(tenant)s AND id > %(after)s ORDER BY id LIMIT %(limit)s"""
            rows: list[dict[str, Any]] = await self._database.for_tenant(tenant_id).records(
                dict, query, text=text, after=after, limit=EXPIRY_BATCH
            )
            if found := [str(row["id"]) for row in rows if row["mentions"]]:
                yield found
            if len(rows) < EXPIRY_BATCH:
                return
            after = rows[-1]["id"]

    async def list_kept(self, job_ids: list[str]) -> set[str]:
        """List which of these jobs are in the archive and have not expired, of all tenants."""
        if not job_ids:
            return set()
        async with self._database.for_all().connection() as connection:
            query = "SELECT id FROM responses WHERE id = ANY (%s) AND job IS NOT NULL"
            rows = await (await connection.execute(query, [job_ids])).fetchall()
        return {str(row[0]) for row in rows}

    async def delete(self, job_id: str, tenant_id: str, key_id: str = "") -> None:
        """Delete a job, also if it is only now being archived.

        An empty row remains, with an end before its creation, so that the archive does not store the job again. The
        row is deleted when an answer of today would expire.
        """
        async with self._database.for_tenant(tenant_id).transaction() as connection:
            await connection.execute("DELETE FROM jobs WHERE id = %s AND tenant_id = %s", [job_id, tenant_id])
            await connection.execute(
                """INSERT INTO responses AS r (id, tenant_id, key_id, created_at, ended_at)
                   SELECT %(id)s, t.id, %(key)s, now(), now() - make_interval(secs => %(seconds)s)
                   FROM tenants t WHERE t.id = %(tenant)s FOR KEY SHARE OF t
                   ON CONFLICT (id) DO UPDATE
                   SET job = NULL, metadata = NULL, created_at = excluded.created_at, ended_at = excluded.ended_at
                   WHERE r.tenant_id = excluded.tenant_id""",
                {"id": job_id, "tenant": tenant_id, "key": key_id, "seconds": TOMBSTONE_SECONDS},
            )

    async def expire(self, older_than_seconds: float) -> int:
        """Empty jobs that ended longer ago, or than their tenant keeps them, and delete rows emptied a year ago; returns the number emptied."""
        await self._in_batches(
            """DELETE FROM responses WHERE id IN (
                   SELECT id FROM responses WHERE job IS NULL AND ended_at < now() - make_interval(secs => %s)
                   ORDER BY ended_at LIMIT %s FOR UPDATE SKIP LOCKED)""",
            older_than_seconds + TOMBSTONE_SECONDS,
        )
        return await self._in_batches(EXPIRE, older_than_seconds)

    async def _in_batches(self, statement: str, seconds: float) -> int:
        """Run a statement until it affects less than a batch; returns the total number of rows."""
        changed = 0
        while True:
            async with self._database.for_all().connection() as connection:
                batch = (await connection.execute(statement, [seconds, EXPIRY_BATCH])).rowcount
            changed += batch
            if batch < EXPIRY_BATCH:
                return changed


class StoredChats:
    """Stored chat completions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, tenant: Viewer, chat_id: str) -> ChatRecord:
        """Find a chat completion.

        Raises:
            NotFoundError: This tenant stored no chat completion with this id.
        """
        query = _chats(tenant).query + " AND id = %(id)s"
        found = await self._database.for_tenant(tenant).records(ChatRecord, query, id=chat_id.replace("\0", ""))
        if not found:
            raise NotFoundError(f"No stored chat completion found with id '{chat_id[:80]}'.", param="completion_id")
        return found[0]

    async def list_chats(
        self, tenant: Viewer, page: Page, *, model: str | None, metadata: dict[str, str]
    ) -> list[ChatRecord]:
        """List chat completions by age; one more than `page.limit` if there are more.

        Args:
            metadata: Pairs that they must have.
        """
        return await read_page(
            self._database.for_tenant(tenant),
            ChatRecord,
            _chats(tenant),
            page,
            condition=" AND metadata @> %(metadata)s::jsonb AND coalesce(model = %(model)s, %(model)s::text IS NULL)",
            model=model,
            metadata=json.dumps(metadata),
        )

    async def update(self, tenant: Viewer, chat_id: str, metadata: dict[str, str]) -> ChatRecord:
        """Replace the metadata."""
        await self._database.for_tenant(tenant).row(
            f"""UPDATE responses SET metadata = %(metadata)s
                WHERE tenant_id = %(tenant)s AND id = %(id)s AND metadata IS NOT NULL{see_own(tenant)} RETURNING id""",  # noqa: S608
            id=chat_id.replace("\0", ""),
            metadata=json.dumps(metadata),
        )
        return await self.get(tenant, chat_id)


async def _insert(connection: AsyncConnection[Any], latest: dict[str, Job]) -> list[Job]:
    """Archive jobs by id; returns those that were not there, or with an earlier end."""
    jobs = latest.values()
    stored = await connection.execute(
        STORE,
        [
            list(latest),
            [job.tenant_id for job in jobs],
            [job.request.key_id for job in jobs],
            [job.created_at for job in jobs],
            [_ended_at(job) for job in jobs],
            [write_record(job).decode() for job in jobs],
            [job.request.model if is_kept(job) else None for job in jobs],
            [json.dumps(job.request.metadata) if is_kept(job) else None for job in jobs],
        ],
    )
    return [latest[row[0]] for row in await stored.fetchall()]


def job_of(record: ChatRecord) -> Job:
    return read_job(record.job)


def _ended_at(job: Job) -> float:
    return job.ended_at or job.created_at  # RQ's tools end a job without setting our `ended_ms`
