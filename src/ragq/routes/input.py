"""What no request may hold, in whatever field: text that cannot be stored, numbers that are none, JSON without measure.

Nor may it have query parameters that its route does not know.
It is looked for in all of a request before any field is, so a new field cannot forget it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.datastructures import FormData, UploadFile

from ragq.errors import InvalidRequestError

MAX_VALUES = 20_000  # of one body, with the values in its values; checking fields takes up to 25 µs for each
MAX_DEPTH = 64
MAX_NUMBER = 2**63
SPECIAL = re.compile(rb"%00|%[89a-f]|[\0\x80-\xff]", re.IGNORECASE)  # all else in an address is ASCII text
IGNORED_PARAMETERS = ("api-version",)  # sent by clients made for Azure
NO_TEXT = "this is not text: it holds half of a surrogate pair, or bytes that are not UTF-8"

_Place = tuple[Any, str | int, int]  # the place of the container, the name in it, how deep


class CheckedRoute(APIRoute):
    """A route that looks through what it is sent before a field of it is read; every router has these."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Put the checks before what FastAPI does."""
        handle, known = super().get_route_handler(), _known_parameters(self.dependant)

        async def check_and_handle(request: Request) -> Response:
            checked = _CheckedRequest(request.scope, request.receive)
            _check_address(checked, known)
            return await handle(checked)

        return check_and_handle


class _CheckedRequest(Request):
    async def json(self) -> Any:
        body = await super().json()
        check_json(body)
        return body

    async def form(self, **limits: Any) -> FormData:  # type: ignore[override]  # FastAPI awaits it
        form = await super().form(**limits)
        for name, value in form.multi_items():
            _check_text(name, "")
            _check_text((value.filename or "") if isinstance(value, UploadFile) else value, name)
        return form


def _known_parameters(dependant: Dependant) -> set[str]:
    """Name the query parameters that a route takes."""
    names, dependants = set(IGNORED_PARAMETERS), [dependant]
    for one in dependants:
        names |= {field.alias for field in one.query_params}
        dependants += one.dependencies
    return names


def _check_address(request: Request, known: set[str]) -> None:
    path, query = request.scope["raw_path"].partition(b"?")[0], request.scope["query_string"]
    if not _is_text(path.replace(b"%00", b"")):  # an id with U+0000 is just unknown
        raise _refusal("", NO_TEXT)
    if not _is_text(query):
        for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True, errors="surrogateescape"):
            _check_text(name, "")
            _check_text(value, name)
    for name in request.query_params if query else ():
        if name not in known:
            raise InvalidRequestError(
                f"Unknown or unsupported parameter: '{name}'. Leave it out.", code="unknown_parameter", param=name
            )


def _is_text(quoted: bytes) -> bool:
    """Whether a part of an address, with its escapes, is text that can be stored."""
    if not SPECIAL.search(quoted):
        return True
    content = unquote_to_bytes(quoted)
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in content


def check_json(body: Any, *, allow_nul: bool = False) -> None:
    """Look through JSON of any form, in time linear in its size.

    Args:
        allow_nul: U+0000 is no fault here.

    Raises:
        InvalidRequestError: Naming the field.
    """
    nodes: list[tuple[Any, _Place]] = [(body, (None, "", 0))]
    count = 0
    while nodes:
        value, place = nodes.pop()
        if isinstance(value, str):
            if not value.isascii() or "\0" in value:
                _check_text(value, _name(place), allow_nul=allow_nul)
        elif isinstance(value, dict | list):
            count += len(value)
            if count > MAX_VALUES or place[2] >= MAX_DEPTH:
                raise InvalidRequestError(
                    f"The body has at most {MAX_VALUES} values, nested at most {MAX_DEPTH} deep. Send less at once."
                )
            items = value.items() if isinstance(value, dict) else enumerate(value)
            for key, inner in items:
                if isinstance(key, str):
                    _check_text(key, _name(place), allow_nul=allow_nul)
                nodes.append((inner, (place, key, place[2] + 1)))
        elif isinstance(value, int | float) and not -MAX_NUMBER < value < MAX_NUMBER:  # NaN is in no range
            raise _refusal(_name(place), "a number is finite and below 2^63")


def _check_text(text: str, name: str, *, allow_nul: bool = False) -> None:
    if "\0" in text and not allow_nul:
        raise _refusal(name, "text cannot hold the character U+0000")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _refusal(name, NO_TEXT) from error


def _refusal(name: str, fault: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"Wrong value for '{name or 'body'}': {fault}.", code="invalid_value", param=name or None
    )


def _name(place: _Place) -> str:
    """Write where a value is, as `input.0.content`."""
    names: list[str] = []
    while place[0] is not None:
        names.append(str(place[1]))
        place = place[0]
    return ".".join(reversed(names))
