"""Requests of megabytes through the API: what they take in Valkey, when they are refused, and that they go."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis

from tests.servers import Ragq, stop, wait_until

MEGABYTE = 1_000_000
REQUESTS = 25
MAX_QUEUED_BYTES = 100 * MEGABYTE
QUESTION = "How tall is it?"


@pytest.fixture(scope="module")
def ragq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ragq]:
    """A service whose workers each test starts itself, so that jobs wait as long as a test wants."""
    service = Ragq(
        tmp_path_factory.mktemp("large") / "data",
        *("--query-workers", "0", "--document-workers", "0"),
        RAGQ_MAX_QUEUED_BYTES=MAX_QUEUED_BYTES,
        RAGQ_MAX_QUEUED=0,
        RAGQ_MAX_WAIT_SECONDS=0,
        RAGQ_RESULT_TTL_SECONDS=60,
    ).start()
    yield service
    assert service.stop() == 0


@pytest.fixture
def valkey(ragq: Ragq) -> Iterator[redis.Redis]:
    """The service's Valkey, with nothing in it."""
    with redis.Redis.from_url(ragq.services["valkey_url"]) as connection:
        connection.flushall()
        yield connection


@pytest.fixture
def client(ragq: Ragq, valkey: redis.Redis) -> Iterator[httpx2.Client]:
    assert valkey
    with httpx2.Client(base_url=ragq.url, timeout=60) as client:
        yield client


def ask(client: httpx2.Client, size: int, **body: Any) -> httpx2.Response:
    """Ask in the background, with an earlier conversation of so many bytes."""
    earlier = [{"role": "user", "content": size * "x"}, {"role": "assistant", "content": "Yes."}]
    messages = [*(earlier if size else []), {"role": "user", "content": QUESTION}]
    return client.post("/v1/responses", json={"input": messages, "background": True, "vector_store_ids": []} | body)


def used_memory(valkey: redis.Redis) -> int:
    return int(valkey.info("memory")["used_memory"])


def kept(ragq: Ragq) -> list[Path]:
    folder = ragq.folder / "files" / "requests"
    return list(folder.iterdir()) if folder.exists() else []


def is_done(client: httpx2.Client, response_id: str) -> bool:
    return bool(client.get(f"/v1/responses/{response_id}").json()["status"] == "completed")


def archived(valkey: redis.Redis, response_id: str) -> bool:
    return valkey.zscore("ragq:unarchived", response_id) is None


def test_requests_of_megabytes_are_small_in_valkey_and_go_with_their_responses(
    ragq: Ragq, client: httpx2.Client, valkey: redis.Redis
) -> None:
    client.delete(f"/v1/responses/{ask(client, MEGABYTE).json()['id']}")  # from now on Valkey knows the scripts
    before = used_memory(valkey)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: ask(client, 3_500_000), range(REQUESTS)))
    assert {answer.status_code for answer in answers} == {200}
    grown = used_memory(valkey) - before
    assert grown < REQUESTS * 10_000, grown
    assert len(kept(ragq)) == REQUESTS
    first, second, *others = [answer.json()["id"] for answer in answers]
    for response_id in others:
        assert client.delete(f"/v1/responses/{response_id}").status_code == 200
    assert len(kept(ragq)) == 2
    counted = valkey.hget("ragq:queued_bytes", "queries")
    assert counted
    assert int(counted) < 2 * 4 * MEGABYTE

    worker = ragq.spawn("worker", "queries")
    wait_until(lambda: is_done(client, first) and archived(valkey, first), seconds=60, what="an archived answer")
    valkey.delete(f"ragq:job:{first}")  # as it goes after its time
    items = client.get(f"/v1/responses/{first}/input_items?order=asc").json()["data"]
    assert [len(item["content"][0]["text"]) for item in items] == [3_500_000, 4, len(QUESTION)]
    follow_up = ask(client, 0, previous_response_id=first).json()["id"]
    wait_until(lambda: is_done(client, follow_up), seconds=30, what="the answer to a follow-up")
    for response_id in (first, second):
        assert client.delete(f"/v1/responses/{response_id}").status_code == 200
    assert kept(ragq) == []
    embedded = client.post("/v1/embeddings", json={"input": [f"{number} {'x' * 9000}" for number in range(20)]})
    assert embedded.status_code == 200, embedded.text
    assert kept(ragq) == []
    stop(worker)


def test_too_many_bytes_are_refused_with_a_time_to_come_back(ragq: Ragq, client: httpx2.Client) -> None:
    size, accepted, earlier = 4 * MEGABYTE, list[str](), len(kept(ragq))
    while (answer := ask(client, size)).status_code == 200:
        accepted.append(answer.json()["id"])
        assert len(accepted) <= MAX_QUEUED_BYTES // size
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"
    assert len(kept(ragq)) == earlier + len(accepted)
    assert ask(client, size + 500_000).status_code == 413
    assert ask(client, size, service_tier="priority").status_code == 200  # a flood below does not refuse it
    for response_id in accepted:
        client.delete(f"/v1/responses/{response_id}")
    assert ask(client, size).status_code == 200


def test_questions_up_to_valkeys_memory_are_all_answered(
    ragq: Ragq, client: httpx2.Client, valkey: redis.Redis
) -> None:
    assert int(valkey.config_get("maxmemory")["maxmemory"] or 0) > 100 * MEGABYTE
    valkey.config_set("maxmemory", used_memory(valkey) + 3 * MEGABYTE)
    accepted = []
    while (answer := ask(client, 0, instructions=20_000 * "x")).status_code == 200:
        accepted.append(answer.json()["id"])
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 0
    assert len(accepted) > 30
    worker = ragq.spawn("worker", "queries")
    wait_until(lambda: all(is_done(client, id_) for id_ in accepted[-3:]), seconds=60, what="the last answers")
    assert all(is_done(client, id_) for id_ in accepted)
    wait_until(lambda: valkey.zcard("ragq:unarchived") == 0, what="an empty list of what is to be archived")
    stop(worker)
    valkey.config_set("maxmemory", 0)
