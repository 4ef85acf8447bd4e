"""The LLM as a judge of the statements of its own answer: a second call, whose failure changes nothing."""

from __future__ import annotations

import time
from dataclasses import replace
from urllib.parse import urlencode

import pytest

from ragq.models import DEFAULT_STORE_NAME, Answer, Question
from ragq.queues.running import RunningJob, WorkerContext
from ragq.queues.worker import process_query
from ragq.records import QueryArguments
from tests.fake_llm import Behaviour, FakeLlm, running_fake_llm
from tests.ingests import TENANT, attach, ingest
from tests.llm_calls import new_client

HARBOUR = "The harbour of Quorra is closed in winter. Its lighthouse is 61 metres tall."
ANSWER = "The harbour of Quorra is closed in winter [1]. Its lighthouse has a height of 60 metres [1]."


@pytest.fixture
async def judging(context: WorkerContext, monkeypatch: pytest.MonkeyPatch) -> WorkerContext:
    """A worker whose LLM judges, with a document."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert await ingest(context, await attach(context, HARBOUR, filename="harbour.txt")) == "completed"
    return replace(context, settings=context.settings.model_copy(update={"judge": True}))


async def ask(
    context: WorkerContext, *, text: str = ANSWER, judge: dict[str, object] | None = None
) -> tuple[Answer, FakeLlm]:
    """Ask a question that the LLM answers with `text`, and judges as `judge` says."""
    async with running_fake_llm(Behaviour(text=text, judge=urlencode(judge or {}))) as llm:
        client = new_client(llm.base_url)
        job = RunningJob("job", 1, TENANT, time.monotonic() + 60)
        question = Question(
            "When is the harbour of Quorra closed, and how tall is its lighthouse?", [DEFAULT_STORE_NAME]
        )
        try:
            result = await process_query(job, replace(context, llm=client), QueryArguments(question))
        finally:
            await client.close()
        return result.answer, llm


def verdicts_of(answer: Answer) -> list[str]:
    return [one.verdict for one in answer.statements or []]


async def test_the_judge_changes_verdicts_both_ways_and_its_cost_is_shown(judging: WorkerContext) -> None:
    answer, llm = await ask(judging, judge={"text": "1: no\n2. yes"})
    assert verdicts_of(answer) == ["unsupported", "supported"]
    assert all("judge" in one.reason for one in answer.statements or [])
    assert [one.verdict for one in answer.citations] == ["unsupported", "supported"]
    assert answer.text == ANSWER
    assert answer.judging
    assert answer.judging.input_tokens > 0
    assert answer.judging != answer.usage
    assert llm.stats.calls == 2
    request = llm.requests[-1]
    assert request["max_tokens"] <= 400
    assert HARBOUR in request["messages"][-1]["content"]


@pytest.mark.parametrize("judge", [{"status": 500}, {"text": "I cannot say."}, {"text": "7: no"}, {"body": "reset"}])
async def test_when_it_fails_the_verdicts_of_the_check_stay(judging: WorkerContext, judge: dict[str, object]) -> None:
    answer, llm = await ask(judging, judge=judge)
    assert verdicts_of(answer) == ["supported", "unsupported"]
    assert llm.stats.calls == 2


async def test_it_is_not_asked_unless_it_is_turned_on_or_when_nothing_can_be_judged(judging: WorkerContext) -> None:
    off = replace(judging, settings=judging.settings.model_copy(update={"judge": False}))
    for context, text in ((off, ANSWER), (judging, "The sources do not say.")):
        answer, llm = await ask(context, text=text)
        assert llm.stats.calls == 1
        assert answer.judging is None
