"""What is stored of a job, in Valkey and in the archive: each record with its one writer and its one reader.

A record is JSON that says its kind and version, as in `"record": "request/2"`; records of ragq 0.1.0, the first
version, do not. A reader ignores fields that it does not know and gives missing ones their defaults, so that processes
of two versions can work side by side. A change that an older reader would misunderstand takes the next version, and a
step in this module that reads the one before.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final, Literal, TypeVar

import msgspec

from ragq.models import Answer, AttributeFilter, JobFunction, JobStatus, Question, SearchResult

T = TypeVar("T")
Json = Any  # as it came: kept to be shown again, and read by nobody here
Stream = Literal["nothing", "text", "results"]


class UnreadableRecordError(ValueError):
    """A record that no version of ragq has written."""


class _Record(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="record"):
    """A value that is stored; fields that have their defaults are left out."""


class Request(_Record, frozen=True, kw_only=True, tag="request/2"):
    """What a caller asked with, in OpenAI's words: what the response object shows again.

    Attributes:
        history: Earlier messages of the conversation, as in `Question`.
        blob: Name of the bytes in the blob store that hold `input` and `history`, which are empty here then.
    """

    input: str | list[Json] = ""
    history: list[dict[str, str]] = []
    blob: str | None = msgspec.field(default=None, name="$blob")
    model: str | None = None
    instructions: str | None = None
    background: bool = False
    store: bool = True
    previous_response_id: str | None = None
    include: list[str] = []
    tools: list[Json] = []
    tool_choice: Json = "auto"
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    metadata: dict[str, str] = {}
    service_tier: str = "default"
    text: Json = None
    truncation: Literal["auto", "disabled"] = "disabled"
    parallel_tool_calls: bool = False
    user: str | None = None


NO_REQUEST = Request()


class RequestContent(_Record, frozen=True, tag="content/2"):
    """The parts of a request that may be large, and that polling does not show."""

    input: str | list[Json] = ""
    history: list[dict[str, str]] = []


class QueryArguments(msgspec.Struct, frozen=True, omit_defaults=True):
    """Arguments of `process_query`.

    Attributes:
        stream: Events to log while it runs: `nothing`, `text`, or `results` for what the search found as well.
    """

    query: Question
    stream: Stream = "nothing"


class SearchArguments(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Arguments of `process_search`; the stores are searched for each of the queries."""

    queries: list[str]
    vector_store_ids: list[str]
    max_results: int
    score_threshold: float
    filters: AttributeFilter | None = None


class DocumentArguments(msgspec.Struct, frozen=True):
    """Arguments of `process_document`: a file in a store, and which of its ingests."""

    vector_store_id: str
    file_id: str
    generation: int


class EmbeddingArguments(msgspec.Struct, frozen=True):
    """Arguments of `process_embedding`."""

    texts: list[str]


class Reference(msgspec.Struct, frozen=True):
    """Arguments that are large: the name of the bytes in the blob store that hold them."""

    blob: str = msgspec.field(name="$blob")


class _Elsewhere(msgspec.Struct):
    blob: str | None = msgspec.field(default=None, name="$blob")


Arguments = QueryArguments | SearchArguments | DocumentArguments | EmbeddingArguments

ARGUMENTS: Final[dict[JobFunction, type[Arguments]]] = {
    JobFunction.PROCESS_QUERY: QueryArguments,
    JobFunction.PROCESS_SEARCH: SearchArguments,
    JobFunction.PROCESS_DOCUMENT: DocumentArguments,
    JobFunction.PROCESS_EMBEDDING: EmbeddingArguments,
}
_FUNCTIONS = {arguments: function for function, arguments in ARGUMENTS.items()}


class QueryResult(_Record, frozen=True, tag="query/2"):
    """Result of a question.

    Attributes:
        query: What was searched for: the question, or what it was rewritten to.
        results: What the search found, best first.
    """

    query: str
    answer: Answer
    results: list[SearchResult]


