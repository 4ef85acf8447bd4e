"""Answer a question with an LLM, from what the search found."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import structlog

from ragq.client.model_faults import ContextTooLongError
from ragq.completions.answer import OnDelta
from ragq.errors import RagqError, UnavailableError
from ragq.metrics import JUDGED_TOKENS, JUDGEMENTS, STATEMENTS
from ragq.models import Answer, Question, SearchResult, Usage
from ragq.queues.reading import read_doubts
from ragq.queues.running import RunningJob, WorkerContext
from ragq.queues.spending import complete
from ragq.rag.citing.check import Evidence
from ragq.rag.citing.cite import Cited, CitedStream, asks_for_round, cite_in_steps
from ragq.rag.citing.cite_json import cite_values
from ragq.rag.citing.judge import JUDGED, apply_judgement, build_judging, choose_judged, read_judgement
from ragq.rag.conversation import bound_history, bound_text, text_of
from ragq.rag.json_form import FormError, WholeJson, check_answer, is_structured, unwrap
from ragq.rag.prompt import build_messages
from ragq.rag.rewrite import build_rewriting, join_questions, stands_alone
from ragq.records import ReasoningAdded, StatementChecked, TextAdded

if TYPE_CHECKING:
    from ragq.client.llm_stream import Completion

log = structlog.get_logger(__name__)

REWRITE_SECONDS = 10.0  # after this, the original question is searched for
REWRITE_TOKENS = 200
JUDGE_SECONDS = 15.0  # after this, the verdicts of the check stay
JUDGE_TOKENS = 400


async def make_standalone(job: RunningJob, context: WorkerContext, question: Question) -> Question:
    """Make the text to search for: a follow-up question is rewritten so that it stands alone, and a long text is bounded.

    Between the calls of tools there is no rewriting, which would cost a call each time. On an error, the question is
    searched for as it is.
    """
    question = replace(question, text=bound_text(question.text, context.settings.max_question_characters))
    if not question.history or not question.vector_store_ids:
        return question
    if stands_alone(question.text):
        return question
    if context.llm is None or question.following:
        return replace(question, text=join_questions(question))
    deadline = min(job.deadline, asyncio.get_running_loop().time() + REWRITE_SECONDS)
    try:
        completion = await complete(
            job, context, build_rewriting(question), options={"max_tokens": REWRITE_TOKENS}, deadline=deadline
        )
    except RagqError as error:
        log.warning("question_not_rewritten", job_id=job.id, error=str(error))
        return question
    return replace(question, text=" ".join(completion.text.split()) or question.text)


async def generate(
    job: RunningJob,
    context: WorkerContext,
    question: Question,
    results: list[SearchResult],
    *,
    searched: str,
    is_streamed: bool,
) -> Answer:
    """Ask the LLM; if the prompt is too long for it, with fewer sources.

    Args:
        searched: The question as it was searched for.
    """
    completion, evidence = await _ask_with_what_fits(_Asking(job, context, searched, is_streamed), question, results)
    cited = await _cite(context, question, completion, evidence)
    cited = await read_doubts(context.cross_encoder, searched, cited)
    cited, judging = await _judge(job, context, searched, cited, evidence)
    is_checked = bool(question.vector_store_ids or evidence.sources)
    for statement in cited.statements if is_checked else []:
        STATEMENTS.labels(statement.verdict).inc()
    job.note(first_token_ms=round(completion.first_token_seconds * 1000))
    return Answer(
        cited.text,
        cited.citations,
        "generated",
        completion.usage,
        truncated=completion.finish_reason == "length",
        reasoning=completion.reasoning,
        refusal=completion.refusal,
        tool_calls=completion.tool_calls,
        logprobs=completion.logprobs,
        statements=cited.statements if is_checked else None,
        judging=judging,
    )


async def _ask_with_what_fits(
    asking: _Asking, question: Question, results: list[SearchResult]
) -> tuple[Completion, Evidence]:
    """Ask with all sources, then with a bounded conversation and half of them, and half again, down to one.

    Where the LLM did not say that the length is at fault, half of them are tried, and no fewer.

    Raises:
        ContextTooLongError: One source is too long.
    """
    budget = asking.context.settings.prompt_tokens
    try:
        return await asking.ask(question, results, budget)
    except ContextTooLongError:
        question = replace(question, history=bound_history(question.history))
    while True:
        budget //= 2
        try:
            return await asking.ask(question, results, budget)
        except ContextTooLongError as error:
            if error.otherwise:
                raise error.otherwise from error
            if not results or budget <= results[0].token_count:
                raise


async def _cite(context: WorkerContext, question: Question, completion: Completion, evidence: Evidence) -> Cited:
    """Check the statements of an answer."""
    text = completion.text
    if is_structured(question):
        text = unwrap(text)
        if completion.finish_reason == "stop":
            await _check_form(text, question)
        return await context.turns.run(cite_values(text, evidence))
    has_round = asks_for_round(question.text, question.instructions)
    return await context.turns.run(cite_in_steps(text, evidence, has_round=has_round))


async def _judge(
    job: RunningJob, context: WorkerContext, asked: str, cited: Cited, evidence: Evidence
) -> tuple[Cited, Usage | None]:
    """Ask the LLM whether the sources hold the statements, if it is to judge; on an error the verdicts of the check stay."""
    judged = choose_judged(cited.statements) if context.settings.judge and evidence.sources else []
    if not judged or context.llm is None:
        return cited, None
    deadline = min(job.deadline, asyncio.get_running_loop().time() + JUDGE_SECONDS)
    messages = build_judging(asked, cited.text, cited.statements, judged, evidence.sources)
    try:
        completion = await complete(
            job, context, messages, options={"max_tokens": JUDGE_TOKENS, "temperature": 0}, deadline=deadline
        )
    except RagqError as error:
        log.warning("statements_not_judged", job_id=job.id, error=str(error))
        JUDGEMENTS.labels(error.code).inc()
        return cited, None
    usage = completion.usage
    JUDGED_TOKENS.labels("input").inc(usage.input_tokens)
    JUDGED_TOKENS.labels("output").inc(usage.output_tokens)
    judgement = read_judgement(completion.text, judged)
    JUDGEMENTS.labels("ok" if judgement else "unreadable").inc()
    statements, citations = apply_judgement(cited.statements, cited.citations, judgement, reasons=JUDGED)
    return cited._replace(statements=statements, citations=citations), usage


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


@dataclass(frozen=True, slots=True)
class _Asking:
    job: RunningJob
    context: WorkerContext
    searched: str
    is_streamed: bool

    async def ask(
        self, question: Question, results: list[SearchResult], budget_tokens: int
    ) -> tuple[Completion, Evidence]:
        """Call the LLM, and log what it says while it does."""
        messages, sources = build_messages(question, results, budget_tokens=budget_tokens)
        said = [text_of(message) for message in (*question.history, *question.following)]
        if is_structured(question):  # a value may be one of those that the schema lists
            said.append(json.dumps(question.options["response_format"], ensure_ascii=False))
        evidence = Evidence(f"{question.text} {self.searched}", sources, said=said)
        await self.context.turns.run(evidence.read())
        limits = {
            "max_tokens": question.max_output_tokens,
            "temperature": question.temperature,
            "top_p": question.top_p,
        }
        completion = await complete(
            self.job,
            self.context,
            messages,
            options=question.options | limits,
            deadline=self.job.deadline,
            on_delta=self._listen(question, evidence) if self.is_streamed else None,
        )
        return completion, evidence

    def _listen(self, question: Question, evidence: Evidence) -> OnDelta:
        job = self.job  # its list of events is another one after each write to the log
        if is_structured(question):
            shown = WholeJson()

            def add(piece: str) -> None:
                if more := shown.add(piece):
                    job.pending_events.append(TextAdded(more))

        else:
            has_round = asks_for_round(question.text, question.instructions)
            cited = CitedStream(evidence, has_round=has_round)
            is_checked = bool(question.vector_store_ids or evidence.sources)

            def add(piece: str) -> None:
                for more in cited.add(piece):
                    if isinstance(more, str):
                        job.pending_events.append(TextAdded(more))
                    elif is_checked:
                        job.pending_events.append(StatementChecked(more.statement, more.citations))

        def say(kind: Literal["text", "reasoning"], piece: str) -> None:
            if kind == "reasoning":
                job.pending_events.append(ReasoningAdded(piece))
            else:
                add(piece)

        return say
