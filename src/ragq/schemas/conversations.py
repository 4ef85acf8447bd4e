"""OpenAI's conversations and their items, in requests and as they are sent."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from ragq.models import new_id
from ragq.schemas.messages import InputItem, Part, read_items
from ragq.schemas.objects import Body
from ragq.schemas.questions import SEARCH_RESULTS, Metadata

MAX_ITEMS = 20  # of one request
PREFIXES = {
    "message": "msg_",
    "function_call": "fc_",
    "function_call_output": "fco_",
    "reasoning": "rs_",
    "file_search_call": "fs_",
    "compaction": "cmp_",
}


class StoredPart(Part):
    """A part of a message, with all that a client sends."""

    model_config = ConfigDict(extra="allow")


class ItemCreate(InputItem):
    """An item of a response's input or output, with all that a client sends."""

    model_config = ConfigDict(extra="allow")

    content: str | list[str | StoredPart] | None = None  # type: ignore[assignment]  # it holds more


class ConversationCreate(Body):
    """A new conversation and its first items."""

    items: list[ItemCreate] | None = Field(None, max_length=MAX_ITEMS)
    metadata: Metadata | None = None


class ConversationUpdate(Body):
    """New metadata, replacing the old."""

    metadata: Metadata | None


class ItemsCreate(Body):
    """Items to append."""

    items: list[ItemCreate] = Field(max_length=MAX_ITEMS)


class Conversation(TypedDict):
    """A conversation; its items have routes of their own."""

    id: str
    object: Literal["conversation"]
    created_at: int
    metadata: dict[str, str]


class ListedConversation(Conversation):
    """A conversation in a list, with a title."""

    title: str | None


@with_config(ConfigDict(extra="allow"))
class ConversationItem(TypedDict):
    """An item of a conversation: a message, a call, or another item of an input or output, as it was sent."""

    id: str
    type: str
    status: str
    role: NotRequired[str]
    content: NotRequired[list[dict[str, Any]]]


def write_items(items: list[InputItem]) -> list[tuple[str, dict[str, Any]]]:
    """Write items as they are stored, each with an id of its own.

    Raises:
        InvalidRequestError: An item cannot be part of a conversation; the error names it.
    """
    read_items(items, name="items")
    return [_write_item(item) for item in items]


def _write_item(item: InputItem) -> tuple[str, dict[str, Any]]:
    given = item.model_dump(mode="json", exclude_unset=True, exclude={"id"})
    written = {name: value for name, value in given.items() if value is not None}
    kind = written.setdefault("type", "message")
    written.setdefault("status", "completed")
    if kind == "message":
        content = written.get("content", "")
        parts = [content] if isinstance(content, str) else content
        written["content"] = [_write_part(part, is_answer=item.role == "assistant") for part in parts]
    return new_id(PREFIXES.get(kind, "item_")), written


def _write_part(part: str | dict[str, Any], *, is_answer: bool) -> dict[str, Any]:
    if isinstance(part, str):
        part = {"type": "output_text" if is_answer else "input_text", "text": part}
    return {"annotations": [], "logprobs": []} | part if part.get("type") == "output_text" else part


def show_item(item: dict[str, Any], include: list[str], page: str) -> ConversationItem:
    """Show a stored item.

    Args:
        include: OpenAI's names of what else to show.
        page: Address of ragq's page, for the citations of answers, which are stored without it.
    """
    shown: Any = {"status": "completed"} | item
    if shown["type"] == "file_search_call" and SEARCH_RESULTS not in include:
        shown |= {"results": None}
    if shown.get("role") == "assistant":
        shown |= {"content": [_show_part(part, page) for part in shown["content"]]}
    found: ConversationItem = shown
    return found


def _show_part(part: dict[str, Any], page: str) -> dict[str, Any]:
    annotations = [
        one | {"url": page + one["url"]} if str(one.get("url", "")).startswith("/?file=") else one
        for one in part.get("annotations") or ()
    ]
    return part | {"annotations": annotations} if annotations else part
