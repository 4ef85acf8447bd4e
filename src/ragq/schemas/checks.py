"""What no JSON and no text of a request may hold, in whatever field.

It is looked for in all of a request before any field is, so a new field cannot forget it.
"""

from __future__ import annotations

from typing import Any

from ragq.errors import InvalidRequestError

MAX_VALUES = 20_000  # of one body, with the values in its values; checking fields takes up to 25 µs for each
MAX_DEPTH = 64
MAX_NUMBER = 2**63
NO_TEXT = "this is not text: it holds half of a surrogate pair, or bytes that are not UTF-8"

_Place = tuple[Any, str | int, int]  # the place of the container, the name in it, how deep


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
                check_text(value, _name(place), allow_nul=allow_nul)
        elif isinstance(value, dict | list):
            count += len(value)
            if count > MAX_VALUES or place[2] >= MAX_DEPTH:
                raise InvalidRequestError(
                    f"The body has at most {MAX_VALUES} values, nested at most {MAX_DEPTH} deep. Send less at once."
                )
            items = value.items() if isinstance(value, dict) else enumerate(value)
            for key, inner in items:
                if isinstance(key, str):
                    check_text(key, _name(place), allow_nul=allow_nul)
                nodes.append((inner, (place, key, place[2] + 1)))
        elif isinstance(value, int | float) and not -MAX_NUMBER < value < MAX_NUMBER:  # NaN is in no range
            raise refusal(_name(place), "a number is finite and below 2^63")


def check_text(text: str, name: str, *, allow_nul: bool = False) -> None:
    if "\0" in text and not allow_nul:
        raise refusal(name, "text cannot hold the character U+0000")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise refusal(name, NO_TEXT) from error


def refusal(name: str, fault: str) -> InvalidRequestError:
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
