"""The embedding endpoint: what is asked, what goes wrong, and how many calls that costs."""

from __future__ import annotations

import base64
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from pydantic import SecretStr

from ragq.client.embedding_client import HttpEmbeddingClient
from ragq.client.job import ClaimedJob, Outcome
from ragq.client.model_faults import ContextTooLongError, RefusedInputError
from ragq.client.query_batcher import BATCH_SIZE
from ragq.errors import ConfigurationError, OverloadedError, PermanentError, RagqError, UnavailableError
from ragq.models import DEFAULT_TENANT, Lane, QueueName
from ragq.queues.perform import Retry, perform
from ragq.queues.running import RunningJob, WorkerContext
from ragq.records import Arguments, EmbeddingArguments, Failure, SearchArguments, function_of, write_payload
from ragq.settings import Settings
from tests.endpoints import Endpoint, Handler, serve

NO = web.Response


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def new_client(endpoint: Endpoint, **changes: Any) -> HttpEmbeddingClient:
    """Make a client of vectors so short that no setting allows them."""
    values = {"embedding_base_url": endpoint.url, "embedding_model": "tiny", "embedding_backoff_seconds": 0.001}
    return HttpEmbeddingClient(
        Settings(_env_file=None).model_copy(update=values | {"embedding_dimensions": 2} | changes)
    )


@asynccontextmanager
async def serving(handler: Handler, **changes: Any) -> AsyncIterator[tuple[Endpoint, HttpEmbeddingClient]]:
    async with serve(handler, "/embeddings") as endpoint:
        endpoint.url += "/"
        client = new_client(endpoint, **changes)
        try:
            yield endpoint, client
        finally:
            await client.close()


def answer(call: dict[str, Any], _: int = 0) -> web.Response:
    rows = [{"index": place, "embedding": [float(text), 1]} for place, text in enumerate(call["input"])]
    return web.json_response({"data": rows[::-1]})


def numbers(count: int) -> list[str]:
    return [str(number) for number in range(count)]


async def test_documents_go_to_the_endpoint_in_batches_and_come_back_in_order() -> None:
    told: list[tuple[int, int]] = []
    async with serving(answer) as (endpoint, client):
        vectors = await client.embed_documents(numbers(75), lambda done, total: told.append((done, total)))
    assert np.allclose(vectors[:, 0] / vectors[:, 1], range(75), rtol=1e-4)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert [len(call["input"]) for call in endpoint.calls] == [32, 32, 11]
    assert told[-1] == (75, 75)


async def test_the_key_and_the_query_of_the_url_go_along() -> None:
    async with serving(answer) as (endpoint, _):
        url = f"{endpoint.url}?api-version=7&a=b%26"
        client = new_client(endpoint, embedding_api_key=SecretStr(" a key \n"), embedding_base_url=url)
        await client.embed_query("1")
        await client.close()
    assert endpoint.headers[0]["Authorization"] == "Bearer a key"
    assert endpoint.headers[0]["url"] == "/v1/embeddings?api-version=7&a=b%26"
    assert endpoint.calls == [{"model": "tiny", "input": ["1"], "encoding_format": "float"}]


async def test_vectors_in_base64_are_read_though_none_were_asked_for() -> None:
    row = {"index": 0, "embedding": base64.b64encode(struct.pack("<2f", 3, 4)).decode()}
    async with serving(lambda *_: web.json_response({"data": [row]})) as (_, client):
        assert np.allclose(await client.embed_query("1"), [0.6, 0.8])


TRANSIENT = {
    **{f"{status}": "embedding_unavailable" for status in (408, 409, 425, 500, 502, 503)},
    "429": "embedding_rate_limited",
    "200 <html>": "embedding_malformed",
    '200 {"data": [{"index": 0, "embe': "embedding_malformed",
    '200 {"error": {"message": "out of memory"}}': "embedding_unavailable",
}


