"""Render a job as OpenAI's response object; the body of a request is in `questions.py`."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal
from urllib.parse import urlencode

from pydantic import TypeAdapter

from ragq.models import Answer, Citation, JobStatus, SearchResult, Statement, Usage
from ragq.records import Job, QueryResult, Request
from ragq.schemas.messages import InputItem, read_content
from ragq.schemas.questions import SEARCH_RESULTS
from ragq.schemas.response_objects import (
    Annotation,
    AnswerConfidence,
    AnswerSupport,
    CallItem,
    CheckedStatement,
    CitedUrl,
    FoundChunk,
    InputObject,
    Judging,
    MessageItem,
    OutputItem,
    Passage,
    ReasoningItem,
    RequestFields,
    ResponseObject,
    ResponseUsage,
    SearchItem,
    Timing,
)

RESPONSE_PREFIX = "resp_"
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
STATEMENT_CHARACTERS = 1000  # before a citation, in which the beginning of its statement is looked for
_RESPONSE = TypeAdapter(ResponseObject)


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


def write_response(job: Job, *, results: bool, page: str) -> bytes:
    """Serialize a response object, once it is seen to have its form."""
    return _RESPONSE.dump_json(_RESPONSE.validate_python(render_response(job, results=results, page=page)))


def render_response(job: Job, *, results: bool, page: str) -> ResponseObject:
    """Render a job as OpenAI's response object.

    Args:
        results: Include the search results.
        page: Address of ragq's page, for citations.
    """
    request, answered = job.request, job.answered
    truncated = bool(answered and answered.answer.truncated)
    status = STATUS_WORDS[job.status]
    return {
        "id": job.id,
        "object": "response",
        "created_at": int(job.created_at),
        "completed_at": int(job.ended_at) if job.ended_at and status == "completed" and not truncated else None,
        "status": "incomplete" if truncated else status,
        "error": {"code": job.error.code, "message": job.error.message} if job.error else None,
        "incomplete_details": {"reason": "max_output_tokens"} if truncated else None,
        "output": render_output(job, answered, results=results, page=page) if answered else [],
        "usage": render_usage(answered.answer.usage) if answered else None,
        **_render_request(request),
        "queue": {"position": job.position, "eta_seconds": job.eta_seconds},
        "timing": timing_of(job),
        "attempt": job.attempt,
        "support": render_support(answered.answer) if answered else None,
        "confidence": render_confidence(answered.answer) if answered else None,
    }


def _render_request(request: Request) -> RequestFields:
    """Render what the caller asked for, with OpenAI's defaults where nothing was sent."""
    return {
        "background": request.background,
        "frequency_penalty": request.frequency_penalty,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "metadata": request.metadata,
        "model": request.model or MODEL,
        "parallel_tool_calls": request.parallel_tool_calls,
        "presence_penalty": request.presence_penalty,
        "previous_response_id": request.previous_response_id,
        "conversation": {"id": request.conversation} if request.conversation else None,
        "prompt_cache_key": request.prompt_cache_key,
        "prompt_cache_retention": request.prompt_cache_retention,
        "reasoning": {"effort": None, "summary": None} | request.reasoning if request.reasoning else None,
        "safety_identifier": request.safety_identifier,
        "service_tier": request.service_tier,
        "store": request.store,
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "text": {"format": {"type": "text"}} | (request.text or {}),
        "tool_choice": request.tool_choice,
        "tools": [_render_tool(tool) for tool in request.tools],
        "top_logprobs": request.top_logprobs,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "truncation": request.truncation,
        "user": request.user,
        "notes": request.notes,
    }


def _render_tool(tool: dict[str, Any]) -> dict[str, Any]:
    """A function with all fields that OpenAI's has."""
    return {"description": None, "parameters": None, "strict": True} | tool if tool["type"] == "function" else tool


def shows_search(request: Request) -> bool:
    """Whether a search was made for a client that speaks of it; others are shown the answer alone."""
    if any(tool["type"] == "file_search" for tool in request.tools):
        return bool(request.tool_choice != "none")
    return SEARCH_RESULTS in request.include and request.vector_store_ids != []


def render_input(response_id: str, items: str | list[InputItem]) -> list[InputObject]:
    """Render input items as OpenAI's, in their order, without the searches and thoughts of earlier answers."""
    if isinstance(items, str):
        items = [InputItem(role="user", content=items)]
    hex_id = response_id.removeprefix(RESPONSE_PREFIX)
    rendered: list[InputObject] = []
    for number, item in enumerate(items):
        if item.role is None and item.call_id is None and item.type != "compaction":
            continue
        shown: InputObject = {"type": item.type or "message", "id": f"msg_{hex_id}_in{number}", "status": "completed"}
        for name in ("role", "call_id", "name", "arguments", "input", "output", "encrypted_content"):
            if (value := getattr(item, name)) is not None:
                shown[name] = value
        if item.role:
            shown["content"] = _render_content(item)
        rendered.append(shown)
    return rendered


def _render_content(item: InputItem) -> list[dict[str, Any]]:
    if isinstance(item.content, list):
        parts = [part if isinstance(part, str) else part.model_dump(exclude_none=True) for part in item.content]
        if any(isinstance(part, dict) and part["type"].rpartition("_")[2] != "text" for part in parts):
            return [{"type": "input_text", "text": part} if isinstance(part, str) else part for part in parts]
    text = read_content(item.content, "content")
    return [{"type": "output_text" if item.role == "assistant" else "input_text", "text": text}]


def render_usage(usage: Usage) -> ResponseUsage:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def item_id(kind: str, response_id: str, attempt: int) -> str:
    """The id of an output item; each attempt has its own."""
    return f"{kind}_{response_id.removeprefix(RESPONSE_PREFIX)}" + (f"_{attempt}" if attempt > 1 else "")


