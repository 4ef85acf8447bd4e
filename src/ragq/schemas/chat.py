"""OpenAI's chat completions, in requests."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from ragq.records import Request, change_request
from ragq.schemas.messages import ChatMessage
from ragq.schemas.objects import Body
from ragq.schemas.options import read_format, read_options
from ragq.schemas.questions import Metadata, OutputLimit, StoreIds
from ragq.schemas.responses import MODEL

SHOWN = ("metadata", "temperature", "top_p", "tools", "tool_choice", "user")


class StreamOptions(Body):
    """Options of a stream."""

    include_usage: bool | None = None


class ChatCompletionCreate(Body):
    """A conversation; its last question is answered from the documents. Other fields go to the LLM, if it may know them."""

    model_config = ConfigDict(extra="allow")

    messages: list[ChatMessage] = Field(min_length=1)
    model: str | None = Field(None, description="`ragq`, or the configured LLM's name.")
    vector_store_ids: StoreIds = None
    max_tokens: OutputLimit = None
    max_completion_tokens: OutputLimit = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    n: Literal[1] | None = Field(None, description="One answer; ask again for another.")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = Field(None, max_length=256)
    tool_choice: str | dict[str, Any] | None = None
    logprobs: bool | None = None
    modalities: list[Literal["text"]] | None = None
    functions: list[dict[str, Any]] | None = Field(None, max_length=0, description="Long retired: use `tools`.")
    store: bool | None = None
    service_tier: str | None = Field(None, max_length=64)
    metadata: Metadata | None = None
    user: str | None = Field(None, max_length=512)


def options_of(body: ChatCompletionCreate, extra: list[str]) -> dict[str, Any]:
    """The fields for an LLM, except its tools."""
    given = (body.model_extra or {}) | body.model_dump(include={"logprobs", "metadata", "user"})
    return read_options(given, extra) | read_format(body.response_format, "response_format")


def request_of(body: ChatCompletionCreate, notes: list[str]) -> Request:
    """The part of the request to store: with `store`, the messages and what a stored completion shows."""
    request = Request(
        store=bool(body.store), model=body.model or MODEL, service_tier=body.service_tier or "default", notes=notes
    )
    if not body.store:
        return request
    shown = body.model_dump(mode="json", include=set(SHOWN), exclude_none=True)
    messages = [message.model_dump(mode="json", exclude_unset=True, exclude_none=True) for message in body.messages]
    return change_request(request, input=messages, **shown)
