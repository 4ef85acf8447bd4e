"""What happened to a job: its steps in their order, how long each stage took, and the sources of its answer."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal

from typing_extensions import TypedDict

from ragq.client.console.live_jobs import LoggedEvents
from ragq.context import Context
from ragq.errors import GoneError, NotFoundError
from ragq.queues.history import find_job
from ragq.records import Event, Job, Meta, SearchEnded, SearchStarted, TextAdded
from ragq.storage.console.jobs import JobRow, text_of

SHOWN_CHARACTERS = 8000
STAGES = ("queued", "retrieve", "first_token", "answer", "parse", "split", "embed", "store", "run")


class Step(TypedDict):
    """Something that happened, and when; `attempt` counts from 1."""

    at: float
    what: Literal["queued", "started", "searching", "found", "writing", "finished", "failed", "canceled"]
    attempt: int | None
    detail: str | None


class StageTime(TypedDict):
    """How long a stage took."""

    stage: str
    ms: int


class JobSource(TypedDict):
    """A passage that was found for a question, and how many citations of the answer are of its page."""

    file_id: str
    filename: str
    page: int | None
    score: float
    citations: int


class JobTimeline(TypedDict):
    """What happened to a job. `deaths` are of workers that ran it, `tries` runs that ended in a passing error."""

    steps: list[Step]
    stages: list[StageTime]
    attempts: int
    tries: int
    deaths: int
    deadline_at: float | None
    question: str
    answer: str | None
    error: str | None
    sources: list[JobSource]


async def make_timeline(context: Context, row: JobRow) -> JobTimeline:
    """Read what is known of a job from the queue, its event log and the archive."""
    record = await context.queue.live.read_record(row.id)
    job: Job | None = None
    with suppress(GoneError, NotFoundError):
        job = await find_job(context, row.tenant_id, row.id)
    logged = await context.queue.live.read_log(row.id)
    answered = job.answered if job else None
    deadline = record.get("deadline_ms", "")
    return {
        "steps": _steps(row, logged),
        "stages": _stages(job.meta) if job else [],
        "attempts": row.attempts,
        "tries": _whole(record.get("tries")),
        "deaths": _whole(record.get("deaths")),
        "deadline_at": int(deadline) / 1000 if deadline.isdigit() else None,
        "question": (text_of(job.request) if job else row.excerpt)[:SHOWN_CHARACTERS],
        "answer": answered.answer.text[:SHOWN_CHARACTERS] if answered else None,
        "error": job.error.message if job and job.error else None,
        "sources": _sources(job) if job else [],
    }


def _steps(row: JobRow, logged: list[LoggedEvents]) -> list[Step]:
    steps: list[Step] = [{"at": row.created_at.timestamp(), "what": "queued", "attempt": None, "detail": row.queue}]
    if row.started_at:
        steps.append(
            {"at": row.started_at.timestamp(), "what": "started", "attempt": row.attempts, "detail": row.worker}
        )
    writing: set[int] = set()
    for one in logged:
        for event in one.entry.events:
            step = _step_of(event, one)
            if step is None or (step["what"] == "writing" and one.entry.attempt in writing):
                continue
            if step["what"] == "writing":
                writing.add(one.entry.attempt)
            steps.append(step)
    if row.ended_at:
        steps.append(
            {
                "at": row.ended_at.timestamp(),
                "what": "finished" if row.state == "finished" else "failed" if row.state == "failed" else "canceled",
                "attempt": row.attempts,
                "detail": row.error_code,
            }
        )
    return sorted(steps, key=lambda step: step["at"])


def _step_of(event: Event, logged: LoggedEvents) -> Step | None:
    """The step that an event is, if it is one."""
    at, attempt = logged.at, logged.entry.attempt
    if isinstance(event, SearchStarted):
        return {"at": at, "what": "searching", "attempt": attempt, "detail": "; ".join(event.queries)[:200] or None}
    if isinstance(event, SearchEnded):
        return {"at": at, "what": "found", "attempt": attempt, "detail": None}
    if isinstance(event, TextAdded):
        return {"at": at, "what": "writing", "attempt": attempt, "detail": None}
    return None


def _stages(meta: Meta) -> list[StageTime]:
    times = [(stage, getattr(meta, f"{stage}_ms")) for stage in STAGES]
    return [{"stage": stage, "ms": ms} for stage, ms in times if ms is not None]


def _sources(job: Job) -> list[JobSource]:
    if job.answered is None:
        return []
    cited = [(one.file_id, one.page) for one in job.answered.answer.citations]
    return [
        {
            "file_id": found.file_id,
            "filename": found.filename,
            "page": found.page,
            "score": found.score,
            "citations": cited.count((found.file_id, found.page)),
        }
        for found in job.answered.results
    ]


def _whole(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0
