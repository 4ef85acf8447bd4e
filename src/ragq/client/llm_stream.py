"""Read one streamed answer of an LLM within its time limits, and classify its errors.

An answer is complete only with a `finish_reason`; any other end is a cut stream.
"""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import orjson

from ragq.client.connection_errors import connection_fault
from ragq.client.model_faults import FaultError, server_fault
from ragq.completions.answer import Answer, OnDelta
from ragq.completions.events import ErrorEvent, EventReader
from ragq.completions.parts import read_finish_reason
from ragq.errors import PermanentError, TransientError, UnavailableError
from ragq.models import ToolCall, Usage
from ragq.settings import Settings
from ragq.tasks import Turns

END_OF_STREAM_SECONDS: Final = 1.0  # for the usage and the end of the body, once finish_reason is there
MAX_EVENT_BYTES: Final = 1_000_000
MAX_ANSWER_CHARACTERS: Final = 1_000_000  # with reasoning and tool calls
MAX_ANSWER_BYTES: Final = 200_000_000  # of the body, about 250 bytes a token
MAX_LOGPROBS: Final = 50_000  # tokens with their alternatives, which take about 10 kB each
SLICE_BYTES: Final = 8192  # of the body, parsed without yielding to the event loop: half a millisecond


@dataclass(frozen=True, slots=True)
class Completion:
    """A complete answer.

    Attributes:
        text: The answer, without reasoning.
        reasoning: What the model thought; "" if it did not say.
        refusal: "" unless the model refused in that field.
        logprobs: Entries of OpenAI's `logprobs.content`, in order; empty if they were not asked for.
        finish_reason: `stop`, `length` when the model met its output limit, or `tool_calls`.
        first_token_seconds: From the start of the call to its first text.
        model: The model's name as the server reports it.
    """

    text: str
    reasoning: str
    refusal: str
    tool_calls: list[ToolCall]
    logprobs: list[Any]
    finish_reason: str
    usage: Usage
    first_token_seconds: float
    model: str


