"""What a caller sees of the queue's promises: refusals, places, deadlines, the archive and the metrics."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest
import redis

from tests.servers import FakeLlm, Ragq, stop, wait_until

MAX_QUEUED = 3


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeLlm]:
    with FakeLlm(tmp_path_factory.mktemp("llm"), latency=0.2) as fake:
        yield fake


@pytest.fixture(scope="module")
def ragq(tmp_path_factory: pytest.TempPathFactory, llm: FakeLlm) -> Iterator[Ragq]:
    """A service whose workers each test starts itself, so that jobs wait as long as a test wants."""
    service = Ragq(
        tmp_path_factory.mktemp("durable") / "data",
        *("--query-workers", "0", "--document-workers", "0"),
        RAGQ_LLM_BASE_URL=llm.base_url,
        RAGQ_LLM_MODEL="fake",
        RAGQ_MAX_QUEUED=MAX_QUEUED,
        RAGQ_RESULT_TTL_SECONDS=60,
        RAGQ_QUERY_DEADLINE_SECONDS=8,
    ).start()
    yield service
    assert service.stop() == 0


@pytest.fixture
def client(ragq: Ragq) -> Iterator[httpx2.Client]:
    """A client of a service whose queue is empty."""
    with connect_valkey(ragq) as connection:
        connection.flushall()
    with httpx2.Client(base_url=ragq.url, timeout=30) as client:
        yield client


def connect_valkey(ragq: Ragq) -> redis.Redis:
    return redis.Redis.from_url(ragq.services["valkey_url"])


def ask(client: httpx2.Client, key: str, **body: Any) -> httpx2.Response:
    body = {"input": "How tall is it?", "background": True, "vector_store_ids": []} | body
    return client.post("/v1/responses", json=body, headers={"Idempotency-Key": key})


def wait_for_answer(client: httpx2.Client, response_id: str) -> dict[str, Any]:
    def answer() -> dict[str, Any] | None:
        found: dict[str, Any] = client.get(f"/v1/responses/{response_id}").json()
        return found if found["status"] not in ("queued", "in_progress") else None

    return wait_until(answer, seconds=30, what="an answer") or {}


def test_more_than_may_wait_is_refused_with_a_time_to_come_back(client: httpx2.Client) -> None:
    for n in range(MAX_QUEUED):
        accepted = ask(client, f"full-{n}")
        assert accepted.json()["queue"] == {"position": n + 1, "eta_seconds": None}
    refused = ask(client, "full-more")
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) >= 1
    assert int(refused.headers["retry-after-ms"]) > 0
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert ask(client, "full-0").json()["id"] == ask(client, "full-0").json()["id"]  # a repeat is no new question
    assert ask(client, "full-urgent", service_tier="priority").status_code == 200
    assert client.post("/chat", params={"query": "Me too?"}).status_code == 429


def test_a_question_that_no_worker_begins_fails_at_its_deadline(client: httpx2.Client) -> None:
    created = ask(client, "late").json()
    answer = wait_for_answer(client, created["id"])
    assert (answer["status"], answer["error"]["code"]) == ("failed", "deadline_exceeded")


def test_place_and_time_left_are_told_once_workers_are_known(ragq: Ragq, client: httpx2.Client) -> None:
    worker = ragq.spawn("worker", "queries")
    try:
        wait_for_answer(client, ask(client, "first").json()["id"])

        def shown() -> httpx2.Response | None:
            created = ask(client, "second", input="[[fake latency=3]] How tall is it?")
            return created if created.json()["queue"]["eta_seconds"] is not None else None

        created = wait_until(shown, what="an estimate")
        assert created
        assert 0 < created.json()["queue"]["eta_seconds"] < 5
        assert 100 <= int(created.headers["openai-poll-after-ms"]) <= 5000
        assert wait_for_answer(client, created.json()["id"])["status"] == "completed"
    finally:
        stop(worker)


def test_an_answer_is_read_from_the_archive_and_an_expired_one_is_gone(ragq: Ragq, client: httpx2.Client) -> None:
    worker = ragq.spawn("worker", "queries")
    try:
        response_id = ask(client, "kept").json()["id"]
        answer = wait_for_answer(client, response_id)
    finally:
        stop(worker)
    with psycopg.connect(ragq.services["database_url"], autocommit=True) as database, connect_valkey(ragq) as valkey:
        query = "SELECT count(*) FROM responses WHERE id = %s"
        wait_until(lambda: database.execute(query, [response_id]).fetchone() == (1,), what="it is archived")
        wait_until(lambda: 0 < valkey.ttl(f"ragq:job:{response_id}") <= 60, what="Valkey may let it go")
        valkey.flushall()
        assert client.get(f"/v1/responses/{response_id}").json() == answer
        assert client.get("/job-status", params={"job_id": response_id}).json()["status"] == "completed"
        assert ask(client, "kept").json() == answer
        assert ask(client, "kept", input="Another question?").status_code == 409
        database.execute("UPDATE responses SET job = NULL WHERE id = %s", [response_id])
    gone = client.get(f"/v1/responses/{response_id}")
    assert (gone.status_code, gone.json()["error"]["code"]) == (410, "expired")
    assert client.get("/v1/responses/resp_unknown").status_code == 404


def test_the_metrics_of_api_and_workers_can_be_scraped(ragq: Ragq, client: httpx2.Client) -> None:
    worker = ragq.spawn("worker", "queries")
    try:
        wait_for_answer(client, ask(client, "counted").json()["id"])
        targets = wait_until(lambda: client.get("/metrics/targets").json(), what="the worker's address")
        shown = httpx2.get(f"http://{targets[0]['targets'][0]}/metrics").text
        assert 'ragq_jobs_ended_total{code="finished",function="process_query"} 1.0' in shown
        assert 'ragq_llm_calls_total{code="ok"} 1.0' in shown
        assert 'ragq_job_wait_seconds_count{queue="queries"} 1.0' in shown
        shown = client.get("/metrics").text
        assert 'ragq_workers{queue="queries"} 1.0' in shown
        assert 'ragq_queue_jobs{list="queries",state="queued"} 0.0' in shown
        assert 'ragq_http_requests_total{method="POST",route="/v1/responses",status="200"}' in shown
    finally:
        stop(worker)


def test_silent_connections_to_a_workers_metrics_take_no_threads_and_are_closed(
    ragq: Ragq, client: httpx2.Client
) -> None:
    worker = ragq.spawn("worker", "queries")
    try:
        targets = wait_until(lambda: client.get("/metrics/targets").json(), what="the worker's address")
        host, _, port = targets[0]["targets"][0].partition(":")
        threads = Path(f"/proc/{worker.pid}/task")
        before = len(list(threads.iterdir()))
        silent = [socket.create_connection((host, int(port))) for _ in range(300)]
        silent[0].sendall(b"GET /metrics HTTP/1.1\r\n")
        assert len(list(threads.iterdir())) < before + 100  # it may load its model meanwhile
        wait_until(lambda: metrics_of(f"http://{host}:{port}/metrics"), what="its metrics again")
        for one in silent:
            one.settimeout(10)
            with contextlib.suppress(ConnectionResetError):
                assert one.recv(1) == b""
            one.close()
    finally:
        stop(worker)


def metrics_of(url: str) -> str:
    with contextlib.suppress(httpx2.TransportError):
        return httpx2.get(url).text
    return ""
