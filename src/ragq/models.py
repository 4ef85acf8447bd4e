"""The values that every layer shares."""

from __future__ import annotations

import re
import secrets
from bisect import bisect_right
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

DEFAULT_TENANT = "default"
DEFAULT_STORE_NAME = "default"

AttributeValue = str | int | float | bool
Attributes = dict[str, AttributeValue]
Verdict = Literal["supported", "unsupported", "uncited"]
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
    """An inconsistency that an audit found; a harmless one disappears by itself or has no effect."""

    kind: str
    id: str
    meaning: str  # what is wrong and what to do, for people
    harmless: bool = False


class PlaceKind(StrEnum):
    """What a document consists of, by its format."""

    PAGE = "page"
    SLIDE = "slide"
    SHEET = "sheet"
    CHAPTER = "chapter"
    SECTION = "section"


@dataclass(frozen=True, slots=True)
class Place:
    """A page, slide, sheet or chapter of a document.

    Attributes:
        start: Offset in the document's text at which it begins.
        kind: None for what has no such parts, such as a mail's text.
        number: From 1, in the document or in the attachment.
        name: A sheet's name, a chapter's title, or what a page is labelled with if that is not its number.
        within: Name of the attachment that it belongs to, if it does.
    """

    start: int
    kind: PlaceKind | None
    number: int
    name: str = ""
    within: str = ""

    def locate(self) -> Location:
        """The location of what stands in it."""
        return Location(self.kind, self.number, self.name, self.within)


@dataclass(frozen=True, slots=True)
class Table:
    """A table in a document's text: each of its rows is one line.

    Attributes:
        rows: Offset and number of each row, ascending. The number is the row's in its sheet or file.
        header: Names of the columns, where the rows do not name them themselves.
    """

    start: int
    end: int
    rows: tuple[tuple[int, int], ...]
    header: str = ""


@dataclass(frozen=True, slots=True)
class Location:
    """Where a passage stands in its document.

    Attributes:
        name: As a place's; the heading's path if `kind` is a section.
        sections: (offset in the passage, heading's path) of each heading in it, if it is more than one section.
        unit: What `numbers` count.
        numbers: The number of each line of the passage; of text, those of the first and the last.
    """

    kind: PlaceKind | None = None
    number: int = 0
    name: str = ""
    within: str = ""
    sections: tuple[tuple[int, str], ...] = ()
    unit: Literal["row", "line", ""] = ""
    numbers: tuple[int, ...] = ()

    def narrow(self, text: str, start: int, end: int) -> Location:
        """The location of `text[start:end]`, where `text` is the passage that this is the location of."""
        if self.sections:
            name = next((title for offset, title in reversed(self.sections) if offset <= start), self.name)
            return replace(self, name=name, sections=())
        first, last = text.count("\n", 0, start), text.count("\n", 0, max(start, end - 1))
        if self.unit == "line":
            return replace(self, numbers=(self.numbers[0] + first, self.numbers[0] + last))
        return replace(self, numbers=self.numbers[first : last + 1])

    def __str__(self) -> str:
        """Say it for people, such as "sheet Prices, rows 12–13"; empty if there is nothing to say."""
        return ", ".join(
            filter(None, [self.within and f"attachment {self.within}", self._say_place(), self._say_lines()])
        )

    def _say_place(self) -> str:
        match self.kind:
            case None:
                return ""
            case PlaceKind.SECTION:
                return f"section {self.name}" if self.name else ""
            case PlaceKind.PAGE:
                return f"page {self.number}" + (f" ({self.name})" if self.name else "")
            case PlaceKind.SHEET:
                is_named = self.name and re.sub(r"\W|_", "", self.name.lower()) != f"sheet{self.number}"
                return f"sheet {self.name if is_named else self.number}"
            case _:
                return f"{self.kind} {self.number}" + (f": {self.name}" if self.name else "")

    def _say_lines(self) -> str:
        if not self.unit or not self.numbers:
            return ""
        first, last = self.numbers[0], self.numbers[-1]
        return f"{self.unit} {first}" if first == last else f"{self.unit}s {first}–{last}"


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """The text of a document, and how it is divided.

    Attributes:
        text: The whole text; all offsets count its characters.
        places: Its pages, slides, sheets or chapters, ascending; empty where the format has none.
        headings: (offset, title) of each heading, ascending; a title includes its parents ("A › B").
        tables: Ascending, none within another.
        has_lines: Its lines are the file's, as those of text and code are.
        title: What the file itself says that it is called.
        encoding: Of a text file, as Python calls it; empty for other formats.
        language: Of most of the text, as an ISO 639-1 code; empty where it cannot be told.
        warnings: What could not be read, for people.
    """

    text: str
    places: tuple[Place, ...] = ()
    headings: tuple[tuple[int, str], ...] = ()
    tables: tuple[Table, ...] = ()
    has_lines: bool = False
    title: str = ""
    encoding: str = ""
    language: str = ""
    warnings: tuple[str, ...] = ()

    def place_at(self, offset: int) -> Place | None:
        """The page, slide, sheet or chapter at `offset`; None before the first."""
        position = bisect_right(self.places, offset, key=lambda place: place.start)
        return self.places[position - 1] if position else None

    def heading_at(self, offset: int) -> str | None:
        """The last heading at or before `offset`; only pages go on below a heading of the place before them."""
        position = bisect_right(self.headings, offset, key=lambda heading: heading[0])
        (start, title), place = self.headings[position - 1] if position else (-1, None), self.place_at(offset)
        return None if place and place.kind is not PlaceKind.PAGE and start < place.start else title


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage of a document: `document.text[start:end] == text`."""

    text: str
    start: int
    end: int
    page: int | None
    heading: str | None
    token_count: int
    location: Location = Location()
    context: str = ""  # beside its own words, such as the document's title; searched with it, never quoted


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
    location: Location = Location()


@dataclass(frozen=True, slots=True)
class Citation:
    """The source of a statement in an answer.

    Attributes:
        index: Offset in the answer's text just after the cited statement.
        quote: Exact text of the document, `text[start:end]`.
        location: Where it stands, for people.
        verdict: Of the statement; empty if it was not checked.
        reason: Why, in a sentence; also what was changed.
    """

    index: int
    file_id: str
    filename: str
    page: int | None
    quote: str
    start: int
    end: int
    location: str = ""
    verdict: Verdict | Literal[""] = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement of an LLM's answer, checked against the sources.

    Attributes:
        start: Offset in the answer's text, as of `end`; its markers are within.
        reason: Why, in a sentence; empty for what is supported as it was written.
        citations: Positions of its citations in the answer's.
    """

    start: int
    end: int
    verdict: Verdict
    reason: str = ""
    citations: list[int] = field(default_factory=list)


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


