"""What every route needs: the clients, who is asking, and strictness about unknown parameters."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Query, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict

from ragq.client.blob_client import BlobStore
from ragq.client.database import Database
from ragq.client.rq_client import JobQueue
from ragq.client.store_client import Page, Store
from ragq.errors import AuthenticationError, InvalidRequestError
from ragq.models import DEFAULT_TENANT
from ragq.settings import Settings

IGNORED_PARAMETERS = {"api-version"}  # sent by clients made for Azure


@dataclass(slots=True)
class Context:
    """The clients of an API process.

    Attributes:
        not_ready: Why the process cannot serve yet; None when it can.
    """

    settings: Settings
    queue: JobQueue
    database: Database
    store: Store
    blobs: BlobStore
    not_ready: str | None = "starting"


class Body(BaseModel):
    """A request body: what it does not name is refused, never ignored."""

    model_config = ConfigDict(extra="forbid")


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


ContextDependency = Annotated[Context, Depends(_context)]


def _tenant(request: Request, context: ContextDependency) -> str:
    """Check the API key and tell whose data the request may touch."""
    wanted = context.settings.api_key
    if wanted is not None:
        given = request.headers.get("api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")
        if not secrets.compare_digest(given.encode(), wanted.get_secret_value().encode()):
            raise AuthenticationError(
                "The API key is missing or wrong. Send it as 'Authorization: Bearer KEY'; it is RAGQ_API_KEY."
            )
    return DEFAULT_TENANT


Tenant = Annotated[str, Depends(_tenant)]


def refuse_unknown_parameters(request: Request) -> None:
    """Refuse query parameters that the route does not have.

    Raises:
        InvalidRequestError: Naming the parameter.
    """
    route: APIRoute = request.scope["route"]
    known = {field.alias for dependant in _dependants(route.dependant) for field in dependant.query_params}
    for name in request.query_params:
        if name not in known | IGNORED_PARAMETERS:
            raise InvalidRequestError(
                f"Unknown or unsupported parameter: '{name}'. Leave it out.", code="unknown_parameter", param=name
            )


def _dependants(dependant: Any) -> list[Any]:
    return [dependant, *(inner for one in dependant.dependencies for inner in _dependants(one))]


def _page(
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Annotated[str, Query(pattern="^(asc|desc)$")] = "desc",
    after: Annotated[str | None, Query(max_length=100)] = None,
) -> Page:
    return Page(limit, descending=order == "desc", after=after)


PageDependency = Annotated[Page, Depends(_page)]


def listing(objects: list[dict[str, Any]], page: Page) -> dict[str, Any]:
    """Wrap objects, of which there may be one more than the page holds, as OpenAI's list."""
    shown = objects[: page.limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(objects) > page.limit,
    }