class SearchResults(_Record, frozen=True, tag="search/2"):
    """Result of a search, best first."""

    results: list[SearchResult]


class DocumentResult(_Record, frozen=True, tag="document/2"):
    """Result of an ingest; `superseded` when the file was no longer wanted, or is ingested by another job."""

    status: Literal["completed", "superseded"]
    chunks: int | None = None


class EmbeddingResult(_Record, frozen=True, tag="embedding/2"):
    """Result of an embedding: each vector as base64 of little-endian float32."""

    embeddings: list[str]
    tokens: int


Result = QueryResult | SearchResults | DocumentResult | EmbeddingResult


class Progress(msgspec.Struct, frozen=True):
    """How far a document is in its stage."""

    stage: Literal["parse", "embed", "store"]
    done: int
    total: int


class Meta(msgspec.Struct, omit_defaults=True, tag_field="record", tag="meta/2"):
    """What a worker notes of a job while it runs: times in ms, progress, and which worker ended it."""

    queued_ms: int | None = None
    retrieve_ms: int | None = None
    answer_ms: int | None = None
    first_token_ms: int | None = None
    parse_ms: int | None = None
    split_ms: int | None = None
    embed_ms: int | None = None
    store_ms: int | None = None
    run_ms: int | None = None
    progress: Progress | None = None
    worker: str | None = None


class Failure(msgspec.Struct, frozen=True):
    """Why a job has no result."""

    code: str
    message: str


class SearchStarted(msgspec.Struct, frozen=True, array_like=True, tag="start"):
    """An attempt began; `queries` is empty when nothing is searched."""

    queries: list[str]


class SearchEnded(msgspec.Struct, frozen=True, array_like=True, tag="found"):
    """The search is done; None when its results are not to be shown."""

    results: list[SearchResult] | None


class TextAdded(msgspec.Struct, frozen=True, array_like=True, tag="text"):
    """More of the answer."""

    text: str


Event = SearchStarted | SearchEnded | TextAdded


@dataclass(frozen=True, slots=True)
class LogEntry:
    """The events that one attempt of a job logged at one time."""

    attempt: int
    events: list[Event]


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands now.

    Attributes:
        fingerprint: Of the payload that made it, to tell a repeat from a conflict.
        position: Place in its queue, from 1, while it is queued; an estimate when jobs were cancelled.
        eta_seconds: Estimated seconds until it has ended, from what jobs of its lane took lately; None when unknown.
    """

    id: str
    tenant_id: str
    status: JobStatus
    attempt: int
    created_at: float
    started_at: float | None = None
    ended_at: float | None = None
    fingerprint: str = ""
    request: Request = NO_REQUEST
    result: Result | None = None
    error: Failure | None = None
    meta: Meta = field(default_factory=Meta)
    position: int | None = None
    eta_seconds: float | None = None

    @property
    def answered(self) -> QueryResult | None:
        """The result of a question; None before it has one, and for other jobs."""
        return self.result if isinstance(self.result, QueryResult) else None


_EVENT_NAMES = ("start", "found", "text")
_PAYLOAD = msgspec.json.Decoder(tuple[JobFunction, Json, Json, msgspec.Raw])
_ELSEWHERE = msgspec.json.Decoder(_Elsewhere)
_ARGUMENTS: Final[dict[JobFunction, Any]] = {name: msgspec.json.Decoder(kind) for name, kind in ARGUMENTS.items()}
_REQUEST = msgspec.json.Decoder(Request)
_CONTENT = msgspec.json.Decoder(RequestContent)
_RESULT = msgspec.json.Decoder(Result)
_META = msgspec.json.Decoder(Meta)
_FAILURE = msgspec.json.Decoder(Failure)
_JOB = msgspec.json.Decoder(Job)
_EVENTS = msgspec.json.Decoder(list[Event])


def function_of(arguments: Arguments) -> JobFunction:
    """The job function that takes these arguments."""
    return _FUNCTIONS[type(arguments)]


def write_record(record: Arguments | Request | RequestContent | Result | Meta | Failure | Job) -> bytes:
    """Write a record as JSON."""
    return _write(record)


def write_events(events: list[Event]) -> bytes:
    """Write events as an entry of a log holds them; pieces of text in a row become one."""
    joined: list[Event] = []
    for kind, group in groupby(events, key=type):
        together = list(group)
        texts = [event.text for event in together if isinstance(event, TextAdded)]
        joined += [TextAdded("".join(texts))] if kind is TextAdded else together
    return _write(joined)


def change_request(request: Request, **fields: Any) -> Request:
    """Copy a request with other values of some fields."""
    return msgspec.structs.replace(request, **fields)


def write_payload(function: JobFunction, arguments: Arguments | Reference) -> bytes:
    """Write what RQ calls a job's data: `[function, null, [], arguments]`."""
    return _write((function, None, (), arguments))


