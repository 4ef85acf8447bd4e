"""Reranking by a served model: what is asked, whose order counts, and that no question fails with it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import REGISTRY
from pydantic import SecretStr

from ragq import doctor
from ragq.client.rerank_client import RerankClient
from ragq.errors import ConfigurationError, PermanentError, RagqError, UnavailableError
from ragq.models import DEFAULT_STORE_NAME, SearchResult
from ragq.queues.running import RunningJob, WorkerContext
from ragq.queues.worker import process_search
from ragq.records import SearchArguments
from ragq.settings import Settings
from tests.endpoints import Endpoint, serve
from tests.ingests import TENANT, attach, ingest, open_context

Handler = Callable[[dict[str, Any]], web.Response]
ISLANDS = ("Quorra", "Zolt", "Mirren", "Askel")
AWAY = {"valkey_url": SecretStr("redis://127.0.0.1:1"), "database_url": SecretStr("postgresql://127.0.0.1:1/x")}
QUERY = "Which island has a harbour?"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@asynccontextmanager
async def serving(handler: Handler, **changes: Any) -> AsyncIterator[tuple[Endpoint, RerankClient]]:
    async with serve(lambda call, _: handler(call), "/rerank") as endpoint:
        values = {"rerank_base_url": endpoint.url, "rerank_model": "tiny", **changes}
        client = RerankClient(Settings(_env_file=None).model_copy(update=values))
        try:
            yield endpoint, client
        finally:
            await client.close()


def last_is_best(call: dict[str, Any]) -> web.Response:
    """Cohere's form, best first: the later a passage was sent, the better it is."""
    count = len(call["documents"])
    rows = [{"index": place, "relevance_score": (place + 1) / count} for place in range(count)]
    return web.json_response({"id": "r1", "results": rows[::-1], "meta": {}})


def text_embeddings_inference(call: dict[str, Any]) -> web.Response:
    if "texts" not in call:
        words = "Failed to deserialize the JSON body into the target type: missing field `texts` at line 1 column 80"
        return web.Response(status=422, text=words)
    return web.json_response([{"index": place, "score": place / 10} for place in range(len(call["texts"]))])


def scores_of(*scores: float | str) -> Handler:
    rows = [{"index": place, "relevance_score": score} for place, score in enumerate(scores)]
    return lambda _: web.json_response({"results": rows})


async def test_the_common_form_is_asked_and_read() -> None:
    async with serving(last_is_best, rerank_api_key=SecretStr("a key")) as (endpoint, client):
        assert await client.score("Why?", ["a", "b"]) == [0.5, 1]
    assert endpoint.calls == [{"model": "tiny", "query": "Why?", "documents": ["a", "b"], "top_n": 2}]
    assert endpoint.headers[0]["Authorization"] == "Bearer a key"


async def test_the_form_of_text_embeddings_inference_is_learned_once() -> None:
    async with serving(text_embeddings_inference) as (endpoint, client):
        assert await client.score("Why?", ["a", "b"]) == [0, 0.1]
        assert await client.score("How?", ["c"]) == [0]
    assert endpoint.calls[1:] == [
        {"query": "Why?", "texts": ["a", "b"], "truncate": True},
        {"query": "How?", "texts": ["c"], "truncate": True},
    ]


async def test_logits_become_shares_in_the_same_order() -> None:
    async with serving(scores_of(-8.5, 0, 3.25)) as (_, client):
        low, middle, high = await client.score("Why?", ["a", "b", "c"])
    assert 0 < low < middle == 0.5 < high < 1


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (503, "busy", UnavailableError, "busy"),
        (401, "no", ConfigurationError, "RAGQ_RERANK_API_KEY"),
        (404, "no", ConfigurationError, "RAGQ_RERANK_BASE_URL and MODEL"),
        (422, "batch size 40 > maximum allowed batch size 32", PermanentError, "batch size"),
        (200, "<html>", UnavailableError, "did not send JSON"),
        (200, '{"error": {"message": "out of memory"}}', UnavailableError, "out of memory"),
        (200, "7", PermanentError, "did not send a list of scores"),
        (200, '{"results": null}', PermanentError, "did not send a list of scores"),
        (200, '{"results": [{"index": 0}]}', PermanentError, "did not send a list of scores"),
        (200, '{"results": [{"index": 1, "relevance_score": 1}]}', PermanentError, "scored 1 of 2"),
        (200, '[{"index": 0, "score": 1}, {"index": 2, "score": 1}]', PermanentError, "or others"),
        (200, '[{"index": 0, "score": "NaN"}, {"index": 1, "score": 1}]', PermanentError, "finite"),
        (200, " " * (9 << 20), PermanentError, "sent over"),
    ],
)
async def test_an_answer_without_all_scores_is_an_error(
    status: int, body: str, error: type[RagqError], words: str
) -> None:
    async with serving(lambda _: web.Response(status=status, text=body)) as (endpoint, client):
        with pytest.raises(error, match=words) as caught:
            await client.score("Why?", ["a", "b"])
        assert f"Reranker tiny at {endpoint.url}/rerank" in caught.value.message
    assert len(endpoint.calls) == 1


