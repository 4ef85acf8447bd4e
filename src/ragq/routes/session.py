"""The page's session: a signed cookie that stands for the API key and does not hold it."""

from __future__ import annotations

import hmac
import secrets
import time
from urllib.parse import urlsplit

from fastapi import Request

from ragq.errors import AuthenticationError

COOKIE = "ragq_session"
SESSION_SECONDS = 12 * 3600
SAFE_METHODS = {"GET", "HEAD"}


def check_key(given: str, key: str) -> None:
    """Compare a key with the right one, in constant time.

    Raises:
        AuthenticationError: They differ.
    """
    if not secrets.compare_digest(given.encode(), key.encode()):
        raise AuthenticationError(
            "The API key is missing or wrong. Send it as 'Authorization: Bearer KEY'; it is RAGQ_API_KEY."
        )


def open_session(key: str) -> str:
    """Make the cookie's value: when it ends, and a signature that only the key's holder can make."""
    ends_at = str(int(time.time()) + SESSION_SECONDS)
    return f"{ends_at}.{_sign(ends_at, key)}"


def is_open(request: Request, key: str) -> bool:
    """Whether a request has the cookie of a session that has not ended."""
    ends_at, _, signature = request.cookies.get(COOKIE, "").partition(".")
    is_ours = secrets.compare_digest(signature.encode(), _sign(ends_at, key).encode())
    return is_ours and int(ends_at) > time.time()


def check_session(request: Request, key: str) -> None:
    """Accept the cookie in place of the key, for a change only from our own page.

    Raises:
        AuthenticationError: The session has ended, or another site sent the request.
    """
    if not is_open(request, key):
        raise AuthenticationError("The session has ended: send the API key to POST /session again.")
    if request.method not in SAFE_METHODS and not _is_same_origin(request):
        raise AuthenticationError(
            "The session's cookie changes things from ragq's own page only: send the API key instead.",
            code="cross_site_request",
        )


def _is_same_origin(request: Request) -> bool:
    site = request.headers.get("sec-fetch-site")
    if site is not None:  # browsers leave it out on plain HTTP beyond loopback
        return site == "same-origin"
    return urlsplit(request.headers.get("origin", "")).netloc == request.headers.get("host")


def _sign(ends_at: str, key: str) -> str:
    return hmac.new(key.encode(), f"ragq session until {ends_at}".encode(), "sha256").hexdigest()
