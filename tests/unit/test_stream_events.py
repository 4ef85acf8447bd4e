"""From a job's event log to OpenAI's events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ragq import records
from ragq.models import Answer, Citation, JobStatus, Usage
from ragq.records import Failure, Job, LogEntry, QueryResult, SearchEnded, SearchStarted, TextAdded
from ragq.schemas.response_events import Event, ResponseEvents

STARTED = Job(
    id="resp_a",
    tenant_id="default",
    status=JobStatus.STARTED,
    attempt=1,
    created_at=1.0,
    started_at=2.0,
)
CITATION = Citation(index=3, file_id="file-1", filename="a.md", page=None, quote="q", start=0, end=1)


def finished(text: str, attempt: int = 1, *, citations: Sequence[Citation] = (), truncated: bool = False) -> Job:
    answer = Answer(text, list(citations), "generated", Usage(1, 2), truncated)
    result = QueryResult("Why?", answer, [])
    return replace(STARTED, status=JobStatus.FINISHED, attempt=attempt, ended_at=3.0, result=result)


def entry(attempt: int, *events: records.Event) -> LogEntry:
    return LogEntry(attempt, list(events))


def tell(job: Job, *log: LogEntry) -> list[Event]:
    """The events of a whole stream; their numbers must have no gap."""
    made = ResponseEvents(STARTED, results=False)
    events = [*made.begin(), *(event for one in log for event in made.add(one)), *made.end(job)]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def kinds(events: list[Event]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def said(events: list[Event]) -> dict[str, str]:
    """The text of each message, put together as a client does."""
    texts: dict[str, str] = {}
    for event in events:
        if event["type"] == "response.output_text.delta":
            texts[event["item_id"]] = texts.get(event["item_id"], "") + event["delta"]
    return texts


def test_a_whole_answer_comes_in_openais_order() -> None:
    log = entry(1, SearchStarted(["Why?"]), SearchEnded(None), TextAdded("Be"))
    events = tell(finished("Because.", citations=[CITATION]), log, entry(1, TextAdded("cause")))
    assert kinds(events) == [
        *("created", "queued", "in_progress"),
        *("output_item.added", "file_search_call.in_progress", "file_search_call.searching"),
        *("file_search_call.completed", "output_item.done"),
        *("output_item.added", "content_part.added", *["output_text.delta"] * 3, "output_text.annotation.added"),
        *("output_text.done", "content_part.done", "output_item.done", "completed"),
    ]
    assert said(events) == {"msg_a": "Because."}
    assert events[-1]["response"]["output"][-1]["id"] == "msg_a"
    assert events[-2]["item"] == events[-1]["response"]["output"][-1]


def test_an_attempt_after_a_death_opens_new_items_and_ends_the_old_as_incomplete() -> None:
    events = tell(
        finished("Truth.", attempt=3),
        entry(1, SearchStarted(["Why?"]), SearchEnded(None), TextAdded("Half a li")),
        entry(2, SearchStarted(["Why?"])),
        entry(3, SearchStarted(["Why?"]), SearchEnded(None), TextAdded("Tru")),
    )
    items = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert [(item["id"], item["status"]) for item in items] == [
        ("fs_a", "completed"),
        ("msg_a", "incomplete"),
        ("fs_a_2", "incomplete"),
        ("fs_a_3", "completed"),
        ("msg_a_3", "completed"),
    ]
    assert said(events) == {"msg_a": "Half a li", "msg_a_3": "Truth."}
    assert [event["output_index"] for event in events if event["type"] == "response.output_item.added"] == [
        0,
        1,
        2,
        3,
        4,
    ]


def test_an_answer_that_does_not_go_on_from_what_was_said_is_said_anew() -> None:
    events = tell(finished("Other."), entry(1, SearchStarted([]), TextAdded("What")))
    items = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert [(item["status"], item["content"][0]["text"]) for item in items] == [
        ("incomplete", "What"),
        ("completed", "Other."),
    ]


def test_a_job_that_said_nothing_is_told_as_a_whole() -> None:
    assert said(tell(finished("All of it."))) == {"msg_a": "All of it."}


def test_a_cut_answer_ends_as_incomplete() -> None:
    assert kinds(tell(finished("Cut", truncated=True), entry(1, SearchStarted([]))))[-1] == "incomplete"


def test_a_failure_closes_what_is_open_and_ends_with_failed() -> None:
    failed = replace(STARTED, status=JobStatus.FAILED, ended_at=3.0, error=Failure("x", "y"))
    events = tell(failed, entry(1, SearchStarted([]), TextAdded("Hal")))
    assert kinds(events)[-2:] == ["output_item.done", "failed"]
    assert events[-1]["response"]["error"] == {"code": "x", "message": "y"}


def test_a_canceled_response_just_ends() -> None:
    events = tell(replace(STARTED, status=JobStatus.CANCELED), entry(1, SearchStarted([]), TextAdded("Hal")))
    assert kinds(events)[-1] == "output_text.delta"
