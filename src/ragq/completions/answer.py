"""Collect one answer from its chunks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ragq.completions.parts import (
    Part,
    read_content,
    read_finish_reason,
    read_text,
    read_usage,
    storable,
    storable_text,
)
from ragq.completions.reasoning import Kind, Splitter, split_unopened
from ragq.completions.tool_calls import ToolCalls
from ragq.models import ToolCall, Usage

OnDelta = Callable[[Kind, str], None]


class Answer:
    """The answer of one call as its chunks arrive.

    Args:
        on_delta: Called with each piece of text or reasoning.
        is_opened: The chat template opens the reasoning; see `reasoning.py`.

    Attributes:
        pieces: Number of pieces so far that are neither empty nor a role.
        characters: Length of text, reasoning, refusal and tool calls so far.
        finish_reason: As the server wrote it; "" until then.
        model: The model's name as the server reports it.
        logprobs: The entries of `logprobs.content`, in order.
    """

    def __init__(self, on_delta: OnDelta | None, *, is_opened: bool = False) -> None:
        self.pieces = self.characters = 0
        self.finish_reason, self.model, self.usage = "", "", Usage()
        self.logprobs: list[Any] = []
        self._on_delta, self._is_opened = on_delta, is_opened
        self._calls, self._splitter = ToolCalls(), Splitter(is_opened=is_opened)
        self._part: Part = "text"
        self._new: list[str] = []  # of this part, not yet passed on
        self._runs: list[tuple[Part, list[str]]] = []  # of other parts, before that
        self._made: dict[Part, list[str]] = {"text": [], "reasoning": [], "refusal": []}
        self._has_reasoning_field = False

    def take(self, chunk: dict[str, Any]) -> None:
        """Take in a chunk, or a whole completion.

        Raises:
            ValueError, TypeError, AttributeError, KeyError: The chunk is malformed.
        """
        for choice in chunk.get("choices") or ():
            self._take_delta(choice.get("delta") or choice.get("message") or {})
            if logprobs := choice.get("logprobs"):
                self.logprobs += storable(logprobs.get("content") or [])
            if (reason := choice.get("finish_reason")) and reason != "null":
                self.finish_reason = str(reason)
        if usage := chunk.get("usage"):
            self.usage = read_usage(usage)
        self.model = chunk.get("model") or self.model

    def _take_delta(self, delta: dict[str, Any]) -> None:
        if thought := delta.get("reasoning_content") or delta.get("reasoning") or delta.get("reasoning_details"):
            self._has_reasoning_field = True
            self._add("reasoning", read_text(thought))
        if content := delta.get("content"):
            if content.__class__ is str:
                self._add("text", content)
            else:
                for part, piece in read_content(content):
                    self._add(part, piece)
        if refusal := delta.get("refusal"):
            self._add("refusal", refusal + "")
        if (calls := delta.get("tool_calls")) or delta.get("function_call"):
            self._add_calls(calls or [{"index": 0, "function": delta["function_call"]}])

    def _add(self, part: Part, piece: str) -> None:
        if part is not self._part:
            self._runs.append((self._part, self._new))
            self._part, self._new = part, []
        if piece:
            self._new.append(piece)
            self.characters += len(piece)
            self.pieces += 1

    def _add_calls(self, calls: list[dict[str, Any]]) -> None:
        before = self._calls.characters
        for call in calls:
            self._calls.add(call)
        self.characters += self._calls.characters - before
        self.pieces += 1

    def flush(self) -> None:
        """Pass on what arrived since the last flush."""
        if not self._new and not self._runs:
            return
        runs = [*self._runs, (self._part, self._new)]
        self._runs, self._new = [], []
        for part, pieces in runs:
            if not (text := storable_text("".join(pieces))):
                continue
            if part == "text":
                for kind, piece in self._splitter.feed(text):
                    self._pass_on(kind, piece)
            elif part == "reasoning":
                self._pass_on("reasoning", text)
            else:
                self._made["refusal"].append(text)

    def _pass_on(self, part: Kind, piece: str) -> None:
        self._made[part].append(piece)
        if self._on_delta:
            self._on_delta(part, piece)

    @property
    def has_text(self) -> bool:
        """Whether text was passed on."""
        return bool(self._made["text"])

    def end(self) -> None:
        """Pass on what was held back; after the last chunk."""
        self.flush()
        for kind, piece in self._splitter.end(is_cut=read_finish_reason(self.finish_reason) == "length"):
            self._pass_on(kind, piece)

    def finish(self) -> tuple[dict[Part, str], list[ToolCall], str]:
        """The parts, the tool calls, and the finish reason, `stop`, `length` or `tool_calls`; after `end`.

        Raises:
            ValueError: A tool call has no name.
        """
        reason = read_finish_reason(self.finish_reason)
        calls = self._calls.finish(is_cut=reason == "length")
        if reason != "length":
            reason = "tool_calls" if calls else "stop"
        made = {part: "".join(pieces) for part, pieces in self._made.items()}
        if not made["reasoning"] and not self._has_reasoning_field and (split := split_unopened(made["text"])):
            made["reasoning"], made["text"] = split
            self._splitter.found_closer = True
        return made, calls, reason

    @property
    def template_opens(self) -> bool:
        """Whether the chat template opens the reasoning, as far as this finished answer shows."""
        if self._splitter.found_closer:
            return True
        return self._is_opened and not self.has_text
