"""The nouns of ragq: plain values that every layer shares."""

from __future__ import annotations

import secrets
from bisect import bisect_right
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Literal

DEFAULT_TENANT = "default"
DEFAULT_STORE_NAME = "default"

Attributes = dict[str, str | float | bool]


class JobFunction(StrEnum):
    """The job functions a worker may run; a payload that names anything else is refused."""

    PROCESS_QUERY = "ragq.queues.worker.process_query"
    PROCESS_SEARCH = "ragq.queues.worker.process_search"
    PROCESS_DOCUMENT = "ragq.queues.worker.process_document"
    PROCESS_EMBEDDING = "ragq.queues.worker.process_embedding"


class QueueName(StrEnum):
    """What a worker is told to serve; each has a list per lane and tenant in Valkey."""

    QUERIES = "queries"
    DOCUMENTS = "documents"


class Lane(StrEnum):
    """Priority within a queue, OpenAI's `service_tier`; served in this order."""

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
    """Something that an audit found out of order.

    Attributes:
        kind: A stable word for programs.
        id: Of the job, list, file or bytes.
        meaning: What is wrong and what to do, for a person.
        harmless: It goes away by itself or changes nothing.
    """

    kind: str
    id: str
    meaning: str
    harmless: bool = False


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """The text of a document.

    Attributes:
        text: The whole text; every offset of ragq counts characters of it.
        page_starts: Offset at which each page begins, ascending; empty where the format has no pages.
        headings: (offset, title) of each heading, ascending; a title is kept with its parents ("A › B").
    """

    text: str
    page_starts: tuple[int, ...] = ()
    headings: tuple[tuple[int, str], ...] = ()

    def page_at(self, offset: int) -> int | None:
        """Number, from 1, of the page that holds `offset`; None without pages."""
        return bisect_right(self.page_starts, offset) or None

    def heading_at(self, offset: int) -> str | None:
        """The nearest heading that starts at or before `offset`."""
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
    """A chunk that a search found.

    Attributes:
        score: Fused relevance, 0…1, higher is better.
        similarity: Cosine similarity of question and chunk, −1…1; None when only the full text found it.
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
    """Where a statement of an answer stands.

    Attributes:
        index: Offset in the answer's text just after the cited statement.
        quote: Exact text of the document, its `[start:end]`.
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
    """Tokens as the LLM counted them; zeros without an LLM."""

    input_tokens: int = 0
    output_tokens: int = 0


def fields_of(value: Question | Citation | SearchResult) -> dict[str, Any]:
    """The fields of a value by name; `asdict` would copy each of them, all the way down."""
    return {name: getattr(value, name) for name in value.__slots__}


@dataclass(frozen=True, slots=True)
class Answer:
    """What is told to the asker.

    Attributes:
        kind: `extractive` for sentences copied from the documents, `generated` for an LLM's words.
        truncated: The LLM stopped at its output limit: the answer is incomplete, and said to be.
    """

    text: str
    citations: list[Citation]
    kind: Literal["extractive", "generated"]
    usage: Usage = Usage()
    truncated: bool = False

    def as_result(self) -> dict[str, Any]:
        """What is stored of it, as JSON."""
        return {
            "text": self.text,
            "citations": [fields_of(citation) for citation in self.citations],
            "kind": self.kind,
            "usage": asdict(self.usage),
            "truncated": self.truncated,
        }


@dataclass(frozen=True, slots=True)
class Question:
    """A question as it travels in a job.

    Attributes:
        vector_store_ids: Stores to search; empty for none at all.
        filters: OpenAI's attribute filter (`eq`, `and`, …), or None.
        max_results: Chunks to retrieve; None for the setting.
        history: Earlier messages of the conversation, oldest first, each with `role` (user, assistant) and `content`.
    """

    text: str
    vector_store_ids: list[str]
    filters: dict[str, Any] | None = None
    max_results: int | None = None
    score_threshold: float = 0.0
    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    history: list[dict[str, str]] = field(default_factory=list)

    def as_arguments(self) -> dict[str, Any]:
        """Its fields by name."""
        return fields_of(self)


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands now.

    Attributes:
        fingerprint: Of the payload that made it, to tell a repeat from a conflict.
        request: What the caller asked, as the route stored it.
        meta: Timings and progress.
        position: Place in its queue, from 1, while it is queued; an estimate when jobs were canceled.
        eta_seconds: Estimated seconds until it has ended, from what jobs of its lane took lately; None when unknown.
    """

    id: str
    tenant_id: str
    status: JobStatus
    attempt: int
    created_at: float
    started_at: float | None
    ended_at: float | None
    fingerprint: str
    request: dict[str, Any]
    result: dict[str, Any] | None
    error: dict[str, str] | None
    meta: dict[str, Any]
    position: int | None = None
    eta_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class LogEntry:
    """What one attempt of a job said at one time."""

    attempt: int
    events: list[tuple[str, Any]]
