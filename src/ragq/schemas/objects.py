"""Schemas that request and response bodies share."""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict
from typing_extensions import TypedDict

from ragq.errors import InvalidRequestError, RagqError


class Identified(TypedDict):
    """An object that a list's cursor can name."""

    id: str


Listed = TypeVar("Listed", bound=Identified)


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


class Body(BaseModel):
    """A request body; unknown fields are refused, not ignored."""

    model_config = ConfigDict(extra="forbid")


def error_body(error: RagqError) -> dict[str, Any]:
    """Render an error as OpenAI's error body, without its detail."""
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


def explain_fault(fault: dict[str, Any], *, skip: int) -> InvalidRequestError:
    """Convert pydantic's first error to one of ours.

    Args:
        skip: Number of leading parts of the error's location that do not name a field.
    """
    param = ".".join(str(part) for part in fault["loc"][skip:]) or None
    if fault["type"] == "json_invalid":
        return InvalidRequestError("The body is not valid JSON.", code="invalid_json")
    if fault["type"] == "extra_forbidden":
        return InvalidRequestError(f"Unknown or unsupported field: '{param}'.", code="unknown_parameter", param=param)
    code = "missing_required_parameter" if fault["type"] == "missing" else "invalid_value"
    return InvalidRequestError(f"Wrong value for '{param or 'body'}': {fault['msg']}.", code=code, param=param)
