"""A job as OpenAI's response object."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from typing_extensions import TypedDict

from ragq.models import Answer, JobStatus, SearchResult, Usage
from ragq.records import Job, QueryResult
from ragq.schemas.objects import JobError

RESPONSE_PREFIX = "resp_"
SEARCH_RESULTS = "file_search_call.results"
MODEL = "ragq"  # the name that stands for the configured model
StatusWord = Literal["queued", "in_progress", "completed", "failed", "cancelled"]
STATUS_WORDS: dict[JobStatus, StatusWord] = {
    JobStatus.QUEUED: "queued",
    JobStatus.SCHEDULED: "queued",
    JobStatus.STARTED: "in_progress",
    JobStatus.FINISHED: "completed",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELED: "cancelled",
    JobStatus.STOPPED: "cancelled",
}


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


class ResponseUsage(TypedDict):
    """Token counts reported by the LLM."""

    input_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens: int
    output_tokens_details: dict[str, int]
    total_tokens: int


class ResponseObject(TypedDict):
    """OpenAI's response; `queue`, `timing` and `attempt` are ragq's own."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    background: bool
    error: JobError | None
    incomplete_details: dict[str, str] | None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    model: str
    output: list[dict[str, Any]]
    parallel_tool_calls: bool
    previous_response_id: str | None
    service_tier: str
    store: bool
    temperature: float | None
    text: dict[str, Any]
    tool_choice: str | dict[str, str]
    tools: list[dict[str, Any]]
    top_p: float | None
    truncation: Literal["auto", "disabled"]
    usage: ResponseUsage | None
    user: str | None
    queue: QueuePlace
    timing: Timing
    attempt: int


class InputTextPart(TypedDict):
    """A piece of a message."""

    type: Literal["input_text", "output_text"]
    text: str


class InputItem(TypedDict):
    """An input message of a response."""

    type: Literal["message"]
    id: str
    role: str
    status: Literal["completed"]
    content: list[InputTextPart]


def timing_of(job: Job) -> Timing:
    """Duration of each stage in ms; None if it has not happened."""
    meta = job.meta
    return {
        "queued_ms": meta.queued_ms,
        "retrieve_ms": meta.retrieve_ms,
        "answer_ms": meta.answer_ms,
        "first_token_ms": meta.first_token_ms,
        "total_ms": round((job.ended_at - job.created_at) * 1000) if job.ended_at else None,
    }


def render_response(job: Job, *, results: bool) -> dict[str, Any]:
    """Render a job as OpenAI's response object; `queue` and `timing` are ours.

    Args:
        results: Include the search results.
    """
    request, answered = job.request, job.answered
    truncated = bool(answered and answered.answer.truncated)
    status = "incomplete" if truncated else STATUS_WORDS[job.status]
    return {
        "id": job.id,
        "object": "response",
        "created_at": int(job.created_at),
        "completed_at": int(job.ended_at) if job.ended_at and status == "completed" else None,
        "status": status,
        "background": request.background,
        "error": {"code": job.error.code, "message": job.error.message} if job.error else None,
        "incomplete_details": {"reason": "max_output_tokens"} if truncated else None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "metadata": request.metadata,
        "model": request.model or MODEL,
        "output": render_output(job, answered, results=results) if answered else [],
        "parallel_tool_calls": request.parallel_tool_calls,
        "previous_response_id": request.previous_response_id,
        "service_tier": request.service_tier,
        "store": request.store,
        "temperature": request.temperature,
        "text": request.text or {"format": {"type": "text"}},
        "tool_choice": request.tool_choice,
        "tools": request.tools,
        "top_p": request.top_p,
        "truncation": request.truncation,
        "usage": _render_usage(answered.answer.usage) if answered else None,
        "user": request.user,
        "queue": {"position": job.position, "eta_seconds": job.eta_seconds},
        "timing": timing_of(job),
        "attempt": job.attempt,
    }


def render_input(response_id: str, messages: list[tuple[str, str]]) -> list[InputItem]:
    """Render the (role, text) of input messages as OpenAI's input items, in their order."""
    return [
        {
            "type": "message",
            "id": f"msg_{response_id.removeprefix(RESPONSE_PREFIX)}_in{number}",
            "role": role,
            "status": "completed",
            "content": [{"type": "output_text" if role == "assistant" else "input_text", "text": text}],
        }
        for number, (role, text) in enumerate(messages)
    ]


def _render_usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def item_id(kind: str, response_id: str, attempt: int) -> str:
    """The id of an output item; each attempt has its own."""
    return f"{kind}_{response_id.removeprefix(RESPONSE_PREFIX)}" + (f"_{attempt}" if attempt > 1 else "")


def render_output(job: Job, answered: QueryResult, *, results: bool) -> list[dict[str, Any]]:
    """Render a result as output items: the search and the message."""
    answer = answered.answer
    search = {
        "type": "file_search_call",
        "id": item_id("fs", job.id, job.attempt),
        "status": "completed",
        "queries": [answered.query],
        "results": [render_result(result) for result in answered.results] if results else None,
    }
    message = {
        "type": "message",
        "id": item_id("msg", job.id, job.attempt),
        "role": "assistant",
        "status": "incomplete" if answer.truncated else "completed",
        "content": [
            {
                "type": "output_text",
                "text": answer.text,
                "annotations": render_citations(answer),
                "logprobs": [],
            }
        ],
        "kind": answer.kind,
    }
    return [search, message]


def render_citations(answer: Answer) -> list[dict[str, Any]]:
    """Render an answer's citations as OpenAI's annotations, with ragq's own fields."""
    return [{"type": "file_citation", **asdict(citation)} for citation in answer.citations]


def render_result(result: SearchResult) -> dict[str, Any]:
    """Render a found chunk."""
    shown = ("file_id", "filename", "score", "text", "attributes", "page", "heading", "start", "end", "similarity")
    return {name: getattr(result, name) for name in shown}
