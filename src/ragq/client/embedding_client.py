"""Turn texts into vectors: with the model on this machine, or with any OpenAI-compatible endpoint."""

from __future__ import annotations

import asyncio
import email.utils
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp

from ragq.client.query_batcher import BATCH_SIZE, QueryBatcher
from ragq.errors import ConfigurationError, OverloadedError, PermanentError, TransientError, UnavailableError

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    from ragq.client.minilm import MiniLM
    from ragq.settings import Settings

    Vectors = NDArray[float32]

Progress = Callable[[int, int], None]  # (texts done, texts in all), called on the event loop

HTTP_TRIES = 5
HTTP_CONCURRENCY = 8
_LONGEST_WAIT_SECONDS = 30.0
_TOKENIZER_PATH = Path(__file__).with_name("all-MiniLM-L6-v2.tokenizer.json")


class EmbeddingClient(Protocol):
    """What turns texts into vectors; every vector is float32 and of length 1."""

    model: str
    dimensions: int
    window_tokens: int

    @property
    def tokenizer(self) -> Tokenizer:
        """What to count tokens with when splitting; truncation and padding are off."""

    async def start(self) -> None:
        """Make ready what the first call would otherwise wait for."""

    async def embed_query(self, text: str) -> Vectors:
        """Embed a question: (dimensions,), read-only."""

    async def embed_documents(self, texts: Sequence[str], progress: Progress | None = None) -> Vectors:
        """Embed passages: (texts, dimensions)."""

    async def close(self) -> None:
        """Let go of threads and connections."""


def create_embedding_client(settings: Settings) -> EmbeddingClient:
    """Make the client that the settings name; nothing is loaded or connected yet."""
    if settings.embedding_base_url is None:
        return LocalEmbeddingClient()
    if settings.embedding_model is None:
        raise ConfigurationError("RAGQ_EMBEDDING_BASE_URL is set but RAGQ_EMBEDDING_MODEL is not: name the model.")
    return HttpEmbeddingClient(
        settings.embedding_base_url,
        settings.embedding_api_key.get_secret_value() if settings.embedding_api_key else None,
        settings.embedding_model,
        dimensions=settings.embedding_dimensions,
        window_tokens=settings.embedding_window_tokens,
    )


@cache
def load_tokenizer() -> Tokenizer:
    """Load MiniLM's official tokenizer, with truncation and padding off: nothing of a text may be dropped unseen."""
    from tokenizers import Tokenizer  # noqa: PLC0415  (only the processes that need it pay for it)

    tokenizer = Tokenizer.from_file(str(_TOKENIZER_PATH))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


class LocalEmbeddingClient:
    """MiniLM in one thread of this process; a question waits for one passage at most."""

    model = "all-MiniLM-L6-v2"
    dimensions = 384
    window_tokens = 256

    def __init__(self) -> None:
        self._minilm: MiniLM | None = None
        self._thread = ThreadPoolExecutor(1, "embedding")
        self._queries = QueryBatcher(self._embed, concurrency=1)

    @property
    def tokenizer(self) -> Tokenizer:
        return load_tokenizer()

    async def start(self) -> None:
        await self._embed([""])

    async def embed_query(self, text: str) -> Vectors:
        return await self._queries.get(text)

    async def embed_documents(self, texts: Sequence[str], progress: Progress | None = None) -> Vectors:
        import numpy as np  # noqa: PLC0415  (only the processes that need it pay for it)

        vectors = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for position, text in enumerate(texts):
            vectors[position] = (await self._embed([text]))[0]  # one a turn: waiting questions go in between
            if progress:
                progress(position + 1, len(texts))
        return vectors

    async def _embed(self, texts: list[str]) -> Vectors:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._embed_in_thread, texts)

    def _embed_in_thread(self, texts: list[str]) -> Vectors:
        if self._minilm is None:
            # Here only: processes that embed elsewhere, or not at all, need not load onnxruntime (40 MB).
            from ragq.client.minilm import MiniLM  # noqa: PLC0415  (only the processes that need it pay for it)

            self._minilm = MiniLM(load_tokenizer())
        import numpy as np  # noqa: PLC0415  (only the processes that need it pay for it)

        return np.stack([self._minilm.embed(text) for text in texts])

    async def close(self) -> None:
        await self._queries.close()
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)


