"""The page's session: a signed cookie that replaces the API key and does not contain it."""

from __future__ import annotations

import hmac
import secrets
import time

COOKIE = "ragq_session"
SESSION_SECONDS = 12 * 3600


def open_session(key: str, key_id: str) -> str:
    """Make the cookie's value: its expiry, whose it is, and a signature made with `RAGQ_API_KEY`.

    Args:
        key_id: Of the key that opened it; empty for `RAGQ_API_KEY`.
    """
    said = f"{int(time.time()) + SESSION_SECONDS}.{key_id}"
    return f"{said}.{_sign(said, key)}"


def read_session(cookie: str, key: str) -> str | None:
    """The id of the key that opened a session; None if the cookie's signature is wrong or it has expired."""
    said, _, signature = cookie.rpartition(".")
    if not secrets.compare_digest(signature.encode(), _sign(said, key).encode()):
        return None
    ends_at, _, key_id = said.partition(".")
    return key_id if int(ends_at) > time.time() else None


def _sign(said: str, key: str) -> str:
    return hmac.new(key.encode(), f"ragq session {said}".encode(), "sha256").hexdigest()
