"""Read one streamed answer of an LLM, within its time limits, and judge what went wrong.

An answer is complete only with a `finish_reason` that says so; any other end is a cut stream.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final

import aiohttp

from ragq.errors import OverloadedError, PermanentError, RagqError, UnavailableError
from ragq.models import Usage
from ragq.settings import Settings
from ragq.tasks import Turns

MAX_RETRY_AFTER_SECONDS: Final = 86_400.0
END_OF_STREAM_SECONDS: Final = 1.0  # for the usage and the end of the body, once finish_reason is there
ERROR_BODY_SECONDS: Final = 2.0
MAX_ERROR_BYTES: Final = 64_000
MAX_EVENT_BYTES: Final = 1_000_000
MAX_ANSWER_CHARACTERS: Final = 1_000_000
MAX_ANSWER_BYTES: Final = 200_000_000  # of the body, in which a token takes about 250 bytes; thoughts count here only
SLICE_BYTES: Final = 8192  # of the body, read in one turn of the event loop: half a millisecond
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_FINISH_REASONS: Final = {"length": "length", "max_tokens": "length", "model_length": "length"} | dict.fromkeys(
    ("stop", "eos", "eos_token", "end_turn", "stop_sequence"), "stop"
)
_CONTEXT_TOO_LONG: Final = re.compile(
    r"context.?(length|size|window)|(prompt|input).{0,30} too long|reduce the length of"
    r"|exceeds? the max\w* (number of )?(input |prompt )?tokens|max_new_tokens`? must be",
    re.IGNORECASE,
)
_FATAL: Final = {401: "llm_authentication", 403: "llm_forbidden", 404: "llm_not_found"}

logger = logging.getLogger(__name__)


class ContextTooLongError(PermanentError):
    """The prompt is over the model's context: ask once more with fewer chunks."""

    code = "context_length_exceeded"


@dataclass(frozen=True, slots=True)
class Completion:
    """A complete answer.

    Attributes:
        finish_reason: `stop`, or `length` when the model met its output limit.
        first_token_seconds: From the start of the call to its first text.
        model: The model's name as the server gives it.
    """

    text: str
    finish_reason: str
    usage: Usage
    first_token_seconds: float
    model: str


class FaultError(Exception):
    """What one call met: `reason` in our words, `quote` in the server's, which may hold secrets."""

    def __init__(
        self, error: type[RagqError], code: str, reason: str, quote: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(reason)
        self.error, self.code, self.reason, self.quote, self.retry_after = error, code, reason, quote, retry_after


class AnswerStream:
    """One call: the answer that grows out of its response, and its time limits."""

    def __init__(
        self, settings: Settings, deadline: float | None, on_delta: Callable[[str], None] | None, turns: Turns
    ) -> None:
        self._settings, self._on_delta, self._turns = settings, on_delta, turns
        self._time = asyncio.get_running_loop().time
        self._started = self._time()
        self._answer_end = self._started + settings.llm_answer_timeout_seconds
        self._deadline = math.inf if deadline is None else deadline
        self._format = b""  # the first byte of the body
        self._buffer, self._buffer_bytes, self._body_bytes = list[bytes](), 0, 0  # what is not a whole line yet
        self._event, self._event_bytes = list[bytes](), 0
        self._pieces, self._text, self._characters, self._first_text_at = list[str](), list[str](), 0, 0.0
        self._usage, self._model, self._has_begun, self._has_moved = Usage(), "", False, False
        self.finish_reason = ""

    def limit(self, seconds: float) -> float:
        """Start a time limit; return when the first of all limits is over."""
        now = self._time()
        if now >= self._deadline:
            raise self.limit_fault()
        return min(now + seconds, self._answer_end, self._deadline)

    def limit_fault(self) -> FaultError:
        """Say which limit is over."""
        now = self._time()
        if now >= self._deadline:
            return FaultError(UnavailableError, "deadline_exceeded", "the deadline came before the answer")
        limit = "ANSWER" if now >= self._answer_end else "TOKEN_GAP" if self._has_begun else "FIRST_TOKEN"
        return FaultError(UnavailableError, "llm_timeout", f"over the limit RAGQ_LLM_{limit}_TIMEOUT_SECONDS")

    def completion(self, model: str) -> Completion:
        """Give the complete answer."""
        self._tell()
        seconds = (self._first_text_at or self._time()) - self._started
        text = "".join(self._text)
        return Completion(text, self.finish_reason, self._usage, seconds, str(self._model or model))

    async def read(self, content: aiohttp.StreamReader, timer: asyncio.Timeout) -> None:
        """Read the body to its end, which is not long awaited once the answer is complete."""
        data = b"..."
        while data:
            try:
                data = await content.readany()
            except (aiohttp.ClientError, OSError) as error:
                raise connection_fault(error) from error
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
        """Take what was read; what came faster than it can be taken at once takes turns with everybody else."""
        for start in range(0, len(data) or 1, SLICE_BYTES):
            if len(data) > SLICE_BYTES:
                await self._turns.take()
            self._take(data[start : start + SLICE_BYTES])
            self._tell()

    def _take(self, data: bytes) -> None:
        """Take bytes of the body, none at its end: server-sent events, or one JSON object."""
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
            except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
                raise FaultError(UnavailableError, "llm_malformed", "sent what is no chat completion") from error

    def _take_chunk(self, chunk: dict[str, Any]) -> None:
        if chunk.get("error"):
            raise _server_fault(200, chunk)
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or choice.get("message") or {}
            piece = delta.get("content") or delta.get("refusal")
            if piece:
                self._pieces.append(piece + "")  # a TypeError for what is no text
                self._characters += len(piece)
            if piece or delta.get("reasoning_content") or delta.get("reasoning"):
                self._has_moved = self._has_begun = True
            if self._characters > MAX_ANSWER_CHARACTERS:
                raise FaultError(PermanentError, "llm_answer_too_large", "sent an answer of over 1,000,000 characters")
            if reason := choice.get("finish_reason"):
                self._finish(str(reason).lower())
        if usage := chunk.get("usage"):
            self._usage = Usage(int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0))
        self._model = chunk.get("model") or self._model

    def _finish(self, reason: str) -> None:
        if reason.startswith("content_filter"):
            raise FaultError(PermanentError, "content_filter", "the provider's content filter stopped the answer")
        if reason not in _FINISH_REASONS:
            raise FaultError(UnavailableError, "llm_cut_stream", "the answer was broken off, finish_reason", reason)
        self.finish_reason, self._has_moved = _FINISH_REASONS[reason], True

    def _tell(self) -> None:
        """Hand on the text that came since the last time."""
        if not self._pieces:
            return
        text = "".join(self._pieces)
        if not text.isascii() or "\0" in text:  # neither NUL nor half a surrogate pair can be stored
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "")
        self._pieces.clear()
        self._text.append(text)
        self._first_text_at = self._first_text_at or self._time()
        if self._on_delta:
            self._on_delta(text)