class HttpEmbeddingClient:
    """An OpenAI-compatible `/embeddings` endpoint, called in batches, and again when it fails for the moment."""

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        model: str,
        *,
        dimensions: int,
        window_tokens: int,
        timeout_seconds: float = 60,
        backoff_seconds: float = 0.5,
    ) -> None:
        self.model = model
        self.dimensions = dimensions
        self.window_tokens = window_tokens
        self._url = base_url.rstrip("/") + "/embeddings"
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=5)
        self._backoff_seconds = backoff_seconds
        self._session: aiohttp.ClientSession | None = None
        self._queries = QueryBatcher(self._embed, concurrency=HTTP_CONCURRENCY)

    @property
    def tokenizer(self) -> Tokenizer:
        """MiniLM's tokenizer, as an estimate of the served model's own."""
        return load_tokenizer()

    async def start(self) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout, headers=self._headers)

    async def embed_query(self, text: str) -> Vectors:
        return await self._queries.get(text)

    async def embed_documents(self, texts: Sequence[str], progress: Progress | None = None) -> Vectors:
        import numpy as np  # noqa: PLC0415  (only the processes that need it pay for it)

        vectors = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for start in range(0, len(texts), BATCH_SIZE):
            batch = list(texts[start : start + BATCH_SIZE])
            vectors[start : start + len(batch)] = await self._embed(batch)
            if progress:
                progress(start + len(batch), len(texts))
        return vectors

    async def _embed(self, texts: list[str]) -> Vectors:
        """Call until it succeeds, fails for good, or `HTTP_TRIES` are spent."""
        for attempt in range(1, HTTP_TRIES + 1):
            try:
                return self._read_vectors(await self._post(texts), len(texts))
            except TransientError as error:
                wait = max(self._backoff_seconds * 2 ** (attempt - 1), error.retry_after_seconds or 0)
                if attempt == HTTP_TRIES or wait > _LONGEST_WAIT_SECONDS:
                    raise
                await asyncio.sleep(wait * random.uniform(1.0, 1.5))
        raise AssertionError("unreachable")

    async def _post(self, texts: list[str]) -> Any:
        await self.start()
        assert self._session is not None
        body = {"model": self.model, "input": texts, "encoding_format": "float"}
        try:
            async with self._session.post(self._url, json=body, allow_redirects=False) as response:
                if response.status == 200:
                    return await response.json(content_type=None)
                raise self._explain(response, (await response.content.read(2000)).decode("utf-8", "replace")[:300])
        except (aiohttp.ClientError, TimeoutError) as error:
            what = str(error) or type(error).__name__
            raise UnavailableError(f"The embedding endpoint {self._url} does not answer: {what}") from error
        except ValueError as error:
            raise PermanentError(
                f"The embedding endpoint {self._url} answered with something else than JSON."
            ) from error

    def _explain(self, response: aiohttp.ClientResponse, body: str) -> PermanentError | TransientError:
        status = response.status
        message = f"The embedding endpoint {self._url} answered {status}: {body}"
        wait = _read_retry_after(response.headers.get("Retry-After"))
        if status == 429:
            return OverloadedError(message, retry_after_seconds=wait)
        if status in (408, 409, 425) or status >= 500:
            return UnavailableError(message, retry_after_seconds=wait)
        if status in (401, 403):
            return ConfigurationError(f"{message} Check RAGQ_EMBEDDING_API_KEY.")
        if status == 404 or status < 400:
            return ConfigurationError(f"{message} Check RAGQ_EMBEDDING_BASE_URL and RAGQ_EMBEDDING_MODEL.")
        return PermanentError(message)

    def _read_vectors(self, answer: Any, count: int) -> Vectors:
        import numpy as np  # noqa: PLC0415  (only the processes that need it pay for it)

        try:
            rows = sorted(answer["data"], key=lambda row: row["index"])
            vectors = np.array([row["embedding"] for row in rows], dtype=np.float32)
        except (KeyError, TypeError, ValueError) as error:
            raise PermanentError(f"The embedding endpoint {self._url} answered in an unknown form.") from error
        if vectors.shape == (count, self.dimensions) and np.isfinite(vectors).all():
            unit: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
            return unit
        if len(vectors) == count and vectors.ndim == 2 and vectors.shape[1] != self.dimensions:
            raise ConfigurationError(
                f"{self.model} makes vectors of {vectors.shape[1]} numbers, not {self.dimensions}: "
                f"set RAGQ_EMBEDDING_DIMENSIONS={vectors.shape[1]}."
            )
        raise PermanentError(f"The embedding endpoint {self._url} answered {len(vectors)} vectors for {count} texts.")

    async def close(self) -> None:
        await self._queries.close()
        if self._session:
            await self._session.close()
            self._session = None


def _read_retry_after(value: str | None) -> float | None:
    """Read seconds or an HTTP date."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