CERTAIN = 0.5  # from this confidence on an extractive answer is given as one


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
        statements: In their order; None if they were not checked.
        judging: What the judge of the statements cost; None if none was asked.
        confidence: How likely an extractive answer answers the question, 0…1; None of an LLM's.
        reason: What speaks for or against it.
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
    statements: list[Statement] | None = None
    judging: Usage | None = None
    confidence: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class AttributeFilter:
    """OpenAI's filter on the attributes of files: `filters` for `and` and `or`, `key` and `value` for the others."""

    type: Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "and", "or"]
    key: str = ""
    value: AttributeValue | list[AttributeValue] = ""
    filters: list[AttributeFilter] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class AttachedFile:
    """A file that a question brings along: one uploaded before, by its id, or content in base64 or as a data: URL."""

    file_id: str | None = None
    file_data: str | None = None
    filename: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A question as stored in a job. Messages and parts have the form of OpenAI's chat completions.

    Attributes:
        text: The user's last message.
        vector_store_ids: Stores to search; empty for no search.
        max_results: Chunks to retrieve; None for the setting.
        score_threshold: Least score of a chunk; None for the setting.
        meaning_weight: Of the meaning in a score, 0…1; None for the setting.
        history: The messages before it, oldest first; the first is the user's.
        following: The messages after it: calls of the client's tools with their results, or the answer's beginning.
        media: The parts of the user's last message that are not text, such as images; for an LLM only.
        options: Fields for the LLM as they are, such as `seed`, `tools` or `response_format`.
    """

    text: str
    vector_store_ids: list[str]
    filters: AttributeFilter | None = None
    max_results: int | None = None
    score_threshold: float | None = None
    meaning_weight: float | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    history: list[Message] = field(default_factory=list)
    following: list[Message] = field(default_factory=list)
    media: list[dict[str, Any]] = field(default_factory=list)
    files: list[AttachedFile] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
