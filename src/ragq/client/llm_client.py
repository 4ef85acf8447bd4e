"""Ask an OpenAI-compatible LLM, once: only the queue tries again, so that no retry holds a slot.

What cannot be had is a `PermanentError` (`ContextTooLongError`: a shorter prompt would do) or a `TransientError`: the
queue runs the job again, after `retry_after_seconds` if the server named any.
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
    """A client of one endpoint and model; one serves hundreds of calls in flight in one event loop.

    Attributes:
        endpoint: Where the calls go; its breaker refuses them while the LLM looks dead.
    """

    def __init__(self, settings: Settings) -> None:
        self.endpoint = ModelEndpoint(settings, "llm", "chat/completions")
        self._settings, self._model = settings, settings.llm_model or ""
        self._stream_options: dict[str, bool] | None = {"include_usage": True}
        self._output_limit = "max_tokens"
        self._turns = Turns()

    async def close(self) -> None:
        """Close all connections for good."""
        await self.endpoint.close()

    async def check(self, *, timeout_seconds: float) -> None:
        """See that the endpoint lists its models.

        Raises:
            RagqError: It does not; the message says how.
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
        """Ask for one answer, with one call.

        Args:
            messages: Chat messages, each with `role` and `content`.
            max_output_tokens: Where the answer is cut, with finish_reason `length`.
            temperature: As in OpenAI's API; None for the server's own.
            top_p: The same.
            deadline: When, on the event loop's clock, the answer is of no more use.
            on_delta: Told each piece of text as it arrives; what it raises ends the call and reaches the caller.
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
        """Ask, and again at once if the server refused a field that it can do without: no work was done by then."""
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
        """Make one call; what goes wrong after the finish_reason does not matter."""
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
        """Heed a server that does not know `stream_options`, or OpenAI's newer name of `max_tokens`."""
        if fault.code != "llm_bad_request":
            return False
        if sent["stream_options"] and "stream_options" in fault.quote:
            self._stream_options = None
            return True
        if sent.get("max_tokens") and "max_completion_tokens" in fault.quote:
            self._output_limit = "max_completion_tokens"
            return True
        return False
