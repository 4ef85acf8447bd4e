"""Jobs as values, and how their parts are written in Valkey."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ragq.accounts.usage import JobUsage, write_usage
from ragq.models import DEFAULT_TENANT, JobStatus, Lane, QueueName
from ragq.records import (
    NO_REQUEST,
    Arguments,
    Failure,
    Job,
    Meta,
    Request,
    Result,
    function_of,
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
        arguments: Arguments of the job function; their type selects the function.
        deadline_seconds: Seconds from now after which the job fails, even if no worker ran it.
        request: The caller's request, stored with the job so that the API can show it.
        fingerprint: Hash of the caller's payload, to tell a repeat from a conflict.
        archive: Keep the ended job in Valkey until `mark_archived`.
        keep_seconds: How long an ended job that is not archived is kept; None for the setting.
        max_wait_seconds: Refuse the job if its estimated wait is longer; 0 for no limit.
        is_repeat: True for a client's resend: the enqueue returns the job that the same payload created up to a
            minute ago, unless it was cancelled. None: neither look for such a job nor let a resend find this one.
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
    """A job claimed by this process.

    Attributes:
        attempt: Number of this claim, checked by the commit.
        data: RQ's payload, JSON `[function, null, [], arguments]`, not validated yet.
        deadline: Monotonic time at which the job fails.
        tries: Earlier runs that ended in a transient error.
        deaths_alone: Worker deaths while the job was the only one in flight.
        alone: It must run with nothing else in flight.
        traceparent: Where it was queued, see `ragq.tracing`; "" without a trace.
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
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt of a job ended.

    Attributes:
        run_ms: How long this attempt ran; the waiting times of later jobs are estimated from it.
        usage: What the job cost; None for nothing.
    """

    job_id: str
    attempt: int
    ended: Result | Failure
    meta: Meta = field(default_factory=Meta)
    run_ms: int = 0
    usage: JobUsage | None = None


@dataclass(frozen=True, slots=True)
class Enqueued:
    """The result of an enqueue.

    Attributes:
        fingerprint: Fingerprint of the stored job.
        job: The new job; None if it existed already.
    """

    job_id: str
    created: bool
    fingerprint: str
    job: Job | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """The result of a claim.

    Attributes:
        drain: The worker should finish its jobs and claim no others, because a suspect waits to run alone.
        more: More jobs wait in the requested lanes.
    """

    jobs: list[ClaimedJob]
    drain: bool
    more: bool


@dataclass(frozen=True, slots=True)
class Reaped:
    """The result of a reap: ids put back after a death, number of due delayed jobs, ids past their deadline."""

    put_back: list[str]
    delayed: int
    late: list[str]


def list_name(queue: QueueName, lane: Lane = Lane.DEFAULT, tenant_id: str = DEFAULT_TENANT) -> str:
    """Name the RQ queue of a queue, lane and tenant: `queries`, `queries.flex`, `queries@acme`."""
    suffix = "" if lane is Lane.DEFAULT else f".{lane}"
    return f"{queue}{suffix}" + ("" if tenant_id == DEFAULT_TENANT else f"@{tenant_id}")


def job_attributes(queue: QueueName, job_id: str, step: str) -> dict[str, str]:
    """What a span of a step of the queue says of its job, in OpenTelemetry's words."""
    return {
        "messaging.system": "ragq",
        "messaging.operation.name": step,
        "messaging.destination.name": queue,
        "messaging.message.id": job_id,
    }


def lanes_of(queue: QueueName) -> list[str]:
    """Lanes of a queue in the order in which they are claimed."""
    return [list_name(queue, lane) for lane in Lane]


def pool_of(lane: str) -> str:
    """Name the pool of a lane: the lanes that share slots, and in which tenants take turns; see `common.lua`."""
    queue, _, kind = lane.partition(".")
    return queue if kind == Lane.FLEX or lane == list_name(QueueName.QUERIES, Lane.PRIORITY) else lane


def read_claimed(row: list[Any], now: float) -> ClaimedJob:
    """Parse a row of the claim script's reply; `now` is the monotonic time of the reply."""
    id_, attempt, data, name, tenant, left_ms, tries, deaths_alone, waited_ms, alone, trace = row
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
        traceparent=trace.decode(errors="replace"),
    )


def _inflate(data: bytes) -> bytes:
    """Undo the compression that RQ applies when its tools rewrite a job, as `rq requeue` does."""
    try:
        return zlib.decompress(data)
    except zlib.error:
        return data


def write_outcome(outcome: Outcome) -> tuple[Any, ...]:
    """Serialize an outcome as the commit script's arguments."""
    if isinstance(outcome.ended, Failure):
        status, name = JobStatus.FAILED, "exc_string"
        error, value = write_error(outcome.ended)
    else:
        status, name = JobStatus.FINISHED, "return_value"
        error, value = b"", base64.b64encode(write_record(outcome.ended))
    usage = (write_usage(outcome.usage), outcome.usage.tokens) if outcome.usage else ("", 0)
    meta = write_record(outcome.meta)
    return outcome.job_id, outcome.attempt, status, name, value, error, meta, outcome.run_ms, *usage


def write_error(error: Failure) -> tuple[bytes, bytes]:
    """Serialize an error twice: for the job's hash, and in the form that RQ's Result class reads."""
    return write_record(error), base64.b64encode(zlib.compress(f"{error.code}: {error.message}".encode()))


def read_status(word: bytes) -> JobStatus:
    """Parse a status. An unknown one counts as failed, since no worker can run that job."""
    try:
        return JobStatus(word.decode())
    except ValueError:
        return JobStatus.FAILED


def read_hash(job_id: str, fields: dict[str, str], result: dict[bytes, bytes]) -> Job:
    """Parse a job from its hash and its newest result."""
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
        queue=fields.get("origin", "").partition("@")[0],
        function=fields.get("description", ""),
        request=read_request(fields.get("request", "{}")),
        result=read_result(base64.b64decode(value)) if value else None,
        error=read_failure(fields["error"]) if fields.get("error") else None,
        meta=read_meta(fields["meta"]) if fields.get("meta") else Meta(),
    )


def read_accepted(job: NewJob, request: Request, created_ms: int, position: int, eta_ms: int) -> Job:
    """Build the accepted job from the enqueue script's reply, before any claim."""
    return Job(
        id=job.id,
        tenant_id=job.tenant_id,
        status=JobStatus.QUEUED,
        attempt=0,
        created_at=created_ms / 1000,
        fingerprint=job.fingerprint,
        queue=list_name(job.queue, job.lane),
        function=function_of(job.arguments).rpartition(".")[2],
        request=request,
        position=position,
        eta_seconds=eta_ms / 1000 if eta_ms >= 0 else None,
    )


def _timestamp(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
