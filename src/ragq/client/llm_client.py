"""Call an OpenAI-compatible LLM once. Only the queue retries, so that a retry does not hold a slot while it waits.

A failed call raises a `PermanentError` (`ContextTooLongError` if a shorter prompt would work) or a `TransientError`:
the queue then retries the job, after `retry_after_seconds` if the server sent one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import structlog

from ragq import tracing
from ragq.client.llm_stream import AnswerStream, Completion
from ragq.client.model_endpoint import ModelEndpoint
from ragq.client.model_faults import ContextTooLongError, FaultError
from ragq.completions.answer import OnDelta
from ragq.completions.refused_fields import RefusedFields
from ragq.errors import RagqError, UnavailableError
from ragq.settings import Settings
from ragq.tasks import Turns
from ragq.tracing.spans import Attributes, Span

log = structlog.get_logger(__name__)

LEAST_LONG_PROMPT: Final = 4000  # characters; a refusal of a shorter prompt has another reason than its length
_UNSUPPORTED: Final = ("llm_bad_request", "llm_not_found", "llm_unavailable")


class LlmClient:
    """A client of one endpoint and model; it carries hundreds of concurrent calls on one event loop.

    It learns what the server is like: which optional fields it refuses, whether its chat template opens the model's
    reasoning, and how long a prompt it has accepted.

    Attributes:
        endpoint: The called endpoint; its breaker refuses calls while the LLM looks dead.
    """

    def __init__(self, settings: Settings) -> None:
        self.endpoint = ModelEndpoint(settings, "llm", "chat/completions")
        self._settings, self._model = settings, settings.llm_model or ""
        self._refused, self._template_opens, self._longest_accepted = RefusedFields(), False, 0
        self._turns = Turns()

    async def close(self) -> None:
        """Close all connections; the client cannot be used again."""
        await self.endpoint.close()

    async def check(self, *, timeout_seconds: float) -> None:
        """Check that the endpoint lists its models.

        Raises:
            RagqError: It does not; the message gives the reason.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                await self.endpoint.check_models()
        except TimeoutError as error:
            raise UnavailableError(f"The LLM gave no answer within {timeout_seconds:g} s.") from error

    async def complete(
        self,
        messages: list[dict[str, Any]],
        *,
        options: Mapping[str, Any] | None = None,
        deadline: float | None = None,
        on_delta: OnDelta | None = None,
    ) -> Completion:
        """Generate one answer, with one call.

        Args:
            messages: Chat messages, each with `role` and `content`.
            options: Other fields of the request, as in OpenAI's API; None values are left out, and so are optional
                fields that the server refuses. The output limit is `max_tokens`, by whatever name the server wants it.
            deadline: `loop.time()` at which to give up.
            on_delta: Called with `text` or `reasoning` and each piece of it as it arrives; an exception from it ends
                the call and propagates.

        Raises:
            ContextTooLongError: A shorter prompt would work, or may (`otherwise` is set). Ask again with one, and if
                that is not possible or fails in the same way, raise `otherwise` if it is set.
        """
        with tracing.span(f"chat {self._model}", self._describe(options or {}), kind="client") as span:
            completion = await self._complete(messages, options or {}, deadline, on_delta)
            if tracing.is_on():
                _note(span, messages, completion)
            return completion

    def _describe(self, options: Mapping[str, Any]) -> Attributes:
        """What a span says of a call, by OpenTelemetry's conventions for generative AI; nothing while traces are off."""
        if not tracing.is_on():
            return tracing.NO_ATTRIBUTES
        return {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",  # whose protocol it is
            "gen_ai.request.model": self._model,
            "gen_ai.request.max_tokens": options.get("max_tokens"),
            "gen_ai.request.temperature": options.get("temperature"),
            "gen_ai.request.top_p": options.get("top_p"),
            "server.address": self.endpoint.host,
            "server.port": self.endpoint.port,
        }

    async def _complete(
        self,
        messages: list[dict[str, Any]],
        options: Mapping[str, Any],
        deadline: float | None,
        on_delta: OnDelta | None,
    ) -> Completion:
        texts = list(_texts(messages))
        ours = {
            "model": self._model,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        length = sum(map(len, texts))
        try:
            with self.endpoint.watch(texts):
                completion = await self._ask({**options, **ours}, deadline, on_delta)
        except RagqError as error:
            if self._may_be_too_long(error.__cause__, length):
                raise _too_long(error) from error
            raise
        self._longest_accepted = max(self._longest_accepted, length)
        return completion

    async def _ask(self, request: dict[str, Any], deadline: float | None, on_delta: OnDelta | None) -> Completion:
        """Call, and call again at once without a field that the server refused: it had not started to generate."""
        while True:
            sent = self._refused.leave_out(request)
            answer = AnswerStream(self._settings, deadline, on_delta, self._turns, is_opened=self._template_opens)
            try:
                await self._call(sent, answer)
                completion = answer.completion(self._model)
            except FaultError as fault:
                if answer.has_begun or not self._adapts(fault, sent):
                    raise
            else:
                self._template_opens = answer.template_opens
                return completion

    async def _call(self, request: dict[str, Any], answer: AnswerStream) -> None:
        """Make one call; an error after the finish_reason is ignored, since the answer is complete."""
        try:
            async with asyncio.timeout_at(answer.limit(self._settings.llm_first_token_timeout_seconds)) as timer:
                async with self.endpoint.post(request) as response:
                    await answer.read(response.content, timer)
        except FaultError:
            if not answer.finish_reason:
                raise
        except TimeoutError as error:
            if not timer.expired():
                raise
            if not answer.finish_reason:
                raise answer.limit_fault() from error

    def _adapts(self, fault: FaultError, sent: dict[str, Any]) -> bool:
        """Learn from a refusal; True if another call leaves out what the server refused, else the fault names it."""
        if fault.told is None or fault.code not in _UNSUPPORTED:
            return False
        name, is_left_out = self._refused.learn(fault.told, sent, needs_words=fault.code != "llm_bad_request")
        if is_left_out:
            log.info("llm_field_left_out", model=self._model, field=name)
        elif name:
            fault.param = name
            fault.reason += f", the LLM server refuses the field '{name}'"
        return is_left_out

    def _may_be_too_long(self, fault: BaseException | None, length: int) -> bool:
        """Whether a refusal without a reason may mean that the prompt is too long: no prompt as long was ever accepted."""
        if length < LEAST_LONG_PROMPT or length <= self._longest_accepted:
            return False
        if not isinstance(fault, FaultError) or fault.told is None or fault.param:
            return False
        return fault.code == "llm_bad_request" or (fault.status == 500 and fault.told.says_nothing)


def _note(span: Span, messages: list[dict[str, Any]], completion: Completion) -> None:
    """Note in a span what a call gave; the texts only if traces may have them."""
    usage = completion.usage
    span.set(
        {
            "gen_ai.response.model": completion.model or None,
            "gen_ai.response.finish_reasons": [completion.finish_reason],
            "gen_ai.response.time_to_first_chunk": round(completion.first_token_seconds, 4),
            "gen_ai.usage.input_tokens": usage.input_tokens,
            "gen_ai.usage.output_tokens": usage.output_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        }
    )
    if tracing.captures_texts():
        sent = [{"role": one["role"], "parts": [_part(text) for text in _texts([one])]} for one in messages]
        given = {"role": "assistant", "parts": [_part(completion.text)], "finish_reason": completion.finish_reason}
        span.set({"gen_ai.input.messages": json.dumps(sent), "gen_ai.output.messages": json.dumps([given])})


def _part(text: str) -> dict[str, str]:
    return {"type": "text", "content": text}


def _too_long(error: RagqError) -> ContextTooLongError:
    guess = ContextTooLongError(error.message, code=error.code, retry_after_seconds=error.retry_after_seconds)
    guess.otherwise = error
    return guess


def _texts(messages: list[dict[str, Any]]) -> Iterator[str]:
    """The texts in messages, which no error may repeat."""
    for message in messages:
        content = message.get("content")
        for part in content if isinstance(content, list) else [content]:
            text = part.get("text") if isinstance(part, dict) else part
            if isinstance(text, str):
                yield text
        for call in message.get("tool_calls") or ():
            yield str(call["function"]["arguments"])
