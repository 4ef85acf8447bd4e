"""One question and one document, as a collector that others wrote stores and shows them."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.phoenix.conftest import START_SECONDS, Phoenix
from tests.servers import Ragq, wait_until

pytestmark = pytest.mark.timeout(2 * START_SECONDS)
QUESTION = "How tall is the lighthouse of Quorra?"
EMBEDDINGS = "embeddings all-MiniLM-L6-v2"
# Each stage's span, and the one above it.
OF_A_QUESTION = {
    "POST /v1/responses": "",
    "enqueue queries": "POST /v1/responses",
    "wait": "enqueue queries",
    "process queries": "enqueue queries",
    "search": "process queries",
    EMBEDDINGS: "search",
    "WITH postgresql": "search",
    "chat fake/model": "process queries",
    "commit": "process queries",
}
OF_A_DOCUMENT = {
    "POST /v1/vector_stores/{vector_store_id}/files": "",
    "enqueue documents": "POST /v1/vector_stores/{vector_store_id}/files",
    "wait": "enqueue documents",
    "process documents": "enqueue documents",
    "parse": "process documents",
    "split": "process documents",
    "embed": "process documents",
    EMBEDDINGS: "embed",
    "store": "process documents",
    "commit": "process documents",
}


def trace_of(phoenix: Phoenix, expected: dict[str, str]) -> list[dict[str, Any]]:
    """The spans of the trace that begins with the first of those expected, once all of them are there."""
    root = next(iter(expected))
    came: set[str] = set()

    def found() -> list[dict[str, Any]]:
        spans = phoenix.spans()
        came.update(span["name"] for span in spans)
        begun = {span["context"]["trace_id"] for span in spans if span["name"] == root}
        trace = [span for span in spans if span["context"]["trace_id"] in begun]
        return trace if expected.keys() <= {span["name"] for span in trace} else []

    try:
        return wait_until(found, seconds=60)
    except AssertionError as error:
        raise AssertionError(f"missing: {expected.keys() - came}") from error


def places(trace: list[dict[str, Any]]) -> dict[str, str]:
    """The name of each span, and the name of the one above it."""
    names = {span["context"]["span_id"]: span["name"] for span in trace}
    return {span["name"]: names.get(span["parent_id"], "") if span["parent_id"] else "" for span in trace}


def test_a_question_is_one_trace_with_every_stage(phoenix: Phoenix, ragq: Ragq) -> None:
    answer = httpx2.post(f"{ragq.url}/v1/responses", json={"input": QUESTION}, timeout=60).json()
    assert answer["status"] == "completed"
    trace = trace_of(phoenix, OF_A_QUESTION)
    assert len({span["context"]["trace_id"] for span in trace}) == 1
    assert places(trace) == OF_A_QUESTION
    assert {span["status_code"] for span in trace} <= {"UNSET", "OK"}
    by_name = {span["name"]: span for span in trace}
    assert by_name["enqueue queries"]["attributes"]["messaging.message.id"] == answer["id"]
    for span in trace:
        assert span["start_time"] <= span["end_time"]
    # What Phoenix makes of the conventions for generative AI.
    call = by_name["chat fake/model"]
    assert (call["span_kind"], by_name[EMBEDDINGS]["span_kind"]) == ("LLM", "EMBEDDING")
    assert call["attributes"]["llm.model_name"] == "fake/model"
    assert call["attributes"]["llm.token_count.prompt"] == answer["usage"]["input_tokens"]
    assert call["attributes"]["llm.token_count.completion"] == answer["usage"]["output_tokens"]
    assert "lighthouse" not in str(trace)


def test_a_document_is_one_trace_with_every_stage(phoenix: Phoenix, ragq: Ragq) -> None:
    assert ragq
    found = places(trace_of(phoenix, OF_A_DOCUMENT))
    assert OF_A_DOCUMENT.items() <= found.items(), found
