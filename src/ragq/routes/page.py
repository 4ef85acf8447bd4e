"""The web page and the console, their parts, and their session."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import SecretStr

from ragq.errors import AuthenticationError, ForbiddenError, NotFoundError
from ragq.http.callers import Caller
from ragq.http.input import CheckedRoute
from ragq.http.openapi import refusals
from ragq.http.session import COOKIE, set_cookie
from ragq.routes.context import ApiContext, ContextDependency
from ragq.schemas.objects import Body

router = APIRouter(route_class=CheckedRoute)

MEDIA_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
HEADERS = {
    "Cache-Control": "no-cache",  # cached but revalidated, so that a new version is used at once
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
PARTS = {part.name: part.read_bytes() for part in (resources.files("ragq") / "web").iterdir() if part.is_file()}


class SessionCreate(Body):
    """The API key for a session."""

    key: SecretStr


@router.get("/", include_in_schema=False)
async def show_page(request: Request) -> Response:
    """Send the page."""
    return _send("index.html", request)


@router.get("/console", include_in_schema=False)
async def show_console(request: Request) -> Response:
    """Send the console."""
    return _send("console.html", request)


@router.get("/web/{name}", include_in_schema=False)
async def show_part(name: str, request: Request) -> Response:
    """Send a style sheet, a script or an image of the page."""
    if name not in PARTS:
        raise NotFoundError(f"The page has no part '{name[:80]}'.", code="unknown_url")
    return _send(name, request)


def _send(name: str, request: Request) -> Response:
    tag = f'"{hashlib.sha256(PARTS[name]).hexdigest()[:32]}"'
    headers = HEADERS | {"ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(PARTS[name], media_type=MEDIA_TYPES[name.rpartition(".")[2]], headers=headers)


@router.get("/session")
async def show_session(request: Request, context: ContextDependency) -> dict[str, Any]:
    """Show whether a key is set, whether this browser must send it, its role, who has signed in, and where people do."""
    caller = await _find_caller(context, request.cookies.get(COOKIE, ""))
    person = caller and caller.person
    return {
        "object": "session",
        "key_required": context.keys.is_required,
        "is_open": caller is not None,
        "role": caller and caller.role,
        "tenant": caller and caller.tenant,
        "person": {"name": person.name, "tenant": caller.tenant, "role": caller.role} if caller and person else None,
        "sign_in_url": context.sign_in and context.sign_in.url,
    }


async def _find_caller(context: ApiContext, cookie: str) -> Caller | None:
    try:
        return await context.keys.check_session(cookie)
    except (AuthenticationError, ForbiddenError):
        return None


@router.post("/session", status_code=204, responses=refusals(401, 429))
async def create_session(body: SessionCreate, request: Request, context: ContextDependency) -> Response:
    """Check the key and set a cookie that replaces it for 12 hours, if it is valid for so long."""
    response, keys = Response(status_code=204), context.keys
    if keys.is_required:
        caller = await keys.check(body.key.get_secret_value(), request.client.host if request.client else "")
        set_cookie(response, request, keys.open_session(caller))
        keys.tally.count_sign_in(caller, request)
    return response


@router.delete("/session", status_code=204)
async def delete_session(request: Request, context: ContextDependency) -> Response:
    """End the session, and delete the cookie."""
    await context.keys.end_session(request.cookies.get(COOKIE, ""))
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response
