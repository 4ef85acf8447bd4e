"""Spans as the bytes of OTLP, protobuf's form of them (https://opentelemetry.io/docs/specs/otlp).

The SDK's encoder makes an object of each span, attribute and value, which takes five times as long.
A message is a row of fields: a tag, which is number and type in one, then a number, or a length and bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final

_NUMBER, _BYTES, _FIXED32 = 0, 2, 5  # protobuf's types; a number has as many bytes as it needs
_MASK64: Final = (1 << 64) - 1
_TIMES: Final = struct.Struct("<BQBQ").pack  # 7: started, 8: ended
_DOUBLE: Final = struct.Struct("<Bd").pack
_FLAGS: Final = struct.Struct("<I").pack
_FAILED: Final = b"\x7a\x02\x18\x02"  # 15: status, in it 3: code, an error
_HAS_IS_REMOTE, _IS_REMOTE = 0x100, 0x200


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_SHORT: Final = tuple(bytes((length,)) for length in range(128))


def _field(tag: bytes, content: bytes) -> bytes:
    length = len(content)
    return tag + (_SHORT[length] if length < len(_SHORT) else _number(length)) + content


def _tag(number: int, kind: int = _BYTES) -> bytes:
    return _number(number << 3 | kind)


_ONE, _TWO, _THREE, _FOUR, _FIVE, _NINE = (_tag(number) for number in (1, 2, 3, 4, 5, 9))
_KIND, _SPAN_FLAGS = _tag(6, _NUMBER), _tag(16, _FIXED32)


def _value(value: Any) -> bytes:
    """An AnyValue: 1 a text, 2 a boolean, 3 a whole number, 4 a float, 5 a list."""
    if isinstance(value, str):
        return _field(_ONE, value.encode("utf-8", "replace"))
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        return b"\x18" + _number(value & _MASK64)
    if isinstance(value, float):
        return _DOUBLE(0x21, value)
    if isinstance(value, list | tuple):
        return _field(_FIVE, b"".join(_field(_ONE, _value(one)) for one in value))
    return _field(_ONE, str(value).encode("utf-8", "replace"))


@cache
def _name(name: str) -> bytes:
    """The name of an attribute; there are few."""
    return _field(_ONE, name.encode())


def _attributes(tag: bytes, attributes: Mapping[str, Any]) -> bytes:
    return b"".join(
        _field(tag, _name(name) + _field(_TWO, _value(value)))
        for name, value in attributes.items()
        if value is not None
    )


def encode_span(
    ids: tuple[int, int],
    parent: tuple[int, bool] | None,
    state: str,
    name: str,
    kind: int,
    times: tuple[int, int],
    attributes: Mapping[str, Any],
    *,
    failed: bool,
) -> bytes:
    """A span, as a field of those of one program.

    Args:
        ids: Of its trace and its own.
        parent: Its id, and whether it is another process's.
        state: As `tracestate`.
        kind: As OTLP numbers them.
        times: When it began and ended, Unix times in ns.
        attributes: None values are left out.
    """
    flags = _HAS_IS_REMOTE
    parts = [_ONE, b"\x10", ids[0].to_bytes(16), _TWO, b"\x08", ids[1].to_bytes(8)]
    if state:
        parts.append(_field(_THREE, state.encode()))
    if parent:
        parts += (_FOUR, b"\x08", parent[0].to_bytes(8))
        flags |= _IS_REMOTE if parent[1] else 0
    parts += (
        _field(_FIVE, name.encode("utf-8", "replace")),
        _KIND,
        _SHORT[kind],
        _TIMES(0x39, times[0], 0x41, times[1]),
        _attributes(_NINE, attributes),
        _FAILED if failed else b"",
        _SPAN_FLAGS,
        _FLAGS(flags),
    )
    return _field(_TWO, b"".join(parts))


def encode_program(name: str, version: str, resource: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """What `encode_request` needs: the process's facts, and who made the spans."""
    scope = _field(_ONE, name.encode()) + _field(_TWO, version.encode())
    return _field(_ONE, _attributes(_ONE, resource)), _field(_ONE, scope)


def encode_request(program: tuple[bytes, bytes], spans: Iterable[bytes]) -> bytes:
    """A request to a collector with spans of `encode_span`."""
    resource, scope = program
    return _field(_ONE, resource + _field(_TWO, scope + b"".join(spans)))
