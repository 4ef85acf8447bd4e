"""Read one streamed answer of an LLM within its time limits, and classify its errors.

An answer is complete only with a `finish_reason`; any other end is a cut stream.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from ragq.client.model_faults import FaultError, connection_fault, server_fault
from ragq.errors import PermanentError, UnavailableError
from ragq.models import Usage
from ragq.settings import Settings
from ragq.tasks import Turns

END_OF_STREAM_SECONDS: Final = 1.0  # for the usage and the end of the body, once finish_reason is there
MAX_EVENT_BYTES: Final = 1_000_000
MAX_ANSWER_CHARACTERS: Final = 1_000_000
MAX_ANSWER_BYTES: Final = 200_000_000  # of the body, about 250 bytes a token; reasoning counts only here
SLICE_BYTES: Final = 8192  # of the body, parsed without yielding to the event loop: half a millisecond
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_FINISH_REASONS: Final = {"length": "length", "max_tokens": "length", "model_length": "length"} | dict.fromkeys(
    ("stop", "eos", "eos_token", "end_turn", "stop_sequence"), "stop"
)


@dataclass(frozen=True, slots=True)
class Completion:
    """A complete answer.

    Attributes:
        finish_reason: `stop`, or `length` when the model met its output limit.
        first_token_seconds: From the start of the call to its first text.
        model: The model's name as the server reports it.
    """

    text: str
    finish_reason: str
    usage: Usage
    first_token_seconds: float
    model: str


class AnswerStream:
    """The answer of one call as it is read, and the call's time limits."""

    def __init__(
        self, settings: Settings, deadline: float | None, on_delta: Callable[[str], None] | None, turns: Turns
    ) -> None:
        self._settings, self._on_delta, self._turns = settings, on_delta, turns
        self._time = asyncio.get_running_loop().time
        self._started = self._time()
        self._answer_end = self._started + settings.llm_answer_timeout_seconds
        self._deadline = math.inf if deadline is None else deadline
        self._format = b""  # the first byte of the body
        self._buffer, self._buffer_bytes, self._body_bytes = list[bytes](), 0, 0  # the incomplete last line
        self._event, self._event_bytes = list[bytes](), 0
        self._pieces, self._text, self._characters, self._first_text_at = list[str](), list[str](), 0, 0.0
        self._usage, self._model, self._has_begun, self._has_moved = Usage(), "", False, False
        self.finish_reason = ""

    def limit(self, seconds: float) -> float:
        """Start a time limit; returns the `loop.time()` at which the earliest of all limits expires."""
        now = self._time()
        if now >= self._deadline:
            raise self.limit_fault()
        return min(now + seconds, self._answer_end, self._deadline)

    def limit_fault(self) -> FaultError:
        """The fault for the limit that has expired."""
        now = self._time()
        if now >= self._deadline:
            return FaultError(UnavailableError, "deadline_exceeded", "the deadline came before the answer")
        limit = "ANSWER" if now >= self._answer_end else "TOKEN_GAP" if self._has_begun else "FIRST_TOKEN"
        return FaultError(UnavailableError, "llm_timeout", f"over the limit RAGQ_LLM_{limit}_TIMEOUT_SECONDS")

    def completion(self, model: str) -> Completion:
        self._flush()
        seconds = (self._first_text_at or self._time()) - self._started
        text = "".join(self._text)
        return Completion(text, self.finish_reason, self._usage, seconds, str(self._model or model))

    async def read(self, content: aiohttp.StreamReader, timer: asyncio.Timeout) -> None:
        """Read the body to its end; once the answer is complete, wait only a moment for that."""
        data = b"..."
        while data:
            try:
                data = await content.readany()
            except (aiohttp.ClientError, OSError) as error:
                raise connection_fault("llm", error) from None
            await self._take_in_turn(data)
            if self._has_moved:
                self._has_moved = False
                gap = END_OF_STREAM_SECONDS if self.finish_reason else self._settings.llm_token_gap_timeout_seconds
                end = self.limit(gap * 1.1)
                if abs(end - (timer.when() or 0.0)) > gap * 0.1:  # moving a timer costs more than reading a token
                    timer.reschedule(end)
        if not self.finish_reason:
            raise _cut_fault()

    async def _take_in_turn(self, data: bytes) -> None:
        """Parse what was read, in slices with turns in between, so that a burst does not block the event loop."""
        for start in range(0, len(data) or 1, SLICE_BYTES):
            if len(data) > SLICE_BYTES:
                await self._turns.take()
            self._take(data[start : start + SLICE_BYTES])
            self._flush()

    def _take(self, data: bytes) -> None:
        """Parse bytes of the body (none at its end): server-sent events, or one JSON object."""
        self._buffer.append(data)
        self._buffer_bytes += len(data)
        self._body_bytes += len(data)
        if not self._format and (not data or self._buffer_bytes > len(_BYTE_ORDER_MARK)):
            begun = b"".join(self._buffer).removeprefix(_BYTE_ORDER_MARK).lstrip()
            self._buffer, self._format = [begun], begun[:1]
        if self._format == b"<":
            raise FaultError(UnavailableError, "llm_malformed", "sent HTML; check RAGQ_LLM_BASE_URL")
        if self._format == b"{":
            if not data:
                self._take_event(b"".join(self._buffer))
        elif self._format and (b"\n" in self._buffer[-1] or not data):
            *lines, rest = b"".join([*self._buffer, b"" if data else b"\n\n"]).split(b"\n")
            self._buffer, self._buffer_bytes = [rest], len(rest)
            self._take_lines(lines)
        if self._buffer_bytes + self._event_bytes > MAX_EVENT_BYTES:
            raise FaultError(PermanentError, "llm_answer_too_large", "sent an event of over 1 MB")
        if self._body_bytes > MAX_ANSWER_BYTES:
            raise FaultError(PermanentError, "llm_answer_too_large", "sent an answer of over 200 MB")

    def _take_lines(self, lines: list[bytes]) -> None:
        for line in lines:
            if line.startswith(b"data:"):
                self._event.append(line[5:].strip())
                self._event_bytes += len(line)
            elif self._event and line in (b"", b"\r"):
                event, self._event_bytes = b"\n".join(self._event), 0
                self._event.clear()
                self._take_event(event)

    def _take_event(self, event: bytes) -> None:
        if event == b"[DONE]":
            if not self.finish_reason:
                raise _cut_fault()
        elif event:
            try:
                self._take_chunk(json.loads(event.decode()))
            except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
                fault = FaultError(UnavailableError, "llm_malformed", "did not send a chat completion")
                raise fault from None  # the cause's message may repeat what was sent

    def _take_chunk(self, chunk: dict[str, Any]) -> None:
        if chunk.get("error"):
            raise server_fault("llm", 200, chunk)
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or choice.get("message") or {}
            piece = delta.get("content") or delta.get("refusal")
            if piece:
                self._pieces.append(piece + "")  # a TypeError unless it is text
                self._characters += len(piece)
            if piece or delta.get("reasoning_content") or delta.get("reasoning"):
                self._has_moved = self._has_begun = True
            if self._characters > MAX_ANSWER_CHARACTERS:
                raise FaultError(PermanentError, "llm_answer_too_large", "sent an answer of over 1,000,000 characters")
            if reason := choice.get("finish_reason"):
                self._finish(str(reason).lower())
        if usage := chunk.get("usage"):
            self._usage = Usage(_read_count(usage, "prompt_tokens"), _read_count(usage, "completion_tokens"))
        self._model = chunk.get("model") or self._model

    def _finish(self, reason: str) -> None:
        if reason.startswith("content_filter"):
            raise FaultError(PermanentError, "content_filter", "the provider's content filter stopped the answer")
        if reason not in _FINISH_REASONS:
            raise FaultError(UnavailableError, "llm_cut_stream", "the answer was cut off, finish_reason", reason)
        self.finish_reason, self._has_moved = _FINISH_REASONS[reason], True

    def _flush(self) -> None:
        """Pass on the text that arrived since the last flush."""
        if not self._pieces:
            return
        text = "".join(self._pieces)
        if not text.isascii() or "\0" in text:  # neither NUL nor a lone surrogate can be stored
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "")
        self._pieces.clear()
        self._text.append(text)
        self._first_text_at = self._first_text_at or self._time()
        if self._on_delta:
            self._on_delta(text)


def _cut_fault() -> FaultError:
    return FaultError(UnavailableError, "llm_cut_stream", "the answer ended without a finish_reason")


def _read_count(usage: dict[str, Any], name: str) -> int:
    """Read a token count; 0 if it is not a number, which is no reason to lose the answer."""
    count = usage.get(name)
    return int(count) if isinstance(count, int | float) and 0 <= count < 2**31 else 0
