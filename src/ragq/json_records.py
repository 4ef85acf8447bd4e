"""Records as JSON that every reader takes, also what the first version of ragq wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


class UnreadableRecordError(ValueError):
    """A record that no version of ragq has written."""


def write_json(value: Any) -> bytes:
    """Serialize a record; U+FFFD takes the place of lone surrogates, as in some servers' error messages."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return _repair(msgspec.to_builtins(value))


def read_json(
    decoder: msgspec.json.Decoder[T], data: bytes | str | msgspec.Raw, upgrade: Callable[[Any], Any] = lambda raw: raw
) -> T:
    """Parse a record; if that fails, as one of version 1, whose JSON may hold NaN and lone surrogates.

    Args:
        upgrade: Makes the plain values of a record of version 1 those of the present one.

    Raises:
        UnreadableRecordError: No version has written it.
    """
    try:
        return decoder.decode(data)
    except msgspec.MsgspecError as error:
        try:
            raw = json.loads(data if isinstance(data, bytes | str) else bytes(data), parse_constant=lambda _: None)
            return decoder.decode(_repair(upgrade(raw)))
        except (msgspec.MsgspecError, ValueError, LookupError, TypeError, AttributeError):
            raise UnreadableRecordError(str(error)) from error


def _repair(raw: Any) -> bytes:
    """Serialize plain values as JSON, with U+FFFD for lone surrogates."""
    text = json.dumps(raw, ensure_ascii=False)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
