"""Requests of the Responses API (`ResponseCreate`), and how a question is read from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag

from ragq.errors import InvalidRequestError
from ragq.models import Lane
from ragq.records import Json, Request, Stream
from ragq.schemas.filters import Filter
from ragq.schemas.messages import InputItem, read_content
from ragq.schemas.objects import Body
from ragq.schemas.options import read_format, read_options

LANES = {"priority": Lane.PRIORITY, "flex": Lane.FLEX}
SEARCH_RESULTS = "file_search_call.results"
LOGPROBS = "message.output_text.logprobs"
UNLIMITED = -1  # so some servers of local models call it


def _write_number(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, int | float) else value


MetadataText = Annotated[str, Field(max_length=512), BeforeValidator(_write_number)]
Metadata = Annotated[dict[Annotated[str, Field(max_length=64)], MetadataText], Field(max_length=16)]
StoreIds = Annotated[
    list[str] | None,
    Field(
        max_length=16,
        description="Stores to search, ragq's own field; the default store when left out, no search when empty.",
    ),
]
OutputLimit = Annotated[int | None, Field(ge=1), BeforeValidator(lambda value: None if value == UNLIMITED else value)]


class HybridSearch(Body):
    """How much meaning and words count in a score; only their ratio matters."""

    embedding_weight: float | None = Field(None, ge=0)
    text_weight: float | None = Field(None, ge=0)


class RankingOptions(Body):
    """Options for the ranking of results; ragq has one ranker, whatever the name."""

    ranker: str | None = None
    score_threshold: float | None = Field(None, ge=0, le=1)
    hybrid_search: HybridSearch | None = None

    @property
    def meaning_weight(self) -> float | None:
        """The weight of the meaning, 0…1; None if the request does not give both.

        Raises:
            InvalidRequestError: Both weights are zero.
        """
        weights = self.hybrid_search
        if weights is None or weights.embedding_weight is None or weights.text_weight is None:
            return None
        if not (total := weights.embedding_weight + weights.text_weight):
            raise InvalidRequestError(
                "embedding_weight and text_weight are both zero: one of them must be more.",
                param="ranking_options.hybrid_search",
            )
        return weights.embedding_weight / total


class FileSearchTool(Body):
    """The stores to search."""

    type: Literal["file_search"]
    vector_store_ids: list[str] = Field(min_length=1, max_length=16)
    max_num_results: int | None = Field(None, ge=1, le=50)
    ranking_options: RankingOptions | None = None
    filters: Filter | None = None


class OtherTool(Body):
    """A function, which an LLM may call, or a tool that ragq does not have."""

    model_config = ConfigDict(extra="allow")

    type: str


def _tool_kind(tool: Any) -> str:
    kind = tool.get("type") if isinstance(tool, dict) else getattr(tool, "type", None)
    return "file_search" if kind == "file_search" else "other"


Tool = Annotated[
    Annotated[FileSearchTool, Tag("file_search")] | Annotated[OtherTool, Tag("other")], Discriminator(_tool_kind)
]


class TextOptions(Body):
    """The form of the answer: text, or JSON (with an LLM)."""

    format: dict[str, Any] | None = None
    verbosity: str | None = None


class Reasoning(Body):
    """How much an LLM thinks before it answers."""

    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class ConversationName(Body):
    """A conversation, by its id."""

    id: str = Field(max_length=100)


class ResponseCreate(Body):
    """A question to answer from the documents. Fields that are not listed go to the LLM, if it may know them."""

    model_config = ConfigDict(extra="allow")

    model: str | None = Field(None, description="`ragq`, or the configured LLM's name.")
    input: str | list[InputItem]
    instructions: str | list[InputItem] | None = None
    background: bool | None = False
    stream: bool | None = None
    store: bool | None = None
    previous_response_id: str | None = Field(None, max_length=100)
    conversation: Annotated[str, Field(max_length=100)] | ConversationName | None = None
    include: list[str] | None = None
    tools: list[Tool] | None = Field(None, max_length=256)
    tool_choice: str | dict[str, Any] | None = None
    vector_store_ids: StoreIds = None
    max_output_tokens: OutputLimit = None
    max_tool_calls: int | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_logprobs: int | None = Field(None, ge=0, le=20)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    reasoning: Reasoning | None = None
    metadata: Metadata | None = None
    service_tier: str | None = Field(None, max_length=64)
    text: TextOptions | None = None
    truncation: Literal["auto", "disabled"] | None = None
    parallel_tool_calls: bool | None = None
    prompt: Any = None
    prompt_cache_key: str | None = Field(None, max_length=512)
    prompt_cache_retention: str | None = Field(None, max_length=64)
    safety_identifier: str | None = Field(None, max_length=512)
    user: str | None = Field(None, max_length=512)

    @property
    def conversation_id(self) -> str | None:
        return self.conversation.id if isinstance(self.conversation, ConversationName) else self.conversation

    @property
    def searches(self) -> list[FileSearchTool]:
        return [tool for tool in self.tools or [] if isinstance(tool, FileSearchTool)]

    @property
    def other_tools(self) -> list[dict[str, Any]]:
        return [tool.model_dump() for tool in self.tools or [] if isinstance(tool, OtherTool)]


class ResponseCompact(Body):
    """A conversation to make short: that of a response, the input, or both."""

    model: str = Field(description="`ragq`, or the configured LLM's name.")
    input: str | list[InputItem] | None = None
    instructions: str | list[InputItem] | None = None
    previous_response_id: str | None = Field(None, max_length=100)
    service_tier: str | None = Field(None, max_length=64)


def read_instructions(body: ResponseCreate | ResponseCompact) -> list[str]:
    """The instructions' texts."""
    if isinstance(body.instructions, str):
        return [body.instructions]
    items = enumerate(body.instructions or [])
    return [str(read_content(item.content, f"instructions.{place}.content")) for place, item in items]


def options_of(body: ResponseCreate, extra: list[str]) -> dict[str, Any]:
    """The fields for an LLM, except its tools."""
    given = body.model_dump(include={"user", "top_logprobs", "frequency_penalty", "presence_penalty"})
    given |= body.model_extra or {}
    given |= body.model_dump(include={"prompt_cache_key", "safety_identifier", "parallel_tool_calls"})
    given |= {
        "reasoning_effort": body.reasoning and body.reasoning.effort,
        "verbosity": body.text and body.text.verbosity,
        "logprobs": bool(body.top_logprobs) or LOGPROBS in (body.include or []),
    }
    options = read_options(given, extra)
    return options | read_format(body.text.format if body.text else None, "text.format")


def stream_of(body: ResponseCreate) -> Stream:
    """The events that the worker logs."""
    if not body.stream:
        return "nothing"
    return "results" if SEARCH_RESULTS in (body.include or []) else "text"


def request_of(body: ResponseCreate, history: list[Json], notes: list[str]) -> Request:
    """The part of the request to store: the fields that the response object shows, and the conversation."""
    shown = body.model_dump(mode="json", include=set(Request.__struct_fields__), exclude_none=True)
    if "instructions" in shown:
        shown["instructions"] = "\n".join(read_instructions(body))
    shown["conversation"] = body.conversation_id
    return Request(**shown | {"history": history, "notes": notes})
