"""Checks on every request: no text that cannot be stored, no NaN, no oversized JSON.

They run over the whole request before its fields are validated, so a new field cannot miss them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.datastructures import FormData, UploadFile

from ragq.schemas.checks import MAX_VALUES, NO_TEXT, check_json, check_text, refusal

SPECIAL = re.compile(rb"%00|%[89a-f]|[\0\x80-\xff]", re.IGNORECASE)  # everything else in an address is ASCII text


class CheckedRoute(APIRoute):
    """A route that checks the whole request before its fields are validated; every router uses it."""

    max_values = MAX_VALUES  # of a JSON body

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Run the checks before FastAPI's handler."""
        handle = super().get_route_handler()

        async def check_and_handle(request: Request) -> Response:
            checked = _CheckedRequest(request.scope, request.receive)
            checked.max_values = self.max_values
            _check_address(checked)
            return await handle(checked)

        return check_and_handle


class _CheckedRequest(Request):
    max_values = MAX_VALUES

    async def json(self) -> Any:
        body = await super().json()
        check_json(body, max_values=self.max_values)
        return body

    async def form(self, **limits: Any) -> FormData:  # type: ignore[override]  # FastAPI awaits it
        form = await super().form(**limits)
        for name, value in form.multi_items():
            check_text(name, "")
            check_text((value.filename or "") if isinstance(value, UploadFile) else value, name)
        return form


def _check_address(request: Request) -> None:
    path, query = request.scope["raw_path"].partition(b"?")[0], request.scope["query_string"]
    if not _is_text(path.replace(b"%00", b"")):  # an id with U+0000 is simply unknown
        raise refusal("", NO_TEXT)
    if not _is_text(query):
        for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True, errors="surrogateescape"):
            check_text(name, "")
            check_text(value, name)


def _is_text(quoted: bytes) -> bool:
    """Whether a part of an address, once unescaped, is text that can be stored."""
    if not SPECIAL.search(quoted):
        return True
    content = unquote_to_bytes(quoted)
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in content
