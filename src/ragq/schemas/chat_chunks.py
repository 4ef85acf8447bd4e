"""A job's event log as OpenAI's stream of a chat completion.

Text that was sent cannot be taken back. So when a job runs again after its worker died, the stream continues only if the
new text begins with the text that was sent, and ends with an error otherwise.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from typing_extensions import TypedDict

from ragq.models import Answer
from ragq.records import Failure, Job, LogEntry, TextAdded
from ragq.schemas.responses import MODEL, render_citations

Chunk = dict[str, Any]
DONE: Chunk = {}
CANCELLED = Failure("not_answered", "The question was cancelled: ask again.")


class CompletionUsage(TypedDict):
    """Token counts reported by the LLM."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatChunks:
    """Makes the chunks of one completion, in order.

    Args:
        usage: Send the usage before the end.
    """

    def __init__(self, job: Job, *, usage: bool) -> None:
        self._head = {
            "id": job.id,
            "object": "chat.completion.chunk",
            "created": int(job.created_at),
            "model": job.request.model or MODEL,
        }
        self._with_usage = usage
        self._said: list[str] = []
        self._attempt = 0
        self._repeats = ""  # text sent before the newest attempt, which must repeat it
        self._repeated = 0  # how many of its characters have been repeated
        self._differs = False

    def begin(self) -> list[Chunk]:
        """Who speaks."""
        return [self._chunk({"role": "assistant", "content": ""})]

    def add(self, entry: LogEntry) -> list[Chunk]:
        """The new text of an entry of the log."""
        if entry.attempt != self._attempt:
            self._attempt, self._repeats, self._repeated, self._differs = entry.attempt, "".join(self._said), 0, False
        text = "".join(event.text for event in entry.events if isinstance(event, TextAdded))
        again = self._repeats[self._repeated : self._repeated + len(text)]
        self._repeated += len(again)
        self._differs |= not text.startswith(again)
        return [] if self._differs else self._add_text(text[len(again) :])

    def end(self, job: Job) -> list[Chunk]:
        """The rest of the answer with its citations, or the error."""
        if job.answered is None:
            error = job.error or CANCELLED
            return [_error(error.code, error.message)]
        answer = job.answered.answer
        said = "".join(self._said)
        if not answer.text.startswith(said):
            return [
                _error("answer_restarted", "A worker died, and the new answer differs from what was sent: ask again.")
            ]
        made = self._add_text(answer.text[len(said) :])
        last = {"annotations": annotations} if (annotations := render_citations(answer)) else {}
        made.append(self._chunk(last, finish_reason=finish_reason_of(answer)))
        if self._with_usage:
            made.append({**self._head, "choices": [], "usage": usage_of(answer)})
        return [*made, DONE]

    def cut(self) -> list[Chunk]:
        """An error, because the reader cannot resume this stream."""
        return [_error("stream_cut", "The rest of the answer cannot be sent now: ask again.")]

    def write(self, chunk: Chunk) -> bytes:
        """Serialize a chunk."""
        data = "[DONE]" if chunk is DONE else json.dumps(chunk, ensure_ascii=False, separators=(",", ":"))
        return f"data: {data}\n\n".encode()

    def _add_text(self, more: str) -> list[Chunk]:
        if not more:
            return []
        self._said.append(more)
        return [self._chunk({"content": more})]

    def _chunk(self, delta: dict[str, Any], *, finish_reason: str | None = None) -> Chunk:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head, "choices": [choice], **({"usage": None} if self._with_usage else {})}


def finish_reason_of(answer: Answer) -> Literal["stop", "length"]:
    """OpenAI's reason for the end of an answer."""
    return "length" if answer.truncated else "stop"


def usage_of(answer: Answer) -> CompletionUsage:
    """The token counts of an answer, in the fields of chat completions."""
    usage = answer.usage
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _error(code: str, message: str) -> Chunk:
    return {"error": {"message": message, "type": "server_error", "param": None, "code": code}}
