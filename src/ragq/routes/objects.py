"""The bodies of answers, in OpenAI's form where it has the object; the OpenAPI document is made of them."""

from __future__ import annotations

from typing import Any, Generic, Literal, NotRequired, TypeVar

from typing_extensions import TypedDict


class Identified(TypedDict):
    """Something that a list's cursor can name."""

    id: str


Listed = TypeVar("Listed", bound=Identified)
StatusWord = Literal["queued", "in_progress", "completed", "failed", "cancelled"]


class Refusal(TypedDict):
    """What was wrong; `param` names the field at fault."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(TypedDict):
    """The body of every answer that is no success."""

    error: Refusal


class Listing(TypedDict, Generic[Listed]):
    """A page of a list."""

    object: Literal["list"]
    data: list[Listed]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deleted(TypedDict):
    """What is gone."""

    id: str
    object: str
    deleted: Literal[True]


class Accepted(TypedDict):
    """A question that was queued."""

    status: Literal["queued"]
    job_id: str


class Citation(TypedDict):
    """Where a statement of an answer stands; `index` is its end in the answer, `start` and `end` are the quote's."""

    index: int
    file_id: str
    filename: str
    page: int | None
    quote: str
    start: int
    end: int


class Timing(TypedDict):
    """How long each stage took, in ms; null where it has not happened."""

    queued_ms: int | None
    retrieve_ms: int | None
    answer_ms: int | None
    first_token_ms: int | None
    total_ms: int | None


class Result(TypedDict):
    """An answer, and where it is from."""

    answer: str
    kind: Literal["extractive", "generated"]
    sources: list[Citation]
    timing: Timing


class JobError(TypedDict):
    """Why there is no answer."""

    code: str
    message: str


class JobState(TypedDict):
    """How far a question is."""

    status: StatusWord
    result: Result | None
    error: NotRequired[JobError]
    position: NotRequired[int]
    eta_seconds: NotRequired[float | None]


class QueuePlace(TypedDict):
    """Where a response waits, and an estimate of when it has ended."""

    position: int | None
    eta_seconds: float | None


class ResponseUsage(TypedDict):
    """Tokens as the LLM counted them."""

    input_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens: int
    output_tokens_details: dict[str, int]
    total_tokens: int


class ResponseObject(TypedDict):
    """OpenAI's response; `queue`, `timing` and `attempt` are ragq's own."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    background: bool
    error: JobError | None
    incomplete_details: dict[str, str] | None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    model: str
    output: list[dict[str, Any]]
    parallel_tool_calls: bool
    previous_response_id: str | None
    service_tier: str
    store: bool
    temperature: float | None
    text: dict[str, Any]
    tool_choice: str | dict[str, str]
    tools: list[dict[str, Any]]
    top_p: float | None
    truncation: Literal["auto", "disabled"]
    usage: ResponseUsage | None
    user: str | None
    queue: QueuePlace
    timing: Timing
    attempt: int


class InputTextPart(TypedDict):
    """A piece of a message."""

    type: Literal["input_text", "output_text"]
    text: str


class InputItem(TypedDict):
    """A message that a response was asked with."""

    type: Literal["message"]
    id: str
    role: str
    status: Literal["completed"]
    content: list[InputTextPart]


class CompletionMessage(TypedDict):
    """The answer."""

    role: Literal["assistant"]
    content: str
    refusal: None
    annotations: list[dict[str, Any]]


class Choice(TypedDict):
    """The only choice there is."""

    index: int
    message: CompletionMessage
    logprobs: None
    finish_reason: Literal["stop", "length"]


class CompletionUsage(TypedDict):
    """Tokens as the LLM counted them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(TypedDict):
    """OpenAI's chat completion."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: CompletionUsage


class Embedding(TypedDict):
    """A vector, as numbers or as base64 of 32-bit floats."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(TypedDict):
    """Tokens that were embedded."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(TypedDict):
    """The vectors of the texts, in their order."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


class Model(TypedDict):
    """What can be named as `model`."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class Models(TypedDict):
    """All models."""

    object: Literal["list"]
    data: list[Model]


class FileObject(TypedDict):
    """An uploaded file."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["processed"]
    status_details: None


