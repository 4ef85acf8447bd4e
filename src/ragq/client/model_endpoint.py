"""One endpoint of a served model: what calls to an LLM, to an embedding model and to a reranker share.

A call is made once. This module handles URL and key, connections, proxies, circuit breaker and errors; `llm_client`,
`embedding_client` and `rerank_client` write the request and read the response.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson
from prometheus_client import Counter, Gauge
from yarl import URL

from ragq import metrics, tracing
from ragq.client.breaker import Breaker
from ragq.client.connection_errors import connection_fault
from ragq.client.model_faults import FaultError, Kind, server_fault
from ragq.client.quoting import quote
from ragq.errors import ConfigurationError, PermanentError, RagqError, UnavailableError
from ragq.settings import Settings

SHORTEST_QUERY_SECRET: Final = 16  # a key may be in the URL's query; shorter values are version numbers and the like
MAX_RETRY_AFTER_SECONDS: Final = 86_400.0
ERROR_BODY_SECONDS: Final = 2.0
MAX_ERROR_BYTES: Final = 64_000
_LABELS: Final[dict[Kind, str]] = {"llm": "LLM", "embedding": "Embedding model", "rerank": "Reranker"}
_METRICS: Final[dict[Kind, tuple[Counter, Gauge]]] = {
    "llm": (metrics.LLM_CALLS, metrics.LLM_BREAKER),
    "embedding": (metrics.EMBEDDING_CALLS, metrics.EMBEDDING_BREAKER),
    "rerank": (metrics.RERANK_CALLS, metrics.RERANK_BREAKER),
}

logger = logging.getLogger(__name__)


class ModelEndpoint:
    """Calls to the endpoint and model that the settings `RAGQ_<KIND>_…` name.

    Proxies come from the environment (`HTTPS_PROXY`, `NO_PROXY`, …), read at the first call; `.netrc` is never read and
    no redirect is followed. No error shows the key, the URL's query or what was sent.

    Args:
        path: Path under the base URL; error messages include it.

    Attributes:
        breaker: Refuses calls while the endpoint looks dead.
        host: Of the base URL; likewise `port`.
    """

    def __init__(self, settings: Settings, kind: Kind, path: str) -> None:
        base_url, api_key, model = (getattr(settings, f"{kind}_{name}") for name in ("base_url", "api_key", "model"))
        self.kind, self._base_url = kind, _read_url(kind, base_url)
        self.host, self.port = self._base_url.host or "", self._base_url.port
        if not model:
            raise ConfigurationError(f"Set RAGQ_{kind.upper()}_MODEL to the name of the model.")
        self._key = _read_key(kind, api_key.get_secret_value() if api_key else "")
        self._secrets = [
            self._key,
            *(one for one in self._base_url.query.values() if len(one) >= SHORTEST_QUERY_SECRET),
        ]
        # A reranker has one limit for all of a call.
        self._connect_seconds: float | None = getattr(settings, f"{kind}_connect_timeout_seconds", None)
        self._session: aiohttp.ClientSession | None = None
        self._name = f"{_LABELS[kind]} {model} at {self._url(path).with_query(None)}"
        self._path = path
        self.breaker = Breaker(
            kind,
            self._name,
            calls=settings.llm_breaker_calls,
            window_seconds=settings.llm_breaker_window_seconds,
            probe_seconds=settings.llm_breaker_probe_seconds,
        )
        self._calls, gauge = _METRICS[kind]
        gauge.set_function(lambda: {"closed": 0, "half_open": 0.5, "open": 1}[self.breaker.state])

    def open(self) -> aiohttp.ClientSession:
        """Open the HTTP session; the first call does it otherwise."""
        if self._session is None:
            url = self._base_url
            proxy = None if proxy_bypass(url.authority) else getproxies().get(url.scheme)
            self._secrets.append((proxy and URL(proxy).password) or "")
            headers = {"Content-Type": "application/json", "Accept": "text/event-stream, application/json"}
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_seconds),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=headers | ({"Authorization": f"Bearer {self._key}"} if self._key else {}),
                proxy=proxy,
            )
        return self._session

    async def close(self) -> None:
        """Close all connections; the endpoint cannot be called again."""
        if self._session:
            await self._session.close()

    @contextlib.contextmanager
    def watch(self, sent: Sequence[str]) -> Iterator[None]:
        """Let one call through the breaker, count it, and turn its fault into an error that is safe to show.

        Args:
            sent: Texts that the error must not repeat.
        """
        try:
            with self.breaker.watch():
                yield
        except FaultError as fault:
            self._calls.labels(fault.code).inc()
            raise self._error(self._name, fault, sent) from fault
        self._calls.labels("ok").inc()

    def check_breaker(self) -> None:
        """Check, before any work, whether the breaker would refuse a call.

        Raises:
            UnavailableError: The circuit breaker is open; `retry_after_seconds` is the time to its next probe.
        """
        try:
            self.breaker.check()
        except FaultError as fault:
            raise self._error(self._name, fault, ()) from fault

    async def check_models(self) -> None:
        """Check that the endpoint lists its models.

        Raises:
            RagqError: It does not; the message gives the reason.
        """
        try:
            async with self._request("GET", "models"):
                return
        except FaultError as fault:
            raise self._error(f"GET {self._url('models').with_query(None)}", fault, ()) from fault

    def post(self, request: dict[str, Any]) -> contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Send a request; yields the response, with status 200 and its body unread.

        Raises:
            FaultError: The request failed or had another status.
        """
        return self._request("POST", self._path, json.dumps(request).encode())

    async def read_json(self, response: aiohttp.ClientResponse, *, most_bytes: int) -> Any:
        """Read a response's body.

        Raises:
            FaultError: It was cut, is too long, is not JSON, or has an error in spite of its status.
        """
        body = bytearray()
        try:
            while data := await response.content.readany():
                body += data
                if len(body) > most_bytes:
                    raise self.malformed(f"sent over {most_bytes:,} bytes")
        except (aiohttp.ClientError, OSError) as error:
            raise connection_fault(self.kind, error) from None
        try:
            answer = orjson.loads(body)
        except ValueError:  # `from None`: the cause's message may repeat what was sent
            reason = f"did not send JSON; check RAGQ_{self.kind.upper()}_BASE_URL"
            raise FaultError(UnavailableError, f"{self.kind}_malformed", reason) from None
        if isinstance(answer, dict) and answer.get("error"):
            raise server_fault(self.kind, HTTPStatus.OK, answer)
        return answer

    def malformed(self, reason: str) -> FaultError:
        """The fault of an answer of another form."""
        return FaultError(PermanentError, f"{self.kind}_malformed", reason)

    @contextlib.asynccontextmanager
    async def _request(
        self, method: str, path: str, body: bytes | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            response = await self.open().request(
                method, self._url(path), data=body, headers=tracing.headers(), allow_redirects=False
            )
        except (aiohttp.ClientError, OSError) as error:
            raise connection_fault(self.kind, error) from None
        try:
            if response.status != HTTPStatus.OK:
                raise await _read_refusal(self.kind, response)
            yield response
        finally:
            response.close()  # no effect if the body was read to its end

    def _url(self, path: str) -> URL:
        return (self._base_url / path).with_query(self._base_url.query)

    def _error(self, name: str, fault: FaultError, sent: Sequence[str]) -> RagqError:
        message = f"{name}: {fault.reason}{quote(fault.quote, self._secrets, sent)}."
        return fault.error(message, code=fault.code, param=fault.param, retry_after_seconds=fault.retry_after)


def _read_url(kind: Kind, text: str | None) -> URL:
    try:
        url = URL(text or "")
    except ValueError:  # the error does not quote the URL: it may hold a password
        url = URL()
    if url.scheme not in ("http", "https") or not url.host or url.user is not None or url.password is not None:
        raise ConfigurationError(f"Set RAGQ_{kind.upper()}_BASE_URL to an http or https URL without a user.")
    return url


def _read_key(kind: Kind, text: str) -> str:
    key = text.strip()
    if not (key.isascii() and key.isprintable()):
        raise ConfigurationError(f"RAGQ_{kind.upper()}_API_KEY has characters that an HTTP header cannot hold.")
    return key


async def _read_refusal(kind: Kind, response: aiohttp.ClientResponse) -> FaultError:
    """Read and classify an error response."""
    body = b""
    try:
        async with asyncio.timeout(ERROR_BODY_SECONDS):
            while len(body) < MAX_ERROR_BYTES and (data := await response.content.readany()):
                body += data
    except (aiohttp.ClientError, OSError):
        logger.debug("The body of an error response was cut.")  # the status is enough to classify it
    text = body.decode(errors="replace")
    try:
        return server_fault(kind, response.status, json.loads(text), _retry_after(response.headers))
    except (ValueError, RecursionError):
        return server_fault(kind, response.status, text, _retry_after(response.headers))


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds the server asks us to wait, from `retry-after-ms` or `Retry-After`."""
    milliseconds, value = headers.get("retry-after-ms"), headers.get("Retry-After")
    try:
        seconds = float(milliseconds) / 1000 if milliseconds else float(value or "none")
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value or "").timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return min(max(0.0, seconds), MAX_RETRY_AFTER_SECONDS)