async def test_no_error_repeats_a_passage() -> None:
    secret = "The password of the harbour master is swordfish."
    async with serving(lambda _: web.Response(status=400, text=f"cannot read: {secret}")) as (_, client):
        with pytest.raises(RagqError) as caught:
            await client.score("Why?", [secret])
    assert "swordfish" not in caught.value.message


async def test_a_reranker_that_looks_dead_is_spared() -> None:
    async with serving(lambda _: web.Response(status=503), llm_breaker_calls=2) as (endpoint, client):
        for _ in range(5):
            with pytest.raises(UnavailableError):
                await client.score("Why?", ["a"])
    assert len(endpoint.calls) == 2


@pytest.mark.parametrize("changes", [{"rerank_model": None}, {"rerank_base_url": "127.0.0.1"}])
def test_a_setting_that_does_not_fit_is_refused(changes: dict[str, Any]) -> None:
    values: dict[str, Any] = {"rerank_base_url": "http://127.0.0.1:9", "rerank_model": "tiny"}
    (name,) = changes
    with pytest.raises(ConfigurationError, match=f"RAGQ_{name.upper()}"):
        RerankClient(Settings(_env_file=None, **(values | changes)))


async def test_a_worker_has_the_reranker_of_its_settings(settings: Settings, database_url: str) -> None:
    changes = {"rerank_base_url": "http://127.0.0.1:9", "rerank_model": "tiny"}
    for changed, kind in ((settings, type(None)), (settings.model_copy(update=changes), RerankClient)):
        context = await open_context(changed, database_url)
        assert type(context.reranker) is kind
        await context.close()


@pytest.mark.parametrize("is_well", [True, False])
async def test_the_doctor_asks_for_a_score(settings: Settings, *, is_well: bool) -> None:
    async with serving(last_is_best if is_well else lambda _: web.Response(status=404)) as (endpoint, _):
        changes = {"rerank_base_url": endpoint.url, "rerank_model": "tiny"}
        found = {one.check: one for one in await doctor.examine(settings.model_copy(update=changes | AWAY))}
    assert found["reranker"].ok == is_well
    assert is_well or "the part before /rerank" in found["reranker"].message


async def search(context: WorkerContext, **changes: Any) -> list[SearchResult]:
    values: dict[str, Any] = {"queries": [QUERY], "vector_store_ids": [DEFAULT_STORE_NAME]}
    values |= {"max_results": 4, "score_threshold": None}
    job = RunningJob("job", 1, TENANT, time.monotonic() + 60)
    return (await process_search(job, context, SearchArguments(**(values | changes)))).results


@pytest.fixture
async def islands(context: WorkerContext) -> WorkerContext:
    for number, name in enumerate(ISLANDS):
        words = " ".join(["a harbour"] * (4 - number))  # the search finds them in this order
        record = await attach(context, f"The island {name} has {words}.", filename=f"{name}.txt")
        assert await ingest(context, record) == "completed"
    return context


def count_calls(code: str) -> float:
    return REGISTRY.get_sample_value("ragq_rerank_calls_total", {"code": code}) or 0


def names(results: list[SearchResult]) -> list[str]:
    return [result.filename.removesuffix(".txt") for result in results]


async def test_results_have_the_rerankers_order_and_scores(islands: WorkerContext) -> None:
    found = await search(islands)
    async with serving(last_is_best) as (endpoint, client):
        reranked = await search(replace(islands, reranker=client))
        assert names(reranked) == names(found)[::-1]
        assert [result.score for result in reranked] == [1, 0.75, 0.5, 0.25]
        (call,) = endpoint.calls
        assert call["query"] == QUERY
        assert call["documents"] == [f"{one.filename.removesuffix('.txt')}\n{one.text}" for one in found]


async def test_more_are_reranked_than_are_wanted_and_a_threshold_is_one_of_the_rerankers(
    islands: WorkerContext,
) -> None:
    last = names(await search(islands))[-1]
    async with serving(last_is_best) as (endpoint, client):
        served = replace(islands, reranker=client)
        assert names(await search(served, max_results=1)) == [last]
        assert len(await search(served, score_threshold=0.6)) == 2
        few = replace(served, settings=islands.settings.model_copy(update={"rerank_candidates": 2}))
        await search(few, max_results=1)
    assert [len(call["documents"]) for call in endpoint.calls] == [4, 4, 2]


@pytest.mark.parametrize("fault", ["time", "status", "part"])
async def test_when_the_reranker_fails_the_order_of_the_search_stays(
    islands: WorkerContext, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def handler(call: dict[str, Any]) -> web.Response:
        return web.Response(status=500) if fault == "status" else scores_of(1)(call)

    code = {"time": "rerank_timeout", "status": "rerank_unavailable", "part": "rerank_malformed"}[fault]
    before = count_calls(code)
    found = await search(islands)
    async with serving(handler, rerank_timeout_seconds=0.2) as (endpoint, client):
        endpoint.delay = 30 if fault == "time" else 0
        started = time.monotonic()
        assert await search(replace(islands, reranker=client)) == found
        assert time.monotonic() - started < 5
    assert count_calls(code) == before + 1
    assert "results_not_reranked" in capsys.readouterr().out
