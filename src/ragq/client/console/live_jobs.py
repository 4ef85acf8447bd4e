"""The jobs in Valkey that have not ended, the latest deadline first, and a job's own record.

They are found by the set of their deadlines. A call looks at LOOKED_AT of them at most, so that a search costs Valkey
little however many wait; the list goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ragq.client.valkey_client import Command, ValkeyClient, pairs, translate_errors
from ragq.json_records import UnreadableRecordError
from ragq.models import DEFAULT_TENANT
from ragq.records import LogEntry, read_events, read_request
from ragq.storage.console.jobs import EXCERPT_CHARACTERS, KINDS, JobRow, text_of
from ragq.storage.console.selection import LIVE, Place, Selection

LOOKED_AT = 1000
WINDOW = 250  # jobs that are read at once
MOST_COUNTED = 10_000
MOST_ENTRIES = 200  # of a job's event log
_FIELDS = (
    *("status", "origin", "tenant", "key", "created_ms", "started_ms", "attempt", "worker_name", "description"),
    "request",
)


@dataclass(frozen=True, slots=True)
class LivePage:
    """Jobs that have not ended, and where the list goes on; None at its end."""

    jobs: list[JobRow]
    next: Place | None


@dataclass(frozen=True, slots=True)
class LoggedEvents:
    """An entry of a job's event log.

    Attributes:
        at: Seconds since 1970.
    """

    at: float
    entry: LogEntry


class LiveJobs:
    """Reads the jobs that have not ended, and repeats ended ones."""

    def __init__(self, valkey: ValkeyClient, prefix: str, run: Callable[..., Awaitable[Any]]) -> None:
        self._valkey = valkey
        self._prefix = prefix
        self._run = run

    async def list_jobs(self, selection: Selection, *, limit: int, after: Place | None = None) -> LivePage:
        """List jobs of a selection behind a place; the page may have fewer than `limit` though the list goes on.

        Of a selection by ids it has all.
        """
        found: list[JobRow] = []
        if selection.ids is not None:
            rows = await self._read_rows(list(selection.ids))
            return LivePage([row for row in rows if row and _is_selected(row, selection)], None)
        looked_at, last, offset = 0, after, 0
        while looked_at < LOOKED_AT:
            window = await self._read_ids(last, offset)
            looked_at += len(window)
            behind = [place for place in window if last is None or (place.at, place.id) < (last.at, last.id)]
            for place, row in zip(behind, await self._read_rows([one.id for one in behind]), strict=True):
                if row is not None and _is_selected(row, selection):
                    found.append(row)
                    if len(found) == limit:
                        return LivePage(found, place)
            if len(window) < WINDOW:
                return LivePage(found, None)
            # On by the last place and not by their number, as those before it may leave the queue meanwhile.
            has_same = last is not None and window[-1].at == last.at
            last, offset = (last, offset + WINDOW) if has_same else (window[-1], 0)
        return LivePage(found, window[-1])

    async def count(self, selection: Selection) -> tuple[int, bool]:
        """Count jobs; also whether all were looked at."""
        found, looked_at, after = 0, 0, None
        while looked_at < MOST_COUNTED:
            page = await self.list_jobs(selection, limit=LOOKED_AT, after=after)
            found, looked_at, after = found + len(page.jobs), looked_at + LOOKED_AT, page.next
            if after is None:
                return found, True
        return found, False

    async def find(self, job_id: str) -> JobRow | None:
        """Find a job that has not ended."""
        row = (await self._read_rows([job_id]))[0]
        return row if row and row.state in LIVE else None

    async def read_record(self, job_id: str) -> dict[str, str]:
        """Read the fields of a job that tell of its attempts; empty if Valkey does not have it."""
        names = (
            "tenant",
            "attempt",
            "tries",
            "deaths",
            "deaths_alone",
            "worker_name",
            "created_ms",
            "started_ms",
            "deadline_ms",
        )
        async with translate_errors():
            values = await self._valkey.call("HMGET", f"{self._prefix}:job:{job_id}", *names)
        return {name: _text(value) for name, value in zip(names, values, strict=True) if value is not None}

    async def read_log(self, job_id: str) -> list[LoggedEvents]:
        """Read the first entries of a job's event log."""
        async with translate_errors():
            rows = await self._valkey.call("XRANGE", f"{self._prefix}:events:{job_id}", "-", "+", "COUNT", MOST_ENTRIES)
        logged = []
        for _, flat in rows:
            fields = pairs(flat)
            entry = LogEntry(int(fields[b"attempt"]), read_events(fields[b"events"]))
            logged.append(LoggedEvents(int(fields.get(b"at", 0)) / 1000, entry))
        return logged

    async def retry(self, job_id: str) -> bool:
        """Queue a failed or cancelled job again, with its whole time; False if Valkey does not have it, or it is neither."""
        return bool(await self._run("retry", job_id))

    async def _read_ids(self, after: Place | None, offset: int) -> list[Place]:
        latest = after.at if after else "+inf"
        async with translate_errors():
            flat = await self._valkey.call(
                *("ZREVRANGEBYSCORE", f"{self._prefix}:deadlines", latest, "-inf", "WITHSCORES"),
                *("LIMIT", offset, WINDOW),
            )
        return [Place("live", int(float(score)), _text(id_)) for id_, score in pairs(flat).items()]

    async def _read_rows(self, job_ids: list[str]) -> list[JobRow | None]:
        commands: list[Command] = [["HMGET", f"{self._prefix}:job:{job_id}", *_FIELDS] for job_id in job_ids]
        async with translate_errors():
            answers = await self._valkey.call_all(commands) if commands else []
        return [_read_row(job_id, answer) for job_id, answer in zip(job_ids, answers, strict=True)]


