"""Ask an OpenAI-compatible LLM, once: only the queue tries again, so that no retry holds a slot.

What cannot be had is a `PermanentError` (`ContextTooLongError`: a shorter prompt would do) or a `TransientError`: the
queue runs the job again, after `retry_after_seconds` if the server named any.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from ragq import metrics
from ragq.client.llm_breaker import LlmBreaker
from ragq.client.llm_stream import AnswerStream, Completion, FaultError, connection_fault, read_refusal
from ragq.errors import ConfigurationError, RagqError, UnavailableError
from ragq.settings import Settings
from ragq.tasks import Turns

MAX_QUOTED_CHARACTERS: Final = 300
PROMPT_WINDOW: Final = 24  # so many characters of the prompt in a server's message keep that message out of ours
SHORTEST_PROMPT: Final = 8  # a shorter one is part of many messages by chance


class LlmClient:
    """A client of one endpoint and model; one serves hundreds of calls in flight in one event loop.

    Proxies come from the environment (`HTTPS_PROXY`, `NO_PROXY`, …), read at the first call; `.netrc` is never read.

    Attributes:
        breaker: Refuses calls while the endpoint looks dead.
    """

    def __init__(self, settings: Settings) -> None:
        url = URL(settings.llm_base_url or "")
        if url.scheme not in ("http", "https") or not url.host or url.user or not settings.llm_model:
            raise ConfigurationError("Set RAGQ_LLM_BASE_URL (http or https, no user in it) and RAGQ_LLM_MODEL.")
        self._settings, self._model = settings, settings.llm_model
        self._key = settings.llm_api_key.get_secret_value().strip() if settings.llm_api_key else ""
        self._models_url = (url / "models").with_query(url.query)
        self._url = (url / "chat/completions").with_query(url.query)
        self._stream_options: dict[str, bool] | None = {"include_usage": True}
        self._output_limit = "max_tokens"
        self._session: aiohttp.ClientSession | None = None
        self._turns = Turns()
        self._name = f"LLM {self._model} at {self._url.with_query(None)}"
        self.breaker = LlmBreaker(
            self._name,
            calls=settings.llm_breaker_calls,
            window_seconds=settings.llm_breaker_window_seconds,
            probe_seconds=settings.llm_breaker_probe_seconds,
        )
        metrics.LLM_BREAKER.set_function(lambda: {"closed": 0, "half_open": 0.5, "open": 1}[self.breaker.state])

    async def close(self) -> None:
        """Close all connections for good."""
        if self._session:
            await self._session.close()

    async def check(self, *, timeout_seconds: float) -> None:
        """See that the endpoint lists its models.

        Raises:
            RagqError: It does not; the message says how.
        """
        session = self._session = self._session or self._open_session()
        try:
            async with asyncio.timeout(timeout_seconds):
                async with session.get(self._models_url, allow_redirects=False) as response:
                    if response.status == HTTPStatus.OK:
                        return
                    fault = await read_refusal(response)
        except TimeoutError as error:
            raise UnavailableError(f"The LLM gave no answer within {timeout_seconds:g} s.") from error
        except (aiohttp.ClientError, OSError) as error:
            fault = connection_fault(error)
        quote = _quotable(fault.quote, self._key, [])
        raise fault.error(f"GET {self._models_url.with_query(None)}: {fault.reason}{quote}.", code=fault.code)

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
        try:
            with self.breaker.watch():
                completion = await self._ask(request, max_output_tokens, deadline, on_delta)
        except FaultError as fault:
            metrics.LLM_CALLS.labels(fault.code).inc()
            raise self._error(fault, messages) from fault
        metrics.LLM_CALLS.labels("ok").inc()
        return completion

    def check_breaker(self) -> None:
        """Find out, before any work, whether a call would be refused.

        Raises:
            UnavailableError: The circuit breaker is open; `retry_after_seconds` is the time to its next probe.
        """
        try:
            self.breaker.check()
        except FaultError as fault:
            raise self._error(fault, []) from fault

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
                if not self._learns(fault, sent):
                    raise

    async def _call(self, request: dict[str, Any], answer: AnswerStream) -> None:
        """Make one call; what goes wrong after the finish_reason does not matter."""
        session = self._session = self._session or self._open_session()
        try:
            async with asyncio.timeout_at(answer.limit(self._settings.llm_first_token_timeout_seconds)) as timer:
                try:
                    body = json.dumps(request).encode()
                    response = await session.post(self._url, data=body, allow_redirects=False)
                except (aiohttp.ClientError, OSError) as error:
                    raise connection_fault(error) from error
                try:
                    if response.status != HTTPStatus.OK:
                        raise await read_refusal(response)
                    await answer.read(response.content, timer)
                finally:
                    response.close()  # no effect once the response was read to its end
        except FaultError:
            if not answer.finish_reason:
                raise
        except TimeoutError as error:
            if not timer.expired():
                raise
            if not answer.finish_reason:
                raise answer.limit_fault() from error

    def _open_session(self) -> aiohttp.ClientSession:
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream, application/json"}
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, connect=self._settings.llm_connect_timeout_seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers | ({"Authorization": f"Bearer {self._key}"} if self._key else {}),
            proxy=None if proxy_bypass(self._url.authority) else getproxies().get(self._url.scheme),
        )

    def _learns(self, fault: FaultError, sent: dict[str, Any]) -> bool:
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

    def _error(self, fault: FaultError, messages: list[dict[str, str]]) -> RagqError:
        """Say what one call met, in an error that may be shown."""
        message = f"{self._name}: {fault.reason}{_quotable(fault.quote, self._key, messages)}."
        return fault.error(message, code=fault.code, retry_after_seconds=fault.retry_after)


def _quotable(quote: str, key: str, messages: list[dict[str, str]]) -> str:
    """Cut a server's message to what may be shown: without the key, and nothing when it repeats the prompt."""
    quote = " ".join((quote.replace(key, "***") if key else quote).split())[:MAX_QUOTED_CHARACTERS]
    windows = [quote[start : start + PROMPT_WINDOW] for start in range(len(quote) - PROMPT_WINDOW + 1)]
    for message in messages:
        content = " ".join(message["content"].split())
        if len(content) >= SHORTEST_PROMPT and (content in quote or any(window in content for window in windows)):
            return " (its message repeats the prompt: not shown)"
    return quote and f": {quote}"