class FileCounts(TypedDict):
    """How many files have each status."""

    in_progress: int
    completed: int
    failed: int
    cancelled: int
    total: int


class StoreExpiry(TypedDict):
    """When a store expires: so long after it was last active."""

    anchor: Literal["last_active_at"]
    days: int


class VectorStore(TypedDict):
    """A set of files that are searched together."""

    id: str
    object: Literal["vector_store"]
    created_at: int
    name: str
    description: str | None
    status: Literal["expired", "in_progress", "completed"]
    file_counts: FileCounts
    usage_bytes: int
    last_active_at: int
    expires_after: StoreExpiry | None
    expires_at: int | None
    metadata: dict[str, str]


class StoreFile(TypedDict):
    """A file in a store; its id is the file's. `progress` is there while it is ingested."""

    id: str
    object: Literal["vector_store.file"]
    created_at: int
    vector_store_id: str
    status: str
    last_error: JobError | None
    usage_bytes: int
    attributes: dict[str, Any]
    chunking_strategy: dict[str, Any]
    filename: str
    chunk_count: int
    progress: NotRequired[dict[str, Any] | None]


class FileBatch(TypedDict):
    """Files that were put into a store by one request."""

    id: str
    object: Literal["vector_store.files_batch"]
    created_at: int
    vector_store_id: str
    status: Literal["in_progress", "completed", "cancelled", "failed"]
    file_counts: FileCounts


class DocumentText(TypedDict):
    """Text of a document."""

    type: Literal["text"]
    text: str


class FileText(TypedDict):
    """The text that was read from a file."""

    object: Literal["vector_store.file_content.page"]
    data: list[DocumentText]
    has_more: Literal[False]
    next_page: None


class SearchHit(TypedDict):
    """A passage that fits; `score` is 0…1, higher is better, and `similarity` is the cosine's, −1…1."""

    file_id: str
    filename: str
    score: float
    attributes: dict[str, Any]
    content: list[DocumentText]
    page: int | None
    heading: str | None
    start: int
    end: int
    similarity: float | None


class SearchHits(TypedDict):
    """The passages, best first."""

    object: Literal["vector_store.search_results.page"]
    search_query: list[str]
    data: list[SearchHit]
    has_more: Literal[False]
    next_page: None


class BatchFault(TypedDict):
    """What is wrong with a line of a batch's input, or with all of it."""

    code: str
    message: str
    param: str | None
    line: int | None


class BatchFaults(TypedDict):
    """What is wrong with a batch's input."""

    object: Literal["list"]
    data: list[BatchFault]


class RequestCounts(TypedDict):
    """How many lines of a batch have ended, and how."""

    total: int
    completed: int
    failed: int


class Batch(TypedDict):
    """A file of questions that are answered in a file."""

    id: str
    object: Literal["batch"]
    endpoint: str
    errors: BatchFaults | None
    input_file_id: str
    completion_window: str
    status: str
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    expires_at: int
    in_progress_at: int | None
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    metadata: dict[str, str] | None


class WebhookEndpoint(TypedDict):
    """Where events are sent; no `events` stand for all, and the `secret` is shown by the creation only."""

    id: str
    object: Literal["webhook_endpoint"]
    url: str
    events: list[str] | None
    description: str | None
    status: str
    created_at: int
    secret: NotRequired[str]


class WebhookDelivery(TypedDict):
    """How far the delivery of an event is; its id is the event's."""

    id: str
    object: Literal["webhook_delivery"]
    type: str
    data: dict[str, str]
    status: str
    attempts: int
    last_status_code: int | None
    last_error: str | None
    next_attempt_at: int | None
    created_at: int


class Targets(TypedDict):
    """An address of metrics, as Prometheus' HTTP service discovery reads it."""

    targets: list[str]
    labels: dict[str, str]


class Status(TypedDict):
    """Queues, workers and what answers."""

    version: str
    answers: dict[str, str | None]
    queues: list[dict[str, Any]]
    workers: list[dict[str, Any]]
