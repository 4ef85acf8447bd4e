"""OpenAI's attribute filters as SQL conditions on a file's attributes; every key and value is a parameter.

Values compare only with values of the same type. A file without the key matches only `ne` and `nin`.
"""

from __future__ import annotations

import json
from typing import Any

from ragq.errors import PermanentError
from ragq.models import AttributeFilter

_EQUALITY = {
    "eq": "attributes -> %({key})s::text = %({value})s::jsonb",
    "ne": "attributes -> %({key})s::text IS DISTINCT FROM %({value})s::jsonb",
}
_MEMBERSHIP = {
    "in": "attributes -> %({key})s::text = ANY(%({value})s::jsonb[])",
    "nin": "(attributes -> %({key})s::text = ANY(%({value})s::jsonb[])) IS NOT TRUE",
}
_ORDER = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_NUMBERS = "(jsonb_typeof(attributes -> %({key})s::text) = 'number' AND attributes -> %({key})s::text {sign} %({value})s::jsonb)"
_STRINGS = (
    "(jsonb_typeof(attributes -> %({key})s::text) = 'string'"
    ' AND (attributes ->> %({key})s::text) COLLATE "C" {sign} %({value})s::text)'
)
_JUNCTIONS = {"and": " AND ", "or": " OR "}


def compile_filter(filters: AttributeFilter | None) -> tuple[str, dict[str, Any]]:
    """Compile a filter to a condition and its parameters; None matches every file.

    Raises:
        PermanentError: A comparison has a list, a membership test has none, or `and`/`or` is empty.
    """
    if filters is None:
        return "true", {}
    parameters: dict[str, Any] = {}
    return _compile(filters, parameters), parameters


def _compile(node: AttributeFilter, parameters: dict[str, Any]) -> str:
    operator, given = node.type, node.value
    if operator in _JUNCTIONS and node.filters:
        return "(" + _JUNCTIONS[operator].join([_compile(inner, parameters) for inner in node.filters]) + ")"
    if operator in _JUNCTIONS or isinstance(given, list) != (operator in _MEMBERSHIP):
        raise PermanentError("The attribute filter is malformed: see the reference.", code="invalid_filter")
    key, value = f"filter_{len(parameters)}", f"filter_{len(parameters) + 1}"
    parameters[key] = node.key
    if isinstance(given, list):
        parameters[value] = [json.dumps(one) for one in given]
        return _MEMBERSHIP[operator].format(key=key, value=value)
    if operator in _ORDER:
        is_text = isinstance(given, str)
        parameters[value] = given if is_text else json.dumps(given)
        return (_STRINGS if is_text else _NUMBERS).format(key=key, value=value, sign=_ORDER[operator])
    parameters[value] = json.dumps(given)
    return _EQUALITY[operator].format(key=key, value=value)
