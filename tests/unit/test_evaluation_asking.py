"""What `ragq eval` measures of a question, with a server that always answers alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ragq.api_client import ApiClient
from ragq.evaluation.asking import Examiner, Result
from ragq.evaluation.dataset import Question

ANSWER: dict[str, Any] = {
    "status": "completed",
    "error": None,
    "output": [
        {"type": "file_search_call"},
        {
            "type": "message",
            "content": [
                {
                    "type": "output_text",
                    "text": "It is 61 metres tall.",
                    "annotations": [
                        {"file_id": "file-a", "filename": "a.md", "quote": "61 metres", "start": 6, "end": 15},
                        {"file_id": "file-a", "filename": "a.md", "quote": "61 metres", "start": 7, "end": 16},
                    ],
                }
            ],
        },
    ],
    "usage": {"input_tokens": 30, "output_tokens": 7},
    "timing": {"total_ms": 12},
}
FAILED = ANSWER | {"status": "failed", "output": [], "usage": None, "error": {"code": "x", "message": "It is away."}}


class Server(ApiClient):
    """A client of a server that finds b.md before a.md, and gives one response to all questions."""

    def __init__(self, response: dict[str, Any]) -> None:
        super().__init__("http://none")
        self.response = response
        self.texts_read = 0

    async def call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        if path.endswith("/search"):
            return {"data": [{"filename": name} for name in ("b.md", "b.md", "a.md")]}
        if path.endswith("/content"):
            self.texts_read += 1
            return {"data": [{"text": "It is 61 metres tall."}]}
        assert (method, path) == ("POST", "/v1/responses")
        assert options["json"]["tools"] == [{"type": "file_search", "vector_store_ids": ["vs_1"]}]
        return self.response


async def examine(server: Server, question: Question) -> Result:
    examiner = Examiner(server, "vs_1", ["retrieval", "answers"])
    results = await examiner.examine_all([question], concurrency=1, advance=lambda _: None)
    return results[0]


TALL = Question("1", "How tall is it?", "q.jsonl, line 1", files={"a.md": 1}, contains=("61 metres",))


async def test_a_question_is_measured_by_its_search_and_its_answer() -> None:
    server = Server(ANSWER | {"support": {"supported": 3, "unsupported": 1, "uncited": 0, "statements": []}})
    result = await examine(server, TALL)
    assert result.found == ["b.md", "a.md"]
    assert (result.input_tokens, result.output_tokens, result.latency_ms) == (30, 7, 12)
    assert result.measures["mrr_at_10"] == 0.5
    assert result.measures["citation_precision"] == 1
    assert result.measures["quotes_verbatim"] == 0.5  # the second quote stands one character before its offsets
    assert result.measures["statements_supported"] == 0.75
    assert server.texts_read == 1


@pytest.mark.parametrize("more", [{}, {"support": None}])
async def test_support_that_was_not_checked_is_not_measured(more: dict[str, Any]) -> None:
    assert "statements_supported" not in (await examine(Server(ANSWER | more), TALL)).measures


async def test_a_question_that_failed_counts_as_not_answered() -> None:
    result = await examine(Server(FAILED), TALL)
    assert result.error == "It is away."
    assert result.measures["recall_at_5"] == 1
    assert {name: result.measures[name] for name in ("failed", "contains_gold", "citation_recall")} == {
        "failed": 1,
        "contains_gold": 0,
        "citation_recall": 0,
    }


async def test_a_follow_up_is_asked_but_not_searched_with() -> None:
    turn = {"role": "user", "content": "Is there a lighthouse?"}
    result = await examine(Server(ANSWER), replace(TALL, history=(turn,)))
    assert result.found is None
    assert "recall_at_1" not in result.measures
    assert result.measures["contains_gold"] == 1
