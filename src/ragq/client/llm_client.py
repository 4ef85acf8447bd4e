"""Call an OpenAI-compatible LLM once. Only the queue retries, so that a retry does not hold a slot while it waits.

A failed call raises a `PermanentError` (`ContextTooLongError` if a shorter prompt would work) or a `TransientError`:
the queue then retries the job, after `retry_after_seconds` if the server sent one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ragq.client.llm_stream import AnswerStream, Completion
from ragq.client.model_endpoint import ModelEndpoint
from ragq.client.model_faults import FaultError
from ragq.errors import UnavailableError
from ragq.settings import Settings
from ragq.tasks import Turns


class LlmClient:
    """A client of one endpoint and model; it carries hundreds of concurrent calls on one event loop.

    Attributes:
        endpoint: The called endpoint; its breaker refuses calls while the LLM looks dead.
    """

    def __init__(self, settings: Settings) -> None:
        self.endpoint = ModelEndpoint(settings, "llm", "chat/completions")
        self._settings, self._model = settings, settings.llm_model or ""
        self._stream_options: dict[str, bool] | None = {"include_usage": True}
        self._output_limit = "max_tokens"
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
        messages: list[dict[str, str]],
        *,
        max_output_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        deadline: float | None = None,
        on_delta: Callable[[str], None] | None = None,
    ) -> Completion:
        """Generate one answer, with one call.

        Args:
            messages: Chat messages, each with `role` and `content`.
            max_output_tokens: The answer is cut here, with finish_reason `length`.
            temperature: As in OpenAI's API; None for the server's default.
            top_p: As in OpenAI's API; None for the server's default.
            deadline: `loop.time()` at which to give up.
            on_delta: Called with each piece of text as it arrives; an exception from it ends the call and propagates.
        """
        request = {"model": self._model, "messages": messages, "temperature": temperature, "top_p": top_p}
        with self.endpoint.watch([message["content"] for message in messages]):
            return await self._ask(request, max_output_tokens, deadline, on_delta)

    async def _ask(
        self,
        request: dict[str, Any],
        max_output_tokens: int | None,
        deadline: float | None,
        on_delta: Callable[[str], None] | None,
    ) -> Completion:
        """Call, and call again at once without a field that the server refused: it had not started to generate."""
        while True:
            limits = {self._output_limit: max_output_tokens}
            sent = request | limits | {"stream": True, "stream_options": self._stream_options}
            answer = AnswerStream(self._settings, deadline, on_delta, self._turns)
            try:
                await self._call({name: value for name, value in sent.items() if value is not None}, answer)
                return answer.completion(self._model)
            except FaultError as fault:
                if not self._adapts(fault, sent):
                    raise

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
        """Adapt to a server that refuses `stream_options`, or `max_tokens` by its old name; True if it changed."""
        if fault.code != "llm_bad_request":
            return False
        if sent["stream_options"] and "stream_options" in fault.quote:
            self._stream_options = None
            return True
        if sent.get("max_tokens") and "max_completion_tokens" in fault.quote:
            self._output_limit = "max_completion_tokens"
            return True
        return False
