"""The address of the MCP server. The SDK (27 MB) is loaded when the first MCP client calls."""

from __future__ import annotations

import asyncio
import importlib
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from starlette.types import Message, Receive, Scope, Send

from ragq.accounts.views import TenantView
from ragq.http.audit import Change, actor_of
from ragq.http.callers import Caller
from ragq.http.input import CheckedRoute
from ragq.models import DEFAULT_STORE_NAME
from ragq.routes.context import AnyCaller, ApiContext, ContextDependency
from ragq.storage.tenancy.audit_log import Action, Actor

router = APIRouter(route_class=CheckedRoute)


@dataclass(frozen=True, slots=True)
class Reach:
    """What a request may reach.

    Attributes:
        store_id: The vector store that every tool works on.
        base_url: The API's address as the client sees it, without a slash at its end.
        actor: The caller, for the audit log.
    """

    context: ApiContext
    caller: Caller
    store_id: str
    base_url: str
    actor: Actor

    @property
    def tenant(self) -> TenantView:
        return self.caller.view

    def change(self, action: Action) -> Change:
        """What a tool changes, for the audit log."""
        return Change(self.context.audit_log, self.actor, action)


class _Exchange(Response):
    """A response that the SDK writes.

    Args:
        message: The request's body.
    """

    def __init__(self, reach: Reach, message: bytes) -> None:
        super().__init__()
        self._reach = reach
        self._message = message

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        read = iter([{"type": "http.request", "body": self._message}])

        async def receive_again() -> Message:
            return next(read, None) or await receive()

        server = await asyncio.to_thread(importlib.import_module, "ragq.mcp.server")
        await server.Exchange(self._reach).run(scope, receive_again, send)


@router.post("/mcp", include_in_schema=False)  # JSON-RPC, which OpenAPI cannot describe
async def exchange(
    request: Request,
    context: ContextDependency,
    caller: AnyCaller,
    store_id: Annotated[str, Query(alias="vector_store_id")] = DEFAULT_STORE_NAME,
) -> Response:
    """Answer one message of an MCP client."""
    scheme = request.headers.get("x-forwarded-proto", request.url.scheme)
    base_url = str(request.base_url.replace(scheme="https" if scheme == "https" else "http"))
    reach = Reach(context, caller, store_id, base_url.rstrip("/"), actor_of(caller, request))
    return _Exchange(reach, await request.body())  # read here, where a body over the limit is refused as elsewhere
