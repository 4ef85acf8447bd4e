"""The nouns of ragq: plain values that every layer shares."""

from __future__ import annotations

import secrets
from bisect import bisect_right
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

DEFAULT_TENANT = "default"
DEFAULT_STORE_NAME = "default"

AttributeValue = str | int | float | bool
Attributes = dict[str, AttributeValue]


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


@dataclass(frozen=True, slots=True)
class AttributeFilter:
    """OpenAI's filter on the attributes of files: `filters` for `and` and `or`, `key` and `value` for the others."""

    type: Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "and", "or"]
    key: str = ""
    value: AttributeValue | list[AttributeValue] = ""
    filters: list[AttributeFilter] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Question:
    """A question as it travels in a job.

    Attributes:
        vector_store_ids: Stores to search; empty for none at all.
        max_results: Chunks to retrieve; None for the setting.
        history: Earlier messages of the conversation, oldest first, each with `role` (user, assistant) and `content`.
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
    history: list[dict[str, str]] = field(default_factory=list)
