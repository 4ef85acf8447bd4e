"""Attributes of files, and OpenAI's filters on them, in requests."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ragq.models import AttributeFilter
from ragq.schemas.objects import Body

MAX_DEPTH = 8
MAX_PARTS = 128
MAX_VALUES = 256
MAX_KEY_CHARACTERS = 64
MAX_VALUE_CHARACTERS = 512


def _is_storable(text: str, most: int) -> bool:
    """Whether PostgreSQL can store a text: no NUL, no lone surrogate."""
    return len(text) <= most and not any(one == "\0" or "\ud800" <= one <= "\udfff" for one in text)


def _check_key(key: Any) -> Any:
    if not isinstance(key, str) or not key or not _is_storable(key, MAX_KEY_CHARACTERS):
        raise ValueError(f"a key must be a string of 1 to {MAX_KEY_CHARACTERS} characters")
    return key


def _check_value(value: Any) -> Any:
    if isinstance(value, str) and _is_storable(value, MAX_VALUE_CHARACTERS):
        return value
    if isinstance(value, int | float) and abs(value) <= sys.float_info.max:
        return value
    raise ValueError(f"a value must be a string of at most {MAX_VALUE_CHARACTERS} characters, a number or a boolean")


def _check_ordered(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("booleans cannot be ordered")  # noqa: TRY004  (pydantic's protocol)
    return value


def _check_size(filters: Any) -> Any:
    """Limit a filter's size before it is validated."""
    parts, nodes = 0, [(filters, 1)]
    while nodes:
        node, depth = nodes.pop()
        parts += 1
        if depth > MAX_DEPTH or parts > MAX_PARTS:
            raise ValueError(f"a filter may have at most {MAX_PARTS} parts, nested at most {MAX_DEPTH} deep")
        inner = node.get("filters") if isinstance(node, dict) else None
        nodes += [(one, depth + 1) for one in inner] if isinstance(inner, list) else []
    return filters


Key = Annotated[str, BeforeValidator(_check_key)]
Value = Annotated[str | bool | float, BeforeValidator(_check_value)]
Ordered = Annotated[str | float, BeforeValidator(_check_value), BeforeValidator(_check_ordered)]
AttributeValues = Annotated[dict[Key, Value], Field(max_length=16)]


class Equality(Body):
    """The attribute equals a value, or does not."""

    type: Literal["eq", "ne"]
    key: Key
    value: Value


class Order(Body):
    """The attribute is less or greater than a value."""

    type: Literal["gt", "gte", "lt", "lte"]
    key: Key
    value: Ordered


class Membership(Body):
    """The attribute is one of some values, or is not."""

    type: Literal["in", "nin"]
    key: Key
    value: list[Value] = Field(max_length=MAX_VALUES)


class Compound(Body):
    """All or any of some filters match."""

    type: Literal["and", "or"]
    filters: list[Part] = Field(min_length=1)


Part = Annotated[Equality | Order | Membership | Compound, Field(discriminator="type")]
Compound.model_rebuild()
Filter = Annotated[Part, BeforeValidator(_check_size)]


def make_filter(part: Part) -> AttributeFilter:
    """Convert a request's filter to the one stored in a job."""
    if isinstance(part, Compound):
        return AttributeFilter(part.type, filters=[make_filter(inner) for inner in part.filters])
    return AttributeFilter(part.type, part.key, part.value)
