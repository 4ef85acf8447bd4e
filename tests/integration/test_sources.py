"""The sources of an answer: what the LLM is given of the documents found, and what of it is cited."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from ragq.client.model_faults import ContextTooLongError
from ragq.models import DEFAULT_STORE_NAME, Question
from ragq.queues.running import RunningJob, WorkerContext
from ragq.queues.worker import process_query
from ragq.records import QueryArguments, QueryResult
from tests.fake_llm import FakeLlm, running_fake_llm
from tests.ingests import TENANT, attach, ingest
from tests.llm_calls import new_client

FEES = " ".join(f"The harbour of Quorra takes a fee of {number} crowns from ship {number}." for number in range(30))
RULES = (
    "The harbour of Quorra is closed to all ships in winter, when the wind comes from the north and the ice is thick."
)


@pytest.fixture
async def llm(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeLlm]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with running_fake_llm() as fake:
        yield fake


async def ask(context: WorkerContext, llm: FakeLlm, text: str, **changes: int) -> tuple[QueryResult, list[str]]:
    """Ask a question; returns its result, and each source that the LLM was given, with its name in front."""
    client = new_client(llm.base_url)
    try:
        question = replace(Question(text, [DEFAULT_STORE_NAME]), **changes)  # type: ignore[arg-type]
        job = RunningJob("job", 1, TENANT, time.monotonic() + 60)
        result = await process_query(job, replace(context, llm=client), QueryArguments(question))
    finally:
        await client.close()
    prompt = llm.requests[-1]["messages"][-1]["content"]
    return result, re.findall(r">> source \[\d+\] (.*?)\n<<", prompt, re.DOTALL)


async def put(context: WorkerContext, **files: str) -> None:
    for name, text in files.items():
        assert await ingest(context, await attach(context, text, filename=f"{name}.txt")) == "completed"


async def test_neighbours_are_one_source_and_their_quotes_the_files_own_words(
    context: WorkerContext, llm: FakeLlm
) -> None:
    await put(context, fees=FEES)
    result, sources = await ask(context, llm, "Which fee does the harbour of Quorra take from each ship?")
    assert len(sources) < len(result.results)
    assert "".join(sources).count("from ship 9.") == 1
    assert result.answer.citations
    for citation in result.answer.citations:
        assert FEES[citation.start : citation.end] == citation.quote


@pytest.mark.parametrize("copies", [2, 8])
async def test_copies_of_a_document_do_not_take_the_place_of_another(
    context: WorkerContext, llm: FakeLlm, copies: int
) -> None:
    other = "In the harbour of Quorra a pilot is needed in winter. Ships wait for one at the lighthouse."
    await put(context, other=other, **{f"copy-{number}": RULES + " " * number for number in range(copies)})
    _, sources = await ask(context, llm, "When is the harbour of Quorra closed to ships in winter?", max_results=2)
    assert [source.startswith("copy-") for source in sources] == [True, False]


async def test_a_comparison_has_sources_of_both_documents(context: WorkerContext, llm: FakeLlm) -> None:
    await put(context, quorra=FEES, zolt="Pilots of Zolt wait at the lighthouse. Whoever calls one pays ten crowns.")
    question = "Which fee does the harbour of Quorra take from each ship"
    _, sources = await ask(context, llm, f"{question}?", max_results=2)
    assert not any("Zolt" in source for source in sources)
    _, sources = await ask(context, llm, f"{question}, compared with Zolt?", max_results=2)
    assert any("Zolt" in source for source in sources)
    assert any("Quorra" in source for source in sources)


async def test_an_llm_with_a_short_memory_is_given_fewer_sources_until_they_fit(
    context: WorkerContext, llm: FakeLlm
) -> None:
    await put(context, fees=FEES, rules=RULES)
    question = "[[fake context_characters={}]] When is the harbour of Quorra closed to all ships?"
    _, all_of_them = await ask(context, llm, question.format(0))
    _, some = await ask(context, llm, question.format(1800))
    assert 0 < len("".join(some)) < len("".join(all_of_them)) / 2  # all of them are in half of the budget, too
    with pytest.raises(ContextTooLongError):
        await ask(context, llm, question.format(100))
