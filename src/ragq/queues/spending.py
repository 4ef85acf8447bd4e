"""Ask the LLM for a job, and count what that costs it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ragq.completions.answer import OnDelta
from ragq.models import Message
from ragq.queues.running import RunningJob, WorkerContext
from ragq.rag.conversation import text_of

if TYPE_CHECKING:
    from ragq.client.llm_stream import Completion

CHARACTERS_OF_TOKEN = 4  # where the LLM does not count: English prose, about


async def complete(
    job: RunningJob,
    context: WorkerContext,
    messages: list[Message],
    *,
    options: dict[str, Any],
    deadline: float,
    on_delta: OnDelta | None = None,
) -> Completion:
    """Call the LLM as `LlmClient.complete` does. A call that is cancelled is estimated by what was streamed until then."""
    assert context.llm
    received = 0

    def count(kind: Any, piece: str) -> None:
        nonlocal received
        received += len(piece)
        if on_delta:
            on_delta(kind, piece)

    try:
        completion = await context.llm.complete(
            messages, options=options, deadline=deadline, on_delta=count if on_delta else None
        )
    except asyncio.CancelledError:
        _estimate(job, messages, received)
        raise
    usage = completion.usage
    if usage.input_tokens or usage.output_tokens:
        job.usage.input_tokens += usage.input_tokens
        job.usage.output_tokens += usage.output_tokens
        job.usage.cached_tokens += usage.cached_tokens
    else:
        _estimate(job, messages, len(completion.text) + len(completion.reasoning))
    return completion


def _estimate(job: RunningJob, messages: list[Message], written: int) -> None:
    read = sum(len(text_of(message)) for message in messages if message.get("content"))
    tokens_in, tokens_out = -(-read // CHARACTERS_OF_TOKEN), -(-written // CHARACTERS_OF_TOKEN)
    job.usage.input_tokens += tokens_in
    job.usage.output_tokens += tokens_out
    job.usage.estimated_tokens += tokens_in + tokens_out
