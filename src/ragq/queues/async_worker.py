"""The worker process: one RQ worker that holds hundreds of jobs in flight on one event loop.

Its loops: claim takes jobs while slots are free, commit stores outcomes, publish writes the events of running jobs,
maintain renews leases, listen receives notices of new and cancelled jobs; every process also runs the housekeeping.
It is started by `rq worker` (after `ragq env`) or by `ragq worker`, which is the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
import uvloop
from rq.defaults import RQ_KEY_PREFIX
from rq.serializers import JSONSerializer
from rq.utils import now, utcformat
from rq.worker import BaseWorker

from ragq import metrics
from ragq.client.job import ClaimedJob, Outcome, lanes_of
from ragq.client.rq_client import JobQueue
from ragq.descriptors import raise_descriptor_limit
from ragq.errors import ConfigurationError, UnavailableError
from ragq.logs import configure_logging
from ragq.models import Lane, QueueName
from ragq.queues.metrics_server import WorkerHealth, serve_metrics
from ragq.queues.perform import Retry, perform, retry_until_available
from ragq.queues.running import RunningJob, WorkerContext
from ragq.queues.upkeep.housekeeping import restart_on_error, start_housekeeping
from ragq.records import Failure, Meta
from ragq.settings import Settings, read_settings
from ragq.tasks import end_tasks, freeze_heap, give_back_memory, prepare_for_numpy, share_one_heap
from ragq.tracing import start_tracing

log = structlog.get_logger(__name__)

CLAIM_BATCH = 100  # most jobs of one claim; a claim asks for 1 at first, and for more while claims come back full
RESERVED = 16  # extra slots for the priority lane only, so that slow jobs do not block it
PUBLISH_SECONDS = 0.1  # between writes to the event logs; the events in between become one entry
IDLE_SECONDS = MAINTENANCE_SECONDS = 1.0  # between claims when nothing wakes the worker, and between its upkeep


@dataclass(slots=True)
class InFlight:
    """A job this process holds; `task` runs it, and its lease is renewed until the outcome is stored."""

    claimed: ClaimedJob
    running: RunningJob
    task: asyncio.Task[None]


class AsyncWorker(BaseWorker):
    """An RQ worker on asyncio; RQ's command line and monitors use it like any other."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs | {"serializer": JSONSerializer})

    def work(self, burst: bool = False, **_options: Any) -> bool:  # type: ignore[override]
        """Run until a signal or, with `burst`, until no job is left. True if any job ran."""
        settings = read_settings()
        configure_logging(settings)
        share_one_heap()
        prepare_for_numpy()
        start_tracing("worker")
        raise_descriptor_limit()  # a question in flight holds a connection to the LLM
        if settings.key_prefix != RQ_KEY_PREFIX:
            raise ConfigurationError(
                f"RQ_KEY_PREFIX is '{RQ_KEY_PREFIX}', RAGQ_KEY_PREFIX '{settings.key_prefix}': run eval \"$(ragq env)\"."
            )
        if settings.valkey_url is None or settings.database_url is None:
            raise ConfigurationError('RAGQ_VALKEY_URL or RAGQ_DATABASE_URL is not set: run eval "$(ragq env)" first.')
        runner = _Runner(self, settings, burst=burst)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
                loop.run(runner.run())
        except ConfigurationError as error:
            sys.exit(f"ragq: {error}")
        return runner.finished + runner.failed > 0


