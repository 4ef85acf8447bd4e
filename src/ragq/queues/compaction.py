"""Make a conversation short: an LLM's summary, by a job; without an LLM its last turns, word for word."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from ragq.accounts.views import Viewer
from ragq.context import Context
from ragq.errors import InvalidRequestError
from ragq.models import Message, Question, Usage
from ragq.queues.history import read_history, resolve_references
from ragq.queues.questions import answer_of, check_model
from ragq.rag.compact import ask_summary, remember, speak
from ragq.rag.conversation import bound_history
from ragq.records import Job
from ragq.schemas.compaction import write_content
from ragq.schemas.messages import InputItem, read_items
from ragq.schemas.questions import ResponseCompact, read_instructions
from ragq.schemas.response_objects import CompactedResponse, InputObject
from ragq.schemas.responses import render_input, render_usage

COMPACTION_PREFIX = "cmp_"
PART_NAMES = {"text": "input_text", "image_url": "input_image", "file": "input_file"}


@dataclass(frozen=True, slots=True)
class Compacting:
    """A conversation that is made short.

    Attributes:
        asked: What the user said, which stays as it is, with images and files.
        turns: The last turns as text.
        question: Asks an LLM for the summary; None without an LLM.
    """

    asked: list[InputItem]
    turns: list[Message]
    question: Question | None


async def read_conversation(body: ResponseCompact, context: Context, tenant: Viewer) -> Compacting:
    """Read the conversation that a request names or brings.

    Raises:
        InvalidRequestError: There is none; else the error names the field.
        NotFoundError: The model, an item or the previous response does not exist.
    """
    check_model(context.settings, body.model, context.settings.llm_model)
    given = await resolve_references(body.input or [], context, tenant)
    items = [InputItem(role="user", content=given)] if isinstance(given, str) else given
    earlier = await read_history(context, tenant, body.previous_response_id) if body.previous_response_id else []
    messages = [*earlier, *read_items(items)]
    turns = speak(messages)
    if not turns:
        raise InvalidRequestError("There is no conversation: send it as input or name it.", param="input")
    asked = [*map(_to_item, earlier), *items]
    return Compacting(
        asked=[item for item in asked if item.role == "user"],
        turns=_last_turns(turns),
        question=ask_summary(messages, read_instructions(body)) if context.settings.llm_base_url else None,
    )


def _to_item(message: Message) -> InputItem:
    content = message["content"]
    if isinstance(content, list):
        content = [_to_part(part) for part in content]
    return InputItem.model_validate({"role": "user" if message["role"] == "user" else None, "content": content})


def _to_part(part: dict[str, Any]) -> dict[str, Any]:
    kind = part["type"]
    inner = part["file"] if kind == "file" else part
    return {**inner, "type": PART_NAMES.get(kind, kind)}


def _last_turns(turns: list[Message]) -> list[Message]:
    """Bound the turns; a question that was not answered stays with the user's messages alone."""
    kept = bound_history(turns)
    return kept[:-1] if kept and kept[-1]["role"] == "user" else kept


def render_compaction(compacting: Compacting, id_: str, job: Job | None) -> CompactedResponse:
    """Render OpenAI's compaction.

    Args:
        job: The ended job that made the summary; None if none was wanted.

    Raises:
        RagqError: The job has no answer.
    """
    kept, usage = compacting.turns, Usage()
    if compacting.question:
        answer = answer_of(job)
        kept, usage = remember(answer.text or answer.refusal), answer.usage
    asked: list[InputObject] = render_input(id_, compacting.asked)
    return {
        "id": id_,
        "object": "response.compaction",
        "created_at": int(job.created_at if job else time.time()),
        "output": [*asked, {"type": "compaction", "id": f"{id_}_item", "encrypted_content": write_content(kept)}],
        "usage": render_usage(usage),
    }
