"""Run one claimed job: call its function within the deadline, and decide between an outcome and a retry."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, get_args

import structlog

from ragq import metrics, tracing
from ragq.accounts.usage import JobUsage
from ragq.client.job import ClaimedJob, Outcome, job_attributes
from ragq.client.model_faults import Kind
from ragq.errors import PermanentError, RagqError, TransientError
from ragq.models import JobFunction
from ragq.queues.running import RunningJob, WorkerContext
from ragq.queues.worker import FUNCTIONS, check_payload, document_failed
from ragq.records import DocumentArguments, Failure, Result
from ragq.settings import Settings
from ragq.storage.database import OTHER_MODEL

log = structlog.get_logger(__name__)

RETRY_SECONDS = 0.5
BACKOFF_SECONDS = 2.0
BACKOFF_MAX_SECONDS = 60.0
AWAITED_BACKOFF_MAX_SECONDS = 8.0
# Errors that charge no try: the job waits until its deadline, since it has not done anything yet that could fail.
AWAITED = (
    "queue_unavailable",
    "database_unavailable",
    OTHER_MODEL,
    "blobs_unavailable",
    "llm_breaker_open",
    "embedding_breaker_open",
)
EXTRACTIVE = "extractive"  # in place of the LLM's name, without one
STAGES = ("retrieve_ms", "answer_ms", "first_token_ms", "parse_ms", "split_ms", "embed_ms", "store_ms")


@dataclass(frozen=True, slots=True)
class Retry:
    """Run the job again after a delay.

    Attributes:
        charge: Whether this run counts as a try.
        ends_worker: No job can succeed in this worker any more, so it stops.
    """

    delay_seconds: float
    charge: bool
    ends_worker: bool = False


async def perform(job: ClaimedJob, running: RunningJob, context: WorkerContext) -> Outcome | Retry:
    """Run a job; returns its outcome, or the retry to schedule. What it cost is in the outcome, or noted at once."""
    with _traced(job, running):
        try:
            done = await _perform(job, running, context)
        except asyncio.CancelledError:
            await _note_spent(running, context)
            raise
        if isinstance(done, Retry):
            await _note_spent(running, context)
        elif isinstance(done.ended, Failure):
            tracing.fail(done.ended.code)
        return done


@contextlib.contextmanager
def _traced(job: ClaimedJob, running: RunningJob) -> Iterator[None]:
    """Continue the trace in which a job was queued: its wait until the first claim, and this run of it."""
    if not tracing.is_on():
        yield
        return
    if job.attempt == 1:
        tracing.record("wait", [job.traceparent], started_ns=time.time_ns() - job.waited_ms * 1_000_000)
    attributes = job_attributes(job.queue, job.id, "process") | {"ragq.attempt": job.attempt, "ragq.lane": job.lane}
    headers = {"traceparent": job.traceparent}
    with tracing.begin(f"process {job.queue}", attributes, kind="consumer", headers=headers):
        running.meta.trace = tracing.traceparent()  # stored with the result: a write of its own would cost more
        yield


async def _perform(job: ClaimedJob, running: RunningJob, context: WorkerContext) -> Outcome | Retry:
    started = time.monotonic()
    function: JobFunction | str = "unknown"
    result: Result | None = None
    error: RagqError | None = None
    try:
        function, arguments = check_payload(job.data)
        _refuse_quarantined(job, context.settings)
        async with asyncio.timeout_at(running.deadline):
            unpacked = await context.queue.requests.unpack(job.id, function, arguments)
            result = await FUNCTIONS[function](running, context, unpacked)
    except TransientError as failure:
        if retry := _plan_retry(job, failure, context.settings):
            metrics.RETRIES.labels(failure.code).inc()
            tracing.fail(failure.code)
            log.info(
                "job_retries_later", job_id=job.id, delay_seconds=round(retry.delay_seconds, 1), error=str(failure)
            )
            return retry
        error = failure
    except RagqError as failure:
        error = failure
    except TimeoutError:
        error = PermanentError(
            "The job did not end before its deadline. To allow more time, raise RAGQ_QUERY_DEADLINE_SECONDS or "
            "RAGQ_DOCUMENT_DEADLINE_SECONDS.",
            code="deadline_exceeded",
        )
    except Exception as failure:  # the outermost handler of a job: a bug must not stop the worker
        log.exception("job_crashed", job_id=job.id)
        error = PermanentError(f"The job failed with {type(failure).__name__}. See the worker's log.")
    if error is not None:
        log.warning("job_failed", job_id=job.id, code=error.code, error=str(error))
        await _record_failure(job, running, context, error)
    run_ms = round((time.monotonic() - started) * 1000)
    running.note(run_ms=run_ms)
    _measure(function, running, error)
    outcome = Failure(error.code, error.message) if error else result
    assert outcome
    return Outcome(job.id, job.attempt, outcome, running.meta, run_ms, _count(function, running, context))


def _refuse_quarantined(job: ClaimedJob, settings: Settings) -> None:
    if job.deaths_alone >= settings.quarantine_deaths:
        message = f"{job.deaths_alone} workers died while they ran this job alone. It will not be run again."
        raise PermanentError(message, code="quarantined")


def _plan_retry(job: ClaimedJob, error: TransientError, settings: Settings) -> Retry | None:
    """Choose when the job runs again; None if it has no tries or no time left."""
    tries, first, longest = settings.job_tries, BACKOFF_SECONDS, BACKOFF_MAX_SECONDS
    kind = error.code.partition("_")[0]
    if kind in get_args(Kind):  # an error of a model endpoint
        tries, first, longest = (
            getattr(settings, f"{kind}_{name}") for name in ("tries", "backoff_seconds", "backoff_max_seconds")
        )
    is_awaited = error.code in AWAITED
    if is_awaited:
        longest = AWAITED_BACKOFF_MAX_SECONDS
    backoff = min(longest, first * 2 ** min(job.attempt if is_awaited else job.tries, 20))
    delay = (error.retry_after_seconds or 0) + random.uniform(0, backoff)
    if (not is_awaited and job.tries + 1 >= tries) or time.monotonic() + delay >= job.deadline:
        return None
    return Retry(delay, charge=not is_awaited, ends_worker=error.code == OTHER_MODEL)


async def _record_failure(job: ClaimedJob, running: RunningJob, context: WorkerContext, error: RagqError) -> None:
    try:
        _, arguments = check_payload(job.data)
    except PermanentError:
        return
    if not isinstance(arguments, DocumentArguments):
        return
    try:
        await retry_until_available(lambda: document_failed(running, context, error, arguments))
    except Exception:  # a failed job must end, or it would keep its slot and its lease forever
        log.exception("failure_not_recorded", job_id=job.id)


async def retry_until_available(call: Callable[[], Awaitable[Any]]) -> Any:
    """Repeat a call until the service is available, so that a worker loses no outcome in an outage."""
    while True:
        try:
            return await call()
        except TransientError as error:
            log.warning("waiting_for_service", error=str(error))
            await asyncio.sleep(RETRY_SECONDS)


def _count(function: JobFunction | str, running: RunningJob, context: WorkerContext) -> JobUsage:
    """What a job cost that has ended."""
    usage, meta, settings = running.usage, running.meta, context.settings
    usage.model = settings.embedding_name
    if function == JobFunction.PROCESS_QUERY:
        usage.model = settings.llm_model or EXTRACTIVE if context.llm else EXTRACTIVE
    usage.waited_ms = meta.queued_ms or 0
    usage.retrieve_ms, usage.answer_ms = meta.retrieve_ms or 0, meta.answer_ms or 0
    return usage


async def _note_spent(running: RunningJob, context: WorkerContext) -> None:
    """Note the tokens of an attempt that does not end its job: it was cancelled, or runs again."""
    spent = running.usage
    if not spent.tokens:
        return
    spent.requests, spent.documents, spent.pages = 0, 0, 0
    spent.model = context.settings.llm_model or context.settings.embedding_name
    try:
        await context.queue.usage.add(running.id, running.tenant_id, spent)
    except TransientError as error:
        log.warning("usage_lost", job_id=running.id, tokens=spent.tokens, error=str(error))


def _measure(function: JobFunction | str, running: RunningJob, error: RagqError | None) -> None:
    name = function.rpartition(".")[2]
    metrics.ENDED.labels(name, error.code if error else "finished").inc()
    metrics.RUN.labels(name).observe((running.meta.run_ms or 0) / 1000)
    for stage in STAGES:
        if (took_ms := getattr(running.meta, stage)) is not None:
            metrics.STAGE.labels(stage.removesuffix("_ms")).observe(took_ms / 1000)
