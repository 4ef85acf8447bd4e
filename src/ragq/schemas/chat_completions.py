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
from ragq.schemas.responses import MODEL


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
    """OpenAI's chat completion; `notes` is ragq's own, and tells what of the request was ignored."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: CompletionUsage
    notes: list[str]


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
    }
