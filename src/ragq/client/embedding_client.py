"""Embed texts, with the local model or with any OpenAI-compatible endpoint."""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import Callable, Coroutine, Generator, Sequence
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

from ragq import tracing
from ragq.client.model_faults import FaultError, RefusedInputError
from ragq.client.query_batcher import BATCH_SIZE, QueryBatcher
from ragq.client.tenancy.turn_thread import TurnThread
from ragq.errors import ConfigurationError, PermanentError, TransientError, UnavailableError
from ragq.settings import Settings

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    from ragq.client.minilm.model import MiniLM

    Vectors = NDArray[float32]

Progress = Callable[[int, int], None]  # (texts done, total texts), called on the event loop
P = ParamSpec("P")
ClientT = TypeVar("ClientT", bound="EmbeddingClient")
Embed = Callable[Concatenate[ClientT, P], Coroutine[Any, Any, "Vectors"]]

HTTP_CONCURRENCY = 8
LONGEST_WAIT_SECONDS = 600.0  # if the endpoint asks for a longer wait, the document fails at once
_BYTES_PER_NUMBER = 40  # upper bound for a number in a response, as text with white space
_BYTES_AROUND = 1_000_000  # upper bound for the rest of a response
_TOKENIZER_PATH = Path(__file__).with_name("all-MiniLM-L6-v2.tokenizer.json")


class EmbeddingClient(Protocol):
    """Embeds texts; every vector is float32 and of length 1."""

    model: str
    dimensions: int
    window_tokens: int

    @property
    def tokenizer(self) -> Tokenizer:
        """Counts tokens when a document is split; truncation and padding are off."""

    async def start(self) -> None:
        """Load or connect ahead of the first call."""

    async def embed_query(self, text: str) -> Vectors:
        """Embed a question: (dimensions,), read-only."""

    async def embed_documents(
        self, texts: Sequence[str], progress: Progress | None = None, *, tenant_id: str = ""
    ) -> Vectors:
        """Embed passages: (texts, dimensions). Tenants take turns."""

    async def close(self) -> None:
        """Stop threads and close connections."""


def create_embedding_client(settings: Settings) -> EmbeddingClient:
    """Create the client that the settings select, without loading or connecting anything yet."""
    return HttpEmbeddingClient(settings) if settings.embedding_base_url else LocalEmbeddingClient()


@cache
def load_tokenizer() -> Tokenizer:
    """Load MiniLM's official tokenizer, with truncation and padding off, so that no text is dropped silently."""
    from tokenizers import Tokenizer  # noqa: PLC0415  (only the processes that need it pay for it)

    tokenizer = Tokenizer.from_file(str(_TOKENIZER_PATH))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _traced(provider: str) -> Callable[[Embed[ClientT, P]], Embed[ClientT, P]]:
    """Record a span of each call of a method."""

    def trace(embed: Embed[ClientT, P]) -> Embed[ClientT, P]:
        @wraps(embed)
        async def embed_in_span(self: ClientT, /, *args: P.args, **options: P.kwargs) -> Vectors:
            attributes = {
                "gen_ai.operation.name": "embeddings",
                "gen_ai.provider.name": provider,
                "gen_ai.request.model": self.model,
            }
            with tracing.span(f"embeddings {self.model}", attributes, kind="client"):
                return await embed(self, *args, **options)

        return embed_in_span

    return trace


class LocalEmbeddingClient:
    """MiniLM in one thread of this process, for which tenants take turns, a window each; questions are one of them."""

    model = "all-MiniLM-L6-v2"
    dimensions = 384
    window_tokens = 256

    def __init__(self) -> None:
        self._minilm: MiniLM | None = None
        self._thread = TurnThread("embedding")
        self._queries = QueryBatcher(self._embed, concurrency=1)

    @property
    def tokenizer(self) -> Tokenizer:
        return load_tokenizer()

    async def start(self) -> None:
        await self._embed([""])

    @_traced("ragq")
    async def embed_query(self, text: str) -> Vectors:
        return await self._queries.get(text)

    @_traced("ragq")
    async def embed_documents(
        self, texts: Sequence[str], progress: Progress | None = None, *, tenant_id: str = ""
    ) -> Vectors:
        loop = asyncio.get_running_loop()

        def report(done: int) -> None:
            if progress:
                loop.call_soon_threadsafe(progress, done, len(texts))

        return await self._thread.run(f"documents of {tenant_id}", self._embed_in_steps(texts, report))

    async def _embed(self, texts: list[str]) -> Vectors:
        return await self._thread.run("questions", self._embed_at_once(texts))

    def _embed_in_steps(self, texts: Sequence[str], report: Callable[[int], None]) -> Generator[None, None, Vectors]:
        import numpy as np  # noqa: PLC0415  (only the processes that need it pay for it)

        vectors = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for position, text in enumerate(texts):
            if position:
                yield
            vectors[position] = yield from self._load().embed_in_steps(text)
            report(position + 1)
        return vectors

    def _embed_at_once(self, texts: Sequence[str]) -> Generator[None, None, Vectors]:
        import numpy as np  # noqa: PLC0415  (only the processes that need it pay for it)

        yield from ()  # one step
        return np.stack([self._load().embed(text) for text in texts])

    def _load(self) -> MiniLM:
        if self._minilm is None:
            # Imported here: a process that does not embed locally need not load onnxruntime (40 MB).
            from ragq.client.minilm.model import MiniLM  # noqa: PLC0415  (only the processes that need it pay for it)

            self._minilm = MiniLM(load_tokenizer())
        return self._minilm

    async def close(self) -> None:
        await self._queries.close()
        await self._thread.close()


