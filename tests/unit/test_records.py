"""Records: what is written is read back, and what versions before and after this one write is read as well."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest

from ragq import records
from ragq.json_records import UnreadableRecordError
from ragq.models import (
    Answer,
    AttachedFile,
    AttributeFilter,
    Citation,
    JobFunction,
    JobStatus,
    Question,
    SearchResult,
    Statement,
    Usage,
)
from ragq.records import (
    BatchRequest,
    DocumentArguments,
    DocumentResult,
    EmbeddingArguments,
    EmbeddingResult,
    Failure,
    Job,
    Meta,
    Progress,
    QueryArguments,
    QueryResult,
    Reference,
    Request,
    SearchArguments,
    SearchEnded,
    SearchResults,
    SearchStarted,
    TextAdded,
    function_of,
    write_record,
)
from ragq.schemas.questions import ResponseCreate

FOUND = SearchResult(
    "file-1", "a.md", "text", 0, 4, 2, "A", 1, 0.5, similarity=0.25, attributes={"year": 2026, "x": "y"}
)
CITATION = Citation(4, "file-1", "a.md", 2, "text", 0, 4)
ANSWER = Answer("Text [1].", [CITATION], "generated", Usage(5, 3), truncated=True)
FILTER = AttributeFilter(
    "and", filters=[AttributeFilter("eq", "year", 2026), AttributeFilter("in", "x", ["y", 1.5, True])]
)

# As ragq 0.1.0 wrote them.
REQUEST_1 = {
    "model": "ragq",
    "input": [{"type": "message", "role": "user", "content": "Why?"}],
    "background": True,
    "include": ["file_search_call.results"],
    "metadata": {"team": "a"},
    "history": [{"role": "user", "content": "Who?"}],
}
RESULT_1 = {
    "query": "Why?",
    "answer": {
        "text": "Because.",
        "citations": [
            {"index": 3, "file_id": "file-1", "filename": "a.md", "page": None, "quote": "q", "start": 0, "end": 1}
        ],
        "kind": "extractive",
        "usage": {"input_tokens": 0, "output_tokens": 0},
        "truncated": False,
    },
    "results": [
        {
            "file_id": "file-1",
            "filename": "a.md",
            "text": "q",
            "start": 0,
            "end": 1,
            "page": None,
            "heading": None,
            "token_count": 1,
            "score": 0.5,
            "similarity": None,
            "attributes": {"year": 2026.0},
        }
    ],
}
JOB_1 = {
    "id": "resp_a",
    "tenant_id": "default",
    "status": "finished",
    "attempt": 2,
    "created_at": 1.0,
    "started_at": 2.0,
    "ended_at": 3.0,
    "fingerprint": "f",
    "request": REQUEST_1,
    "result": RESULT_1,
    "error": None,
    "meta": {"queued_ms": 3, "retrieve_ms": 5, "answer_ms": 9, "run_ms": 14, "worker": "w1"},
    "position": None,
    "eta_seconds": None,
}
ANSWERED_1 = QueryResult(
    "Why?",
    Answer("Because.", [Citation(3, "file-1", "a.md", None, "q", 0, 1)], "extractive"),
    [SearchResult("file-1", "a.md", "q", 0, 1, None, None, 1, 0.5, attributes={"year": 2026.0})],
)


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    "arguments",
    [
        QueryArguments(
            Question("Why?", ["vs_1"], FILTER, 5, 0.2, history=[{"role": "user", "content": "Who?"}]), "text"
        ),
        SearchArguments(
            queries=["Why?"], vector_store_ids=["vs_1"], max_results=3, score_threshold=0.5, filters=FILTER
        ),
        DocumentArguments("vs_1", "file-1", 2),
        EmbeddingArguments(["a", "b"]),
        QueryArguments(Question("", ["vs_1"], files=[AttachedFile("file-1"), AttachedFile(file_data="QQ==")])),
        Reference("requests/a.0.1"),
    ],
)
def test_a_payload_is_read_back_and_has_rqs_form(arguments: Any) -> None:
    function = JobFunction.PROCESS_QUERY if isinstance(arguments, Reference) else function_of(arguments)
    data = records.write_payload(function, arguments)
    assert records.read_payload(data) == (function, arguments)
    assert json.loads(data)[:3] == [str(function), None, []]


def test_the_files_of_a_question_are_read_as_an_older_version_wrote_them() -> None:
    question = {"text": "Why?", "vector_store_ids": [], "files": [{"file_id": "file-1"}, {"file_data": "QQ=="}]}
    written = json.dumps({"query": question, "stream": "nothing"}).encode()
    read: Any = records.read_arguments(JobFunction.PROCESS_QUERY, written)
    assert read.query.files == [AttachedFile("file-1"), AttachedFile(file_data="QQ==")]


@pytest.mark.parametrize(
    "result",
    [
        QueryResult("Why?", ANSWER, [FOUND]),
        SearchResults([FOUND]),
        DocumentResult("completed", 3),
        DocumentResult("superseded"),
        EmbeddingResult(["AAAA"], 1),
    ],
)
def test_a_result_is_read_back_as_what_it_was(result: records.Result) -> None:
    assert records.read_result(write_record(result)) == result


def test_a_request_a_meta_and_a_job_are_read_back_and_defaults_take_no_room() -> None:
    request = Request(input="Why?", tools=[{"type": "file_search"}], temperature=0.5, store=False)
    meta = Meta(queued_ms=1, progress=Progress("embed", 3, 9))
    job = Job("resp_a", "acme", JobStatus.FAILED, 1, 1.0, request=request, error=Failure("x", "y"), meta=meta)
    assert records.read_request(write_record(request)) == request
    assert records.read_meta(write_record(meta)) == meta
    assert records.read_job(write_record(job)) == job
    assert json.loads(write_record(Request())) == {"record": "request/2"}


def test_a_line_of_a_batch_is_read_back_also_as_the_first_version_wrote_it() -> None:
    embed = BatchRequest("b", {"input": "two\0東", "n": 2**63 - 1, "x": [1.5, None, True]}, "/v1/embeddings")
    assert records.read_batch_request(write_record(embed)) == embed
    written = json.dumps({"custom_id": "a\0東", "body": {"input": "Why?"}})
    assert records.read_batch_request(written) == BatchRequest("a\0東", {"input": "Why?"}, "/v1/responses")


def test_events_are_read_back_and_pieces_of_text_are_joined() -> None:
    written: list[records.Event] = [SearchStarted(["Why?"]), SearchEnded([FOUND]), TextAdded("Be"), TextAdded("cause")]
    read = records.read_events(records.write_events(written))
    assert read == [SearchStarted(["Why?"]), SearchEnded([FOUND]), TextAdded("Because")]


QUESTION_1 = {
    "text": "Why?",
    "vector_store_ids": ["default"],
    "filters": {"type": "or", "filters": [{"type": "gt", "key": "year", "value": 2020.0}]},
    "max_results": None,
    "score_threshold": 0.0,
    "instructions": None,
    "max_output_tokens": None,
    "temperature": None,
    "top_p": None,
    "history": [],
}


def test_the_records_of_the_first_version_are_read() -> None:
    assert records.read_job(as_json(JOB_1)) == Job(
        "resp_a",
        "default",
        JobStatus.FINISHED,
        2,
        1.0,
        2.0,
        3.0,
        "f",
        Request(
            model="ragq",
            input=[{"type": "message", "role": "user", "content": "Why?"}],
            background=True,
            include=["file_search_call.results"],
            metadata={"team": "a"},
            history=[{"role": "user", "content": "Who?"}],
        ),
        ANSWERED_1,
        None,
        Meta(queued_ms=3, retrieve_ms=5, answer_ms=9, run_ms=14, worker="w1"),
    )
    assert records.read_result(as_json(RESULT_1)) == ANSWERED_1
    assert records.read_result(as_json({"results": RESULT_1["results"]})) == SearchResults(ANSWERED_1.results)
    assert records.read_result(as_json({"status": "completed", "chunks": 3})) == DocumentResult("completed", 3)
    assert records.read_result(as_json({"embeddings": ["AA"], "tokens": 1})) == EmbeddingResult(["AA"], 1)
    payload: list[Any] = [str(JobFunction.PROCESS_QUERY), None, [], {"query": QUESTION_1, "stream": "results"}]
    junction = AttributeFilter("or", filters=[AttributeFilter("gt", "year", 2020.0)])
    asked = QueryArguments(Question("Why?", ["default"], junction, score_threshold=0.0), "results")
    assert records.read_payload(as_json(payload)) == (JobFunction.PROCESS_QUERY, asked)
    events = [["start", ["Why?"]], ["found", None], ["text", "Be"]]
    assert records.read_events(as_json(events)) == [SearchStarted(["Why?"]), SearchEnded(None), TextAdded("Be")]


def test_what_a_later_version_adds_is_skipped() -> None:
    assert records.read_request(as_json({"record": "request/2", "input": "a", "mood": "good"})) == Request(input="a")
    assert records.read_events(as_json([["mood", 1], ["text", "Be"], ["text", "c", "more"]])) == [
        TextAdded("Be"),
        TextAdded("c"),
    ]


def test_what_the_first_version_could_write_and_json_cannot_is_repaired() -> None:
    odd = JOB_1 | {"error": {"code": "x", "message": "half \ud800"}}
    results = [RESULT_1["results"][0] | {"similarity": math.nan}]  # type: ignore[index]
    read = records.read_job(as_json(odd | {"result": RESULT_1 | {"results": results}}))
    assert read.error == Failure("x", "half \ufffd")
    assert read.answered == ANSWERED_1


def test_half_a_surrogate_pair_is_written_as_the_replacement_character() -> None:
    assert records.read_failure(write_record(Failure("x", "half \ud800"))) == Failure("x", "half \ufffd")


@pytest.mark.parametrize("data", [b"", b"[]", b"1", b"\xff", b'{"record": "request/9"}', b'{"input": 5}'])
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(UnreadableRecordError):
        records.read_request(data)


@pytest.mark.parametrize("raw", [{}, [], None, 5, {"mood": 1}, {"record": "query/9"}])
def test_what_is_no_result_is_refused(raw: Any) -> None:
    with pytest.raises(UnreadableRecordError):
        records.read_result(as_json(raw))


def test_a_response_is_kept_with_every_field_that_a_request_may_have() -> None:
    kept = {field.name for field in msgspec.structs.fields(Request)}
    assert set(ResponseCreate.model_fields) - kept == {"stream", "prompt"}


def test_checked_statements_are_kept_and_older_answers_have_none() -> None:
    statement = Statement(0, 8, "unsupported", "No source holds it.", [0])
    citation = Citation(8, "file-1", "a.md", None, "q", 0, 1, verdict="unsupported", reason="No source holds it.")
    result = QueryResult("Why?", Answer("Because.", [citation], "generated", statements=[statement]), [])
    assert records.read_result(write_record(result)) == result
    event = records.StatementChecked(statement, [citation])
    assert records.read_events(records.write_events([event])) == [event]
    assert ANSWERED_1.answer.statements is None
    assert ANSWERED_1.answer.citations[0].verdict == ""
