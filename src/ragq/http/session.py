"""The page's session: a signed cookie that replaces the API key and does not contain it, or that names who has signed in."""

from __future__ import annotations

import hmac
import secrets
import time
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

COOKIE = "ragq_session"
SESSION_SECONDS = 12 * 3600


def open_session(key: str, holder_id: str) -> str:
    """Make the cookie's value: its expiry, whose it is, and a signature made with `RAGQ_API_KEY`.

    Args:
        holder_id: Of the key that opened it, empty for `RAGQ_API_KEY`; or of the session of someone who signed in, which
            PostgreSQL has and may end sooner.
    """
    said = f"{int(time.time()) + SESSION_SECONDS}.{holder_id}"
    return f"{said}.{_sign(said, key)}"


def read_session(cookie: str, key: str) -> str | None:
    """Whose a session is, as `open_session` has it; None if the cookie's signature is wrong or it has expired."""
    said, _, signature = cookie.rpartition(".")
    if not secrets.compare_digest(signature.encode(), _sign(said, key).encode()):
        return None
    ends_at, _, holder_id = said.partition(".")
    return holder_id if int(ends_at) > time.time() else None


def set_cookie(
    response: Response,
    request: Request,
    value: str,
    *,
    name: str = COOKIE,
    path: str = "/",
    max_seconds: int | None = None,
    samesite: Literal["strict", "lax"] = "strict",
) -> None:
    """Set a cookie that no script can read, and that is kept to TLS if the browser has reached us by it."""
    is_secure = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
    response.set_cookie(name, value, max_age=max_seconds, path=path, secure=is_secure, httponly=True, samesite=samesite)


def _sign(said: str, key: str) -> str:
    return hmac.new(key.encode(), f"ragq session {said}".encode(), "sha256").hexdigest()
