"""The OpenAPI document: FastAPI's, plus the error responses that routes share."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from ragq.accounts.roles import Role
from ragq.http.access import HEALTH, is_keyless
from ragq.http.audit import find_action
from ragq.http.callers import ROLE_CHECKS
from ragq.http.declared import find_declared
from ragq.schemas.objects import ErrorBody

LOCAL = ("/healthz", "/v1/models", "/v1/models/{model}")  # need neither Valkey nor PostgreSQL
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
}
EVENT = {name: {"type": "string"} for name in ("event", "id", "data")}
EVENTS = {"text/event-stream": {"itemSchema": {"type": "object", "properties": EVENT, "required": ["data"]}}}
RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "string"}}}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Declare a route's own error responses, for its `responses`."""
    return {status: _refusal(status) | {"model": ErrorBody} for status in statuses}


def _refusal(status: int) -> dict[str, Any]:
    headers = {"headers": RETRY_AFTER} if status in (429, 503) else {}
    return {"description": HTTPStatus(status).phrase, **headers}


def shows(body: Any, *, or_events: bool = False) -> dict[int | str, dict[str, Any]]:
    """Declare a success body that is not validated when sent; with `or_events`, also a stream of events."""
    return {200: {"model": body, "content": EVENTS if or_events else {}}}


def find_role(route: BaseRoute) -> Role | None:
    """The least role for a route, as one of its dependencies declares it."""
    return max(find_declared(route, ROLE_CHECKS), key=lambda role: role.rank, default=None)


class Application(FastAPI):
    """FastAPI with correct error responses and what routes declare in its OpenAPI document."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._added: list[BaseRoute] = []

    def add(self, router: APIRouter) -> None:
        """Include a router."""
        self.include_router(router)
        self._added += router.routes

    def openapi(self) -> dict[str, Any]:
        """Build the document; FastAPI caches it."""
        document = super().openapi()
        if "securitySchemes" not in document["components"]:
            _complete(document)
            _add_declared(document, self._added)
        return document


def _complete(document: dict[str, Any]) -> None:
    components = document["components"]
    components["securitySchemes"] = SCHEMES
    for name in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(name, None)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _add_refusals(path, operation)


def _add_refusals(path: str, operation: dict[str, Any]) -> None:
    """Add the error responses that follow from an operation's input and dependencies."""
    responses = operation["responses"]
    responses.pop("422", None)  # we answer 400
    statuses = {400, 500}
    if path not in HEALTH:
        statuses.add(403)
    if not is_keyless(path):
        operation["security"] = [{name: []} for name in SCHEMES]
        statuses |= {401, 429}
    if path not in LOCAL:
        statuses.add(503)
    if "{" in path:
        statuses.add(404)
    if "requestBody" in operation:
        statuses.add(413)
    body = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}
    for status in statuses:
        responses.setdefault(str(status), _refusal(status) | {"content": body})
    operation["responses"] = dict(sorted(responses.items()))


def _add_declared(document: dict[str, Any], routes: list[BaseRoute]) -> None:
    """Show the least role for each route, and what it notes in the audit log."""
    for route in routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            shown = {"x-least-role": find_role(route), "x-audit-action": find_action(route)}
            for method in route.methods or ():
                document["paths"][route.path_format][method.lower()].update(
                    {name: value for name, value in shown.items() if value}
                )
