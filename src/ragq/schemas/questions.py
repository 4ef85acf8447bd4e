"""A question in a request in OpenAI's form."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ragq.errors import InvalidRequestError
from ragq.models import Lane, Question
from ragq.records import Job, Request, Stream
from ragq.schemas.filters import Filter
from ragq.schemas.objects import Body

RULES = ("system", "developer")
LANES = {"priority": Lane.PRIORITY, "flex": Lane.FLEX}

Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]


class RankingOptions(Body):
    """Options for the ranking of results."""

    ranker: Literal["auto"] = "auto"
    score_threshold: float = Field(0.0, ge=0, le=1)


class FileSearchTool(Body):
    """The stores to search."""

    type: Literal["file_search"]
    vector_store_ids: list[str] = Field(min_length=1, max_length=16)
    max_num_results: int | None = Field(None, ge=1, le=50)
    ranking_options: RankingOptions | None = None
    filters: Filter | None = None


class ToolChoice(Body):
    """OpenAI's object form of a tool choice."""

    type: Literal["file_search"]


class InputText(Body):
    """A piece of a message."""

    type: Literal["input_text"]
    text: str


class OutputText(Body):
    """A piece of an earlier answer, in a conversation."""

    type: Literal["output_text"]
    text: str
    annotations: list[dict[str, Any]] | None = None
    logprobs: list[dict[str, Any]] | None = None


class InputMessage(Body):
    """A message. The last is the user's question; one of `system` or `developer` adds to the instructions.

    Fields that our own answers carry are accepted, so that clients can send them back unchanged.
    """

    type: Literal["message"] = "message"
    role: Literal["user", "system", "developer", "assistant"]
    content: str | Annotated[list[InputText | OutputText], Field(fail_fast=True)]
    id: str | None = None
    status: str | None = None
    kind: Literal["extractive", "generated"] | None = None

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)


class EarlierSearch(Body):
    """The search of an earlier answer, in a conversation; it is ignored, since the documents are searched again."""

    type: Literal["file_search_call"]
    id: str
    queries: list[str]
    status: str | None = None
    results: list[dict[str, Any]] | None = None


class TextFormat(Body):
    """The only output format."""

    type: Literal["text"] = "text"


class TextOptions(Body):
    """OpenAI's `text` field."""

    format: TextFormat = TextFormat()


class ResponseCreate(Body):
    """A question to answer from the documents."""

    model: str | None = Field(None, description="`ragq`, or the configured LLM's name.")
    input: str | Annotated[list[InputMessage | EarlierSearch], Field(fail_fast=True)]
    instructions: str | None = Field(None, max_length=20_000)
    background: bool | None = False
    stream: bool | None = None
    store: bool | None = None
    previous_response_id: str | None = Field(None, max_length=100)
    include: list[Literal["file_search_call.results"]] | None = None
    tools: list[FileSearchTool] | None = Field(None, max_length=1)
    tool_choice: Literal["auto", "none", "required"] | ToolChoice | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    metadata: Metadata | None = None
    service_tier: Literal["auto", "default", "flex", "priority"] | None = None
    text: TextOptions | None = None
    truncation: Literal["auto", "disabled"] | None = None
    parallel_tool_calls: bool | None = None
    user: str | None = Field(None, max_length=512)


def messages_of(job: Job) -> list[tuple[str, str]]:
    """Role and text of each input message of a job."""
    given = job.request.input
    if isinstance(given, str):
        return [("user", given)]
    messages = (InputMessage.model_validate(item) for item in given if item["type"] == "message")
    return [(message.role, message.text) for message in messages]


def read_input(body: ResponseCreate) -> tuple[str, str | None, list[dict[str, str]]]:
    """Split the input into the question, the instructions and the conversation before the question."""
    if isinstance(body.input, str):
        return body.input, body.instructions, []
    messages = [item for item in body.input if isinstance(item, InputMessage)]
    rules = [message.text for message in messages if message.role in RULES]
    turns = [message for message in messages if message.role not in RULES]
    if not turns or turns[-1].role != "user":
        raise InvalidRequestError("The last message of the input must be the user's question.", param="input")
    *earlier, last = turns
    instructions = "\n".join([*([body.instructions] if body.instructions else []), *rules]) or None
    return last.text, instructions, [{"role": message.role, "content": message.text} for message in earlier]


def stream_of(body: ResponseCreate) -> Stream:
    """The events that the worker logs."""
    if not body.stream:
        return "nothing"
    return "results" if body.include else "text"


def request_of(body: ResponseCreate, question: Question) -> Request:
    """The part of the request to store: the fields that the response object shows, and the conversation."""
    shown = body.model_dump(mode="json", exclude={"stream"}, exclude_none=True)
    return Request(**shown, history=question.history)
