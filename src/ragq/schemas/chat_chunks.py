"""A job's event log as OpenAI's stream of a chat completion.

Text that was sent cannot be taken back. So when a job runs again after its worker died, the stream continues only if the
new text begins with the text that was sent, and ends with an error otherwise.
"""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict

from ragq.models import Answer
from ragq.records import Failure, Job, LogEntry, ReasoningAdded, TextAdded
from ragq.schemas.objects import write_line
from ragq.schemas.response_objects import CitedUrl, Passage
from ragq.schemas.responses import MODEL, render_confidence, render_passage, render_support, url_citation

Chunk = dict[str, Any]
DONE: Chunk = {}
CANCELLED = Failure("not_answered", "The question was cancelled: ask again.")


class CompletionUsage(TypedDict):
    """Token counts reported by the LLM."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int]
    completion_tokens_details: dict[str, int]


class UrlAnnotation(TypedDict):
    """The source of a statement; `citation` is ragq's own, and quotes it."""

    type: Literal["url_citation"]
    url_citation: CitedUrl
    citation: Passage


class CalledFunction(TypedDict):
    """A function and its arguments, usually JSON."""

    name: str
    arguments: str


class FunctionCall(TypedDict):
    """A call of one of the client's functions."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class ChatChunks:
    """Makes the chunks of one chat completion, in order.

    Args:
        usage: Send the usage before the end.
        page: Address of ragq's page, for citations.
    """

    kind = "chat.completion.chunk"

    def __init__(self, job: Job, *, usage: bool, page: str) -> None:
        self._head = {
            "id": job.id,
            "object": self.kind,
            "created": int(job.created_at),
            "model": job.request.model or MODEL,
        }
        self._with_usage, self._page = usage, page
        self._thought_in = 0  # the attempt whose reasoning is shown
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
        thought = "".join(event.text for event in entry.events if isinstance(event, ReasoningAdded))
        again = self._repeats[self._repeated : self._repeated + len(text)]
        self._repeated += len(again)
        self._differs |= not text.startswith(again)
        is_shown = not self._said and self._thought_in in (0, entry.attempt)
        made = self._add_reasoning(thought) if thought and is_shown else []
        return made if self._differs else [*made, *self._add_text(text[len(again) :])]

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
        is_shown = answer.reasoning and not said and not self._thought_in
        made = self._add_reasoning(answer.reasoning) if is_shown else []
        made += self._add_text(answer.text[len(said) :])
        if answer.refusal:
            made.append(self._chunk({"refusal": answer.refusal}))
        calls = [{"index": number, **call} for number, call in enumerate(render_calls(answer))]
        made += [self._chunk({"tool_calls": [call]}) for call in calls]
        last = {"annotations": annotations} if (annotations := render_annotations(answer, self._page)) else {}
        made.append(self._chunk(last, answer=answer))
        if job.request.notes:
            made[-1]["notes"] = job.request.notes
        if support := render_support(answer):
            made[-1]["support"] = support
        if confidence := render_confidence(answer):
            made[-1]["confidence"] = confidence
        if self._with_usage:
            made.append({**self._head, "choices": [], "usage": usage_of(answer)})
        return [*made, DONE]

    def cut(self) -> list[Chunk]:
        """An error, because the reader cannot resume this stream."""
        return [_error("stream_cut", "The rest of the answer cannot be sent now: ask again.")]

    def write(self, chunk: Chunk) -> bytes:
        """Serialize a chunk."""
        return f"data: {'[DONE]' if chunk is DONE else write_line(chunk)}\n\n".encode()

    def _add_reasoning(self, more: str) -> list[Chunk]:
        self._thought_in = self._attempt
        return [self._chunk({"reasoning_content": more})]

    def _add_text(self, more: str) -> list[Chunk]:
        if not more:
            return []
        self._said.append(more)
        return [self._chunk({"content": more})]

    def _chunk(self, delta: dict[str, Any], *, answer: Answer | None = None) -> Chunk:
        choice = self._choice(delta, answer)
        return {**self._head, "choices": [choice], **({"usage": None} if self._with_usage else {})}

    def _choice(self, delta: dict[str, Any], answer: Answer | None) -> dict[str, Any]:
        return {
            "index": 0,
            "delta": delta,
            "logprobs": answer and render_logprobs(answer),
            "finish_reason": answer and finish_reason_of(answer),
        }


def finish_reason_of(answer: Answer) -> Literal["stop", "length", "tool_calls"]:
    """OpenAI's reason for the end of an answer."""
    return "length" if answer.truncated else "tool_calls" if answer.tool_calls else "stop"


def render_calls(answer: Answer) -> list[FunctionCall]:
    """Render calls of the client's functions."""
    return [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in answer.tool_calls
    ]


def render_annotations(answer: Answer, page: str) -> list[UrlAnnotation]:
    """Render citations in the only form that clients of chat completions take."""
    return [
        {
            "type": "url_citation",
            "url_citation": url_citation(citation, answer.text, page),
            "citation": render_passage(citation),
        }
        for citation in answer.citations
    ]


def render_logprobs(answer: Answer) -> dict[str, Any] | None:
    """Render the probabilities of tokens; None if they were not asked for."""
    return {"content": answer.logprobs, "refusal": None} if answer.logprobs else None


def usage_of(answer: Answer) -> CompletionUsage:
    """The token counts of an answer, in the fields of chat completions."""
    usage = answer.usage
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def _error(code: str, message: str) -> Chunk:
    return {"error": {"message": message, "type": "server_error", "param": None, "code": code}}