class AnswerStream:
    """The answer of one call as it is read, and the call's time limits.

    Args:
        is_opened: The chat template opens the model's reasoning.
    """

    def __init__(
        self,
        settings: Settings,
        deadline: float | None,
        on_delta: OnDelta | None,
        turns: Turns,
        *,
        is_opened: bool = False,
    ) -> None:
        self._settings, self._turns = settings, turns
        self._time = asyncio.get_running_loop().time
        self._started = self._time()
        self._answer_end = self._started + settings.llm_answer_timeout_seconds
        self._deadline = math.inf if deadline is None else deadline
        self._reader, self._answer = EventReader(), Answer(on_delta, is_opened=is_opened)
        self._first_text_at = 0.0
        self.finish_reason = ""

    @property
    def has_begun(self) -> bool:
        return self._answer.pieces > 0

    @property
    def template_opens(self) -> bool:
        return self._answer.template_opens

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
        limit = "ANSWER" if now >= self._answer_end else "TOKEN_GAP" if self.has_begun else "FIRST_TOKEN"
        return FaultError(UnavailableError, "llm_timeout", f"over the limit RAGQ_LLM_{limit}_TIMEOUT_SECONDS")

    def completion(self, model: str) -> Completion:
        """The complete answer.

        Raises:
            FaultError: It is empty, or a tool call is malformed.
        """
        answer = self._answer
        answer.end()
        try:
            made, calls, reason = answer.finish()
        except ValueError:
            raise _malformed_fault() from None
        if reason == "stop" and not made["text"].strip() and not made["refusal"]:
            raise FaultError(TransientError, "llm_empty_answer", "the answer is empty")
        return Completion(
            made["text"],
            made["reasoning"],
            made["refusal"],
            calls,
            answer.logprobs,
            reason,
            answer.usage,
            (self._first_text_at or self._time()) - self._started,
            str(answer.model or model),
        )

    async def read(self, content: aiohttp.StreamReader, timer: asyncio.Timeout) -> None:
        """Read the body to its end; once the answer is complete, wait only a moment for that."""
        data, signs = b"...", self._signs()
        while data:
            try:
                data = await content.readany()
            except (aiohttp.ClientError, OSError) as error:
                raise connection_fault("llm", error) from None
            await self._take_in_turn(data)
            if signs != (signs := self._signs()):
                gap = self._gap()
                end = self.limit(gap * 1.1)
                if abs(end - (timer.when() or 0.0)) > gap * 0.1:  # moving a timer costs more than reading a token
                    timer.reschedule(end)
        if not self.finish_reason:
            raise _cut_fault()

    def _signs(self) -> tuple[int, int, str]:
        """What changes when the server shows that it is alive: before the first token any event or comment will do."""
        pieces = self._answer.pieces
        return pieces, 0 if pieces else self._reader.seen, self.finish_reason

    def _gap(self) -> float:
        if self.finish_reason:
            return END_OF_STREAM_SECONDS
        settings = self._settings
        return settings.llm_token_gap_timeout_seconds if self.has_begun else settings.llm_first_token_timeout_seconds

    async def _take_in_turn(self, data: bytes) -> None:
        """Parse what was read, in slices with turns in between, so that a burst does not block the event loop."""
        for start in range(0, len(data) or 1, SLICE_BYTES):
            if len(data) > SLICE_BYTES:
                await self._turns.take()
            self._take(data[start : start + SLICE_BYTES])

    def _take(self, data: bytes) -> None:
        """Parse bytes of the body (none at its end), and pass on the text in them."""
        reader = self._reader
        for event in reader.feed(data):
            self._take_event(event)
        self._answer.flush()
        if not self._first_text_at and self._answer.has_text:
            self._first_text_at = self._time()
        if reader.is_html:
            raise FaultError(UnavailableError, "llm_malformed", "sent HTML; check RAGQ_LLM_BASE_URL")
        if reader.pending_bytes > MAX_EVENT_BYTES:
            raise FaultError(PermanentError, "llm_answer_too_large", "sent an event of over 1 MB")
        if reader.body_bytes > MAX_ANSWER_BYTES:
            raise FaultError(PermanentError, "llm_answer_too_large", "sent an answer of over 200 MB")

    def _take_event(self, event: bytes) -> None:
        if event == b"[DONE]":
            if not self.finish_reason:
                raise _cut_fault()
            return
        if event.__class__ is ErrorEvent:
            raise _error_fault(event)
        try:
            self._take_chunk(_parse(event))
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            raise _malformed_fault() from None  # the cause's message may repeat what was sent

    def _take_chunk(self, chunk: Any) -> None:
        if chunk.__class__ is list and chunk:  # Gemini sends an error as a list
            chunk = chunk[0]
        if not chunk.get("choices") or chunk.get("error"):
            _check_error(chunk)
        answer = self._answer
        answer.take(chunk)
        if answer.characters > MAX_ANSWER_CHARACTERS:
            raise FaultError(PermanentError, "llm_answer_too_large", "sent an answer of over 1,000,000 characters")
        if len(answer.logprobs) > MAX_LOGPROBS:
            raise FaultError(PermanentError, "llm_answer_too_large", "sent over 50,000 log probabilities")
        if answer.finish_reason and not self.finish_reason:
            self._finish(answer.finish_reason, chunk)

    def _finish(self, reason: str, chunk: dict[str, Any]) -> None:
        meaning = read_finish_reason(reason)
        if meaning == "content_filter":
            raise FaultError(PermanentError, "content_filter", "the provider's content filter stopped the answer")
        if not meaning:
            for choice in chunk.get("choices") or ():
                if choice.get("error"):
                    raise server_fault("llm", 200, choice)
            raise FaultError(UnavailableError, "llm_cut_stream", "the answer was cut off, finish_reason", reason)
        self.finish_reason = meaning


def _parse(event: bytes) -> Any:
    try:
        return orjson.loads(event)
    except orjson.JSONDecodeError:  # of what it does not read, json reads lone surrogates, NaN and long numbers
        return json.loads(event.decode())


def _check_error(chunk: Any) -> None:
    """Raise the fault for a chunk that is an error, in any of the servers' forms."""
    has_words = chunk.get("detail") or chunk.get("message")
    if chunk.get("error") or chunk.get("object") == "error" or (has_words and "choices" not in chunk):
        raise server_fault("llm", 200, chunk)


def _error_fault(event: bytes) -> FaultError:
    try:
        return server_fault("llm", 200, _parse(event))
    except (ValueError, RecursionError):
        return server_fault("llm", 200, event.decode(errors="replace"))


def _cut_fault() -> FaultError:
    return FaultError(UnavailableError, "llm_cut_stream", "the answer ended without a finish_reason")


def _malformed_fault() -> FaultError:
    return FaultError(UnavailableError, "llm_malformed", "did not send a chat completion")
