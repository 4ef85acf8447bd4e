"""The page's session: a signed cookie that replaces the API key and does not contain it."""

from __future__ import annotations

import hmac
import secrets
import time

COOKIE = "ragq_session"
SESSION_SECONDS = 12 * 3600


def open_session(key: str) -> str:
    """Make the cookie's value: its expiry, and a signature made with the key."""
    ends_at = str(int(time.time()) + SESSION_SECONDS)
    return f"{ends_at}.{_sign(ends_at, key)}"


def is_open(cookie: str, key: str) -> bool:
    """Whether a cookie's value has a valid signature and has not expired."""
    ends_at, _, signature = cookie.partition(".")
    is_ours = secrets.compare_digest(signature.encode(), _sign(ends_at, key).encode())
    return is_ours and int(ends_at) > time.time()


def _sign(ends_at: str, key: str) -> str:
    return hmac.new(key.encode(), f"ragq session until {ends_at}".encode(), "sha256").hexdigest()
