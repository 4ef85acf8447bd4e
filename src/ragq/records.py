"""The records of a job in Valkey and in the archive, and of a batch's line in PostgreSQL, each with one writer and one reader.

A record is JSON that says its kind and version, as in `"record": "request/2"`; records of ragq 0.1.0, the first
version, do not. A reader ignores unknown fields and gives missing ones their defaults, so processes of two versions can run
side by side. A change that an older reader would misunderstand needs a new version number, and code here for the old one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final, Literal, TypeVar, cast

import msgspec

from ragq.accounts.views import TenantView
from ragq.json_records import read_json, write_json
from ragq.models import Answer, AttributeFilter, Citation, JobFunction, JobStatus, Question, SearchResult, Statement

Json = Any  # kept unchanged to be shown again, and not interpreted
Stream = Literal["nothing", "text", "results"]
RecordT = TypeVar("RecordT")


class _Record(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="record"):
    """A stored value; fields with their default value are not written."""


class Request(_Record, frozen=True, kw_only=True, tag="request/2"):
    """A caller's request in OpenAI's fields, which the response object shows again.

    Attributes:
        history: Earlier messages of the conversation, as in `Question`.
        blob: Name of the blob that holds `input` and `history`, which are then empty here.
        notes: What of the request was ignored, for the caller.
        key_id: Of the caller; empty for `RAGQ_API_KEY`.
    """

    input: str | list[Json] = ""
    history: list[Json] = []
    blob: str | None = msgspec.field(default=None, name="$blob")
    model: str | None = None
    instructions: str | None = None
    background: bool = False
    store: bool = True
    previous_response_id: str | None = None
    conversation: str | None = None
    include: list[str] = []
    tools: list[Json] = []
    tool_choice: Json = "auto"
    vector_store_ids: list[str] | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    metadata: dict[str, str] = {}
    service_tier: str = "default"
    text: Json = None
    truncation: Literal["auto", "disabled"] = "disabled"
    parallel_tool_calls: bool = False
    user: str | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    top_logprobs: int = 0
    reasoning: Json = None
    max_tool_calls: int | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    notes: list[str] = []
    key_id: str = ""


NO_REQUEST = Request()


class RequestContent(_Record, frozen=True, tag="content/2"):
    """The parts of a request that may be large and are not shown while polling."""

    input: str | list[Json] = ""
    history: list[Json] = []


class BatchRequest(_Record, frozen=True, tag="batch/2"):
    """A line of a batch's input file; `url` says what `body` asks for."""

    custom_id: str
    body: Json
    url: str = "/v1/responses"


class Spoken(msgspec.Struct, frozen=True):
    """What one side said in a conversation."""

    role: Literal["user", "assistant"]
    content: str


class Compaction(_Record, frozen=True, tag="compaction/1"):
    """A conversation made short, which the client keeps."""

    messages: list[Spoken]


class QueryArguments(msgspec.Struct, frozen=True, omit_defaults=True):
    """Arguments of `process_query`.

    Attributes:
        stream: Events to log: `nothing`, `text`, or `results` for text and search results.
        view: What the asker may see; None, from an older process, for documents without readers.
    """

    query: Question
    stream: Stream = "nothing"
    view: TenantView | None = None


