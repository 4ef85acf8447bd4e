"""The dependencies of the routes: connections, tenant and page."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Depends, Query, Request, Response
from pydantic import BaseModel

from ragq.accounts.roles import Role
from ragq.accounts.views import TenantView
from ragq.client.job import Enqueued
from ragq.context import Context
from ragq.errors import InvalidRequestError, UnavailableError
from ragq.http.callers import Caller, caller_with, tenant_with, view_with
from ragq.http.keys import KeyCheck
from ragq.http.readiness import Readiness
from ragq.http.sign_in import SignIn
from ragq.parsing.parser import Parser
from ragq.queues.embeddings import PARTS_OF_PROCESS
from ragq.queues.questions import NOT_ANSWERED, Asked, ask
from ragq.records import Job
from ragq.routes.streams import Streams
from ragq.schemas.chat import ChatCompletionCreate
from ragq.schemas.completions import CompletionCreate
from ragq.schemas.objects import Listed, Listing
from ragq.storage.paging import Page
from ragq.tasks import end_tasks

T = TypeVar("T")

FOREGROUND_SECONDS = 590.0  # just below the official clients' timeout
CLIENT_GONE = 499  # seen only by the metrics
POLL_SECONDS = 0.3  # when there is no estimate for a job
POLL_LIMITS_SECONDS = (0.1, 5.0)
DRAWINGS_WAITING = 8
DRAWINGS_AT_ONCE = 2  # pages of PDFs, each a tenth of a second of CPU and 30 MB


class Drawings:
    """Limits how many pages are drawn at once, and how many wait."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(DRAWINGS_AT_ONCE)
        self._taken = 0

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """Wait for a slot.

        Raises:
            UnavailableError: Too many wait already.
        """
        if self._taken >= DRAWINGS_AT_ONCE + DRAWINGS_WAITING:
            raise UnavailableError("Too many pages are being drawn. Try again.", code="busy", retry_after_seconds=1)
        self._taken += 1
        try:
            async with self._slots:
                yield
        finally:
            self._taken -= 1


@dataclass(kw_only=True)
class ApiContext(Context):
    """The connections of an API process, and its state for HTTP.

    Attributes:
        keys: Checks API keys.
        sign_in: Signs people in, if an OpenID provider is set.
        parser: Draws pages of documents in processes of its own, which start with the first page.
        drawings: Limits how many pages are drawn at once.
        embedding_parts: Limits what large requests for embeddings put into the queue at once.
    """

    streams: Streams
    keys: KeyCheck
    sign_in: SignIn | None = None
    not_ready: str | None = "starting"
    readiness: Readiness = field(default_factory=Readiness)
    parser: Parser = field(default_factory=Parser)
    drawings: Drawings = field(default_factory=Drawings)
    embedding_parts: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(PARTS_OF_PROCESS))


async def wait_connected(request: Request, waiting: Coroutine[Any, Any, T]) -> T | None:
    """Await something while the client is connected; None if the client disconnects first."""
    tasks = asyncio.create_task(waiting), asyncio.create_task(_until_gone(request))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return await tasks[0] if tasks[0].done() else None
    finally:
        await end_tasks(tasks)


async def find_asked(context: ApiContext, tenant: TenantView, enqueued: Enqueued) -> Job:
    """Find the job of a question that was just queued, or that a repeat found.

    Raises:
        UnavailableError: It is gone.
    """
    job = await context.queue.fetch(enqueued.job_id, tenant.id)
    if job is None:
        raise UnavailableError(NOT_ANSWERED, code="not_answered")
    return job


def fingerprint_of(kind: str, body: BaseModel, tenant: TenantView) -> str:
    """Hash a request, to tell a repeat from another.

    Args:
        kind: Tells requests of different routes apart.
        tenant: A caller who sees no answers of others does not repeat their requests.
    """
    of_caller = f"{tenant.owner}\n" if tenant.own_only else ""
    fields = json.dumps(body.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(f"{of_caller}{kind}{fields}".encode()).hexdigest()


async def ask_chat(
    context: ApiContext,
    tenant: TenantView,
    job_id: str,
    asked: Asked,
    body: ChatCompletionCreate | CompletionCreate,
    *,
    kind: str,
    is_repeat: bool,
) -> Enqueued:
    """Queue the question of a chat completion, or of an old completion."""
    return await ask(
        context,
        tenant,
        job_id,
        asked.question,
        asked.request,
        fingerprint=fingerprint_of(f"{kind}\n", body, tenant),
        stream="text" if body.stream else "nothing",
        is_repeat=is_repeat,
    )


async def wait_or_cancel(request: Request, context: ApiContext, tenant: TenantView, enqueued: Enqueued) -> Job | None:
    """Wait for a job while the client is connected; None if it disconnects. A new job that has not ended is cancelled."""
    waiting = context.queue.wait(enqueued.job_id, tenant.id, timeout_seconds=FOREGROUND_SECONDS)
    job = await wait_connected(request, waiting)
    if enqueued.created and (job is None or not job.status.is_final):
        await context.queue.cancel(enqueued.job_id)
    return job


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def pace_polling(response: Response, job: Job | None) -> None:
    """Ask a polling client to come back after half of the job's estimated time."""
    seconds = POLL_SECONDS if job is None or job.eta_seconds is None else job.eta_seconds / 2
    shortest, longest = POLL_LIMITS_SECONDS
    response.headers["openai-poll-after-ms"] = str(round(1000 * min(max(seconds, shortest), longest)))


async def _context(request: Request) -> ApiContext:
    context: ApiContext = request.app.state.context
    return context


ContextDependency = Annotated[ApiContext, Depends(_context)]


# Each route declares the least role for it by one of these.
Tenant = Annotated[TenantView, Depends(view_with(Role.READER))]
UserTenant = Annotated[TenantView, Depends(view_with(Role.USER))]
AdminTenant = Annotated[str, Depends(tenant_with(Role.ADMIN))]
AnyCaller = Annotated[Caller, Depends(caller_with(Role.READER))]
Admin = Annotated[Caller, Depends(caller_with(Role.ADMIN))]
Operator = Annotated[Caller, Depends(caller_with(Role.OPERATOR))]


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


async def _include(
    include: Annotated[list[str] | None, Query()] = None,
    include_list: Annotated[list[str] | None, Query(alias="include[]")] = None,
) -> list[str]:
    return [*(include or []), *(include_list or [])]


Include = Annotated[list[str], Depends(_include)]


def cut_page(objects: list[Listed], page: Page) -> Listing[Listed]:
    """Render a page of objects that are all there, oldest first.

    Raises:
        InvalidRequestError: There is no object with the id of `after` or `before`.
    """
    objects = list(reversed(objects)) if page.descending else objects
    ids = [one["id"] for one in objects]
    for name, cursor in (("after", page.after), ("before", page.before)):
        if cursor is not None and cursor not in ids:
            raise InvalidRequestError(
                f"No object has the id given in '{name}'. Leave it out to list from the start.", param=name
            )
    end = ids.index(page.before) if page.before else len(ids)
    objects = objects[ids.index(page.after) + 1 if page.after else 0 : end]
    if page.before and not page.after:
        objects = objects[-page.limit :]
    return listing(objects, page)


def listing(objects: list[Listed], page: Page) -> Listing[Listed]:
    """Render objects as OpenAI's list; one more than the page holds means that there are more."""
    shown = objects[: page.limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(objects) > page.limit,
    }
