"""What every route needs: the clients, who is asking, and strictness about unknown parameters."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Depends, Query, Request, Response

from ragq.context import Context
from ragq.http.keys import KeyCheck
from ragq.http.readiness import Readiness
from ragq.records import Job
from ragq.routes.streams import Streams
from ragq.schemas.objects import Listed, Listing
from ragq.storage.paging import Page
from ragq.tasks import end_tasks

T = TypeVar("T")

POLL_SECONDS = 0.3  # when nothing is known of a job
POLL_LIMITS_SECONDS = (0.1, 5.0)


@dataclass(kw_only=True)
class ApiContext(Context):
    """The connections of an API process, and what HTTP adds.

    Attributes:
        keys: Checks the API key; None when there is none.
    """

    streams: Streams
    not_ready: str | None = "starting"
    keys: KeyCheck | None = None
    readiness: Readiness = field(default_factory=Readiness)


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


async def _context(request: Request) -> ApiContext:
    context: ApiContext = request.app.state.context
    return context


ContextDependency = Annotated[ApiContext, Depends(_context)]


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
