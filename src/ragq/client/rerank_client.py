"""Rerank passages with a served model, at any `/rerank` endpoint.

Two forms of a request are in use: Cohere's, which Jina, vLLM, llama.cpp and others take, and that of
text-embeddings-inference. The first is sent until a server says that it misses the second one's field.
"""

from __future__ import annotations

import asyncio
import math
import re
from typing import Any, Final

from ragq import tracing
from ragq.client.model_endpoint import ModelEndpoint
from ragq.client.model_faults import FaultError
from ragq.errors import UnavailableError
from ragq.settings import Settings

MAX_ANSWER_BYTES: Final = 8 << 20  # some servers send the passages back
_WANTS_TEXTS: Final = re.compile(r"(missing|required)\b.*\btexts\b|\btexts\b.*(missing|required)", re.IGNORECASE)
_REFUSED: Final = (400, 422)


class RerankClient:
    """One `/rerank` endpoint. A call is made once: when it fails, a search keeps its order."""

    def __init__(self, settings: Settings) -> None:
        self._endpoint = ModelEndpoint(settings, "rerank", "rerank")
        self._model, self._seconds = settings.rerank_model, settings.rerank_timeout_seconds
        self._wants_texts = False

    async def close(self) -> None:
        """Close all connections; the client cannot be used again."""
        await self._endpoint.close()

    async def score(self, query: str, passages: list[str]) -> list[float]:
        """Score how well each passage answers a query, 0…1, higher is better.

        Raises:
            RagqError: There are no scores, or not all; the message contains neither the key nor a text.
        """
        attributes = {"gen_ai.request.model": self._model, "ragq.passages": len(passages)}
        with tracing.span(f"rerank {self._model}", attributes, kind="client"), self._endpoint.watch([query, *passages]):
            try:
                async with asyncio.timeout(self._seconds) as timer:
                    answer = await self._ask(query, passages)
            except TimeoutError as error:
                if not timer.expired():
                    raise
                reason = "over the limit RAGQ_RERANK_TIMEOUT_SECONDS"
                raise FaultError(UnavailableError, "rerank_timeout", reason) from error
            return to_shares(self._read_scores(answer, len(passages)))

    async def _ask(self, query: str, passages: list[str]) -> Any:
        if not self._wants_texts:
            try:
                return await self._call(
                    {"model": self._model, "query": query, "documents": passages, "top_n": len(passages)}
                )
            except FaultError as fault:
                if fault.status not in _REFUSED or not _WANTS_TEXTS.search(fault.quote):
                    raise
        answer = await self._call({"query": query, "texts": passages, "truncate": True})
        self._wants_texts = True
        return answer

    async def _call(self, request: dict[str, Any]) -> Any:
        async with self._endpoint.post(request) as response:
            return await self._endpoint.read_json(response, most_bytes=MAX_ANSWER_BYTES)

    def _read_scores(self, answer: Any, count: int) -> list[float]:
        """Read the scores, in the order of the passages: of `results`, of `data`, or of a list alone."""
        rows: Any = answer.get("results", answer.get("data")) if isinstance(answer, dict) else answer
        try:
            scores = {
                int(row["index"]): float(row["relevance_score"] if "relevance_score" in row else row["score"])
                for row in rows
            }
        except (KeyError, TypeError, ValueError, OverflowError):
            raise self._endpoint.malformed("did not send a list of scores") from None
        if scores.keys() != set(range(count)):
            raise self._endpoint.malformed(f"scored {len(scores)} of {count} passages, or others")
        if not all(map(math.isfinite, scores.values())):
            raise self._endpoint.malformed("sent scores that are not finite numbers")
        return [scores[place] for place in range(count)]


def to_shares(scores: list[float]) -> list[float]:
    """Bring scores to 0…1, if any lies outside: they are logits then, or cosines. The order stays."""
    if all(0 <= score <= 1 for score in scores):
        return scores
    return [0.5 + 0.5 * math.tanh(score / 2) for score in scores]
