"""Jobs as values, and how their parts are written in Valkey."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ragq.models import DEFAULT_TENANT, JobStatus, Lane, QueueName
from ragq.records import (
    NO_REQUEST,
    Arguments,
    Failure,
    Job,
    Meta,
    Request,
    Result,
    read_failure,
    read_meta,
    read_request,
    read_result,
    write_record,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job to be queued.

    Attributes:
        arguments: Of the job function, which their type tells.
        deadline_seconds: Seconds from now after which the job has failed, run or not.
        request: Kept beside the job, to be shown.
        fingerprint: Of the caller's payload, to tell a repeat from a conflict.
        archive: Keep the job, when it has ended, until `mark_archived` lets it go.
        keep_seconds: How long a job that is not archived stays when it has ended; None for the setting.
        max_wait_seconds: Refuse a job that would wait longer, by estimate; 0 takes any.
        is_repeat: Whether the same payload was sent before: then the job it made a moment ago, unless that was
            cancelled, is the answer. None: it is not known, and this job is not to be found so.
    """

    id: str
    arguments: Arguments
    queue: QueueName
    deadline_seconds: float
    lane: Lane = Lane.DEFAULT
    tenant_id: str = DEFAULT_TENANT
    request: Request = NO_REQUEST
    fingerprint: str = ""
    archive: bool = False
    keep_seconds: int | None = None
    max_wait_seconds: float = 0
    is_repeat: bool | None = None


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A job that this process runs.

    Attributes:
        attempt: Number of this claim; the commit names it.
        data: RQ's payload, JSON `[function, null, [], arguments]`, not yet trusted.
        deadline: Monotonic time at which the job has failed.
        tries: Runs so far that ended in a transient error.
        deaths_alone: Worker deaths while the job was the only one in flight.
        alone: It must run with nothing else in flight.
    """

    id: str
    attempt: int
    data: bytes
    queue: QueueName
    lane: Lane
    tenant_id: str
    deadline: float
    tries: int
    deaths_alone: int
    waited_ms: int
    alone: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt of a job ended.

    Attributes:
        run_ms: How long this attempt ran, from which later jobs' waiting time is estimated.
    """

    job_id: str
    attempt: int
    ended: Result | Failure
    meta: Meta = field(default_factory=Meta)
    run_ms: int = 0


@dataclass(frozen=True, slots=True)
class Enqueued:
    """Answer of an enqueue.

    Attributes:
        fingerprint: That of the job that is there.
        job: The job as it was accepted; None when it was there before.
    """

    job_id: str
    created: bool
    fingerprint: str
    job: Job | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """Answer of a claim.

    Attributes:
        drain: The worker is to run empty, since a suspect waits to run alone.
        more: Other jobs wait in the lanes that were asked.
    """

    jobs: list[ClaimedJob]
    drain: bool
    more: bool


@dataclass(frozen=True, slots=True)
class Reaped:
    """What a reaping did: ids put back after a death, the number of delayed jobs that were due, ids past their deadline."""

    put_back: list[str]
    delayed: int
    late: list[str]


def list_name(queue: QueueName, lane: Lane = Lane.DEFAULT, tenant_id: str = DEFAULT_TENANT) -> str:
    """Name the RQ queue of a queue, lane and tenant: `queries`, `queries.flex`, `queries@acme`."""
    suffix = "" if lane is Lane.DEFAULT else f".{lane}"
    return f"{queue}{suffix}" + ("" if tenant_id == DEFAULT_TENANT else f"@{tenant_id}")


def lanes_of(queue: QueueName) -> list[str]:
    """Lanes of a queue in the order in which they are served."""
    return [list_name(queue, lane) for lane in Lane]


def read_claimed(row: list[Any], now: float) -> ClaimedJob:
    """Read a row of the claim script; `now` is the monotonic time of its reply."""
    id_, attempt, data, name, tenant, left_ms, tries, deaths_alone, waited_ms, alone = row
    queue, _, lane = name.decode().partition("@")[0].partition(".")
    return ClaimedJob(
        id=id_.decode(),
        attempt=attempt,
        data=_inflate(data),
        queue=QueueName(queue),
        lane=Lane(lane) if lane in set(Lane) else Lane.DEFAULT,
        tenant_id=tenant.decode(errors="replace"),
        deadline=now + left_ms / 1000,
        tries=tries,
        deaths_alone=deaths_alone,
        waited_ms=waited_ms,
        alone=bool(alone),
    )


def _inflate(data: bytes) -> bytes:
    """Undo the compression that RQ applies when its tools write a job again, as `rq requeue` does."""
    try:
        return zlib.decompress(data)
    except zlib.error:
        return data


def write_outcome(outcome: Outcome) -> tuple[Any, ...]:
    """Write an outcome as the commit script takes it."""
    if isinstance(outcome.ended, Failure):
        status, name = JobStatus.FAILED, "exc_string"
        error, value = write_error(outcome.ended)
    else:
        status, name = JobStatus.FINISHED, "return_value"
        error, value = b"", base64.b64encode(write_record(outcome.ended))
    return outcome.job_id, outcome.attempt, status, name, value, error, write_record(outcome.meta), outcome.run_ms


def write_error(error: Failure) -> tuple[bytes, bytes]:
    """Write an error for the job's hash, and as RQ's Result class reads it."""
    return write_record(error), base64.b64encode(zlib.compress(f"{error.code}: {error.message}".encode()))


def read_hash(job_id: str, fields: dict[str, str], result: dict[bytes, bytes]) -> Job:
    """Read a job from its hash and its newest result."""
    status = JobStatus(fields["status"])
    started = fields.get("started_at")
    value = result.get(b"return_value") if status is JobStatus.FINISHED else None
    return Job(
        id=job_id,
        tenant_id=fields["tenant"],
        status=status,
        attempt=int(fields["attempt"]),
        created_at=int(fields["created_ms"]) / 1000,
        started_at=_timestamp(started) if started else None,
        ended_at=int(fields["ended_ms"]) / 1000 if "ended_ms" in fields else None,
        fingerprint=fields.get("fingerprint", ""),
        request=read_request(fields.get("request", "{}")),
        result=read_result(base64.b64decode(value)) if value else None,
        error=read_failure(fields["error"]) if fields.get("error") else None,
        meta=read_meta(fields["meta"]) if fields.get("meta") else Meta(),
    )


def read_accepted(job: NewJob, request: Request, created_ms: int, position: int, eta_ms: int) -> Job:
    """Read a job from the answer of the enqueue script, as it stands before anybody has claimed it."""
    return Job(
        id=job.id,
        tenant_id=job.tenant_id,
        status=JobStatus.QUEUED,
        attempt=0,
        created_at=created_ms / 1000,
        fingerprint=job.fingerprint,
        request=request,
        position=position,
        eta_seconds=eta_ms / 1000 if eta_ms >= 0 else None,
    )


def _timestamp(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
