"""OpenAI's chat completion, as it is sent."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from ragq.models import Answer
from ragq.records import Job
from ragq.schemas.chat_chunks import (
    CompletionUsage,
    FunctionCall,
    UrlAnnotation,
    finish_reason_of,
    render_annotations,
    render_calls,
    render_logprobs,
    usage_of,
)
from ragq.schemas.response_objects import AnswerConfidence, AnswerSupport
from ragq.schemas.responses import MODEL, render_confidence, render_support


class CompletionMessage(TypedDict):
    """The answer."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    annotations: list[UrlAnnotation]
    tool_calls: NotRequired[list[FunctionCall]]
    reasoning_content: NotRequired[str]


class Choice(TypedDict):
    """The only choice."""

    index: int
    message: CompletionMessage
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatCompletion(TypedDict):
    """OpenAI's chat completion; `notes`, `support` and `confidence` are ragq's own: what was ignored, what the sources hold, how sure it is."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: CompletionUsage
    notes: list[str]
    support: AnswerSupport | None
    confidence: AnswerConfidence | None


class StoredChatCompletion(ChatCompletion):
    """A stored chat completion, with what was asked for."""

    metadata: dict[str, str]
    service_tier: str
    temperature: float | None
    top_p: float | None
    tools: list[dict[str, Any]] | None
    tool_choice: str | dict[str, Any] | None
    input_user: str | None


class StoredMessage(TypedDict):
    """A message of a stored request; `content_parts` has its parts, if it was sent in parts."""

    id: str
    role: str
    content: str | None
    content_parts: list[dict[str, Any]] | None
    tool_calls: NotRequired[list[dict[str, Any]]]
    tool_call_id: NotRequired[str]


def render_chat(job: Job, answer: Answer, *, page: str) -> ChatCompletion:
    """Render an answer as OpenAI's chat completion."""
    message: CompletionMessage = {
        "role": "assistant",
        "content": answer.text or None,
        "refusal": answer.refusal or None,
        "annotations": render_annotations(answer, page),
    }
    if answer.tool_calls:
        message["tool_calls"] = render_calls(answer)
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    return {
        "id": job.id,
        "object": "chat.completion",
        "created": int(job.created_at),
        "model": job.request.model or MODEL,
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": render_logprobs(answer),
                "finish_reason": finish_reason_of(answer),
            }
        ],
        "usage": usage_of(answer),
        "notes": job.request.notes,
        "support": render_support(answer),
        "confidence": render_confidence(answer),
    }


def render_stored(job: Job, answer: Answer, metadata: dict[str, str], *, page: str) -> StoredChatCompletion:
    """Render a stored chat completion, with its metadata of now."""
    request = job.request
    return {
        **render_chat(job, answer, page=page),
        "metadata": metadata,
        "service_tier": request.service_tier,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "tools": request.tools or None,
        "tool_choice": request.tool_choice if request.tools else None,
        "input_user": request.user,
    }


def render_messages(chat_id: str, messages: list[dict[str, Any]]) -> list[StoredMessage]:
    """Render the messages of the request, each with an id."""
    return [_render_message(f"{chat_id}-{number}", message) for number, message in enumerate(messages)]


def _render_message(id_: str, message: dict[str, Any]) -> StoredMessage:
    content, parts = message.get("content"), None
    if isinstance(content, list):
        parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in content]
        content = "\n".join(part.get("text") or "" for part in parts if part.get("type") == "text")
    shown: StoredMessage = {"id": id_, "role": message["role"], "content": content, "content_parts": parts}
    if "tool_calls" in message:
        shown["tool_calls"] = message["tool_calls"]
    if "tool_call_id" in message:
        shown["tool_call_id"] = message["tool_call_id"]
    return shown