def _read_row(job_id: str, answer: Any) -> JobRow | None:
    """Parse a job that has not ended; None if it is something else."""
    if not isinstance(answer, list) or None in (answer[0], answer[1]):
        return None
    fields = {name: _text(value) for name, value in zip(_FIELDS, answer, strict=True) if value is not None}
    if fields["status"] not in LIVE:
        return None
    queue, _, lane = fields["origin"].partition("@")[0].partition(".")
    created, started = _time(fields.get("created_ms")), _time(fields.get("started_ms"))
    has_started = fields["status"] == "started"
    return JobRow(
        id=job_id,
        tenant_id=fields.get("tenant", DEFAULT_TENANT),
        key_id=fields.get("key", ""),
        queue=queue,
        lane=lane,
        kind=KINDS.get(fields.get("description", ""), "embedding"),
        state=fields["status"],
        created_at=created or datetime.now(UTC),
        started_at=started if has_started else None,
        ended_at=None,
        attempts=int(fields.get("attempt", 0)),
        error_code=None,
        model=None,
        input_tokens=0,
        output_tokens=0,
        waited_ms=round((started - created).total_seconds() * 1000) if has_started and started and created else None,
        ran_ms=None,
        worker=fields.get("worker_name") if has_started else None,
        excerpt=_excerpt(fields.get("request", "{}")),
    )


def _is_selected(row: JobRow, wanted: Selection) -> bool:
    """Whether a job that has not ended belongs to a selection."""
    begun = row.created_at.timestamp()
    return (
        wanted.tenant in (None, row.tenant_id)
        and wanted.state in (None, row.state)
        and wanted.queue in (None, row.queue)
        and wanted.key in (None, row.key_id)
        and wanted.worker in (None, row.worker)
        and (wanted.ids is None or row.id in wanted.ids)
        and (wanted.since is None or begun >= wanted.since)
        and (wanted.until is None or begun < wanted.until)
        and (wanted.text is None or row.id == wanted.text or _has_words(row.excerpt, wanted.text))
    )


def _has_words(text: str, wanted: str) -> bool:
    words, wanted_words = text.casefold(), wanted.casefold().split()
    return bool(wanted_words) and all(word in words for word in wanted_words)


def _excerpt(request: str) -> str:
    try:
        return text_of(read_request(request))[:EXCERPT_CHARACTERS]
    except UnreadableRecordError:
        return ""


def _time(milliseconds: str | None) -> datetime | None:
    digits = milliseconds or ""
    return datetime.fromtimestamp(int(digits) / 1000, UTC) if digits.isdigit() else None


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
