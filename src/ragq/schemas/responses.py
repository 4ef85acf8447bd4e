"""A job as OpenAI's response object."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict

from ragq.models import Job, JobStatus
from ragq.schemas.objects import JobError

RESPONSE_PREFIX = "resp_"
SEARCH_RESULTS = "file_search_call.results"
MODEL = "ragq"  # the name that stands for whatever is configured
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
    """How long each stage took, in ms; null where it has not happened."""

    queued_ms: int | None
    retrieve_ms: int | None
    answer_ms: int | None
    first_token_ms: int | None
    total_ms: int | None


class QueuePlace(TypedDict):
    """Where a response waits, and an estimate of when it has ended."""

    position: int | None
    eta_seconds: float | None


class ResponseUsage(TypedDict):
    """Tokens as the LLM counted them."""

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
    """A message that a response was asked with."""

    type: Literal["message"]
    id: str
    role: str
    status: Literal["completed"]
    content: list[InputTextPart]


def timing_of(job: Job) -> Timing:
    """How long each stage took, in ms; None where it has not happened."""
    meta = job.meta
    total = round((job.ended_at - job.created_at) * 1000) if job.ended_at else None
    return {
        "queued_ms": meta.get("queued_ms"),
        "retrieve_ms": meta.get("retrieve_ms"),
        "answer_ms": meta.get("answer_ms"),
        "first_token_ms": meta.get("first_token_ms"),
        "total_ms": total,
    }


def render_response(job: Job, *, results: bool) -> dict[str, Any]:
    """Show a job as OpenAI's response object; `queue` and `timing` are ours.

    Args:
        results: Include what the search found.
    """
    request = job.request
    answer = job.result["answer"] if job.result else None
    truncated = bool(answer and answer["truncated"])
    status = "incomplete" if truncated else STATUS_WORDS[job.status]
    return {
        "id": job.id,
        "object": "response",
        "created_at": int(job.created_at),
        "completed_at": int(job.ended_at) if job.ended_at and status == "completed" else None,
        "status": status,
        "background": bool(request.get("background")),
        "error": _render_error(job),
        "incomplete_details": {"reason": "max_output_tokens"} if truncated else None,
        "instructions": request.get("instructions"),
        "max_output_tokens": request.get("max_output_tokens"),
        "metadata": request.get("metadata", {}),
        "model": request.get("model") or MODEL,
        "output": render_output(job, results=results) if job.result else [],
        "parallel_tool_calls": request.get("parallel_tool_calls", False),
        "previous_response_id": request.get("previous_response_id"),
        "service_tier": request.get("service_tier") or "default",
        "store": request.get("store", True),
        "temperature": request.get("temperature"),
        "text": request.get("text", {"format": {"type": "text"}}),
        "tool_choice": request.get("tool_choice", "auto"),
        "tools": request.get("tools", []),
        "top_p": request.get("top_p"),
        "truncation": request.get("truncation", "disabled"),
        "usage": _render_usage(answer["usage"]) if answer else None,
        "user": request.get("user"),
        "queue": {"position": job.position, "eta_seconds": job.eta_seconds},
        "timing": timing_of(job),
        "attempt": job.attempt,
    }


def render_input(response_id: str, messages: list[tuple[str, str]]) -> list[InputItem]:
    """Show the (role, text) of what a response was asked with as OpenAI's input items, in their order."""
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


def _render_error(job: Job) -> dict[str, str] | None:
    return {"code": job.error["code"], "message": job.error["message"]} if job.error else None


def _render_usage(usage: dict[str, int]) -> dict[str, Any]:
    return {
        "input_tokens": usage["input_tokens"],
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": usage["output_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage["input_tokens"] + usage["output_tokens"],
    }


def item_id(kind: str, response_id: str, attempt: int) -> str:
    """Name an output item; each attempt has its own."""
    return f"{kind}_{response_id.removeprefix(RESPONSE_PREFIX)}" + (f"_{attempt}" if attempt > 1 else "")


def render_output(job: Job, *, results: bool) -> list[dict[str, Any]]:
    """Show a result as output items: the search, and the message."""
    assert job.result
    answer = job.result["answer"]
    search = {
        "type": "file_search_call",
        "id": item_id("fs", job.id, job.attempt),
        "status": "completed",
        "queries": [job.result["query"]],
        "results": [render_result(result) for result in job.result["results"]] if results else None,
    }
    message = {
        "type": "message",
        "id": item_id("msg", job.id, job.attempt),
        "role": "assistant",
        "status": "incomplete" if answer["truncated"] else "completed",
        "content": [
            {
                "type": "output_text",
                "text": answer["text"],
                "annotations": [{"type": "file_citation", **citation} for citation in answer["citations"]],
                "logprobs": [],
            }
        ],
        "kind": answer["kind"],
    }
    return [search, message]


def render_result(result: dict[str, Any]) -> dict[str, Any]:
    """Show a chunk that the search found."""
    shown = ("file_id", "filename", "score", "text", "attributes", "page", "heading", "start", "end", "similarity")
    return {name: result[name] for name in shown}
