"""Answers without an LLM: sentences of the documents, word for word."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from ragq.rag.answer import NO_DOCUMENTS
from tests.documents import write_long_pdf
from tests.servers import Ragq, wait_until


@pytest.fixture(scope="module")
def client(plain_ragq: Ragq) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{plain_ragq.url}/v1", api_key="unused", max_retries=0) as sdk:
        yield sdk


def test_an_empty_store_gives_a_completed_answer_that_says_so(client: openai.OpenAI) -> None:
    store = client.vector_stores.create(name="empty")
    tool: Any = {"type": "file_search", "vector_store_ids": [store.id]}
    response = client.responses.create(model="ragq", input="Anything?", tools=[tool])
    assert (response.status, response.output_text) == ("completed", NO_DOCUMENTS)
    assert response.output[-1].content[0].annotations == []  # type: ignore[union-attr,index]


def test_the_tutorials_two_routes_queue_and_answer(plain_ragq: Ragq) -> None:
    with httpx2.Client(base_url=plain_ragq.url) as http:
        for request in ({"params": {"query": "What is here?"}}, {"json": {"query": "What is here?"}}):
            accepted = http.post("/chat", **request).json()  # type: ignore[arg-type]
            assert accepted["status"] == "queued"

            def done(job_id: str = accepted["job_id"]) -> Any:
                status = http.get("/job-status", params={"job_id": job_id}).json()
                return status if status["status"] == "completed" else None

            result = wait_until(done)["result"]
            assert result["answer"]
            assert result["kind"] == "extractive"


def test_a_long_pdf_is_ingested_with_progress_and_cited_by_page(plain_ragq: Ragq, tmp_path: Path) -> None:
    facts = {
        117: "The brig Amaranth carried forty barrels of saffron.",
        42: "The sloop Verity carried nothing but salt.",
    }
    write_long_pdf(tmp_path / "register.pdf", pages=150, facts=facts)
    done = plain_ragq.run("ingest", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "1 of 1 files are searchable" in done.stdout
    answer = plain_ragq.run("ask", "What did the brig Amaranth carry?")
    assert "saffron" in answer.stdout
    assert "register.pdf, page 117" in answer.stdout
    asked = json.loads(plain_ragq.run("ask", "--json", "What did the sloop Verity carry?").stdout)
    pages = [note["page"] for note in asked["output"][-1]["content"][0]["annotations"]]
    assert 42 in pages


def test_a_follow_up_is_searched_for_with_the_question_before_it(client: openai.OpenAI) -> None:
    store = client.vector_stores.create(name="harbour")
    text = b"The lighthouse of Quorra is 61 metres tall."
    client.vector_stores.files.upload_and_poll(vector_store_id=store.id, file=("harbour.md", text))
    tool: Any = {"type": "file_search", "vector_store_ids": [store.id]}
    first = client.responses.create(model="ragq", input="How tall is the lighthouse of Quorra?", tools=[tool])
    second = client.responses.create(model="ragq", input="In metres?", tools=[tool], previous_response_id=first.id)
    search: Any = second.output[0]
    assert search.queries == ["How tall is the lighthouse of Quorra?\nIn metres?"]
    assert "61 metres" in second.output_text


def test_a_task_finds_what_is_said_in_other_words(client: openai.OpenAI) -> None:
    store = client.vector_stores.create(name="manual")
    options = {
        "--follow": "Wait for more lines at the end.",
        "--expunge": "Remove the directory, with all that is in it.",
        "--tree": "Print the names as a tree, with lines between them.",
        "--width": "Use so many columns for each of the names.",
    }
    for name, text in options.items():
        file = (f"{name.strip('-')}.txt", f"{name}\n    {text}\n".encode())
        client.vector_stores.files.upload_and_poll(vector_store_id=store.id, file=file)
    words_alone: Any = {"hybrid_search": {"embedding_weight": 0.001, "text_weight": 1.0}}
    found = client.vector_stores.search(store.id, query="get rid of folders", ranking_options=words_alone).data
    assert found[0].filename == "expunge.txt"
    assert found[0].score > 0.1
    tool: Any = {"type": "file_search", "vector_store_ids": [store.id]}
    answer = client.responses.create(model="ragq", input="How do I erase a folder?", tools=[tool]).output_text
    assert "--expunge\n    Remove the directory" in answer
