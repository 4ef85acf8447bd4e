"""What every route needs: the clients, who is asking, and strictness about unknown parameters."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict

from ragq.client.rq_client import JobQueue
from ragq.errors import InvalidRequestError, UnavailableError
from ragq.models import Job, JobFunction, JobStatus, Lane, QueueName, new_id
from ragq.routes.keys import KeyCheck
from ragq.routes.objects import Listed, Listing
from ragq.routes.readiness import Readiness
from ragq.routes.streams import Streams
from ragq.settings import Settings
from ragq.storage.archive import Archive
from ragq.storage.blobs import BlobStore
from ragq.storage.database import Database
from ragq.storage.files import Files
from ragq.storage.ingests import Ingests
from ragq.storage.paging import Page
from ragq.storage.store_files import StoreFiles
from ragq.storage.vector_stores import Stores
from ragq.tasks import end_tasks

T = TypeVar("T")

NOW_SECONDS = 30.0  # for a job that a connection waits for, ahead of the questions
NOW_KEPT_SECONDS = 60
POLL_SECONDS = 0.3  # when nothing is known of a job
POLL_LIMITS_SECONDS = (0.1, 5.0)


@dataclass(slots=True)
class Context:
    """The clients of an API process.

    Attributes:
        keys: Checks the API key; None when there is none.
        not_ready: Why the process cannot serve yet; None when it can.
    """

    settings: Settings
    queue: JobQueue
    database: Database
    files: Files
    stores: Stores
    store_files: StoreFiles
    ingests: Ingests
    blobs: BlobStore
    archive: Archive
    streams: Streams
    keys: KeyCheck | None = None
    not_ready: str | None = "starting"
    readiness: Readiness = field(default_factory=Readiness)


async def find_job(context: Context, tenant: str, job_id: str) -> Job | None:
    """Read a job, from the archive when it has left Valkey; None when this tenant has none of that id.

    Raises:
        GoneError: It has expired.
    """
    return await context.queue.fetch(job_id, tenant) or await context.archive.fetch(job_id, tenant)


async def perform_now(context: Context, tenant: str, function: JobFunction, **arguments: Any) -> dict[str, Any]:
    """Have a worker do something ahead of the questions, and wait for it: the API holds no embedding model.

    Raises:
        UnavailableError: It was not done in time.
    """
    job_id = new_id("now_")
    enqueued = await context.queue.enqueue(
        function,
        arguments,
        job_id=job_id,
        queue=QueueName.QUERIES,
        lane=Lane.PRIORITY,
        tenant_id=tenant,
        deadline_seconds=NOW_SECONDS,
        keep_seconds=NOW_KEPT_SECONDS,
    )
    try:
        job = await context.queue.wait(job_id, tenant, timeout_seconds=NOW_SECONDS)
        if job is None or job.status is not JobStatus.FINISHED or job.result is None:
            await context.queue.cancel(job_id)
    finally:
        await context.queue.requests.discard(enqueued.job)
    if job is None or job.status is not JobStatus.FINISHED or job.result is None:
        reason = job.error["message"] if job and job.error else "no query worker took it: is one running?"
        raise UnavailableError(f"It was not done in time: {reason}", code="not_done_in_time", retry_after_seconds=2)
    return job.result


async def wait_connected(request: Request, waiting: Coroutine[Any, Any, T]) -> T | None:
    """Wait for something, but only as long as the client is there; None when it has gone."""
    tasks = asyncio.create_task(waiting), asyncio.create_task(_until_gone(request))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return await tasks[0] if tasks[0].done() else None
    finally:
        await end_tasks(tasks)


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def pace_polling(response: Response, job: Job | None) -> None:
    """Tell a poller to look again after half the time that the job is expected to take."""
    seconds = POLL_SECONDS if job is None or job.eta_seconds is None else job.eta_seconds / 2
    shortest, longest = POLL_LIMITS_SECONDS
    response.headers["openai-poll-after-ms"] = str(round(1000 * min(max(seconds, shortest), longest)))


class Body(BaseModel):
    """A request body: what it does not name is refused, never ignored."""

    model_config = ConfigDict(extra="forbid")


async def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


def explain_fault(fault: dict[str, Any], *, skip: int) -> InvalidRequestError:
    """Say in OpenAI's form what pydantic found wrong in a request.

    Args:
        skip: How many parts of the fault's place do not name a field.
    """
    param = ".".join(str(part) for part in fault["loc"][skip:]) or None
    if fault["type"] == "json_invalid":
        return InvalidRequestError("The body is not valid JSON.", code="invalid_json")
    if fault["type"] == "extra_forbidden":
        return InvalidRequestError(f"Unknown or unsupported field: '{param}'.", code="unknown_parameter", param=param)
    code = "missing_required_parameter" if fault["type"] == "missing" else "invalid_value"
    return InvalidRequestError(f"Wrong value for '{param or 'body'}': {fault['msg']}.", code=code, param=param)


ContextDependency = Annotated[Context, Depends(_context)]


async def _tenant(request: Request) -> str:
    """Tell whose data the request may touch; `Access` has checked who asks, before this."""
    tenant: str = request.state.tenant
    return tenant


Tenant = Annotated[str, Depends(_tenant)]


Order = Annotated[Literal["asc", "desc"], Query()]
Cursor = Annotated[str | None, Query(max_length=100)]


async def _page(
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Order = "desc",
    after: Cursor = None,
    before: Cursor = None,
) -> Page:
    return Page(limit, descending=order == "desc", after=after, before=before)


PageDependency = Annotated[Page, Depends(_page)]


def listing(objects: list[Listed], page: Page) -> Listing[Listed]:
    """Wrap objects, of which there may be one more than the page holds, as OpenAI's list."""
    shown = objects[: page.limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(objects) > page.limit,
    }
