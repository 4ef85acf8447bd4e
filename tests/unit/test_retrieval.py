"""The sources of a question, and the files that it brings along, without servers."""

from __future__ import annotations

from dataclasses import replace
from string import ascii_letters
from types import SimpleNamespace
from typing import Any, Literal, cast

import pytest

from ragq.errors import UnavailableError
from ragq.models import AttachedFile, Location, Question, SearchResult
from ragq.queues import retrieval

CHUNK = SearchResult(
    file_id="file-1",
    filename="long.md",
    text="A line.",
    start=0,
    end=7,
    page=None,
    heading=None,
    token_count=1000,
    score=1.0,
)


class Embedding:
    """An embedding endpoint that is down for questions; `documents` counts the texts of files."""

    documents = 0

    async def embed_query(self, _text: str) -> Any:
        raise UnavailableError("away", code="embedding_unavailable")

    async def embed_documents(self, texts: list[str], *, tenant_id: str) -> Any:
        del tenant_id
        self.documents += len(texts)


async def test_a_long_file_is_not_embedded_for_a_question_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    async def read_file(*_: Any) -> list[SearchResult]:
        return [CHUNK] * 100

    monkeypatch.setattr(retrieval, "_read_file", read_file)
    context: Any = SimpleNamespace(embedding=Embedding(), settings=SimpleNamespace(prompt_tokens=3000, max_results=8))
    job: Any = SimpleNamespace(tenant_id="acme")
    with pytest.raises(UnavailableError):
        await retrieval.read_attached(job, context, Question("Why?", [], files=[AttachedFile("file-1")]))
    assert context.embedding.documents == 0


@pytest.mark.parametrize(
    ("text", "llm", "wanted", "count"),
    [
        ("How do I move a pane?", None, None, 10),
        ("move a pane", None, None, 10),
        ("move a pane", None, 3, 3),
        ("Who made the pane?", None, None, 8),
        ("How do I move a pane?", object(), None, 8),
    ],
)
async def test_what_to_do_is_looked_for_in_more_sources_without_an_llm(
    monkeypatch: pytest.MonkeyPatch, text: str, llm: object, wanted: int | None, count: int
) -> None:
    async def search(*_: Any, most: int) -> list[SearchResult]:
        return [replace(CHUNK, text=f"Pane {name} stands in the hall of {name}.") for name in ascii_letters[:most]]

    monkeypatch.setattr(retrieval, "_search", search)
    context: Any = SimpleNamespace(llm=llm, settings=SimpleNamespace(max_results=8))
    question = Question(text, ["vs_1"], max_results=wanted)
    found = await retrieval.retrieve_sources(cast("Any", None), context, question, beside=[])
    assert len(found) == count


@pytest.mark.parametrize(
    ("text", "unit", "is_read"),
    [("How do I move a pane?", "", True), ("How do I move a pane?", "row", False), ("Who made the pane?", "", False)],
)
async def test_what_follows_the_best_source_is_read_for_a_task(
    text: str, unit: Literal["row", ""], *, is_read: bool
) -> None:
    following = replace(CHUNK, text="Then press Enter.", location=Location(unit=unit))

    async def read_next(_: str, stores: list[str], passage: SearchResult) -> SearchResult:
        assert (stores, passage) == (["vs_1"], CHUNK)
        return following

    context: Any = SimpleNamespace(chunks=SimpleNamespace(read_next=read_next))
    job: Any = SimpleNamespace(viewer="acme")
    other = replace(CHUNK, text="Other.")
    found = await retrieval.read_on(job, context, Question(text, ["vs_1"]), [CHUNK, other])
    assert found == (following if is_read else None)
    assert await retrieval.read_on(job, context, Question(text, ["vs_1"]), []) is None
    assert await retrieval.read_on(job, context, Question(text, []), [CHUNK]) is None
