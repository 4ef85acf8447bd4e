"""Ended jobs as columns, to be searched and counted. The archive writes them; retries and deletions remove them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace
from psycopg import AsyncConnection

from ragq.models import JobStatus, Message
from ragq.records import Job, Request
from ragq.storage.console.selection import Place, Selection
from ragq.storage.database import Database

EXCERPT_CHARACTERS = 300
SEARCHED_CHARACTERS = 4000
EXPIRY_BATCH = 1000  # rows deleted by one statement
MOST_COUNTED = 100_000
MOST_RARE = 2000  # jobs that have words which are rare
EXTRACTIVE = "extractive"  # in place of a model
RATE_SECONDS = 10  # of one point of a chart
KINDS = {"process_query": "question", "process_document": "document", "process_search": "search"}

_ADD = """
    INSERT INTO jobs AS j (id, tenant_id, key_id, queue, lane, kind, state, created_at, started_at, ended_at, attempts,
                           error_code, model, input_tokens, output_tokens, waited_ms, ran_ms, worker, excerpt, words)
    SELECT n.id, t.id, key_id, queue, lane, kind, state, n.created_at, started_at, ended_at, attempts, error_code, model,
           input_tokens, output_tokens, waited_ms, ran_ms, worker, excerpt, to_tsvector('simple', searched)
    FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::timestamptz[],
                %s::timestamptz[], %s::timestamptz[], %s::int[], %s::text[], %s::text[], %s::int[], %s::int[], %s::int[],
                %s::int[], %s::text[], %s::text[], %s::text[])
         AS n (id, tenant_id, key_id, queue, lane, kind, state, created_at, started_at, ended_at, attempts, error_code,
               model, input_tokens, output_tokens, waited_ms, ran_ms, worker, excerpt, searched)
         JOIN tenants t ON t.id = n.tenant_id
    ORDER BY n.id FOR KEY SHARE OF t
    ON CONFLICT (id) DO UPDATE
    SET state = excluded.state, created_at = excluded.created_at, started_at = excluded.started_at,
        ended_at = excluded.ended_at, attempts = excluded.attempts, error_code = excluded.error_code,
        model = excluded.model, input_tokens = excluded.input_tokens, output_tokens = excluded.output_tokens,
        waited_ms = excluded.waited_ms, ran_ms = excluded.ran_ms, worker = excluded.worker, words = excluded.words
    WHERE excluded.ended_at > j.ended_at AND excluded.tenant_id = j.tenant_id"""
_COLUMNS = """id, tenant_id, key_id, queue, lane, kind, state, created_at, started_at, ended_at, attempts, error_code, model,
    input_tokens, output_tokens, waited_ms, ran_ms, worker, excerpt"""
# The last word may be cut short: of 'a' & 'b' becomes 'a' & 'b':*.
_WORDS = "words @@ (plainto_tsquery('simple', %(text)s)::text || ':*')::tsquery"
_CONDITIONS = {
    "tenant": "tenant_id = %(tenant)s",
    "queue": "queue = %(queue)s",
    "key": "key_id = %(key)s",
    "worker": "worker = %(worker)s",
    "error_code": "error_code = %(error_code)s",
    "since": "ended_at >= to_timestamp(%(since)s)",
    "until": "ended_at < to_timestamp(%(until)s)",
    "text": _WORDS,
}
_MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as it is listed; what is not known yet is None.

    Attributes:
        state: One of `JobState`.
        lane: Empty, `priority` or `flex`.
        excerpt: The beginning of the question; empty of other jobs.
    """

    id: str
    tenant_id: str
    key_id: str
    queue: str
    lane: str
    kind: str
    state: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    attempts: int
    error_code: str | None
    model: str | None
    input_tokens: int
    output_tokens: int
    waited_ms: int | None
    ran_ms: int | None
    worker: str | None
    excerpt: str

    @property
    def place(self) -> Place:
        """Where the list of ended jobs goes on behind this one."""
        assert self.ended_at
        return Place("ended", round(self.ended_at.timestamp() * _MICROSECONDS), self.id)


@dataclass(frozen=True, slots=True)
class Rate:
    """Jobs of a queue that ended within some seconds; times in ms, None if no job has one.

    Attributes:
        at: Seconds since 1970 at which these begin.
    """

    queue: str
    at: float
    ended: int
    failed: int
    waited_p50: float | None
    waited_p95: float | None
    ran_p50: float | None
    ran_p95: float | None