def _cut_fault() -> FaultError:
    return FaultError(UnavailableError, "llm_cut_stream", "the answer ended without a finish_reason")


def connection_fault(error: Exception) -> FaultError:
    return FaultError(UnavailableError, "llm_unavailable", type(error).__name__, str(error))


async def read_refusal(response: aiohttp.ClientResponse) -> FaultError:
    """Read the body of an error response and judge it."""
    body = b""
    try:
        async with asyncio.timeout(ERROR_BODY_SECONDS):
            while len(body) < MAX_ERROR_BYTES and (data := await response.content.readany()):
                body += data
    except (aiohttp.ClientError, OSError):
        logger.debug("The body of an error response was cut.")  # the status says enough
    text = body.decode(errors="replace")
    try:
        return _server_fault(response.status, json.loads(text), _retry_after(response.headers))
    except (ValueError, RecursionError):
        return _server_fault(response.status, text, _retry_after(response.headers))


def _server_fault(status: int, body: object, retry_after: float | None = None) -> FaultError:
    """Judge a server's error by its status (200 in a stream) and body, JSON or text."""
    error = body.get("error", body) if isinstance(body, dict) else body
    fields: dict[str, Any] = error if isinstance(error, dict) else {"message": error}
    quote = str(fields.get("message") or fields.get("detail") or "")
    code = fields.get("code")
    if status == HTTPStatus.OK:
        status = code if isinstance(code, int) and code in range(400, 600) else 500
    names = f"{code} {fields.get('type')}"
    reason = f"status {status}"
    is_rate = status == HTTPStatus.TOO_MANY_REQUESTS
    is_too_long = re.search("context_(length|size)", names) or (not is_rate and _CONTEXT_TOO_LONG.search(quote))
    if is_too_long or status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return FaultError(ContextTooLongError, ContextTooLongError.code, f"{reason}, the prompt is too long", quote)
    if status == HTTPStatus.PAYMENT_REQUIRED or "insufficient_quota" in names:
        return FaultError(PermanentError, "insufficient_quota", f"{reason}, the quota is used up", quote)
    if "content_filter" in names or "content_policy" in names:
        return FaultError(PermanentError, "content_filter", f"{reason}, refused by the content filter", quote)
    if is_rate:
        return FaultError(OverloadedError, "llm_rate_limited", reason, quote, retry_after)
    if status in (408, 409, 425) or status in range(500, 600):
        return FaultError(UnavailableError, "llm_unavailable", reason, quote, retry_after)
    return FaultError(PermanentError, _FATAL.get(status, "llm_bad_request"), reason, quote)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Read how many seconds the server asks to wait."""
    milliseconds, value = headers.get("retry-after-ms"), headers.get("Retry-After")
    try:
        seconds = float(milliseconds) / 1000 if milliseconds else float(value or "none")
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value or "").timestamp() - time.time()
        except ValueError:
            return None
    return min(max(0.0, seconds), MAX_RETRY_AFTER_SECONDS)
