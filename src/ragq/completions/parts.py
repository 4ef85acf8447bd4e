"""Read the parts of a chat completion that servers write in different ways: content, reasoning, finish reasons, usage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal

from ragq.models import Usage

Part = Literal["text", "reasoning", "refusal"]

_FINISH_REASONS: Final = (
    dict.fromkeys(("stop", "eos", "eos_token", "end_turn", "stop_sequence", "complete", "end"), "stop")
    | dict.fromkeys(
        ("length", "max_tokens", "model_length", "max_output_tokens", "max_length", "model_context_window_exceeded"),
        "length",
    )
    | dict.fromkeys(("tool_calls", "function_call", "tool_use", "tool_call"), "tool_calls")
    | dict.fromkeys(
        (
            *("safety", "recitation", "prohibited_content", "blocklist", "spii", "sensitive", "refusal"),
            *("image_safety", "image_prohibited_content", "image_recitation", "guardrail_intervened", "error_toxic"),
        ),
        "content_filter",
    )
)
_TEXT_FIELDS: Final = ("text", "thinking", "reasoning", "content", "summary")


def read_finish_reason(reason: str) -> str:
    """Translate a finish reason to `stop`, `length`, `tool_calls` or `content_filter`; "" for an unknown one."""
    name = reason.strip().lower()
    return "content_filter" if name.startswith("content_filter") else _FINISH_REASONS.get(name, "")


def read_content(parts: list[Any]) -> Iterator[tuple[Part, str]]:
    """Read content that is a list of parts; parts of other kinds, such as Mistral's references, are skipped.

    Raises:
        TypeError: The content is not a list of parts.
    """
    if not isinstance(parts, list):
        raise TypeError("content is neither text nor a list")
    for part in parts:
        if isinstance(part, str):
            yield "text", part
        elif part.get("type", "text") in ("text", "output_text"):
            yield "text", (part.get("text") or "") + ""
        elif part["type"] in ("thinking", "reasoning"):
            yield "reasoning", read_text(part)
        elif part["type"] == "refusal":
            yield "refusal", (part.get("refusal") or "") + ""


def read_text(value: object) -> str:
    """Read text that may stand in objects and lists; "" if there is none."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(map(read_text, value))
    if isinstance(value, dict):
        return next((text for name in _TEXT_FIELDS if (text := read_text(value.get(name)))), "")
    return ""


def storable_text(text: str) -> str:
    """The text without NUL and lone surrogates, which cannot be stored."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "")


def storable(value: Any) -> Any:
    """A value of JSON whose texts can be stored."""
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, list):
        return [storable(one) for one in value]
    if isinstance(value, dict):
        return {storable_text(name): storable(one) for name, one in value.items()}
    return value


def read_usage(usage: dict[str, Any]) -> Usage:
    """Read the token counts; 0 for one that is not a number, which is no reason to lose the answer."""
    prompt, completion = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    return Usage(
        _count(usage, "prompt_tokens"),
        _count(usage, "completion_tokens"),
        _count(prompt, "cached_tokens"),
        _count(completion, "reasoning_tokens"),
    )


def _count(counts: object, name: str) -> int:
    count = counts.get(name) if isinstance(counts, dict) else None
    return int(count) if isinstance(count, int | float) and 0 <= count < 2**31 else 0
