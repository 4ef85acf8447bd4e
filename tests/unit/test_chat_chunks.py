"""From a job's event log to the chunks of a chat completion."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ragq.models import JobStatus
from ragq.records import Failure, Job, LogEntry, Request, SearchEnded, TextAdded
from ragq.schemas.chat_chunks import DONE, ChatChunks
from ragq.schemas.responses import render_passage
from tests.unit.test_stream_events import CITATION, STARTED, finished

JOB = replace(STARTED, id="chatcmpl-a", request=Request(model="ragq"))


def tell(job: Job, *said: tuple[int, str], usage: bool = False) -> list[dict[str, Any]]:
    made = ChatChunks(JOB, usage=usage, page="http://ragq.test")
    log = [LogEntry(attempt, [SearchEnded(None), TextAdded(text)]) for attempt, text in said]
    return [*made.begin(), *(chunk for entry in log for chunk in made.add(entry)), *made.end(job)]


def text_of(chunks: list[dict[str, Any]]) -> str:
    deltas = [choice["delta"] for chunk in chunks for choice in chunk.get("choices", [])]
    return "".join(delta.get("content", "") for delta in deltas)


def test_the_pieces_are_the_answer_and_the_last_chunk_has_its_citations() -> None:
    chunks = tell(finished("One two.", citations=[CITATION]), (1, "One "), (1, "two"))
    assert text_of(chunks) == "One two."
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    address = "http://ragq.test/?file=file-1&start=0&end=1"
    url = {"start_index": 0, "end_index": 3, "title": "a.md", "url": address}
    assert chunks[-2]["choices"][0] == {
        "index": 0,
        "delta": {"annotations": [{"type": "url_citation", "url_citation": url, "citation": render_passage(CITATION)}]},
        "logprobs": None,
        "finish_reason": "stop",
    }
    assert chunks[-1] is DONE


def test_an_answer_that_was_cut_ends_by_length() -> None:
    assert tell(finished("One", truncated=True), (1, "One"))[-2]["choices"][0]["finish_reason"] == "length"


def test_usage_comes_before_the_end_when_it_is_asked_for() -> None:
    chunks = tell(finished("One"), (1, "One"), usage=True)
    assert chunks[-2]["usage"] == {
        "prompt_tokens": 1,
        "completion_tokens": 2,
        "total_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    assert chunks[-2]["choices"] == []
    assert all(chunk["usage"] is None for chunk in chunks[:-2])


def test_a_second_attempt_that_says_the_same_goes_on_without_repeating() -> None:
    chunks = tell(finished("One two three.", attempt=2), (1, "One two"), (2, "One"), (2, " two three"))
    assert text_of(chunks) == "One two three."
    assert chunks[-1] is DONE


def test_a_second_attempt_that_says_something_else_ends_with_an_error() -> None:
    chunks = tell(finished("Two.", attempt=2), (1, "One"), (2, "Two."))
    assert text_of(chunks) == "One"
    assert chunks[-1]["error"]["code"] == "answer_restarted"


def test_a_failed_job_ends_with_its_error_and_a_canceled_one_says_so() -> None:
    failed = replace(JOB, status=JobStatus.FAILED, error=Failure("llm_refused", "No."))
    assert tell(failed, (1, "One"))[-1]["error"]["code"] == "llm_refused"
    assert tell(replace(JOB, status=JobStatus.CANCELED))[-1]["error"]["code"] == "not_answered"
