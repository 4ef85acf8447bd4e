"""OpenAI's old completions: a text instead of a conversation, answered in the same way."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from ragq.errors import InvalidRequestError
from ragq.models import Answer
from ragq.records import Job
from ragq.schemas.chat import ChatCompletionCreate, StreamOptions
from ragq.schemas.chat_chunks import (
    ChatChunks,
    Chunk,
    CompletionUsage,
    UrlAnnotation,
    render_annotations,
    usage_of,
)
from ragq.schemas.messages import ChatMessage
from ragq.schemas.objects import Body
from ragq.schemas.questions import OutputLimit, StoreIds
from ragq.schemas.responses import MODEL

TEXT_PREFIX = "cmpl-"


class CompletionCreate(Body):
    """A question as a text. Other fields go to the LLM, if it may know them."""

    model_config = ConfigDict(extra="allow")

    prompt: str | list[Any] | None = Field(None, description="The question: a text, or a list of one text.")
    model: str | None = Field(None, description="`ragq`, or the configured LLM's name.")
    vector_store_ids: StoreIds = None
    max_tokens: OutputLimit = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    n: Literal[1] | None = Field(None, description="One answer; ask again for another.")
    best_of: int | None = None
    echo: bool | None = None
    suffix: str | None = None
    logprobs: int | None = Field(None, ge=0, le=5)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    service_tier: str | None = Field(None, max_length=64)
    user: str | None = Field(None, max_length=512)


class TextChoice(TypedDict):
    """The only choice; `annotations` is ragq's own, as a chat completion's."""

    index: int
    text: str
    logprobs: None
    finish_reason: Literal["stop", "length"]
    annotations: list[UrlAnnotation]


class Completion(TypedDict):
    """OpenAI's completion; `notes` is ragq's own, and tells what of the request was ignored."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: CompletionUsage
    notes: list[str]


def read_prompt(body: CompletionCreate) -> str:
    """The text of a request.

    Raises:
        InvalidRequestError: It is not one text.
    """
    prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt or []
    if not all(isinstance(prompt, str) for prompt in prompts):
        raise InvalidRequestError(
            "Wrong value for 'prompt': ragq does not know of which model these tokens are. Send the prompt as a text.",
            code="invalid_value",
            param="prompt",
        )
    if len(prompts) != 1:
        raise InvalidRequestError(
            f"Wrong value for 'prompt': one text is answered, not {len(prompts)}. Send a request for each, or a batch.",
            code="invalid_value",
            param="prompt",
        )
    if body.logprobs:
        raise InvalidRequestError(
            "Log probabilities are shown by /v1/chat/completions only: leave out logprobs.", param="logprobs"
        )
    return str(prompts[0])


def as_chat(body: CompletionCreate, prompt: str) -> ChatCompletionCreate:
    """The same request for a chat completion; what only a chat has is left out."""
    taken = body.model_dump(exclude={"prompt", "best_of", "echo", "suffix", "logprobs"} | set(body.model_extra or {}))
    others = {name: value for name, value in (body.model_extra or {}).items() if name not in _CHAT_FIELDS}
    return ChatCompletionCreate(messages=[ChatMessage(role="user", content=prompt)], **taken, **others)


_CHAT_FIELDS = frozenset(ChatCompletionCreate.model_fields)


class TextChunks(ChatChunks):
    """Makes the chunks of one completion, in order.

    Args:
        prompt: Sent before the answer.
    """

    kind = "text_completion"

    def __init__(self, job: Job, *, prompt: str, usage: bool, page: str) -> None:
        super().__init__(job, usage=usage, page=page)
        self._prompt = prompt

    def begin(self) -> list[Chunk]:
        """The prompt, if it is to be repeated."""
        return [self._chunk({"content": self._prompt})] if self._prompt else []

    def _add_reasoning(self, more: str) -> list[Chunk]:
        del more  # there is no field for it
        return []

    def _choice(self, delta: dict[str, Any], answer: Answer | None) -> dict[str, Any]:
        choice = {
            "index": 0,
            "text": delta.get("content") or delta.get("refusal") or "",
            "logprobs": None,
            "finish_reason": answer and _finish_reason(answer),
        }
        return choice | {"annotations": delta["annotations"]} if "annotations" in delta else choice


def render_completion(job: Job, answer: Answer, *, prompt: str, page: str) -> Completion:
    """Render an answer as OpenAI's completion, behind the prompt if one is given."""
    return {
        "id": job.id,
        "object": "text_completion",
        "created": int(job.created_at),
        "model": job.request.model or MODEL,
        "choices": [
            {
                "index": 0,
                "text": prompt + (answer.text or answer.refusal),
                "logprobs": None,
                "finish_reason": _finish_reason(answer),
                "annotations": render_annotations(answer, page),
            }
        ],
        "usage": usage_of(answer),
        "notes": job.request.notes,
    }


def _finish_reason(answer: Answer) -> Literal["stop", "length"]:
    return "length" if answer.truncated else "stop"