@pytest.mark.parametrize(("status", "code"), TRANSIENT.items())
async def test_a_momentary_fault_costs_a_question_one_call_and_is_left_to_the_queue(status: str, code: str) -> None:
    number, _, body = status.partition(" ")
    async with serving(lambda *_: NO(status=int(number), text=body, headers={"Retry-After": "3"})) as (
        endpoint,
        client,
    ):
        with pytest.raises((UnavailableError, OverloadedError)) as caught:
            await client.embed_query("1")
    assert caught.value.code == code
    assert caught.value.retry_after_seconds == (3 if number != "200" else None)
    assert len(endpoint.calls) == 1


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (401, "no", ConfigurationError, "RAGQ_EMBEDDING_API_KEY"),
        (403, "no", ConfigurationError, "RAGQ_EMBEDDING_API_KEY"),
        (404, "no model", ConfigurationError, "RAGQ_EMBEDDING_BASE_URL and MODEL"),
        (302, "", ConfigurationError, "RAGQ_EMBEDDING_BASE_URL"),
        (400, "too odd", RefusedInputError, "too odd"),
        (413, "", ContextTooLongError, "too long"),
        (429, '{"error": {"code": "insufficient_quota"}}', PermanentError, "quota"),
        (200, "[]", PermanentError, "did not send a list of embeddings"),
        (200, '{"data": []}', PermanentError, "0 vectors for 1"),
        (200, '{"data": [{"index": 1, "embedding": [1, 2]}]}', PermanentError, "wrong indexes"),
        (200, '{"data": [{"index": 0, "embedding": [1, 2, 3]}]}', ConfigurationError, "RAGQ_EMBEDDING_DIMENSIONS=3"),
        (200, '{"data": [{"index": 0, "embedding": []}]}', ConfigurationError, "vectors of 0 numbers"),
        (200, '{"data": [{"index": 0, "embedding": [1, null]}]}', PermanentError, "finite"),
        (200, '{"data": [{"index": 0, "embedding": [1, 1e39]}]}', PermanentError, "finite"),
        (200, '{"data": [{"index": 0, "embedding": [1, [2]]}]}', PermanentError, "did not send a list of embeddings"),
        (200, '{"data": [{"index": 0, "embedding": "AAA="}]}', PermanentError, "did not send a list of embeddings"),
        (200, " " * 2_000_000, PermanentError, "sent over"),
    ],
)
async def test_a_lasting_fault_costs_one_call_and_is_explained(
    status: int, body: str, error: type[RagqError], words: str
) -> None:
    async with serving(lambda *_: NO(status=status, text=body)) as (endpoint, client):
        for call in (client.embed_query("1"), client.embed_documents(["1"])):
            with pytest.raises(error, match=words) as caught:
                await call
            assert f"Embedding model tiny at {endpoint.url}embeddings" in caught.value.message
    assert len(endpoint.calls) == 2


async def test_two_vectors_under_one_index_are_refused() -> None:
    row = {"index": 0, "embedding": [1.0, 2.0]}
    async with serving(lambda *_: web.json_response({"data": [row, row]})) as (_, client):
        with pytest.raises(PermanentError, match="indexes"):
            await client.embed_documents(["1", "2"])


async def test_an_endpoint_that_does_not_answer_meets_its_limit() -> None:
    async with serving(answer, embedding_timeout_seconds=0.2) as (endpoint, client):
        endpoint.delay, started = 60.0, time.monotonic()
        with pytest.raises(UnavailableError, match="RAGQ_EMBEDDING_TIMEOUT_SECONDS") as caught:
            await client.embed_query("1")
        assert 0.2 <= time.monotonic() - started < 2
    assert caught.value.code == "embedding_timeout"


async def test_a_dead_endpoint_costs_questions_a_bounded_number_of_calls() -> None:
    async with serving(lambda *_: NO(status=500)) as (endpoint, client):
        codes = []
        for number in range(100):
            with pytest.raises(UnavailableError) as caught:
                await client.embed_query(str(number))
            codes.append(caught.value.code)
    assert len(endpoint.calls) == codes.count("embedding_unavailable") == 20
    assert codes.count("embedding_breaker_open") == 80


async def test_a_document_survives_an_endpoint_that_fails_one_call_in_three() -> None:
    def handler(call: dict[str, Any], number: int) -> web.Response:
        return NO(status=503) if number % 3 == 0 else answer(call)

    async with serving(handler) as (endpoint, client):
        vectors = await client.embed_documents(numbers(BATCH_SIZE * 100))
    assert np.allclose(vectors[:, 0] / vectors[:, 1], range(BATCH_SIZE * 100), rtol=1e-3)
    assert len(endpoint.calls) == 149


async def test_texts_that_fail_again_and_again_are_given_up_for_good_after_their_tries() -> None:
    def handler(call: dict[str, Any], _: int) -> web.Response:
        return NO(status=500) if "40" in call["input"] else answer(call)

    async with serving(handler, embedding_backoff_seconds=0.01) as (endpoint, client):
        with pytest.raises(PermanentError, match=r"status 500.* Failed calls: 8") as caught:
            await client.embed_documents(numbers(100))
    assert caught.value.code == "embedding_unavailable"
    assert len(endpoint.calls) == 1 + 8