class _Runner:
    """One run of a worker, on one event loop."""

    def __init__(self, worker: AsyncWorker, settings: Settings, *, burst: bool) -> None:
        assert settings.valkey_url
        assert settings.database_url
        self._name = worker.name
        self._settings = settings
        self._burst = burst
        self._queue = JobQueue(settings, settings.valkey_url.get_secret_value())
        self._database_url = settings.database_url.get_secret_value()
        self._served = [QueueName(name) for name in worker.queue_names()]
        self._lists = worker.queue_names()
        self._identity = {
            "birth": utcformat(now()),
            "queues": ",".join(worker.queue_names()),
            "pid": worker.pid,
            "hostname": worker.hostname,
            "ip_address": worker.ip_address,
            "version": worker.version,
            "python_version": worker.python_version,
            "name": worker.name,
        }
        self._in_flight: dict[str, InFlight] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._outcomes: list[Outcome] = []
        self._wake = asyncio.Event()
        self._ended = asyncio.Event()
        self._stopping = asyncio.Event()
        self._alone = False
        self._draining = False
        self._health = WorkerHealth()
        self.finished = 0
        self.failed = 0

    async def run(self) -> None:
        """Serve the queues until a signal, then drain and shut down."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._request_stop)
        self._metrics_server, self._identity["metrics"] = await serve_metrics(self._settings, self._health)
        await self._until_available(self._queue.check_server)
        self._context = await WorkerContext.open(self._settings, self._queue, self._database_url)
        await self._until_available(self._register)
        freeze_heap()
        log.info("worker_started", worker=self._name, queues=self._identity["queues"], pid=self._identity["pid"])
        loops = [
            asyncio.create_task(restart_on_error(part, part.__name__), name=part.__name__)
            for part in (self._get_ready, self._claim, self._commit, self._publish, self._maintain, self._listen)
        ] + start_housekeeping(self._context)
        try:
            await self._stopping.wait()
            await self._drain()
        finally:
            await end_tasks(loops)
            await self._shut_down()

    def _request_stop(self) -> None:
        if self._stopping.is_set():
            self._draining = True  # second signal: do not wait for the jobs
        self._health.is_stopping = True
        self._stopping.set()
        self._ended.set()
        self._wake.set()

    async def _until_available(self, call: Callable[[], Awaitable[None]]) -> None:
        while not self._stopping.is_set():
            try:
                return await call()
            except UnavailableError as error:
                log.warning("waiting_for_service", error=str(error))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        await self._stopping.wait()
        return None

    async def _get_ready(self) -> None:
        """Load the embedding model, so that the first question need not wait for it; claims go on meanwhile.

        A worker that serves only documents loads it later: a document takes seconds anyway, and idle it stays small.
        """
        started = time.monotonic()
        if QueueName.QUERIES in self._served:
            await self._context.embedding.start()
            give_back_memory()  # loading leaves tens of megabytes free
        self._health.has_models = True
        await self._register()
        log.info("worker_ready", worker=self._name, seconds=round(time.monotonic() - started, 2))

    # Claim

    async def _claim(self) -> None:
        batch = 1
        while not self._stopping.is_set():
            self._wake.clear()
            taken, more = await self._claim_once(batch)
            batch = min(CLAIM_BATCH, batch * 4) if taken >= batch else 1
            if taken and more:
                continue
            if self._burst and not self._in_flight:
                self._stopping.set()
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(IDLE_SECONDS):  # wait_for of Python 3.11 can lose a cancellation
                    await self._wake.wait()

    async def _claim_once(self, batch: int) -> tuple[int, bool]:
        """Claim and start jobs; returns their number, and whether more wait."""
        lanes = [] if self._alone else self._room(batch)
        if all(most < 0 for _, most in lanes):
            return 0, False
        claim = await self._queue.claim(self._name, lanes, in_flight=len(self._in_flight))
        for job in claim.jobs:
            self._start(job)
        return len(claim.jobs), claim.more

    def _room(self, batch: int) -> list[tuple[str, int]]:
        """The most jobs to claim from each lane now, -1 for none; lanes of a queue share slots, which the claim takes into account."""
        held = Counter((one.claimed.queue, one.claimed.lane) for one in self._in_flight.values())
        lanes: list[tuple[str, int]] = []
        for queue in self._served:
            for lane, name in zip(Lane, lanes_of(queue), strict=True):
                lanes.append((name, max(-1, min(batch, self._free(queue, lane, held)))))
        return lanes

    def _free(self, queue: QueueName, lane: Lane, held: Counter[tuple[QueueName, Lane]]) -> int:
        limit, is_priority = self._limit(queue), lane is Lane.PRIORITY
        if queue is QueueName.DOCUMENTS:  # small documents have as many slots of their own; with 0 a newcomer may begin
            return limit - sum(held[queue, one] for one in Lane if (one is Lane.PRIORITY) == is_priority)
        kept = 0 if is_priority else max(0, RESERVED - held[queue, Lane.PRIORITY])
        return (limit + RESERVED - kept - sum(held[queue, one] for one in Lane)) or -1

    def _limit(self, queue: QueueName) -> int:
        settings = self._settings
        return settings.query_concurrency if queue is QueueName.QUERIES else settings.document_concurrency

    # Run

    def _start(self, job: ClaimedJob) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + job.deadline - time.monotonic()
        running = RunningJob(job.id, job.attempt, job.tenant_id, deadline, Meta(queued_ms=job.waited_ms))
        metrics.ATTEMPTS.labels(job.queue).inc()
        metrics.WAIT.labels(job.queue).observe(job.waited_ms / 1000)
        self._alone = job.alone
        if earlier := self._in_flight.get(job.id):
            self._end(earlier.task)  # this process was silent for a whole lease and claimed its own job again
        task = asyncio.create_task(self._perform(job, running), name=job.id)
        self._in_flight[job.id] = InFlight(job, running, task)

    async def _perform(self, job: ClaimedJob, running: RunningJob) -> None:
        done = await perform(job, running, self._context)
        if isinstance(done, Retry):
            again = partial(self._queue.retry_later, job.id, job.attempt, delay_seconds=done.delay_seconds)
            await retry_until_available(partial(again, charge=done.charge))
            self._remove(job.id, job.attempt)
            if done.ends_worker:
                self._stopping.set()
            return
        running.note(worker=self._name)
        self._outcomes.append(done)
        self._ended.set()

    def _remove(self, job_id: str, attempt: int) -> None:
        if job_id in self._in_flight and self._in_flight[job_id].claimed.attempt == attempt:
            del self._in_flight[job_id]
        if not self._in_flight:
            self._alone = False
        self._wake.set()
        self._ended.set()

    # Commit

    async def _commit(self) -> None:
        while True:
            await self._ended.wait()
            self._ended.clear()
            while self._outcomes:
                batch = self._outcomes[:CLAIM_BATCH]
                stored = await retry_until_available(partial(self._queue.commit, self._name, batch))
                del self._outcomes[: len(batch)]
                for outcome, ok in zip(batch, stored, strict=True):
                    self._count(outcome, stored=ok)
                    self._remove(outcome.job_id, outcome.attempt)
                self._ended.clear()

    def _count(self, outcome: Outcome, *, stored: bool) -> None:
        if not stored:
            metrics.COMMITS_REFUSED.inc()
            log.warning("commit_refused", job_id=outcome.job_id, attempt=outcome.attempt)
        elif isinstance(outcome.ended, Failure):
            self.failed += 1
        else:
            self.finished += 1

    # Publish

    async def _publish(self) -> None:
        """Append the jobs' events to their logs: one call for all jobs, at most ten times a second."""
        while True:
            await asyncio.sleep(PUBLISH_SECONDS)
            entries = [one.running.take_events() for one in self._in_flight.values() if one.running.pending_events]
            if entries:
                lost = await retry_until_available(partial(self._queue.append, entries))
                self._drop_lost(lost, {job_id: attempt for job_id, attempt, *_ in entries})

    # Maintain

    async def _maintain(self) -> None:
        next_heartbeat = 0.0
        while True:
            due = time.monotonic() >= next_heartbeat
            if due:
                next_heartbeat = time.monotonic() + self._settings.heartbeat_seconds
                await self._register()
            await self._heartbeat(everything=due)
            await asyncio.sleep(MAINTENANCE_SECONDS)

    async def _heartbeat(self, *, everything: bool) -> None:
        held = [one for one in self._in_flight.values() if everything or one.running.meta_changed]
        if not held:
            return
        rows = [
            (one.claimed.id, one.claimed.attempt, one.running.meta if one.running.meta_changed else None)
            for one in held
        ]
        for one in held:
            one.running.meta_changed = False
        self._drop_lost(await self._queue.heartbeat(rows), {job_id: attempt for job_id, attempt, _ in rows})

    def _drop_lost(self, lost: set[str], attempts: dict[str, int]) -> None:
        for job_id in lost:
            self._drop(job_id, attempts[job_id], reason="another attempt owns it, or it was cancelled")

    def _drop(self, job_id: str, attempt: int, *, reason: str) -> None:
        one = self._in_flight.get(job_id)
        if one is None or one.claimed.attempt != attempt or one.task.done():
            return
        metrics.LEASES_LOST.inc()
        log.warning("job_dropped", job_id=job_id, attempt=attempt, reason=reason)
        self._end(one.task)
        self._remove(job_id, attempt)

    def _end(self, task: asyncio.Task[None]) -> None:
        ending = asyncio.create_task(end_tasks([task]))  # the pool of connections swallows a cancellation at times
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _register(self) -> None:
        held = Counter(one.claimed.queue for one in self._in_flight.values())
        for queue in self._served:
            metrics.IN_FLIGHT.labels(queue).set(held[queue])
        fields = self._identity | {
            "last_heartbeat": utcformat(now()),
            "state": "busy" if self._in_flight else "idle" if self._health.has_models else "started",
            "ready": int(self._health.has_models),
            "in_flight": len(self._in_flight),
            "successful_job_count": self.finished,
            "failed_job_count": self.failed,
            "slots": " ".join(f"{queue}={self._limit(queue)}" for queue in self._served),
        }
        await self._queue.monitor.register_worker(self._name, fields, self._lists)
        self._health.registered_at = time.monotonic()

    # Listen

    async def _listen(self) -> None:
        wake, commands = f"{self._queue.prefix}:wake", f"{self._queue.prefix}:pubsub:{self._name}"
        lanes = {lane for queue in self._served for lane in [*lanes_of(queue), f"{queue}.solo"]}
        async for channel, message in self._queue.listen(wake, commands):
            if channel == commands:
                await self._handle_command(json.loads(message))
            elif message.decode() in lanes:
                self._wake.set()

    async def _handle_command(self, command: dict[str, Any]) -> None:
        """Obey a command of RQ's tools, or of our scripts, which have ended an attempt and name it."""
        if command.get("command") == "shutdown":
            self._request_stop()
        elif command.get("command") == "stop-job" and (one := self._in_flight.get(command.get("job_id", ""))):
            if "attempt" not in command:  # of RQ: it can only mean the one that is held here, and ends no later one
                await self._queue.cancel(one.claimed.id, stopped=one.claimed.attempt)
            self._drop(one.claimed.id, command.get("attempt", one.claimed.attempt), reason="cancelled")

    # Shut down

    async def _drain(self) -> None:
        log.info("worker_draining", worker=self._name, in_flight=len(self._in_flight))
        deadline = time.monotonic() + self._settings.shutdown_grace_seconds
        while self._in_flight and not self._draining and time.monotonic() < deadline:  # noqa: ASYNC110  (there is no event to wait for)
            await asyncio.sleep(0.05)
        unfinished = [one for one in self._in_flight.values() if not one.task.done()]
        for one in unfinished:
            one.task.cancel()
        if unfinished:
            with contextlib.suppress(UnavailableError):  # then the leases expire instead
                await self._queue.release([(one.claimed.id, one.claimed.attempt) for one in unfinished])
            log.info("jobs_handed_back", worker=self._name, jobs=len(unfinished))

    async def _shut_down(self) -> None:
        with contextlib.suppress(UnavailableError):
            if self._outcomes:
                await self._queue.commit(self._name, self._outcomes)
            await self._queue.monitor.unregister_worker(self._name, self._lists)
        await end_tasks(one.task for one in self._in_flight.values())
        await asyncio.gather(*self._ending)
        self._metrics_server.close()
        await self._context.close()
        await self._queue.close()
        log.info("worker_stopped", worker=self._name, finished=self.finished, failed=self.failed)
