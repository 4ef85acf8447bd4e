"""Signing in and out of the page by way of an OpenID provider.

A browser that fails to sign in is sent to the page, which tells why by the code in the address.
"""

from __future__ import annotations

from typing import Any, Literal

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from typing_extensions import TypedDict

from ragq.errors import NotFoundError, RagqError, UnavailableError
from ragq.http.callers import Caller
from ragq.http.input import CheckedRoute
from ragq.http.session import COOKIE, set_cookie
from ragq.http.sign_in import CALLBACK, SignIn
from ragq.routes.context import ApiContext, ContextDependency

log = structlog.get_logger(__name__)

router = APIRouter(route_class=CheckedRoute)

STATE_COOKIE = "ragq_sign_in"  # the secret of a sign-in that has begun
STATE_SECONDS = 600
TOKEN_COOKIE = "ragq_id_token"  # noqa: S105  (a name)  # which the provider wants to see when its user signs out
LONGEST_COOKIE = 3800  # characters; browsers drop longer ones


class SignedOut(TypedDict):
    """The session has ended."""

    object: Literal["session.ended"]
    provider_url: str | None


@router.get("/session/sign-in", include_in_schema=False)
async def begin_sign_in(request: Request, context: ContextDependency) -> Response:
    """Send a browser to the provider."""
    sign_in = _find_sign_in(context)
    try:
        url, secret = await sign_in.begin()
    except RagqError as error:
        return _send_to_page(sign_in, error)
    response = _redirect(url)
    cookie: dict[str, Any] = {"name": STATE_COOKIE, "path": sign_in.folder, "max_seconds": STATE_SECONDS}
    set_cookie(response, request, secret, samesite="lax", **cookie)  # the way back comes from another website
    return response


@router.get(CALLBACK, include_in_schema=False)
async def complete_sign_in(request: Request, context: ContextDependency) -> Response:
    """Open the session of someone whom the provider sends back."""
    sign_in = _find_sign_in(context)
    try:
        signed_in = await sign_in.complete(request.query_params, request.cookies.get(STATE_COOKIE, ""))
        session_id = await context.sessions.create(
            signed_in.person, tenant_id=signed_in.tenant, role=signed_in.role, expires_at=signed_in.expires_at
        )
    except RagqError as error:
        context.keys.tally.count_failed_sign_in(request, error)
        response = _send_to_page(sign_in, error)
    else:
        caller = Caller(signed_in.tenant, signed_in.role, session_id=session_id, person=signed_in.person)
        context.keys.tally.count_sign_in(caller, request)
        log.info("signed_in", subject=signed_in.person.subject, tenant=signed_in.tenant, role=signed_in.role)
        response = _redirect(sign_in.home)
        set_cookie(response, request, context.keys.open_signed_in(session_id))
        if len(signed_in.id_token) <= LONGEST_COOKIE:
            set_cookie(response, request, signed_in.id_token, name=TOKEN_COOKIE, path=sign_in.folder)
    response.delete_cookie(STATE_COOKIE, path=sign_in.folder)
    return response


@router.post("/session/sign-out")
async def sign_out(request: Request, response: Response, context: ContextDependency) -> SignedOut:
    """End the session, and tell where the browser signs out of the provider, too."""
    was_signed_in, url = await context.keys.end_session(request.cookies.get(COOKIE, "")), None
    if was_signed_in and context.sign_in:
        try:
            url = await context.sign_in.find_sign_out(request.cookies.get(TOKEN_COOKIE))
        except UnavailableError as error:
            log.warning("provider_not_signed_out", error=str(error))
        response.delete_cookie(TOKEN_COOKIE, path=context.sign_in.folder)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return {"object": "session.ended", "provider_url": url}


def _find_sign_in(context: ApiContext) -> SignIn:
    if context.sign_in is None:
        raise NotFoundError("No OpenID provider is set: RAGQ_OIDC_ISSUER.", code="no_sign_in")
    return context.sign_in


def _send_to_page(sign_in: SignIn, error: RagqError) -> Response:
    log.warning("sign_in_failed", code=error.code, error=str(error))
    return _redirect(f"{sign_in.home}#sign-in={error.code}")


def _redirect(url: str) -> Response:
    return RedirectResponse(
        url, status_code=303, headers={"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    )
