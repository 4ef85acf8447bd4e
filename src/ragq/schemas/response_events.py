"""A job's event log as OpenAI's stream of a response.

The same log gives the same events with the same numbers in every process, so a reader can resume at any process. When a
job runs again after its worker died, the items of the earlier attempt are closed as incomplete and new ones are opened.
The text of the last items is the answer, and the last event holds all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from ragq.models import Answer, Citation, JobStatus, SearchResult, Statement
from ragq.records import (
    Job,
    LogEntry,
    Meta,
    ReasoningAdded,
    SearchEnded,
    SearchStarted,
    StatementChecked,
    TextAdded,
)
from ragq.schemas.objects import write_line
from ragq.schemas.response_objects import Annotation, CallItem, FoundChunk, ResponseObject
from ragq.schemas.responses import (
    item_id,
    render_calls,
    render_citation,
    render_message,
    render_reasoning,
    render_response,
    render_result,
    render_statement,
    shows_search,
)

Event = dict[str, Any]
TAIL_CHARACTERS = 6000  # of a message, in which the statements end that are being shown


class ResponseEvents:
    """Makes the events of one response, in order.

    Args:
        job: The job; only fields that do not change while it runs are used.
        results: Include the search results.
        page: Address of ragq's page, for citations.
    """

    def __init__(self, job: Job, *, results: bool, page: str) -> None:
        self._job = replace(
            job, status=JobStatus.QUEUED, attempt=0, started_at=None, ended_at=None, result=None, error=None, meta=Meta(),
            position=None, eta_seconds=None,
        )  # fmt: skip
        self._results, self._page = results, page
        self._shows_search = shows_search(job.request)
        self._number = 0  # of the next event
        self._index = -1  # of the newest output item
        self._attempt = 0
        self._queries: list[str] = []
        self._open: str | None = None  # kind of the newest item, while it is not done
        self._text: list[str] = []  # of the newest message or reasoning
        self._length, self._tail = 0, ""  # of that text
        self._annotations: list[Annotation] = []  # of the newest message
        self._has_thought = False  # in this attempt

    def begin(self) -> list[Event]:
        """The first events; only a response in the background is waited for in the queue by nobody."""
        if self._job.request.background:
            response = self._render(self._job)
            return [
                self._event("response.created", response=response),
                self._event("response.queued", response=response),
            ]
        return [self._event("response.created", response=self._render(replace(self._job, status=JobStatus.STARTED)))]

    def add(self, entry: LogEntry) -> list[Event]:
        """The events for an entry of the log."""
        made: list[Event] = []
        for event in entry.events:
            match event:
                case SearchStarted(queries):
                    made += self._start(entry.attempt, queries)
                case SearchEnded(results):
                    made += self._found(results)
                case ReasoningAdded(text):
                    made += self._add_reasoning(text)
                case TextAdded(text):
                    made += self._add_text(text)
                case StatementChecked(statement, citations):
                    made += self._add_statement(statement, citations)
        return made

    def end(self, job: Job) -> list[Event]:
        """The last events; a cancelled response has none."""
        if job.answered is None:
            if job.status is not JobStatus.FAILED:
                return []
            return [*self._close(), self._event("response.failed", response=self._render(job))]
        made: list[Event] = []
        if self._attempt != job.attempt:  # no events were logged: the job was not created with stream=true
            made += self._start(job.attempt, [job.answered.query])
        if self._open == "search":
            made += self._found(job.answered.results if self._results else None)
        answer = job.answered.answer
        if answer.reasoning and not self._has_thought:
            made += self._add_reasoning(answer.reasoning)
        made += self._end_reasoning()
        if answer.text or answer.refusal or not answer.tool_calls:
            made += self._finish_message(job, answer)
        for call in render_calls(job, answer):
            made += self._call(call)
        response = render_response(job, results=self._results, page=self._page)
        return [*made, self._event(f"response.{response['status']}", response=response)]

    def _render(self, job: Job) -> ResponseObject:
        return render_response(job, results=False, page=self._page)

    def cut(self) -> list[Event]:
        """No event: the reader resumes after the last number it has."""
        return []

    def write(self, event: Event) -> bytes:
        """Serialize an event."""
        return f"event: {event['type']}\nid: {event['sequence_number']}\ndata: {write_line(event)}\n\n".encode()

    def _start(self, attempt: int, queries: list[str]) -> list[Event]:
        made = self._close()
        self._attempt, self._queries, self._has_thought = attempt, queries, False
        running = replace(self._job, status=JobStatus.STARTED, attempt=attempt)
        made.append(self._event("response.in_progress", response=self._render(running)))
        if queries and self._shows_search:
            made.append(self._open_item("search", self._search_item("in_progress", None)))
            made += [self._of_item(f"response.file_search_call.{word}") for word in ("in_progress", "searching")]
        return made

    def _found(self, results: list[SearchResult] | None) -> list[Event]:
        if self._open != "search":
            return []
        self._open = None
        found = None if results is None else [render_result(result) for result in results]
        return [
            self._of_item("response.file_search_call.completed"),
            self._item_done(self._search_item("completed", found)),
        ]

    def _add_reasoning(self, text: str) -> list[Event]:
        """Show what the LLM thinks; what it thinks after it began to answer is in the last event alone."""
        made: list[Event] = []
        if self._open != "reasoning":
            if self._open or self._has_thought:
                return []
            self._has_thought, self._text = True, []
            item = render_reasoning(item_id("rs", self._job.id, self._attempt), "") | {"content": []}
            part = {"type": "reasoning_text", "text": ""}
            made = [
                self._open_item("reasoning", item | {"status": "in_progress"}),
                self._of_item("response.content_part.added", content_index=0, part=part),
            ]
        self._text.append(text)
        return [*made, self._of_item("response.reasoning_text.delta", content_index=0, delta=text)]

    def _end_reasoning(self, status: Literal["completed", "incomplete"] = "completed") -> list[Event]:
        if self._open != "reasoning":
            return []
        self._open = None
        item = render_reasoning(self._item, "".join(self._text), status)
        part = item["content"][0]
        return [
            self._of_item("response.reasoning_text.done", content_index=0, text=part["text"]),
            self._of_item("response.content_part.done", content_index=0, part=part),
            self._item_done(item),
        ]

    def _add_text(self, text: str) -> list[Event]:
        made = self._end_reasoning()
        if self._open != "message":
            made += self._open_message(_part(""))
        if text:
            made.append(self._of_item("response.output_text.delta", content_index=0, delta=text, logprobs=[]))
        self._text.append(text)
        self._length, self._tail = self._length + len(text), (self._tail + text)[-TAIL_CHARACTERS:]
        return made

    def _add_statement(self, statement: Statement, citations: list[Citation]) -> list[Event]:
        """Show that a statement has ended, beside its first citation or, if it has none, beside no text."""
        if self._open != "message":
            return []
        offset = self._length - len(self._tail)
        made = [
            self._annotate(render_citation(self._job.request, one, self._tail, self._page, offset=offset))
            for one in citations
        ] or [self._of_item("response.output_text.delta", content_index=0, delta="", logprobs=[])]
        made[0]["statement"] = render_statement(statement)
        return made

    def _annotate(self, annotation: Annotation) -> Event:
        place = {"content_index": 0, "annotation_index": len(self._annotations), "annotation": annotation}
        self._annotations.append(annotation)
        return self._of_item("response.output_text.annotation.added", **place)

    def _open_message(self, part: dict[str, Any]) -> list[Event]:
        self._text, self._length, self._tail, self._annotations = [], 0, "", []
        return [
            self._open_item("message", self._message_item("in_progress", [])),
            self._of_item("response.content_part.added", content_index=0, part=part),
        ]

    def _finish_message(self, job: Job, answer: Answer) -> list[Event]:
        """Send the rest of the answer or, if it does not continue the text that was sent, all of it in a new item."""
        made: list[Event] = []
        sent = "".join(self._text) if self._open == "message" else ""
        if answer.refusal or not answer.text.startswith(sent):
            made += self._close()
            sent = ""
        if answer.refusal:
            made += self._open_message({"type": "refusal", "refusal": ""})
            made.append(self._of_item("response.refusal.delta", content_index=0, delta=answer.refusal))
        else:
            made += self._add_text(answer.text[len(sent) :])
        message: dict[str, Any] = {**render_message(job, answer, page=self._page), "id": self._item}
        part = message["content"][0]
        made += [self._annotate(annotation) for annotation in part.get("annotations", ())[len(self._annotations) :]]
        return made + self._message_done(message, part)

    def _call(self, call: CallItem) -> list[Event]:
        """Show a call of a function: at once, because it is complete."""
        made = [self._open_item("call", {**call, "arguments": "", "status": "in_progress"})]
        self._open = None
        return [
            *made,
            self._of_item("response.function_call_arguments.delta", delta=call["arguments"]),
            self._of_item("response.function_call_arguments.done", arguments=call["arguments"], name=call["name"]),
            self._item_done(call),
        ]

    def _close(self) -> list[Event]:
        """End the newest item as incomplete, if it is open."""
        if self._open == "message":
            part = _part("".join(self._text)) | {"annotations": self._annotations}
            return self._message_done(self._message_item("incomplete", [part]), part)
        if self._open == "search":
            self._open = None
            return [self._item_done(self._search_item("incomplete", None))]
        return self._end_reasoning("incomplete")

    def _message_done(self, message: dict[str, Any], part: dict[str, Any]) -> list[Event]:
        self._open = None
        if part["type"] == "refusal":
            said = self._of_item("response.refusal.done", content_index=0, refusal=part["refusal"])
        else:
            said = self._of_item(
                "response.output_text.done", content_index=0, text=part["text"], logprobs=part["logprobs"]
            )
        return [said, self._of_item("response.content_part.done", content_index=0, part=part), self._item_done(message)]

    def _open_item(self, kind: str, item: Mapping[str, Any]) -> Event:
        self._open = kind
        self._index += 1
        self._item = item["id"]
        return self._event("response.output_item.added", output_index=self._index, item=item)

    def _item_done(self, item: Mapping[str, Any]) -> Event:
        return self._event("response.output_item.done", output_index=self._index, item=item)

    def _search_item(self, status: str, results: list[FoundChunk] | None) -> dict[str, Any]:
        id_ = item_id("fs", self._job.id, self._attempt)
        return {"type": "file_search_call", "id": id_, "status": status, "queries": self._queries, "results": results}

    def _message_item(self, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        id_ = item_id("msg", self._job.id, self._attempt)
        return {"type": "message", "id": id_, "role": "assistant", "status": status, "content": content}

    def _of_item(self, event: str, /, **fields: Any) -> Event:
        return self._event(event, item_id=self._item, output_index=self._index, **fields)

    def _event(self, name: str, /, **fields: Any) -> Event:
        number, self._number = self._number, self._number + 1
        return {"type": name, "sequence_number": number, **fields}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
