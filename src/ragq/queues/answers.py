"""Answer a question with an LLM, from what the search found."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Literal

import structlog

from ragq.client.llm_stream import Completion
from ragq.client.model_faults import ContextTooLongError
from ragq.errors import RagqError, UnavailableError
from ragq.models import Answer, Question, SearchResult
from ragq.queues.running import RunningJob, WorkerContext
from ragq.rag.cite import CitedStream, cite_in_steps
from ragq.rag.cite_json import cite_values
from ragq.rag.conversation import bound_history, bound_text
from ragq.rag.json_form import FormError, WholeJson, check_answer, is_structured, unwrap
from ragq.rag.prompt import build_messages
from ragq.rag.rewrite import build_rewriting, join_questions
from ragq.records import ReasoningAdded, TextAdded

log = structlog.get_logger(__name__)

REWRITE_SECONDS = 10.0  # after this, the original question is searched for
REWRITE_TOKENS = 200


async def make_standalone(job: RunningJob, context: WorkerContext, question: Question) -> Question:
    """Make the text to search for: a follow-up question is rewritten so that it stands alone, and a long text is bounded.

    Between the calls of tools there is no rewriting, which would cost a call each time. On an error, the question is
    searched for as it is.
    """
    question = replace(question, text=bound_text(question.text, context.settings.max_question_characters))
    if not question.history or not question.vector_store_ids:
        return question
    if context.llm is None or question.following:
        return replace(question, text=join_questions(question))
    deadline = min(job.deadline, asyncio.get_running_loop().time() + REWRITE_SECONDS)
    try:
        completion = await context.llm.complete(
            build_rewriting(question), options={"max_tokens": REWRITE_TOKENS}, deadline=deadline
        )
    except RagqError as error:
        log.warning("question_not_rewritten", job_id=job.id, error=str(error))
        return question
    return replace(question, text=" ".join(completion.text.split()) or question.text)


async def generate(
    job: RunningJob, context: WorkerContext, question: Question, results: list[SearchResult], *, is_streamed: bool
) -> Answer:
    """Ask the LLM; if the prompt is too long for it, once more with half the sources and a bounded conversation."""
    budget = context.settings.prompt_tokens
    try:
        completion, sources = await _ask_llm(job, context, question, results, budget, is_streamed=is_streamed)
    except ContextTooLongError:
        question = replace(question, history=bound_history(question.history))
        try:
            completion, sources = await _ask_llm(job, context, question, results, budget // 2, is_streamed=is_streamed)
        except ContextTooLongError as error:
            if error.otherwise is None:
                raise
            raise error.otherwise from error
    text = completion.text
    if is_structured(question):
        text = unwrap(text)
        if completion.finish_reason == "stop":
            await _check_form(text, question)
        citations = await context.turns.run(cite_values(text, sources))
    else:
        text, citations = await context.turns.run(cite_in_steps(text, sources))
    job.note(first_token_ms=round(completion.first_token_seconds * 1000))
    return Answer(
        text,
        citations,
        "generated",
        completion.usage,
        truncated=completion.finish_reason == "length",
        reasoning=completion.reasoning,
        refusal=completion.refusal,
        tool_calls=completion.tool_calls,
        logprobs=completion.logprobs,
    )


async def _check_form(text: str, question: Question) -> None:
    """Check that an answer in JSON is what was asked for; the next try may be.

    Raises:
        UnavailableError: It is not.
    """
    try:
        await asyncio.to_thread(check_answer, text, question.options["response_format"])
    except FormError as error:
        raise UnavailableError(
            f"The LLM's answer does not have the form asked for: {error}.", code="llm_wrong_form"
        ) from error


async def _ask_llm(
    job: RunningJob,
    context: WorkerContext,
    question: Question,
    results: list[SearchResult],
    budget_tokens: int,
    *,
    is_streamed: bool,
) -> tuple[Completion, list[SearchResult]]:
    assert context.llm
    messages, sources = build_messages(question, results, budget_tokens=budget_tokens)
    shown = WholeJson() if is_structured(question) else CitedStream(len(sources))

    def say(kind: Literal["text", "reasoning"], piece: str) -> None:
        if kind == "reasoning":
            job.pending_events.append(ReasoningAdded(piece))
        elif more := shown.add(piece):
            job.pending_events.append(TextAdded(more))

    limits = {"max_tokens": question.max_output_tokens, "temperature": question.temperature, "top_p": question.top_p}
    completion = await context.llm.complete(
        messages, options=question.options | limits, deadline=job.deadline, on_delta=say if is_streamed else None
    )
    return completion, sources
