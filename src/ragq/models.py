"""The values that every layer shares."""

from __future__ import annotations

import secrets
from bisect import bisect_right
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

DEFAULT_TENANT = "default"
DEFAULT_STORE_NAME = "default"

AttributeValue = str | int | float | bool
Attributes = dict[str, AttributeValue]
Message = dict[str, Any]  # of a chat, in the form of OpenAI's chat completions


class JobFunction(StrEnum):
    """The job functions a worker may run; a payload that names anything else is refused."""

    PROCESS_QUERY = "ragq.queues.worker.process_query"
    PROCESS_SEARCH = "ragq.queues.worker.process_search"
    PROCESS_DOCUMENT = "ragq.queues.worker.process_document"
    PROCESS_EMBEDDING = "ragq.queues.worker.process_embedding"


class QueueName(StrEnum):
    """The queues a worker can serve; each has a list per lane and tenant in Valkey."""

    QUERIES = "queries"
    DOCUMENTS = "documents"


class Lane(StrEnum):
    """Priority within a queue, OpenAI's `service_tier`; claimed in this order."""

    PRIORITY = "priority"
    DEFAULT = "default"
    FLEX = "flex"


class JobStatus(StrEnum):
    """The states of a job, in RQ's words; no other value is ever stored."""

    QUEUED = "queued"
    STARTED = "started"
    SCHEDULED = "scheduled"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELED = "canceled"
    STOPPED = "stopped"

    @property
    def is_final(self) -> bool:
        return self not in (JobStatus.QUEUED, JobStatus.STARTED, JobStatus.SCHEDULED)


def new_id(prefix: str) -> str:
    """Make an unguessable id: the prefix and 128 random bits in hex."""
    return prefix + secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class Orphan:
    """An inconsistency that an audit found.

    Attributes:
        kind: Stable name, for programs.
        id: Id of the job, list, file or blob.
        meaning: What is wrong and what to do, for people.
        harmless: It disappears by itself or has no effect.
    """

    kind: str
    id: str
    meaning: str
    harmless: bool = False


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """The text of a document.

    Attributes:
        text: The whole text; all offsets count its characters.
        page_starts: Offset at which each page begins, ascending; empty where the format has no pages.
        headings: (offset, title) of each heading, ascending; a title includes its parents ("A › B").
    """

    text: str
    page_starts: tuple[int, ...] = ()
    headings: tuple[tuple[int, str], ...] = ()

    def page_at(self, offset: int) -> int | None:
        """The page number, from 1, at `offset`; None without pages."""
        return bisect_right(self.page_starts, offset) or None

    def heading_at(self, offset: int) -> str | None:
        """The last heading that starts at or before `offset`."""
        position = bisect_right(self.headings, offset, key=lambda heading: heading[0])
        return self.headings[position - 1][1] if position else None


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage of a document: `document.text[start:end] == text`."""

    text: str
    start: int
    end: int
    page: int | None
    heading: str | None
    token_count: int


@dataclass(frozen=True, slots=True)
class SearchResult:
    """A chunk found by a search.

    Attributes:
        score: Fused relevance, 0…1, higher is better.
        similarity: Cosine similarity of question and chunk, −1…1; None when only the full-text search found it.
    """

    file_id: str
    filename: str
    text: str
    start: int
    end: int
    page: int | None
    heading: str | None
    token_count: int
    score: float
    similarity: float | None = None
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Citation:
    """The source of a statement in an answer.

    Attributes:
        index: Offset in the answer's text just after the cited statement.
        quote: Exact text of the document, `text[start:end]`.
    """

    index: int
    file_id: str
    filename: str
    page: int | None
    quote: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts reported by the LLM; zeros without an LLM."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0  # of the input
    reasoning_tokens: int = 0  # of the output


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of one of the client's tools, which the LLM asks for; `arguments` is the LLM's text, usually JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a question.

    Attributes:
        kind: `extractive` for sentences copied from the documents, `generated` for an LLM's text.
        truncated: The LLM stopped at its output limit, so the answer is incomplete and marked so.
        reasoning: What the LLM thought before it answered, if it says so.
        refusal: Why the LLM would not answer, if it says so in a field of its own.
        tool_calls: Calls whose results the client sends back in another request.
        logprobs: OpenAI's entries for the tokens of the text, if they were asked for.
    """

    text: str
    citations: list[Citation]
    kind: Literal["extractive", "generated"]
    usage: Usage = Usage()
    truncated: bool = False
    reasoning: str = ""
    refusal: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class AttributeFilter:
    """OpenAI's filter on the attributes of files: `filters` for `and` and `or`, `key` and `value` for the others."""

    type: Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "and", "or"]
    key: str = ""
    value: AttributeValue | list[AttributeValue] = ""
    filters: list[AttributeFilter] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Question:
    """A question as stored in a job. Messages and parts have the form of OpenAI's chat completions.

    Attributes:
        text: The user's last message.
        vector_store_ids: Stores to search; empty for no search.
        max_results: Chunks to retrieve; None for the setting.
        history: The messages before it, oldest first; the first is the user's.
        following: The messages after it: calls of the client's tools with their results, or the answer's beginning.
        media: The parts of the user's last message that are not text, such as images; for an LLM only.
        files: Files that this question brings along, each by `file_id`, or by `file_data` and `filename`.
        options: Fields for the LLM as they are, such as `seed`, `tools` or `response_format`.
    """

    text: str
    vector_store_ids: list[str]
    filters: AttributeFilter | None = None
    max_results: int | None = None
    score_threshold: float = 0.0
    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    history: list[Message] = field(default_factory=list)
    following: list[Message] = field(default_factory=list)
    media: list[dict[str, Any]] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
