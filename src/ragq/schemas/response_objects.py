"""OpenAI's response object and its parts, as they are sent."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from ragq.models import Attributes, Verdict
from ragq.schemas.objects import JobError

ItemStatus = Literal["in_progress", "completed", "incomplete"]


class Timing(TypedDict):
    """Duration of each stage in ms; null if it has not happened."""

    queued_ms: int | None
    retrieve_ms: int | None
    answer_ms: int | None
    first_token_ms: int | None
    total_ms: int | None


class QueuePlace(TypedDict):
    """Position of a response in the queue, and an estimate of its end."""

    position: int | None
    eta_seconds: float | None


class InputDetails(TypedDict):
    """Of the input's tokens."""

    cached_tokens: int
    cache_write_tokens: int


class OutputDetails(TypedDict):
    """Of the output's tokens."""

    reasoning_tokens: int


class ResponseUsage(TypedDict):
    """Token counts reported by the LLM."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class Passage(TypedDict):
    """The source of a statement, ragq's own: the exact text of a document, `text[start:end]`.

    `verdict` says whether the sources hold the statement, and `reason` why not, or what was changed; null if an LLM's
    answer was not checked, as none in JSON is.
    """

    index: int
    file_id: str
    filename: str
    page: int | None
    location: str
    quote: str
    start: int
    end: int
    verdict: Verdict | None
    reason: str | None


class FileCitation(Passage):
    """The source of the statement that ends at `index` of the text."""

    type: Literal["file_citation"]


class CitedUrl(TypedDict):
    """The URL shows the passage that supports `text[start_index:end_index]`."""

    start_index: int
    end_index: int
    title: str
    url: str


class UrlCitation(CitedUrl, Passage):
    """The source of a statement, for a client that did not ask for a search of files."""

    type: Literal["url_citation"]


Annotation = Annotated[FileCitation | UrlCitation, Field(discriminator="type")]


class CheckedStatement(TypedDict):
    """A statement of the answer, `text[start:end]`; `citations` are positions among the annotations."""

    start: int
    end: int
    verdict: Verdict
    reason: str | None
    citations: list[int]


class Judging(TypedDict):
    """What the LLM as a judge of the statements cost, beside the answer."""

    input_tokens: int
    output_tokens: int


class AnswerSupport(TypedDict):
    """How many statements of an LLM's answer the sources hold, and each of them."""

    supported: int
    unsupported: int
    uncited: int
    statements: list[CheckedStatement]
    judge: Judging | None


class AnswerConfidence(TypedDict):
    """How likely an answer without an LLM answers the question, 0 to 1, and why."""

    value: float
    reason: str


class OutputText(TypedDict):
    """The text of an answer."""

    type: Literal["output_text"]
    text: str
    annotations: list[Annotation]
    logprobs: list[Any]


class OutputRefusal(TypedDict):
    """Why the LLM would not answer."""

    type: Literal["refusal"]
    refusal: str


class FoundChunk(TypedDict):
    """A chunk that the search found."""

    file_id: str
    filename: str
    score: float
    text: str
    attributes: Attributes
    page: int | None
    heading: str | None
    location: str
    start: int
    end: int
    similarity: float | None


class SearchItem(TypedDict):
    """The search."""

    type: Literal["file_search_call"]
    id: str
    status: Literal["in_progress", "searching", "completed", "incomplete", "failed"]
    queries: list[str]
    results: list[FoundChunk] | None


class ReasoningText(TypedDict):
    """What the LLM thought."""

    type: Literal["reasoning_text"]
    text: str


class ReasoningItem(TypedDict):
    """What the LLM thought before it answered."""

    type: Literal["reasoning"]
    id: str
    summary: list[Any]
    content: list[ReasoningText]
    status: ItemStatus


class MessageItem(TypedDict):
    """The answer."""

    type: Literal["message"]
    id: str
    role: Literal["assistant"]
    status: ItemStatus
    content: list[Annotated[OutputText | OutputRefusal, Field(discriminator="type")]]
    kind: NotRequired[Literal["extractive", "generated"]]


class CallItem(TypedDict):
    """A call of one of the client's functions."""

    type: Literal["function_call"]
    id: str
    call_id: str
    name: str
    arguments: str
    status: ItemStatus


OutputItem = Annotated[SearchItem | ReasoningItem | MessageItem | CallItem, Field(discriminator="type")]


class InputObject(TypedDict):
    """An item of a response's input."""

    type: str
    id: str
    status: Literal["completed"]
    role: NotRequired[str]
    content: NotRequired[list[dict[str, Any]]]
    call_id: NotRequired[str]
    name: NotRequired[str]
    arguments: NotRequired[Any]
    input: NotRequired[str]
    output: NotRequired[Any]
    encrypted_content: NotRequired[str]


class ConversationId(TypedDict):
    """The conversation of a response."""

    id: str


class RequestFields(TypedDict):
    """What the caller asked for; `notes` is ragq's own, and tells what of it was ignored."""

    background: bool
    frequency_penalty: float
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str]
    model: str
    parallel_tool_calls: bool
    presence_penalty: float
    previous_response_id: str | None
    conversation: ConversationId | None
    prompt_cache_key: str | None
    prompt_cache_retention: str | None
    reasoning: dict[str, Any] | None
    safety_identifier: str | None
    service_tier: str
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: Literal["auto", "disabled"]
    user: str | None
    notes: list[str]


class ResponseObject(RequestFields):
    """OpenAI's response; `queue`, `timing`, `attempt`, `support` and `confidence` are ragq's own."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    error: JobError | None
    incomplete_details: dict[str, str] | None
    output: list[OutputItem]
    usage: ResponseUsage | None
    queue: QueuePlace
    timing: Timing
    attempt: int
    support: AnswerSupport | None
    confidence: AnswerConfidence | None


class InputTokens(TypedDict):
    """An estimate of the tokens that an LLM would be sent, without the sources."""

    object: Literal["response.input_tokens"]
    input_tokens: int


class CompactionItem(TypedDict):
    """A conversation made short, to be sent back as it is."""

    type: Literal["compaction"]
    id: str
    encrypted_content: str


class CompactedResponse(TypedDict):
    """OpenAI's compaction: the user's messages and, last, the item that stands for the conversation."""

    id: str
    object: Literal["response.compaction"]
    created_at: int
    output: list[InputObject | CompactionItem]
    usage: ResponseUsage
