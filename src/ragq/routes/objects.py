"""The bodies of answers that all routes share; the OpenAPI document is made of them and of the routes' own."""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

from typing_extensions import TypedDict


class Identified(TypedDict):
    """Something that a list's cursor can name."""

    id: str


Listed = TypeVar("Listed", bound=Identified)


class Refusal(TypedDict):
    """What was wrong; `param` names the field at fault."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(TypedDict):
    """The body of every answer that is no success."""

    error: Refusal


class Listing(TypedDict, Generic[Listed]):
    """A page of a list."""

    object: Literal["list"]
    data: list[Listed]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deleted(TypedDict):
    """What is gone."""

    id: str
    object: str
    deleted: Literal[True]


class JobError(TypedDict):
    """Why there is no answer."""

    code: str
    message: str
