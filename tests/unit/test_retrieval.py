"""The files that a question brings along, without servers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ragq.errors import UnavailableError
from ragq.models import AttachedFile, Question, SearchResult
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