class HttpEmbeddingClient:
    """An OpenAI-compatible `/embeddings` endpoint.

    A question is one call, and the queue retries its job. A document is thousands of calls: each is retried here, and
    the queue does not retry the job.
    """

    def __init__(self, settings: Settings) -> None:
        from ragq.client.model_endpoint import ModelEndpoint  # noqa: PLC0415  (only the processes that need it pay for it)

        self._endpoint = ModelEndpoint(settings, "embedding", "embeddings")
        self.settings = settings
        self.model = settings.embedding_name
        self.dimensions = settings.embedding_dimensions
        self.window_tokens = settings.embedding_window_tokens
        self._queries = QueryBatcher(self._embed, concurrency=HTTP_CONCURRENCY)

    @property
    def tokenizer(self) -> Tokenizer:
        """MiniLM's tokenizer, as an estimate of the served model's own."""
        return load_tokenizer()

    async def start(self) -> None:
        self._endpoint.open()

    @_traced("openai")
    async def embed_query(self, text: str) -> Vectors:
        return await self._queries.get(self.settings.embedding_query_prefix + text)

    @_traced("openai")
    async def embed_documents(
        self,
        texts: Sequence[str],
        progress: Progress | None = None,
        *,
        tenant_id: str = "",  # noqa: ARG002  (the endpoint runs calls side by side)
    ) -> Vectors:
        import numpy as np  # noqa: PLC0415  (only the processes that need it pay for it)

        vectors = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        start, size = 0, BATCH_SIZE
        while start < len(texts):
            batch = [self.settings.document_prefix + text for text in texts[start : start + size]]
            try:
                vectors[start : start + len(batch)] = await self._embed_patiently(batch)
            except RefusedInputError:
                if len(batch) == 1:
                    raise
                size = len(batch) // 2  # too many texts or tokens, or one bad text: bisect
                continue
            start += len(batch)
            if progress:
                progress(start, len(texts))
        return vectors

    async def _embed_patiently(self, texts: list[str]) -> Vectors:
        """Embed texts of a document: wait while the breaker is open, and retry after a transient error.

        Raises:
            PermanentError: All tries have failed. Not a TransientError, or the queue would retry as well.
        """
        settings, failures = self.settings, 0
        while True:
            try:
                return await self._embed(texts)
            except TransientError as error:
                is_call = error.code != "embedding_breaker_open"
                failures += is_call
                wait = error.retry_after_seconds or 0.0
                if failures == settings.embedding_tries or wait > LONGEST_WAIT_SECONDS:
                    raise PermanentError(f"{error.message} Failed calls: {failures}.", code=error.code) from error
                backoff = settings.embedding_backoff_seconds * 2 ** (failures - 1) if is_call else 0.1
                await asyncio.sleep(
                    wait + min(backoff, settings.embedding_backoff_max_seconds) * random.uniform(0.5, 1)
                )

    async def _embed(self, texts: list[str]) -> Vectors:
        """Make one call.

        Raises:
            RagqError: The call failed; the message contains neither the key nor a text.
        """
        body = {"model": self.model, "input": texts, "encoding_format": "float"}
        with self._endpoint.watch(texts):
            try:
                async with (
                    asyncio.timeout(self.settings.embedding_timeout_seconds) as timer,
                    self._endpoint.post(body) as response,
                ):
                    most = len(texts) * self.dimensions * _BYTES_PER_NUMBER + _BYTES_AROUND
                    answer = await self._endpoint.read_json(response, most_bytes=most)
            except TimeoutError as error:
                if not timer.expired():
                    raise
                reason = "over the limit RAGQ_EMBEDDING_TIMEOUT_SECONDS"
                raise FaultError(UnavailableError, "embedding_timeout", reason) from error
            return self._read_vectors(answer, len(texts))

    def _read_vectors(self, answer: Any, count: int) -> Vectors:
        import numpy as np  # noqa: PLC0415  (only the processes that need it pay for it)

        try:
            rows = sorted(answer["data"], key=lambda row: row["index"])
            numbers = [_read_numbers(row["embedding"]) for row in rows]
            lengths = {len(one) for one in numbers}
            if [row["index"] for row in rows] != list(range(count)):
                raise self._endpoint.malformed(f"sent {len(rows)} vectors for {count} texts, or wrong indexes")
            if lengths != {self.dimensions}:
                found = min(lengths)
                advice = (
                    f"makes vectors of {found} numbers, not {self.dimensions}: set RAGQ_EMBEDDING_DIMENSIONS={found}"
                )
                raise FaultError(ConfigurationError, "embedding_dimensions", advice)
            with np.errstate(over="ignore"):  # an overflow becomes inf, which is checked below
                vectors = np.array(numbers, dtype=np.float32)
        except (KeyError, TypeError, ValueError, OverflowError):
            raise self._endpoint.malformed("did not send a list of embeddings") from None
        if not np.isfinite(vectors).all():
            raise self._endpoint.malformed("sent vectors with values that are not finite numbers")
        unit: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return unit

    async def close(self) -> None:
        await self._queries.close()
        await self._endpoint.close()


def _read_numbers(embedding: Any) -> Any:
    """Read one vector: a list of numbers, or base64 of little-endian float32, which some servers send unasked."""
    import numpy as np  # noqa: PLC0415  (only the processes that need it pay for it)

    return np.frombuffer(base64.b64decode(embedding), "<f4") if isinstance(embedding, str) else embedding
