"""What no request may hold, in whatever field: text that cannot be stored, numbers that are none, JSON without measure.

It is looked for in all of a request before any field is, so a new field cannot forget it.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

from fastapi import Request
from starlette.datastructures import FormData, UploadFile

from ragq.errors import InvalidRequestError

MAX_VALUES = 50_000  # of one body, with the values in its values; checking fields takes up to 25 µs for each
MAX_DEPTH = 64
MAX_NUMBER = 2**63

_Place = tuple[Any, str | int, int]  # the place of the container, the name in it, how deep


async def refuse_bad_input(request: Request) -> None:
    """Look through what a request has sent, as FastAPI has read it by now.

    Raises:
        InvalidRequestError: Naming the field.
    """
    path = unquote_to_bytes(request.scope.get("raw_path", b"").partition(b"?")[0])
    _check_text(path.decode(errors="surrogateescape").replace("\0", ""), "")  # an id with U+0000 is just unknown
    query = request.scope["query_string"].decode("latin-1")
    for name, value in parse_qsl(query, keep_blank_values=True, errors="surrogateescape"):
        _check_text(name, "")
        _check_text(value, name)
    form: FormData | None = getattr(request, "_form", None)
    for name, value in form.multi_items() if form else ():
        _check_text(name, "")
        _check_text((value.filename or "") if isinstance(value, UploadFile) else value, name)
    if (body := getattr(request, "_json", None)) is not None:
        check_json(body)


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
        raise _refusal(
            name, "this is not text: it holds half of a surrogate pair, or bytes that are not UTF-8"
        ) from error


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
