"""Feedback as requests and responses have it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from typing_extensions import TypedDict

from ragq.models import Message
from ragq.queues.history import last_question
from ragq.rag.conversation import text_of
from ragq.records import Job
from ragq.schemas.messages import input_of, read_items
from ragq.schemas.objects import Body
from ragq.storage.feedback import FeedbackRecord, RatedAnswer, Rating

MAX_COMMENT = 4000  # characters
SPEAKERS = ("user", "assistant")


class FeedbackCreate(Body):
    """Whether an answer helped, and why."""

    rating: Rating
    comment: str | None = Field(None, max_length=MAX_COMMENT)


class FeedbackObject(TypedDict):
    """Feedback on an answer; without a rating if there is none."""

    id: str
    object: Literal["response.feedback"]
    created_at: int | None
    rating: Rating | None
    comment: str | None


class Turn(TypedDict):
    """What one side said in a conversation."""

    role: str
    content: str


class RatedAnswerObject(FeedbackObject):
    """Feedback with its question and its answer."""

    key_id: str | None
    history: list[Turn]
    question: str
    answer: str
    files: list[str]


def render_feedback(response_id: str, record: FeedbackRecord | None) -> FeedbackObject:
    """Render the feedback on an answer."""
    return {
        "id": response_id,
        "object": "response.feedback",
        "created_at": int(record.created_at.timestamp()) if record else None,
        "rating": record.rating if record else None,
        "comment": record.comment if record else None,
    }


def render_rated(record: RatedAnswer, job: Job) -> RatedAnswerObject:
    """Render feedback with its question and its answer.

    Args:
        job: The answer's, with its whole request. It has none if it was run again, and failed.
    """
    answer, own = job.answered.answer if job.answered else None, read_items(input_of(job))
    history = [turn for turn in map(_turn_of, job.request.history) if turn["role"] in SPEAKERS and turn["content"]]
    return {
        **render_feedback(record.id, record),
        "key_id": record.key_id or None,
        "history": history,
        "question": text_of(own[last_question(own)]) if own else "",
        "answer": answer.text if answer else "",
        "files": list(dict.fromkeys(citation.filename for citation in answer.citations)) if answer else [],
    }


def _turn_of(message: Message) -> Turn:
    return {"role": message["role"], "content": text_of(message)}