async def add_jobs(connection: AsyncConnection[Any], jobs: Iterable[Job]) -> None:
    """Write ended jobs, in the caller's transaction; of two versions of a job the one with the later end stays."""
    rows = [(*astuple(row_of(job)), _searched(job)) for job in jobs]
    if rows:
        await connection.execute(_ADD, [list(column) for column in zip(*rows, strict=True)])


class Jobs:
    """The ended jobs of all tenants."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_jobs(self, selection: Selection, *, limit: int, after: Place | None = None) -> list[JobRow]:
        """List jobs, the latest end first."""
        table, where, values = await self._find(selection, after)
        query = f"SELECT {_COLUMNS} FROM {table} WHERE {where} ORDER BY ended_at DESC, id DESC LIMIT %(limit)s"  # noqa: S608
        return await self._database.for_one_or_all(selection.tenant).records(
            JobRow, query, plan="anew", limit=limit, **values
        )

    async def count(self, selection: Selection) -> int:
        """Count jobs; MOST_COUNTED + 1 stands for more than MOST_COUNTED."""
        table, where, values = await self._find(selection, None)
        counted = f"SELECT FROM {table} WHERE {where} LIMIT {MOST_COUNTED + 1}"
        query = f"SELECT count(*) AS found FROM ({counted}) AS counted"  # noqa: S608  (constants)
        row = await self._database.for_one_or_all(selection.tenant).row(query, plan="anew", **values)
        return int(row["found"]) if row else 0

    async def _find(self, selection: Selection, after: Place | None) -> tuple[str, str, dict[str, Any]]:
        """The table or a part of it, a condition and its values for a selection.

        PostgreSQL guesses badly how rare words are, and might read all jobs in the order of their age to find a few. So rare
        ones are looked up first.
        """
        ids, text = selection.ids, selection.text
        if text is not None:
            text = text.replace("\0", "")
            has_words = any(character.isalnum() for character in text)
            rare = await self._find_rare(text) if has_words else [text]
            if rare is not None:
                ids, text = tuple(rare) if ids is None else tuple({*ids} & {*rare}), None
        where, values = _where(replace(selection, ids=None, text=text), after)
        if ids is None:
            return "jobs", where, values
        part = "(SELECT * FROM jobs WHERE id = ANY(%(ids)s) OFFSET 0) AS jobs"  # OFFSET 0: these are looked up, whatever follows
        return part, where, values | {"ids": list(ids)}

    async def _find_rare(self, text: str) -> list[str] | None:
        """List the jobs that have these words, and the one with this id; None if they are many."""
        query = f"SELECT id FROM jobs WHERE {_WORDS} LIMIT {MOST_RARE + 1}"  # noqa: S608  (constants)
        async with self._database.for_all().connection() as connection:
            rows = await (await connection.execute(query, {"text": text}, prepare=False)).fetchall()
        found = [str(row[0]) for row in rows]
        return [*found, text] if len(found) <= MOST_RARE else None

    async def find(self, job_id: str, tenant_id: str | None) -> JobRow | None:
        """Find a job, of any tenant with None."""
        found = await self.list_jobs(Selection(tenant=tenant_id, ids=(job_id,)), limit=1)
        return found[0] if found else None

    async def remove(self, row: JobRow) -> None:
        """Remove a job that runs again, or was deleted; a later end of it stays."""
        query = "DELETE FROM jobs WHERE id = %(id)s AND ended_at <= %(ended)s RETURNING id"
        await self._database.for_tenant(row.tenant_id).row(query, id=row.id, ended=row.ended_at)

    async def list_rates(self, tenant_id: str | None, *, seconds: int) -> list[Rate]:
        """List what ended in the last seconds, in steps of RATE_SECONDS, the oldest first."""
        whose = " AND tenant_id = %(tenant)s" if tenant_id is not None else ""
        return await self._database.for_one_or_all(tenant_id).records(
            Rate,
            f"""SELECT queue, at, count(*) AS ended, count(*) FILTER (WHERE state = 'failed') AS failed,
                       percentile_cont(0.5) WITHIN GROUP (ORDER BY waited_ms) AS waited_p50,
                       percentile_cont(0.95) WITHIN GROUP (ORDER BY waited_ms) AS waited_p95,
                       percentile_cont(0.5) WITHIN GROUP (ORDER BY ran_ms) AS ran_p50,
                       percentile_cont(0.95) WITHIN GROUP (ORDER BY ran_ms) AS ran_p95
                FROM (SELECT *, floor(extract(epoch FROM ended_at) / {RATE_SECONDS})::float8 * {RATE_SECONDS} AS at
                      FROM jobs WHERE ended_at > now() - make_interval(secs => %(seconds)s){whose}) recent
                GROUP BY queue, at ORDER BY at""",  # noqa: S608  (constants)
            seconds=seconds,
            tenant=tenant_id,
        )

    async def expire(self, older_than_seconds: float) -> int:
        """Delete jobs that ended longer ago, or than their tenant keeps its answers; returns how many."""
        deleted, batch = 0, EXPIRY_BATCH
        while batch == EXPIRY_BATCH:
            async with self._database.for_all().connection() as connection:
                statement = """
                    DELETE FROM jobs WHERE id IN (
                        WITH service AS (SELECT make_interval(secs => %s) AS kept)
                        SELECT j.id FROM service, jobs j JOIN tenants t ON t.id = j.tenant_id
                        WHERE j.ended_at < now() - least(kept, (SELECT min(keep_responses_days) * interval '24 hours' FROM tenants))
                          AND j.ended_at < now() - coalesce(t.keep_responses_days * interval '24 hours', kept)
                        ORDER BY j.ended_at LIMIT %s)"""
                batch = (await connection.execute(statement, [older_than_seconds, EXPIRY_BATCH])).rowcount
            deleted += batch
        return deleted


def _where(selection: Selection, after: Place | None) -> tuple[str, dict[str, Any]]:
    """The condition for a selection, and its values."""
    values: dict[str, Any] = {name: value for name in _CONDITIONS if (value := getattr(selection, name)) is not None}
    conditions = [_CONDITIONS[name] for name in values]
    if selection.state is not None:  # not as a parameter, so that the partial index serves it
        conditions.append(f"state = '{selection.state}'")
    if selection.queue == "documents":
        conditions.append("queue = 'documents'")
    if selection.key:
        conditions.append("key_id <> ''")
    if after is not None:
        values |= {"at": after.at, "after": after.id.replace("\0", "")}
        place = f"timestamptz 'epoch' + %(at)s * interval '{1 / _MICROSECONDS:.6f} s'"
        conditions.append(f"(ended_at, id) < ({place}, %(after)s)")
    return " AND ".join(conditions) or "true", values


def row_of(job: Job) -> JobRow:
    """The columns of an ended job."""
    queue, _, lane = job.queue.partition(".")
    answer = job.answered.answer if job.answered else None
    model = EXTRACTIVE if answer and answer.kind == EXTRACTIVE else job.request.model
    return JobRow(
        id=job.id,
        tenant_id=job.tenant_id,
        key_id=_storable(job.request.key_id),
        queue=queue or "queries",
        lane=lane,
        kind=KINDS.get(job.function, "question"),
        state=JobStatus.CANCELED if job.status is JobStatus.STOPPED else job.status,
        created_at=_time(job.created_at),
        started_at=_time(job.started_at) if job.started_at else None,
        ended_at=_time(job.ended_at or job.created_at),
        attempts=job.attempt,
        error_code=_storable(job.error.code) if job.error else None,
        model=_storable(model) if model else None,
        input_tokens=answer.usage.input_tokens if answer else 0,
        output_tokens=answer.usage.output_tokens if answer else 0,
        waited_ms=job.meta.queued_ms,
        ran_ms=job.meta.run_ms,
        worker=job.meta.worker,
        excerpt=_storable(_text(job)[:EXCERPT_CHARACTERS]),
    )


def _searched(job: Job) -> str:
    """The text whose words are searched."""
    error = f" {job.error.code} {job.error.message}" if job.error else ""
    return _storable(_text(job)[:SEARCHED_CHARACTERS] + error[:SEARCHED_CHARACTERS])


def _text(job: Job) -> str:
    return text_of(job.request) or (job.answered.query if job.answered else "")


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def text_of(request: Request) -> str:
    """The text of a request; of several messages the last one's."""
    if isinstance(request.input, str):
        return request.input
    return next((text for item in reversed(request.input) if (text := _text_of_message(item))), "")


def _text_of_message(item: Message) -> str:
    content: str | Sequence[Any] = item.get("content") or "" if isinstance(item, dict) else ""
    if isinstance(content, str):
        return content
    return " ".join(str(part.get("text") or "") for part in content if isinstance(part, dict)).strip()


def _storable(text: str) -> str:
    """A text that PostgreSQL can store."""
    return text.encode(errors="replace").decode().replace("\0", "")