def render_output(job: Job, answered: QueryResult, *, results: bool, page: str) -> list[OutputItem]:
    """Render a result as output items: the search, the reasoning, the message, and calls of functions."""
    answer = answered.answer
    output: list[OutputItem] = []
    if shows_search(job.request):
        output.append(render_search(job, answered, results=results))
    if answer.reasoning:
        output.append(render_reasoning(item_id("rs", job.id, job.attempt), answer.reasoning))
    if answer.text or answer.refusal or not answer.tool_calls:
        output.append(render_message(job, answer, page=page))
    return [*output, *render_calls(job, answer)]


def render_search(job: Job, answered: QueryResult, *, results: bool) -> SearchItem:
    return {
        "type": "file_search_call",
        "id": item_id("fs", job.id, job.attempt),
        "status": "completed",
        "queries": [answered.query],
        "results": [render_result(result) for result in answered.results] if results else None,
    }


def render_reasoning(id_: str, text: str, status: Literal["completed", "incomplete"] = "completed") -> ReasoningItem:
    content = [{"type": "reasoning_text", "text": text}]
    return {"type": "reasoning", "id": id_, "summary": [], "content": content, "status": status}  # type: ignore[typeddict-item]


def render_message(job: Job, answer: Answer, *, page: str) -> MessageItem:
    status: Literal["incomplete", "completed"] = "incomplete" if answer.truncated else "completed"
    return {
        "type": "message",
        "id": item_id("msg", job.id, job.attempt),
        "role": "assistant",
        "status": status,
        "content": [
            {"type": "refusal", "refusal": answer.refusal}
            if answer.refusal
            else {
                "type": "output_text",
                "text": answer.text,
                "annotations": [render_citation(job.request, one, answer.text, page) for one in answer.citations],
                "logprobs": answer.logprobs,
            }
        ],
        "kind": answer.kind,
    }


def render_calls(job: Job, answer: Answer) -> list[CallItem]:
    """Render the calls of functions; they are complete, since a client acts on what it is shown."""
    hex_id = job.id.removeprefix(RESPONSE_PREFIX)
    return [
        {
            "type": "function_call",
            "id": f"fc_{hex_id}_{number}",
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments,
            "status": "completed",
        }
        for number, call in enumerate(answer.tool_calls, 1)
    ]


def render_citation(request: Request, citation: Citation, text: str, page: str, *, offset: int = 0) -> Annotation:
    """Render a citation as the client knows them; `text` is the answer's, or what of it begins at `offset`."""
    if shows_search(request):
        return {"type": "file_citation", **render_passage(citation)}
    return {
        "type": "url_citation",
        **url_citation(citation, text, page, offset=offset),
        **render_passage(citation),
    }


def render_confidence(answer: Answer) -> AnswerConfidence | None:
    """Render how sure an extractive answer is; None of an LLM's."""
    return None if answer.confidence is None else {"value": answer.confidence, "reason": answer.reason}


def render_support(answer: Answer) -> AnswerSupport | None:
    """Render what the check of an LLM's answer found; None if it was not checked."""
    if answer.statements is None:
        return None
    counts = Counter(one.verdict for one in answer.statements)
    return {
        "supported": counts["supported"],
        "unsupported": counts["unsupported"],
        "uncited": counts["uncited"],
        "statements": [render_statement(one) for one in answer.statements],
        "judge": _render_judging(answer.judging) if answer.judging else None,
    }


def _render_judging(usage: Usage) -> Judging:
    return {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}


def render_statement(statement: Statement) -> CheckedStatement:
    return {
        "start": statement.start,
        "end": statement.end,
        "verdict": statement.verdict,
        "reason": statement.reason or None,
        "citations": statement.citations,
    }


def render_passage(citation: Citation) -> Passage:
    """Render what a citation quotes."""
    return {
        "index": citation.index,
        "file_id": citation.file_id,
        "filename": citation.filename,
        "page": citation.page,
        "location": _locate(citation),
        "quote": citation.quote,
        "start": citation.start,
        "end": citation.end,
        "verdict": citation.verdict or None,
        "reason": citation.reason or None,
    }


def _locate(citation: Citation) -> str:
    return citation.location or _page_of(citation)


def _page_of(source: Citation | SearchResult) -> str:
    """The location of what an earlier version stored, which knew pages alone."""
    return f"page {source.page}" if source.page else ""


def url_citation(citation: Citation, text: str, page: str, *, offset: int = 0) -> CitedUrl:
    """The fields of OpenAI's citation of an address: the statement's place in the text, and the passage's title and URL.

    Args:
        text: The answer, or what of it begins at `offset`.
    """
    first = max(0, citation.index - STATEMENT_CHARACTERS)
    before = text[first - offset : citation.index - offset].rstrip(" \n.!?]0123456789[")
    start = first + max(before.rfind(mark) for mark in (". ", "\n", "? ", "! ")) + 1
    location = _locate(citation)
    place = f", {location}" if location else ""
    address = urlencode({"file": citation.file_id, "start": citation.start, "end": citation.end})
    return {
        "start_index": start,
        "end_index": citation.index,
        "title": f"{citation.filename}{place}",
        "url": f"{page}/?{address}",
    }


def render_result(result: SearchResult) -> FoundChunk:
    """Render a found chunk."""
    return {
        "file_id": result.file_id,
        "filename": result.filename,
        "score": result.score,
        "text": result.text,
        "attributes": result.attributes,
        "page": result.page,
        "heading": result.heading,
        "location": str(result.location) or _page_of(result),
        "start": result.start,
        "end": result.end,
        "similarity": result.similarity,
    }
