"""The queue: RQ's keys in Valkey, moved by the scripts beside this file.

A job goes enqueue → claim → commit. Each claim counts the job's attempt up, and every later step names its attempt,
so that a worker that lost a job cannot change it. Jobs are RQ jobs: `rq info`, `Job.fetch` and dashboards read them;
the scripts alone write them. One Valkey node, not Cluster: the scripts compute the keys they touch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from contextvars import Context
from dataclasses import replace
from itertools import chain
from typing import Any

import structlog
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ragq import metrics, tracing
from ragq.client.console.controls import Controls
from ragq.client.console.live_jobs import LiveJobs
from ragq.client.event_log import EventReader
from ragq.client.job import (
    Claim,
    Enqueued,
    NewJob,
    Outcome,
    Reaped,
    job_attributes,
    list_name,
    read_accepted,
    read_claimed,
    read_hash,
    read_status,
    write_error,
    write_outcome,
)
from ragq.client.queue_monitor import QueueMonitor
from ragq.client.replication.address import Host, connect
from ragq.client.replication.confirmed import CONFIRMED_SECONDS, ConfirmedCalls, UnconfirmedError
from ragq.client.request_client import Requests
from ragq.client.scripts import load_scripts
from ragq.client.tenancy.jobs import TenantJobs
from ragq.client.tenancy.metering import Metering
from ragq.client.tenancy.usage_stream import UsageStream
from ragq.client.valkey_check import check_restored, check_valkey
from ragq.client.valkey_client import UNAVAILABLE, Command, ValkeyClient, pairs, translate_errors
from ragq.errors import OverloadedError, UnavailableError
from ragq.models import JobStatus
from ragq.records import Event, Failure, Job, Meta, function_of, write_events, write_record
from ragq.settings import Settings
from ragq.tasks import end_tasks

log = structlog.get_logger(__name__)

RETRY_AFTER_MAX_SECONDS = 60.0  # the official clients ignore a longer one
MISSED_DEADLINE = Failure("deadline_exceeded", "No worker was free to start the job before its deadline.")
REFETCH_SECONDS = 2.0
MEMORY_FULL, MEMORY_FULL_SECONDS, MEMORY_LOG_SECONDS = b"memory", 5, 10.0
CLOSED = b"closed"
# With replicas, these wait for them: what callers are told, and what a later step of the same attempt builds on.
CONFIRMED = ("enqueue", "claim", "append", "commit", "cancel", "delete", "retry")
RECENT_SECONDS = 60.0  # within this, a client resends a request whose response it lost

UNREADABLE = (ValueError, LookupError, TypeError, AttributeError)  # from a hash that another program wrote


class JobQueue:
    """Enqueue, claim, commit and read jobs."""

    def __init__(self, settings: Settings, url: str) -> None:
        self.prefix = settings.key_prefix
        self._settings = settings
        self._valkey = ValkeyClient(url)
        replicas = settings.valkey_replicas
        self._confirmed = ConfirmedCalls(url, replicas=replicas, prefix=self.prefix) if replicas else self._valkey
        # Blocks between messages; the health check detects a dead server.
        self._listener = connect(
            url, socket_timeout=None, socket_connect_timeout=3, health_check_interval=5, retry=Retry(NoBackoff(), 0)
        )
        self._scripts = load_scripts()
        self.requests = Requests(settings)
        self.monitor = QueueMonitor(self._valkey, self.prefix, self._run)
        self.tenant_jobs = TenantJobs(self._valkey, self.prefix, self._run)
        self.live = LiveJobs(self._valkey, self.prefix, self._run)
        self.controls = Controls(self._valkey, self.prefix, self._run)
        self.usage = UsageStream(self._valkey, self.prefix, self._run)
        self.events = EventReader(self._valkey, self._listener, self.prefix)
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._done_task: asyncio.Task[None] | None = None
        self._memory_logged_at = -MEMORY_LOG_SECONDS
        self._primary: Host | None = None  # of confirmed calls

    async def close(self) -> None:
        """Close the connections and end the listening task."""
        if self._done_task:
            await end_tasks([self._done_task])
        await self.events.close()
        await self._listener.aclose()
        await self._confirmed.close()
        await self._valkey.close()

    async def _run(self, script: str, *arguments: Any) -> Any:
        text, digest = self._scripts[script]
        is_confirmed = script in CONFIRMED and self._confirmed is not self._valkey
        call = (self._confirmed if is_confirmed else self._valkey).call
        async with translate_errors(CONFIRMED_SECONDS if is_confirmed else None):
            try:
                reply = await call("EVALSHA", digest, 0, self.prefix, *arguments)
            except exceptions.ResponseError as error:
                if not str(error).startswith("NOSCRIPT"):
                    raise
                reply = await call("EVAL", text, 0, self.prefix, *arguments)
            if is_confirmed and self._confirmed.primary != self._primary:
                await self._follow_primary()
            return reply

    async def _follow_primary(self) -> None:
        """Let all connections go to the primary that confirms writes: one that was replaced may still answer the others."""
        is_first, self._primary = self._primary is None, self._confirmed.primary
        with suppress(exceptions.RedisError, OSError):  # what was confirmed is, however the old one takes it
            if self._valkey.primary != self._primary:
                await self._valkey.close()
            if not is_first:
                await self._listener.connection_pool.disconnect()

    async def ping(self) -> None:
        """Check that Valkey answers.

        Raises:
            UnavailableError: It does not.
        """
        async with translate_errors():
            await self._valkey.call("PING")

    async def check_server(self) -> None:
        """Refuse a Valkey that could lose or evict accepted jobs, or with half of a restore; raises ConfigurationError."""
        async with translate_errors():
            if not self._settings.allow_unsafe_valkey:
                await check_valkey(self._valkey, self._settings.valkey_durability)
            await check_restored(self._valkey, self.prefix)

    async def enqueue(self, job: NewJob) -> Enqueued:
        """Accept a job. Idempotent: a job that exists under the id is left unchanged and returned.

        Large arguments and a large request go to the blob store.

        Raises:
            OverloadedError: Too much is waiting; `retry_after_seconds` is when there should be room for this job.
            TooLargeError: The job could never be accepted.
        """
        with tracing.begin(f"enqueue {job.queue}", job_attributes(job.queue, job.id, "enqueue"), kind="producer"):
            return await self._enqueue(job)

    async def _enqueue(self, job: NewJob) -> Enqueued:
        function = function_of(job.arguments)
        metering = Metering.of(job.tenant_id, function)
        packed = await self.requests.pack(job.id, function, job.arguments, job.request)
        fields = {
            "data": packed.data,
            "description": function.rpartition(".")[2],
            "timeout": int(job.deadline_seconds),
            "result_ttl": self._settings.result_ttl_seconds if job.keep_seconds is None else job.keep_seconds,
            "tenant": job.tenant_id,
            "request": packed.request_json,
            "fingerprint": job.fingerprint,
            "archive": int(job.archive),
            **metering.fields,
        }
        if traceparent := tracing.traceparent():
            fields["traceparent"] = traceparent
        name = list_name(job.queue, job.lane, job.tenant_id)
        settings = self._settings
        limits = (settings.max_queued, int(job.max_wait_seconds * 1000), settings.max_queued_bytes, packed.size)
        payload = "" if job.is_repeat is None else f"{job.tenant_id}:{job.fingerprint}"
        recent = (payload, int(RECENT_SECONDS * 1000), int(bool(job.is_repeat)))
        async with metering.counting():
            more = (*recent, metering.write_limits(), *chain(*fields.items()))
            created, known, retry_ms, found_id, *rest = await self._accept(
                job.id, name, int(job.deadline_seconds * 1000), *limits, *more
            )
            if created:
                metering.note(rest.pop(), is_admitted=created > 0)
        if created <= 0 and packed.name:
            await self.requests.delete(packed.name)
        if created < 0:
            metrics.REFUSED.labels(job.queue).inc()
            raise metering.refusal(known.decode(), retry_ms) or _refusal(known, name, retry_ms)
        accepted = read_accepted(job, packed.request, *rest) if created else None
        return Enqueued(found_id.decode(), bool(created), known.decode(), accepted)

    async def _accept(self, *arguments: Any) -> Any:
        """Run the enqueue script; if Valkey's memory is full, return a refusal like any other."""
        try:
            return await self._run("enqueue", *arguments)
        except UnavailableError as error:
            if not str(error.__cause__).startswith("OOM"):
                raise
            if time.monotonic() > self._memory_logged_at + MEMORY_LOG_SECONDS:
                self._memory_logged_at = time.monotonic()
                log.warning("valkey_memory_full", error=str(error))
            return [-1, MEMORY_FULL, MEMORY_FULL_SECONDS * 1000, b"", []]

    async def claim(self, worker_name: str, lanes: Iterable[tuple[str, int]], *, in_flight: int) -> Claim:
        """Claim jobs for a worker.

        Args:
            lanes: (lane, most jobs to claim), in order of priority.
            in_flight: Number of jobs the worker holds now.
        """
        flat = [item for lane in lanes for item in lane]
        try:
            drain, more, *rows = await self._run("claim", worker_name, self._lease_ms, in_flight, *flat)
        except UnavailableError as error:
            if isinstance(
                error.__cause__, UnconfirmedError
            ):  # start no job that another server may not know as claimed
                jobs = [read_claimed(row, 0) for row in error.__cause__.reply[2:]]
                await self.release((job.id, job.attempt) for job in jobs)
            raise
        now = time.monotonic()
        return Claim([read_claimed(row, now) for row in rows], drain=bool(drain), more=bool(more))

    async def heartbeat(self, jobs: Iterable[tuple[str, int, Meta | None]]) -> set[str]:
        """Renew the leases of (id, attempt, meta to store or None); returns the ids that were lost."""
        flat = [
            item for id_, attempt, meta in jobs for item in (id_, attempt, "" if meta is None else write_record(meta))
        ]
        return {id_.decode() for id_ in await self._run("heartbeat", self._lease_ms, *flat)}

    async def append(self, entries: Iterable[tuple[str, int, int, list[Event]]]) -> set[str]:
        """Add (id, attempt, number of the entry from 1, events) to the jobs' event logs; returns the ids that were lost.

        Idempotent: an entry whose number the log has already is not added.
        """
        flat = [item for *entry, events in entries for item in (*entry, write_events(events))]
        return {id_.decode() for id_ in await self._run("append", self._lease_ms, *flat)}

    async def commit(self, worker_name: str, outcomes: list[Outcome]) -> list[bool]:
        """Store final results; False where the attempt no longer owned its job, and nothing was stored."""
        flat, started_ns = [item for outcome in outcomes for item in write_outcome(outcome)], time.time_ns()
        stored = await self._run("commit", worker_name, self._settings.result_ttl_seconds, *flat)
        tracing.record("commit", (outcome.meta.trace for outcome in outcomes), started_ns=started_ns)
        return [bool(ok) for ok in stored]

    async def release(self, jobs: Iterable[tuple[str, int]]) -> list[bool]:
        """Hand (id, attempt) back to the front of the list without charging a try."""
        flat = [item for id_, attempt in jobs for item in (id_, attempt, 0, 0)]
        return [bool(ok) for ok in await self._run("release", *flat)]

    async def retry_later(self, job_id: str, attempt: int, *, delay_seconds: float, charge: bool = True) -> bool:
        """Hand a job back to run again after a delay; `charge` counts this run as a try."""
        delay_ms = max(1, int(delay_seconds * 1000))
        return bool((await self._run("release", job_id, attempt, delay_ms, int(charge)))[0])

    async def cancel(self, job_id: str, *, stopped: int | str = "") -> JobStatus | None:
        """Cancel a job, or stop this attempt, and notify its worker; returns the status before, which stays if final."""
        before = await self._run("cancel", job_id, self._settings.result_ttl_seconds, stopped)
        return read_status(before) if before else None

    async def delete(self, job_id: str) -> bool:
        """End and delete a job; False for an unknown id. The id must not be reused."""
        return bool(await self._run("delete", job_id))

    async def reap(self) -> Reaped:
        """Put back jobs whose lease expired and delayed jobs that are due; fail queued jobs past their deadline."""
        limits = (self._settings.quarantine_deaths, self._settings.result_ttl_seconds)
        dead, delayed, late = await self._run("reap", self._lease_ms, *limits, *write_error(MISSED_DEADLINE))
        return Reaped([id_.decode() for id_ in dead], delayed, [id_.decode() for id_ in late])

    async def claim_period(self, name: str, *, every_seconds: float) -> bool:
        """Claim a periodic task: True for exactly one process in each period."""
        return bool(await self._run("claim_period", name, int(every_seconds * 1000)))

    async def unarchived(self, limit: int) -> list[Job]:
        """Ended jobs that are not in the archive yet, oldest first."""
        async with translate_errors():
            oldest = await self._valkey.call("ZRANGE", f"{self.prefix}:unarchived", 0, limit - 1)
            found = [id_.decode() for id_ in oldest]
            answers = await self._valkey.call_all([command for id_ in found for command in self._read_commands(id_)])
        jobs, unreadable = [], []
        for job_id, raw, results in zip(found, answers[::2], answers[1::2], strict=True):
            await asyncio.sleep(0)  # let other tasks run between two jobs
            try:
                jobs.append(read_hash(job_id, _fields(raw), _newest(results)))
            except UNREADABLE:
                unreadable.append(job_id)
        if unreadable:
            log.error("jobs_not_archived", jobs=unreadable, reason="their hashes in Valkey cannot be read")
            async with translate_errors():
                await self._valkey.call("ZREM", f"{self.prefix}:unarchived", *unreadable)
        return jobs

    async def mark_archived(self, jobs: list[Job]) -> None:
        """Let archived jobs expire from Valkey after `result_ttl_seconds`."""
        flat = [item for job in jobs for item in (job.id, round((job.ended_at or 0) * 1000))]
        await self._run("archived", self._settings.result_ttl_seconds, *flat)

    async def fetch(self, job_id: str, tenant_id: str) -> Job | None:
        """Read a job with its position in the queue; None when this tenant has no such job."""
        job = await self._read(job_id, tenant_id)
        if job is None or job.status.is_final:
            return job
        position, eta_ms = await self._run("place", job_id)
        return replace(job, position=position or None, eta_seconds=eta_ms / 1000 if eta_ms >= 0 else None)

    async def _read(self, job_id: str, tenant_id: str) -> Job | None:
        found = await self._run("read", job_id, tenant_id)
        if found is None:
            return None
        raw, results = found
        fields = _fields(raw)
        if "ticket" not in fields:
            return None
        try:
            return read_hash(job_id, fields, _newest(results))
        except UNREADABLE as error:
            log.error("job_unreadable", job_id=job_id, error=str(error))
            return None

    def _read_commands(self, job_id: str) -> list[Command]:
        """The commands that read a job's hash and its newest result."""
        results = f"{self.prefix}:results:{job_id}"
        return [["HGETALL", f"{self.prefix}:job:{job_id}"], ["XREVRANGE", results, "+", "-", "COUNT", 1]]

    async def statuses(self, job_ids: list[str]) -> list[JobStatus | None]:
        """Read the statuses of many jobs at once; None for a job that does not exist."""
        async with translate_errors():
            found = await self._valkey.call_all([["HGET", f"{self.prefix}:job:{id_}", "status"] for id_ in job_ids])
        return [read_status(status) if status else None for status in found]

    async def wait(self, job_id: str, tenant_id: str, *, timeout_seconds: float) -> Job | None:
        """Wait until a job has ended or the time is over; returns the job as it is then, without its position."""
        self._done_task = self._done_task or asyncio.create_task(self._watch_done(), context=Context())
        deadline = time.monotonic() + timeout_seconds
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(job_id, set()).add(future)
        try:
            while True:
                job = await self._read(job_id, tenant_id)
                left = deadline - time.monotonic()
                if job is None or job.status.is_final or left <= 0:
                    return job
                # A message can be lost with its connection, so read the job now and then.
                await asyncio.wait([future], timeout=min(left, REFETCH_SECONDS))
        finally:
            self._waiting[job_id].discard(future)
            if not self._waiting[job_id]:
                del self._waiting[job_id]

    async def _watch_done(self) -> None:
        async for _, job_id in self.listen(f"{self.prefix}:done"):
            for future in self._waiting.get(job_id.decode(), ()):
                if not future.done():
                    future.set_result(None)

    async def listen(self, *channels: str) -> AsyncIterator[tuple[str, bytes]]:
        """Yield (channel, message) forever, and reconnect when the connection is lost."""
        while True:
            try:
                async with self._listener.pubsub(ignore_subscribe_messages=True) as pubsub:
                    await pubsub.subscribe(*channels)
                    async for message in pubsub.listen():
                        yield message["channel"].decode(), message["data"]
            except UNAVAILABLE as error:
                log.warning("valkey_connection_lost", error=str(error))
                await asyncio.sleep(1)

    @property
    def _lease_ms(self) -> int:
        return int(self._settings.lease_seconds * 1000)


def _refusal(reason: bytes, name: str, retry_ms: int) -> OverloadedError:
    if reason == CLOSED:
        return OverloadedError("The tenant is being deleted: it takes no new work.", retry_after_seconds=60)
    crowded = f"Too many jobs, or too large ones, wait in '{name}'"
    why = "Valkey's memory is full" if reason == MEMORY_FULL else crowded
    return OverloadedError(
        f"{why}: try again after the time in Retry-After.",
        retry_after_seconds=min(retry_ms / 1000, RETRY_AFTER_MAX_SECONDS),
    )


def _fields(flat: list[bytes]) -> dict[str, str]:
    # Decoding may lose bytes: RQ's tools compress the payload and the error text, which are not read here.
    return pairs([_text(part) for part in flat])


def _newest(results: list[Any]) -> dict[bytes, bytes]:
    return pairs(results[0][1]) if results else {}


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
