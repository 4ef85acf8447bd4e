"""From a job's event log to OpenAI's events."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from openai._streaming import SSEDecoder

from ragq import records
from ragq.models import Answer, Citation, JobStatus, Statement, ToolCall, Usage
from ragq.records import (
    Failure,
    Job,
    LogEntry,
    QueryResult,
    ReasoningAdded,
    Request,
    SearchEnded,
    SearchStarted,
    StatementChecked,
    TextAdded,
)
from ragq.routes.streams import PING
from ragq.schemas.response_events import Event, ResponseEvents

STARTED = Job(
    id="resp_a",
    tenant_id="default",
    status=JobStatus.STARTED,
    attempt=1,
    created_at=1.0,
    started_at=2.0,
    request=Request(background=True, tools=[{"type": "file_search", "vector_store_ids": ["vs_1"]}]),
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
    made = ResponseEvents(replace(STARTED, request=job.request), results=False, page="http://ragq.test")
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


def test_a_foreground_response_was_never_queued() -> None:
    events = tell(replace(finished("Because."), request=Request()))
    assert kinds(events)[:2] == ["created", "in_progress"]
    assert events[0]["response"]["status"] == "in_progress"


@pytest.mark.parametrize("request_", [Request(), Request(tool_choice="none", tools=STARTED.request.tools)])
def test_a_search_is_shown_only_to_a_client_that_speaks_of_it_and_has_one_made(request_: Request) -> None:
    job = replace(finished("Because.", citations=[CITATION]), request=request_)
    events = tell(job, entry(1, SearchStarted(["Why?"]), SearchEnded(None), TextAdded("Be")))
    assert not [kind for kind in kinds(events) if "search" in kind]
    assert [item["type"] for item in events[-1]["response"]["output"]] == ["message"]
    assert [event["output_index"] for event in events if event["type"] == "response.output_item.added"] == [0]
    (annotation,) = events[-1]["response"]["output"][0]["content"][0]["annotations"]
    assert annotation["type"] == "url_citation"
    assert annotation["quote"] == "q"


def test_reasoning_and_calls_have_items_of_their_own_around_the_message() -> None:
    calls = [ToolCall("call_1", "look", '{"at": 1}')]
    answer = Answer("Because.", [], "generated", reasoning="Hm. So.", tool_calls=calls)
    job = replace(finished("Because."), result=QueryResult("Why?", answer, []))
    log = entry(
        1, SearchStarted(["Why?"]), SearchEnded(None), ReasoningAdded("Hm. "), ReasoningAdded("So."), TextAdded("Be")
    )
    events = tell(job, log)
    items = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert items == events[-1]["response"]["output"]
    assert [item["type"] for item in items] == ["file_search_call", "reasoning", "message", "function_call"]
    assert items[1]["content"] == [{"type": "reasoning_text", "text": "Hm. So."}]
    assert (items[3]["call_id"], items[3]["name"], items[3]["arguments"]) == ("call_1", "look", '{"at": 1}')
    assert kinds(events)[-5:-1] == [
        *("output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done")
    ]


def test_an_answer_of_calls_alone_has_no_message() -> None:
    job = finished("")
    answer = Answer("", [], "generated", tool_calls=[ToolCall("call_1", "look", "{}")])
    events = tell(replace(job, result=QueryResult("Why?", answer, [])))
    assert [item["type"] for item in events[-1]["response"]["output"]] == ["file_search_call", "function_call"]


def test_a_refusal_is_told_as_one() -> None:
    answer = Answer("", [], "generated", refusal="No.")
    events = tell(replace(finished(""), result=QueryResult("Why?", answer, [])))
    assert kinds(events)[-6:] == [
        *("content_part.added", "refusal.delta", "refusal.done", "content_part.done", "output_item.done", "completed")
    ]
    assert events[-1]["response"]["output"][-1]["content"] == [{"type": "refusal", "refusal": "No."}]


def test_an_event_is_one_line_for_every_reader() -> None:
    made = ResponseEvents(STARTED, results=False, page="")
    made.begin()
    (delta,) = made.add(entry(1, TextAdded("a\u2028b\u2029c\x85d")))[2:]
    written = made.write(delta)
    assert len(written.decode().strip().splitlines()) == 3  # event, id and data
    assert json.loads(written.decode().split("data: ")[1])["delta"] == "a\u2028b\u2029c\x85d"


def test_a_statement_is_shown_when_it_ends_beside_its_citation_or_alone() -> None:
    held = Statement(0, 8, "supported", citations=[0])
    missing = Statement(9, 14, "unsupported", "'Two' is neither in the sources nor in the question.")
    citation = replace(CITATION, index=8, verdict="supported")
    job = finished("Because. Two.", citations=[citation])
    log = entry(1, SearchStarted([]), TextAdded("Because. "), StatementChecked(held, [citation]))
    events = tell(job, log, entry(1, TextAdded("Two."), StatementChecked(missing, [])))
    shown = [event for event in events if "statement" in event]
    assert [event["type"] for event in shown] == [
        "response.output_text.annotation.added",
        "response.output_text.delta",
    ]
    assert [event["statement"]["verdict"] for event in shown] == ["supported", "unsupported"]
    assert shown[0]["annotation"]["verdict"] == "supported"
    assert kinds(events).count("output_text.annotation.added") == 1  # the end sends what is left
    assert said(events) == {"msg_a": "Because. Two."}


def test_the_official_sdk_reads_past_a_ping_after_an_event_with_an_id() -> None:
    event = b'id: 1\nevent: response.created\ndata: {"type": "response.created"}\n\n'
    read = list(SSEDecoder().iter_bytes(iter([event, PING, PING, event])))
    assert [sse.data for sse in read] == ['{"type": "response.created"}'] * 2
