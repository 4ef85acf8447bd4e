"""The form of answers in JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, TypeAdapter

from ragq.models import Question

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

FORMATS = ("json_object", "json_schema")
FENCE = "```"


class FormError(ValueError):
    """A schema, or an answer, does not have the form it must have; the message says where."""


def is_structured(query: Question) -> bool:
    """Whether the answer must be JSON."""
    return (query.options.get("response_format") or {}).get("type") in FORMATS


def unwrap(text: str) -> str:
    """The JSON of an answer, which some models put into a block of code."""
    fenced = text.strip()
    if fenced.startswith(FENCE) and fenced.endswith(FENCE):
        return fenced.removesuffix(FENCE).partition("\n")[2].strip()
    return text.lstrip()


def check_schema(schema: Any) -> None:
    """Check that answers can be held to a schema.

    Raises:
        FormError: It is not a JSON schema.
    """
    from jsonschema.exceptions import SchemaError  # noqa: PLC0415  (few requests need it)

    validator = _make_validator(schema)
    try:
        validator.check_schema(schema)
    except SchemaError as error:
        raise FormError(f"{'.'.join(map(str, error.absolute_path)) or 'schema'}: {error.message[:200]}") from error


def check_answer(text: str, response_format: dict[str, Any]) -> None:
    """Check that an answer is JSON and, where one was given, fits the schema.

    Raises:
        FormError: It does not.
    """
    from jsonschema.exceptions import ValidationError  # noqa: PLC0415
    from referencing.exceptions import Unresolvable  # noqa: PLC0415

    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormError("it is not JSON") from error
    schema = (response_format.get("json_schema") or {}).get("schema")
    if response_format["type"] == "json_object" and not isinstance(value, dict):
        raise FormError("it is not a JSON object")
    if schema is None:
        return
    try:
        _make_validator(schema).validate(value)
    except ValidationError as error:
        place = ".".join(map(str, error.absolute_path)) or "the whole"
        raise FormError(f"{place} breaks the schema's rule '{error.validator}'") from error
    except (Unresolvable, RecursionError) as error:
        raise FormError("the schema refers to something that is not in it") from error


def _make_validator(schema: Any) -> Validator:
    from jsonschema import Draft202012Validator, validators  # noqa: PLC0415
    from referencing import Registry  # noqa: PLC0415

    linear = validators.extend(Draft202012Validator, {"pattern": _check_pattern})  # type: ignore[no-untyped-call]
    validator: Validator = linear(schema, registry=Registry())  # an empty registry, so that no other host is asked
    return validator


def _check_pattern(_validator: Any, pattern: str, value: Any, _schema: Any) -> Iterator[Exception]:
    """Match with pydantic's engine, which takes linear time; what it does not know, such as lookahead, is not checked."""
    from jsonschema.exceptions import ValidationError  # noqa: PLC0415

    if not isinstance(value, str):
        return
    try:
        matched = TypeAdapter(Annotated[str, Field(pattern=pattern)])
    except Exception:  # noqa: BLE001  (pydantic's class for this is private)
        return
    try:
        matched.validate_python(value)
    except ValueError:
        yield ValidationError("the text does not match")


class WholeJson:
    """Shows JSON while it comes; an answer that begins with anything else, such as a block of code, is not shown yet."""

    def __init__(self) -> None:
        self._is_json: bool | None = None

    def add(self, piece: str) -> str:
        """Take a piece of text; returns what more can be shown."""
        if self._is_json is None and piece.strip():
            piece = piece.lstrip()
            self._is_json = piece[0] in "{["
        return piece if self._is_json else ""
