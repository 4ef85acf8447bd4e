"""Checks on all JSON and text of a request.

They run over the whole request before its fields are validated, so a new field cannot miss them.
"""

from __future__ import annotations

from typing import Any

from ragq.errors import InvalidRequestError

MAX_VALUES = 20_000  # of one body, counting nested values; validating one takes up to 25 µs
MAX_DEPTH = 64
MAX_NUMBER = 2**63
NO_TEXT = "this is not valid text: it contains a lone surrogate, or bytes that are not UTF-8"

_Place = tuple[Any, str | int, int]  # (place of the container, key in it, depth)


def check_json(body: Any, *, allow_nul: bool = False, max_values: int = MAX_VALUES) -> None:
    """Check JSON of any form, in time linear in its size.

    Args:
        allow_nul: Accept U+0000.
        max_values: Most values, counting nested ones.

    Raises:
        InvalidRequestError: The error names the field.
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
            if count > max_values or place[2] >= MAX_DEPTH:
                raise InvalidRequestError(
                    f"A body may have at most {max_values} values, nested at most {MAX_DEPTH} deep. Send less at once."
                )
            if isinstance(value, list) and _are_small_numbers(value):  # tokens: many, and checked much faster at once
                continue
            items = value.items() if isinstance(value, dict) else enumerate(value)
            for key, inner in items:
                if isinstance(key, str):
                    check_text(key, _name(place), allow_nul=allow_nul)
                nodes.append((inner, (place, key, place[2] + 1)))
        elif isinstance(value, int | float) and not -MAX_NUMBER < value < MAX_NUMBER:  # False for NaN
            raise refusal(_name(place), "a number must be finite and below 2^63")


def _are_small_numbers(values: list[Any]) -> bool:
    return set(map(type, values)) == {int} and min(values) > -MAX_NUMBER and max(values) < MAX_NUMBER


def check_text(text: str, name: str, *, allow_nul: bool = False) -> None:
    if "\0" in text and not allow_nul:
        raise refusal(name, "text cannot contain the character U+0000")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise refusal(name, NO_TEXT) from error


def refusal(name: str, fault: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"Wrong value for '{name or 'body'}': {fault}.", code="invalid_value", param=name or None
    )


def _name(place: _Place) -> str:
    """Format the place of a value, such as `input.0.content`."""
    names: list[str] = []
    while place[0] is not None:
        names.append(str(place[1]))
        place = place[0]
    return ".".join(reversed(names))