class SearchArguments(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Arguments of `process_search`; `view` as of `QueryArguments`."""

    queries: list[str]
    vector_store_ids: list[str]
    max_results: int
    score_threshold: float | None = None
    meaning_weight: float | None = None
    filters: AttributeFilter | None = None
    view: TenantView | None = None


class DocumentArguments(msgspec.Struct, frozen=True):
    """Arguments of `process_document`: a file in a store, and the generation to ingest."""

    vector_store_id: str
    file_id: str
    generation: int


class EmbeddingArguments(msgspec.Struct, frozen=True):
    """Arguments of `process_embedding`."""

    texts: list[str]


class Reference(msgspec.Struct, frozen=True):
    """Stands for large arguments: the name of the blob that holds them."""

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
        query: The searched text: the question, or its rewritten form.
        results: Search results, best first.
    """

    query: str
    answer: Answer
    results: list[SearchResult]


class SearchResults(_Record, frozen=True, tag="search/2"):
    """Result of a search, best first."""

    results: list[SearchResult]


class DocumentResult(_Record, frozen=True, tag="document/2"):
    """Result of an ingest; `superseded` if the file was no longer wanted or another job ingests it."""

    status: Literal["completed", "superseded"]
    chunks: int | None = None


class EmbeddingResult(_Record, frozen=True, tag="embedding/2"):
    """Result of an embedding: each vector as base64 of little-endian float32."""

    embeddings: list[str]
    tokens: int


Result = QueryResult | SearchResults | DocumentResult | EmbeddingResult


class Progress(msgspec.Struct, frozen=True):
    """How far a document's current stage is."""

    stage: Literal["parse", "embed", "store"]
    done: int
    total: int


class Meta(msgspec.Struct, omit_defaults=True, tag_field="record", tag="meta/2"):
    """A worker's notes on a job: times in ms, progress, the worker that ended it, and the `traceparent` of its run."""

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
    trace: str | None = None


class Failure(msgspec.Struct, frozen=True):
    """Why a job has no result."""

    code: str
    message: str


class SearchStarted(msgspec.Struct, frozen=True, array_like=True, tag="start"):
    """An attempt began; `queries` is empty if it does not search."""

    queries: list[str]


class SearchEnded(msgspec.Struct, frozen=True, array_like=True, tag="found"):
    """The search is done; `results` is None if they are not to be shown."""

    results: list[SearchResult] | None


class TextAdded(msgspec.Struct, frozen=True, array_like=True, tag="text"):
    """The next piece of the answer."""

    text: str


class ReasoningAdded(msgspec.Struct, frozen=True, array_like=True, tag="thought"):
    """The next piece of what the LLM thinks before it answers."""

    text: str


class StatementChecked(msgspec.Struct, frozen=True, array_like=True, tag="checked"):
    """A statement of the answer has ended and was checked."""

    statement: Statement
    citations: list[Citation]


Event = SearchStarted | SearchEnded | TextAdded | ReasoningAdded | StatementChecked


@dataclass(frozen=True, slots=True)
class LogEntry:
    """An entry of an event log: events that one attempt logged together."""

    attempt: int
    events: list[Event]


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands now.

    Attributes:
        fingerprint: Hash of the caller's payload, to tell a repeat from a conflict.
        position: Place in its queue, from 1, while it is queued; an estimate when jobs were cancelled.
        eta_seconds: Estimated seconds until it ends, from recent jobs of its lane; None when unknown.
        queue: With its lane, as `queries.flex`; empty of what an older version has archived, as `function` is.
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
    queue: str = ""
    function: str = ""

    @property
    def answered(self) -> QueryResult | None:
        """The result of a question; None until there is one, and for other jobs."""
        return self.result if isinstance(self.result, QueryResult) else None


_EVENT_NAMES = ("start", "found", "text", "thought", "checked")
_PAYLOAD = msgspec.json.Decoder(tuple[JobFunction, Json, Json, msgspec.Raw])
_ELSEWHERE = msgspec.json.Decoder(_Elsewhere)
_ARGUMENTS: Final[dict[JobFunction, Any]] = {name: msgspec.json.Decoder(kind) for name, kind in ARGUMENTS.items()}
_RESULT = msgspec.json.Decoder(Result)
_JOB = msgspec.json.Decoder(Job)
_EVENTS = msgspec.json.Decoder(list[Event])


def _reader(kind: type[RecordT]) -> Callable[[bytes | str], RecordT]:
    decoder = msgspec.json.Decoder(kind)
    return lambda data: read_json(decoder, data)


read_request = _reader(Request)  # the parts in the blob store are not read
read_content = _reader(RequestContent)
read_batch_request = _reader(BatchRequest)
read_compaction = _reader(Compaction)
read_meta = _reader(Meta)
read_failure = _reader(Failure)


def function_of(arguments: Arguments) -> JobFunction:
    """The job function that takes these arguments."""
    return _FUNCTIONS[type(arguments)]


def write_record(record: _Record | Arguments | Meta | Failure | Job) -> bytes:
    return write_json(record)


def write_events(events: list[Event]) -> bytes:
    """Serialize events for a log entry; consecutive pieces of text become one."""
    joined: list[Event] = []
    for kind, group in groupby(events, key=type):
        together = list(group)
        texts = [event.text for event in together if isinstance(event, TextAdded | ReasoningAdded)]
        joined += [kind("".join(texts))] if kind in (TextAdded, ReasoningAdded) else together
    return write_json(joined)


def change_request(request: Request, **fields: Any) -> Request:
    """Copy a request with some fields changed."""
    return msgspec.structs.replace(request, **fields)


def write_payload(function: JobFunction, arguments: Arguments | Reference) -> bytes:
    """Serialize RQ's `data` of a job: `[function, null, [], arguments]`."""
    return write_json((function, None, (), arguments))


def read_payload(data: bytes) -> tuple[JobFunction, Arguments | Reference]:
    """Parse a payload, without importing or calling anything that it names.

    Raises:
        UnreadableRecordError: It does not have RQ's form, names no job function, or its arguments do not fit.
    """
    function, _instance, _positional, written = read_json(_PAYLOAD, data)
    if (blob := read_json(_ELSEWHERE, written).blob) is not None:
        return function, Reference(blob)
    return function, read_arguments(function, written)


def read_arguments(function: JobFunction, data: bytes | msgspec.Raw) -> Arguments:
    """Parse the arguments of a job function.

    Raises:
        UnreadableRecordError: The arguments do not fit this function.
    """
    return cast("Arguments", read_json(_ARGUMENTS[function], data))


def read_result(data: bytes) -> Result:
    return cast("Result", read_json(_RESULT, data, _name_result))


def read_job(data: bytes | str) -> Job:
    """Parse a job from the archive."""
    return read_json(_JOB, data, lambda job: job | {"result": job.get("result") and _name_result(job["result"])})


def read_events(data: bytes) -> list[Event]:
    """Parse the events of an entry; kinds that only a newer version knows are left out."""
    return read_json(_EVENTS, data, lambda events: [event for event in events if event[0] in _EVENT_NAMES])


def _name_result(result: Any) -> Any:
    """Name the record of a result of version 1."""
    if "record" in result:
        return result
    kinds = {"answer": "query/2", "embeddings": "embedding/2", "status": "document/2", "results": "search/2"}
    return result | {"record": next((kind for name, kind in kinds.items() if name in result), None)}