def read_payload(data: bytes) -> tuple[JobFunction, Arguments | Reference]:
    """Read a payload; nothing is imported or called on its behalf.

    Raises:
        UnreadableRecordError: It is not of RQ's form, or it names a function that is not a job function, or its
            arguments are not that function's.
    """
    function, _instance, _positional, written = _read(_PAYLOAD, data)
    if (blob := _read(_ELSEWHERE, written).blob) is not None:
        return function, Reference(blob)
    return function, read_arguments(function, written)


def read_arguments(function: JobFunction, data: bytes | msgspec.Raw) -> Arguments:
    """Read the arguments of a job function.

    Raises:
        UnreadableRecordError: They are not arguments of this function.
    """
    arguments: Arguments = _read(_ARGUMENTS[function], data)
    return arguments


def read_request(data: bytes | str) -> Request:
    """Read a request, without what of it is in the blob store."""
    return _read(_REQUEST, data)


def read_content(data: bytes) -> RequestContent:
    """Read the large parts of a request."""
    return _read(_CONTENT, data)


def read_result(data: bytes) -> Result:
    """Read a result."""
    result: Result = _read(_RESULT, data, _name_result)
    return result


def read_meta(data: bytes | str) -> Meta:
    """Read what a worker noted."""
    return _read(_META, data)


def read_failure(data: bytes | str) -> Failure:
    """Read why a job failed."""
    return _read(_FAILURE, data)


def read_job(data: bytes | str) -> Job:
    """Read a job of the archive."""
    return _read(_JOB, data, lambda job: job | {"result": job.get("result") and _name_result(job["result"])})


def read_events(data: bytes) -> list[Event]:
    """Read the events of an entry; those of kinds that a newer version has are left out."""
    return _read(_EVENTS, data, lambda events: [event for event in events if event[0] in _EVENT_NAMES])


def _write(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:  # half a surrogate pair, which a server's error message may hold
        return _repair(msgspec.to_builtins(value))


def _read(
    decoder: msgspec.json.Decoder[T], data: bytes | str | msgspec.Raw, upgrade: Callable[[Any], Any] = lambda raw: raw
) -> T:
    """Read a record; at the second try one of the first version, whose JSON could hold NaN and half surrogate pairs."""
    try:
        return decoder.decode(data)
    except msgspec.MsgspecError as error:
        try:
            raw = json.loads(data if isinstance(data, bytes | str) else bytes(data), parse_constant=lambda _: None)
            return decoder.decode(_repair(upgrade(raw)))
        except (msgspec.MsgspecError, ValueError, LookupError, TypeError, AttributeError):
            raise UnreadableRecordError(str(error)) from error


def _repair(raw: Any) -> bytes:
    """Write plain values as JSON, with U+FFFD for half surrogate pairs."""
    text = json.dumps(raw, ensure_ascii=False)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def _name_result(result: Any) -> Any:
    """Say of a result of the first version which one it is."""
    if "record" in result:
        return result
    kinds = {"answer": "query/2", "embeddings": "embedding/2", "status": "document/2", "results": "search/2"}
    return result | {"record": next((kind for name, kind in kinds.items() if name in result), None)}
