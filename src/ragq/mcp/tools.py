"""The tools of the MCP server. `search` and `fetch` have the form that ChatGPT's connectors and deep research expect."""

from __future__ import annotations

import base64
import binascii
import io
import itertools
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from pydantic import BaseModel, Field, TypeAdapter
from typing_extensions import TypedDict

from ragq.accounts.roles import Role
from ragq.errors import InvalidRequestError, RagqError, UnavailableError
from ragq.mcp.documents import Document, Documents, DocumentText
from ragq.mcp.route import Reach
from ragq.models import Answer, Citation, Question, new_id
from ragq.queues.questions import ask, check_question, perform_now
from ragq.rag.conversation import bound_text
from ragq.records import Job, Request, SearchArguments, SearchResults
from ragq.routes.context import FOREGROUND_SECONDS
from ragq.routes.files import save_file
from ragq.routes.store_files import StoreFileCreate, enqueue_files
from ragq.schemas.responses import RESPONSE_PREFIX
from ragq.storage.paging import Page
from ragq.storage.tenancy.audit_log import Action

MOST_PASSAGES = 50  # that decide which documents a search finds
PROGRESS_SECONDS = 2.0
MARKERS = re.compile(r"[ \t]*(?:\[\d{1,3}\])+$")  # an LLM's own, replaced by the numbers of the sources

Report = Callable[[float, float | None, str | None], Awaitable[None]]
Output = tuple[str, dict[str, Any]]  # as text, and as structured content


class Found(TypedDict):
    """A document that a search found."""

    id: str
    title: str
    url: str


class FoundDocuments(TypedDict):
    """The documents that a search found, best first."""

    results: list[Found]


class Source(TypedDict):
    """A passage that the answer rests on: `quote` is the text from `start` to `end` of the document."""

    number: int
    id: str
    title: str
    url: str
    page: int | None
    location: str
    quote: str
    start: int
    end: int


class AnswerWithSources(TypedDict):
    """An answer; [1] stands for the source with this number. `id` is the response's, in the HTTP API."""

    id: str
    answer: str
    kind: Literal["extractive", "generated"]
    sources: list[Source]


class DocumentPage(TypedDict):
    """A page of the documents; `next` is the `after` of the next page."""

    documents: list[Document]
    next: str | None


class SearchCall(BaseModel):
    """Arguments of `search`."""

    query: str = Field(description="What to search for: a question, or words.")


class FetchCall(BaseModel):
    """Arguments of `fetch`."""

    id: str = Field(description="The document's id, as search or list_documents gives it.", max_length=100)


class AskCall(BaseModel):
    """Arguments of `ask`."""

    question: str = Field(description="A whole question, which can be understood without the conversation.")


class ListCall(BaseModel):
    """Arguments of `list_documents`."""

    limit: int = Field(100, ge=1, le=100, description="Most documents.")
    after: str | None = Field(None, max_length=100, description="`next` of the page before.")


class AddCall(BaseModel):
    """Arguments of `add_document`."""

    name: str = Field(description="File name, such as notes.md; its content tells the format.")
    text: str | None = Field(None, description="The document's text.")
    content_base64: str | None = Field(None, description="Instead of text: the bytes of a file, as base64.")


