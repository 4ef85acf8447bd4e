"""Schemas that request and response bodies share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import TypedDict

from ragq.errors import InvalidRequestError, RagqError


class Identified(TypedDict):
    """An object that a list's cursor can name."""

    id: str


_ESCAPED = {code: f"\\u{code:04x}" for code in (0x85, 0x2028, 0x2029)}
EXPECTED = "Input should be "

Listed = TypeVar("Listed", bound=Identified)
BodyT = TypeVar("BodyT", bound=BaseModel)


class Refusal(TypedDict):
    """The error; `param` names the field at fault."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(TypedDict):
    """The body of every error response."""

    error: Refusal


class Listing(TypedDict, Generic[Listed]):
    """A page of a list."""

    object: Literal["list"]
    data: list[Listed]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deleted(TypedDict):
    """The deleted object."""

    id: str
    object: str
    deleted: Literal[True]


class JobError(TypedDict):
    """Why there is no answer."""

    code: str
    message: str


MAX_GROUPS = 64  # of a key, or that may read a document
Group = Annotated[str, Field(min_length=1, max_length=256)]


class Body(BaseModel):
    """A request body. Unknown fields are ignored, as clients of many servers send many."""

    model_config = ConfigDict(extra="ignore")


def error_body(error: RagqError) -> dict[str, Any]:
    """Render an error as OpenAI's error body, without its detail."""
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


def write_line(value: Mapping[str, Any]) -> str:
    """Serialize an object as JSON that is one line, also for readers to whom U+0085, U+2028 and U+2029 end one."""
    line = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return line if line.isascii() else line.translate(_ESCAPED)


def validate(model: type[BodyT], value: Any) -> BodyT:
    """Validate a body that does not come through a route.

    Raises:
        InvalidRequestError: The error names the field.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise explain_faults(error.errors(include_url=False), value, skip=0) from error


def explain_faults(faults: Sequence[Mapping[str, Any]], body: Any, *, skip: int) -> InvalidRequestError:
    """Convert pydantic's errors to one of ours, which names the deepest field at fault.

    Pydantic reports an error for each branch of a union, and names the branch in the place of the error. Only names and
    numbers that lead somewhere in the body are shown, and the branches' messages are joined.

    Args:
        body: The JSON that was validated; anything else for parameters and forms.
        skip: Number of leading parts of an error's place that do not name a field.
    """
    placed = [(_find_place(fault["loc"][skip:], body, fault["type"]), fault) for fault in faults]
    place = max((place for place, _ in placed), key=len)
    at_fault = [fault for found, fault in placed if found == place]
    param = ".".join(map(str, place)) or None
    kind = at_fault[0]["type"]
    if kind == "json_invalid":
        return InvalidRequestError("The body is not valid JSON.", code="invalid_json")
    messages = list(dict.fromkeys(fault["msg"].removeprefix("Value error, ") for fault in at_fault))
    starts = all(message.startswith(EXPECTED) for message in messages)
    joined = EXPECTED + " or ".join(message.removeprefix(EXPECTED) for message in messages) if starts else messages[0]
    code = "missing_required_parameter" if kind == "missing" else "invalid_value"
    return InvalidRequestError(f"Wrong value for '{param or 'body'}': {joined}.", code=code, param=param)


def _find_place(parts: Sequence[str | int], body: Any, kind: str) -> tuple[str | int, ...]:
    """Follow an error's place into the body; parts that lead nowhere are names of pydantic's branches."""
    if not isinstance(body, dict | list):  # a parameter, or a form
        return tuple(parts[:1])
    place: list[str | int] = []
    for number, part in enumerate(parts, 1):
        is_missing = kind == "missing" and number == len(parts)
        if isinstance(body, dict) and (part in body or is_missing):
            body = body.get(part)
            place.append(part)
        elif isinstance(body, list) and isinstance(part, int) and part < len(body):
            body = body[part]
            place.append(part)
    return tuple(place)