async def test_a_document_waits_for_a_dead_endpoint_and_goes_on_where_it_was() -> None:
    healed_at = time.monotonic() + 0.8

    def handler(call: dict[str, Any], number: int) -> web.Response:
        return answer(call) if number == 1 or time.monotonic() > healed_at else NO(status=500)

    breaker = {"llm_breaker_calls": 2, "llm_breaker_probe_seconds": 0.2}
    async with serving(handler, **breaker) as (endpoint, client):
        vectors = await client.embed_documents(numbers(64))
    assert len(vectors) == 64
    assert 3 <= len(endpoint.calls) <= 8
    assert sum("0" in call["input"] for call in endpoint.calls) == 1


async def test_a_document_waits_as_long_as_the_server_asks_but_for_what_is_beyond_reason() -> None:
    def handler(call: dict[str, Any], number: int) -> web.Response:
        return answer(call) if number == 2 else NO(status=429, headers={"retry-after-ms": "300"})

    async with serving(handler) as (_, client):
        started = time.monotonic()
        await client.embed_documents(["1"])
        assert time.monotonic() - started >= 0.3
    async with serving(lambda *_: NO(status=429, headers={"Retry-After": "86400"})) as (endpoint, client):
        with pytest.raises(PermanentError) as caught:
            await client.embed_documents(["1"])
    assert caught.value.code == "embedding_rate_limited"
    assert len(endpoint.calls) == 1


async def test_a_batch_too_large_for_the_server_is_halved() -> None:
    def handler(call: dict[str, Any], _: int) -> web.Response:
        return NO(status=422, text="batch size > 10") if len(call["input"]) > 10 else answer(call)

    async with serving(handler) as (endpoint, client):
        vectors = await client.embed_documents(numbers(64))
    assert np.allclose(vectors[:, 0] / vectors[:, 1], range(64), rtol=1e-4)
    assert len(endpoint.calls) == 2 + 8


SEARCH = SearchArguments(queries=["1"], vector_store_ids=["vs_none"], max_results=1, score_threshold=0.0)


async def run_until_it_ends(context: WorkerContext, arguments: Arguments) -> tuple[Outcome, list[Retry]]:
    """Run a job again and again as the queue would, but without its waits."""
    data, retries = write_payload(function_of(arguments), arguments), list[Retry]()
    while True:
        deadline, attempt = time.monotonic() + 60, len(retries) + 1
        tries = sum(retry.charge for retry in retries)
        where = QueueName.QUERIES, Lane.DEFAULT, DEFAULT_TENANT
        job = ClaimedJob("job", attempt, data, *where, deadline, tries, 0, 0, alone=False)
        outcome = await perform(job, RunningJob("job", attempt, DEFAULT_TENANT, deadline), context)
        if isinstance(outcome, Outcome):
            return outcome, retries
        retries.append(outcome)


@pytest.mark.parametrize(("status", "calls"), [(503, 8), (429, 8), (401, 1), (400, 1)])
async def test_only_one_place_tries_again(context: WorkerContext, status: int, calls: int) -> None:
    async with serving(lambda *_: NO(status=status)) as (endpoint, client):
        served = replace(context, embedding=client, settings=client.settings)
        question, retries = await run_until_it_ends(served, SEARCH)
        assert (len(endpoint.calls), len(retries)) == (calls, calls - 1)
        endpoint.calls.clear()
        texts, retries = await run_until_it_ends(served, EmbeddingArguments(["1", "2"]))
        assert len(endpoint.calls) == calls + (status == 400)  # two texts that are refused, and one alone
        assert retries == []
    for outcome in (question, texts):
        assert isinstance(outcome.ended, Failure)
        assert f"status {status}" in outcome.ended.message


async def test_while_the_breaker_is_open_a_question_waits_and_is_not_charged(context: WorkerContext) -> None:
    def handler(call: dict[str, Any], number: int) -> web.Response:
        return NO(status=503) if number < 4 else answer(call)

    async with serving(handler, llm_breaker_calls=3, llm_breaker_probe_seconds=0.5) as (endpoint, client):
        served = replace(context, embedding=client, settings=client.settings)
        _, retries = await run_until_it_ends(served, SEARCH)
    assert sum(retry.charge for retry in retries) == 3
    assert any(not retry.charge for retry in retries)
    assert len(endpoint.calls) == 4


async def test_questions_and_passages_get_the_prefixes_of_the_model() -> None:
    prefixes = {"embedding_query_prefix": "1", "embedding_document_prefix": "2"}
    async with serving(answer, **prefixes) as (endpoint, client):
        await client.embed_query("7")
        await client.embed_documents(["8", "9"])
    assert [call["input"] for call in endpoint.calls] == [["17"], ["28", "29"]]