class Tools:
    """The tools, for one caller."""

    def __init__(self, reach: Reach, documents: Documents) -> None:
        self._reach = reach
        self._context = reach.context
        self._documents = documents
        self._unanswered: set[str] = set()

    async def search(self, call: SearchCall, _report: Report) -> Output:
        """Search the documents by meaning and words; gives documents, the best first. `fetch` reads one."""
        check_question(call.query, param="query")
        arguments = SearchArguments(
            queries=[bound_text(call.query, self._context.settings.max_question_characters)],
            vector_store_ids=[await self._documents.find_store()],
            max_results=MOST_PASSAGES,
            view=self._reach.tenant,
        )
        done = await perform_now(self._context, self._reach.tenant, arguments, SearchResults)
        titles = {result.file_id: result.filename for result in done.results}  # in the order of the best passages
        found: FoundDocuments = {
            "results": [
                {"id": file_id, "title": title, "url": self._documents.url_of(file_id)}
                for file_id, title in titles.items()
            ]
        }
        return _as_json(found)

    async def fetch(self, call: FetchCall, _report: Report) -> Output:
        """Read a document's text."""
        return _as_json(await self._documents.read(call.id))

    async def ask(self, call: AskCall, report: Report) -> Output:
        """Answer a question from the documents, with the passages that the answer rests on."""
        check_question(call.question, param="question")
        response_id, store_id = new_id(RESPONSE_PREFIX), await self._documents.find_store()
        self._unanswered.add(response_id)
        question = Question(call.question, [store_id])
        await ask(self._context, self._reach.tenant, response_id, question, Request(input=call.question))
        job = await self._wait(response_id, report)
        if job.error:
            raise RagqError(job.error.message, code=job.error.code)
        if job.answered is None:
            raise UnavailableError("The question was cancelled or was not answered in time: ask again.")
        answer = self._render_answer(response_id, job.answered.answer)
        return _as_text(answer), dict(answer)

    async def list_documents(self, call: ListCall, _report: Report) -> Output:
        """List the documents, newest first, with their status: only completed ones are searched."""
        documents, has_more = await self._documents.list_page(Page(call.limit, after=call.after))
        page: DocumentPage = {"documents": documents, "next": documents[-1]["id"] if has_more else None}
        return _as_json(page)

    async def add_document(self, call: AddCall, _report: Report) -> Output:
        """Add a document in any format that ragq reads, such as Markdown, PDF or Word. It can be searched when its status is completed."""
        self._reach.caller.require(Role.USER)
        context, tenant = self._context, self._reach.tenant
        store_id = await self._documents.find_store(to_change=True)
        content = _read_content(call)
        record = await save_file(
            context,
            tenant,
            io.BytesIO(content),
            self._reach.change("file.created"),
            filename=call.name,
            purpose="assistants",
            size=len(content),
        )
        async with self._reach.change("vector_store.file.added")(tenant, record.id, vector_store_id=store_id):
            await context.ingests.attach_many(tenant, store_id, [StoreFileCreate(file_id=record.id).to_attachment()])
        await enqueue_files(context, tenant.id, store_id, [record.id])
        return _as_json(await self._documents.get(record.id))

    async def cancel_unanswered(self) -> None:
        """Cancel the question that the client no longer waits for."""
        for response_id in self._unanswered:
            await self._context.queue.cancel(response_id)

    async def _wait(self, response_id: str, report: Report) -> Job:
        """Wait for a question's end, and report its place in the queue."""
        queue, tenant = self._context.queue, self._reach.tenant.id
        for step in itertools.count(1):
            job = await queue.fetch(response_id, tenant)
            if job is None or step > FOREGROUND_SECONDS / PROGRESS_SECONDS:
                break
            if not job.status.is_final:
                await report(step, None, _describe(job))
                job = await queue.wait(response_id, tenant, timeout_seconds=PROGRESS_SECONDS)
            if job and job.status.is_final:
                self._unanswered.discard(response_id)
                return job
        raise UnavailableError("The question was not answered in time: ask again.")

    def _render_answer(self, response_id: str, answer: Answer) -> AnswerWithSources:
        """Put the number of its source after each cited statement."""
        numbers: dict[tuple[str, int, int], int] = {}
        parts, start = [], 0
        for index, cited in itertools.groupby(answer.citations, key=lambda one: one.index):
            piece = answer.text[start:index]
            here = dict.fromkeys(numbers.setdefault(_passage(one), len(numbers) + 1) for one in cited)
            parts += [MARKERS.sub("", piece) if answer.kind == "generated" else piece, " "]
            parts += [f"[{number}]" for number in here]
            start = index
        firsts = {_passage(one): one for one in reversed(answer.citations)}
        return {
            "id": response_id,
            "answer": "".join([*parts, answer.text[start:]]),
            "kind": answer.kind,
            "sources": [
                {
                    "number": number,
                    "id": firsts[passage].file_id,
                    "title": firsts[passage].filename,
                    "url": self._documents.url_of(firsts[passage].file_id),
                    "page": firsts[passage].page,
                    "location": firsts[passage].location,
                    "quote": firsts[passage].quote,
                    "start": firsts[passage].start,
                    "end": firsts[passage].end,
                }
                for passage, number in numbers.items()
            ],
        }


@dataclass(frozen=True, slots=True)
class Tool:
    """How a tool is shown and run.

    Attributes:
        action: What it notes in the audit log; None for one that only reads.
    """

    title: str
    run: Callable[[Tools, Any, Report], Awaitable[Output]]
    arguments: type[BaseModel]
    output: Any
    action: Action | None = None

    @property
    def output_schema(self) -> dict[str, Any]:
        return TypeAdapter(self.output).json_schema()


TOOLS = {
    "search": Tool("Search documents", Tools.search, SearchCall, FoundDocuments),
    "fetch": Tool("Read a document", Tools.fetch, FetchCall, DocumentText),
    "ask": Tool("Ask the documents", Tools.ask, AskCall, AnswerWithSources),
    "list_documents": Tool("List documents", Tools.list_documents, ListCall, DocumentPage),
    "add_document": Tool("Add a document", Tools.add_document, AddCall, Document, "vector_store.file.added"),
}


def _passage(citation: Citation) -> tuple[str, int, int]:
    return citation.file_id, citation.start, citation.end


def _describe(job: Job) -> str:
    if not job.position:
        return "The question is being answered."
    eta = "" if job.eta_seconds is None else f", about {max(1, round(job.eta_seconds))} s"
    return f"The question waits: place {job.position} in the queue{eta}."


def _read_content(call: AddCall) -> bytes:
    if (call.text is None) == (call.content_base64 is None):
        raise InvalidRequestError("Send either text or content_base64.", param="text")
    if call.text is not None:
        return call.text.encode()
    assert call.content_base64 is not None
    try:
        return base64.b64decode(call.content_base64, validate=True)
    except binascii.Error as error:
        raise InvalidRequestError("content_base64 is not valid base64.", param="content_base64") from error


def _as_json(value: Any) -> Output:
    return orjson.dumps(value).decode(), dict(value)


def _as_text(answer: AnswerWithSources) -> str:
    lines = [answer["answer"]]
    if answer["sources"]:
        lines.append("\nSources:")
    for source in answer["sources"]:
        location = f", {source['location']}" if source["location"] else ""
        lines.append(f"[{source['number']}] {source['title']}{location}: “{source['quote']}” {source['url']}")
    return "\n".join(lines)
