"""Search with each question and ask it, and measure what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ragq.api_client import ApiClient
from ragq.errors import RagqError
from ragq.evaluation.dataset import Question
from ragq.evaluation.measures import DEPTH, SeenAnswer, measure_answer, measure_retrieval
from ragq.evaluation.patience import patiently
from ragq.evaluation.store import Advance
from ragq.models import CERTAIN

Part = Literal["retrieval", "answers"]
CHUNKS = 50  # the most that a search gives; a long document may have many among the first


@dataclass(slots=True)
class Result:
    """What came of one question; the measures by name, and what they were taken from."""

    id: str
    question: str
    measures: dict[str, float] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    found: list[str] | None = None
    answer: str | None = None
    cited: list[str] | None = None
    latency_ms: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    error: str | None = None


class Examiner:
    """Puts questions to one store.

    Args:
        parts: What to measure.
    """

    def __init__(self, client: ApiClient, store: str, parts: Sequence[Part]) -> None:
        self._client = client
        self._store = store
        self._parts = parts
        self._texts: dict[str, asyncio.Task[str]] = {}

    async def examine_all(self, questions: Sequence[Question], *, concurrency: int, advance: Advance) -> list[Result]:
        slots = asyncio.Semaphore(concurrency)

        async def examine(question: Question) -> Result:
            async with slots:
                result = await self._examine(question)
            advance(1)
            return result

        return await asyncio.gather(*map(examine, questions))

    async def _examine(self, question: Question) -> Result:
        result = Result(question.id, question.text, files=sorted(question.files))
        try:
            if "retrieval" in self._parts and question.files and not question.history:
                result.measures = measure_retrieval([], question.files)
                await self._search(question, result)
            if "answers" in self._parts:
                result.measures |= _measure(question, SeenAnswer("", failed=True))
                await self._ask(question, result)
        except RagqError as error:
            result.error = str(error)
        result.measures["failed"] = float(result.error is not None)
        return result

    async def _search(self, question: Question, result: Result) -> None:
        body = {"query": question.text, "max_num_results": CHUNKS}
        path = f"/v1/vector_stores/{self._store}/search"
        page = await patiently(lambda: self._client.call("POST", path, json=body))
        result.found = list(dict.fromkeys(hit["filename"] for hit in page["data"]))[:DEPTH]
        result.measures |= measure_retrieval(result.found, question.files)

    async def _ask(self, question: Question, result: Result) -> None:
        messages = [*question.history, {"role": "user", "content": question.text}]
        tools = [{"type": "file_search", "vector_store_ids": [self._store]}]
        response = await patiently(
            lambda: self._client.ask(messages, tools=tools, background=False, store=False)  # nothing of it is kept
        )
        seen = await self._read(response)
        result.answer, result.cited = seen.text, list(seen.cited)
        result.latency_ms = response["timing"]["total_ms"]
        if usage := response["usage"]:
            result.input_tokens, result.output_tokens = usage["input_tokens"], usage["output_tokens"]
        if response["error"]:
            result.error = response["error"]["message"]
        elif seen.failed:
            result.error = f"The response is {response['status']}, without an answer."
        result.measures |= _measure(question, seen)

    async def _read(self, response: dict[str, Any]) -> SeenAnswer:
        messages = [item for item in response["output"] if item["type"] == "message"]
        if response["status"] not in ("completed", "incomplete") or not messages:
            return SeenAnswer("", failed=True)
        content = messages[-1]["content"][0]
        citations = content.get("annotations", [])
        return SeenAnswer(
            text=content.get("text", ""),
            cited=list(dict.fromkeys(one["filename"] for one in citations)),
            quotes_verbatim=[await self._is_verbatim(one) for one in citations],
            supported=_share_supported(response.get("support")),
            is_certain=(response.get("confidence") or {}).get("value", 1) >= CERTAIN,
        )

    async def _is_verbatim(self, citation: dict[str, Any]) -> bool:
        """Whether the quote stands in the document at its offsets; a document's text is fetched once."""
        file = citation["file_id"]
        if file not in self._texts:
            self._texts[file] = asyncio.create_task(self._fetch_text(file))
        text = await self._texts[file]
        return bool(text[citation["start"] : citation["end"]] == citation["quote"])

    async def _fetch_text(self, file: str) -> str:
        path = f"/v1/vector_stores/{self._store}/files/{file}/content"
        page = await patiently(lambda: self._client.call("GET", path))
        return "".join(part["text"] for part in page["data"])


def _measure(question: Question, answer: SeenAnswer) -> dict[str, float]:
    return measure_answer(
        answer, files=question.files, contains=question.contains, is_unanswerable=question.is_unanswerable
    )


def _share_supported(support: dict[str, Any] | None) -> float | None:
    """The share of an answer's statements that its sources support; None where the server checked none."""
    counts = [support[name] for name in ("supported", "unsupported", "uncited")] if support else []
    return counts[0] / sum(counts) if sum(counts) else None
