"""Several workers on one queue, and what happens when they, Valkey or the whole service are killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import psycopg
import pytest
import redis
from redis.connection import parse_url

from tests.fault.fleet import running_fleet, wait_for_workers
from tests.proxy import ValkeyProxy
from tests.servers import FakeLlm, Ragq, environment, stop, wait_until

LEASE_SECONDS = 8
SLOW = "[[fake text='One two three four five six seven eight nine ten.' latency=0 rate=3]] How tall is it?"


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeLlm]:
    """An LLM that takes 2 s for an answer."""
    with FakeLlm(tmp_path_factory.mktemp("llm"), latency=2) as fake:
        yield fake


@pytest.fixture(scope="module")
def ragq(tmp_path_factory: pytest.TempPathFactory, llm: FakeLlm) -> Iterator[Ragq]:
    """A service without query workers: each test starts its own, as from other terminals."""
    with running_fleet(tmp_path_factory.mktemp("fleet"), llm) as service:
        yield service


async def ask_together(ragq: Ragq, count: int) -> list[str]:
    """Post questions at the same time; returns the ids of the accepted jobs."""
    async with httpx2.AsyncClient(base_url=ragq.url, timeout=60) as client:
        answers = await asyncio.gather(
            *(
                client.post("/chat", params={"query": f"How tall is the lighthouse of Quorra? ({n})"})
                for n in range(count)
            )
        )
    return [answer.json()["job_id"] for answer in answers]


def wait_for_answers(ragq: Ragq, job_ids: list[str], *, seconds: float) -> list[dict[str, Any]]:
    with httpx2.Client(base_url=ragq.url, timeout=30) as client:
        left, done = set(job_ids), list[dict[str, Any]]()
        deadline = time.monotonic() + seconds
        while left:
            assert time.monotonic() < deadline, f"{len(left)} of {len(job_ids)} jobs are not done"
            for job_id in sorted(left):
                status = client.get("/job-status", params={"job_id": job_id}).json()
                if status["status"] not in ("queued", "in_progress"):
                    left.discard(job_id)
                    done.append(status)
    return done


def visible_results(ragq: Ragq, job_ids: list[str]) -> list[int]:
    """How many results each job has in Valkey."""
    services = ragq.services
    with redis.Redis.from_url(services["valkey_url"]) as connection:
        return [int(connection.xlen(f"ragq:results:{job_id}")) for job_id in job_ids]


def bare_rq_worker(ragq: Ragq) -> subprocess.Popen[bytes]:
    """`eval "$(ragq env)"; rq worker`, word for word, in a shell of its own."""
    shell = 'eval "$("$0" -m ragq.cli env)"; exec rq worker'
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with (ragq.folder.parent / "bare.log").open("ab") as log:
        return subprocess.Popen(
            ["bash", "-c", shell, sys.executable], env=ragq.environment | {"PATH": path}, stdout=log, stderr=log
        )


async def test_two_ragq_workers_and_a_bare_rq_worker_share_200_questions(ragq: Ragq) -> None:
    workers = [ragq.spawn("worker", "queries"), ragq.spawn("worker", "queries"), bare_rq_worker(ragq)]
    try:
        wait_for_workers(ragq, 3)
        job_ids = await ask_together(ragq, 200)
        answers = wait_for_answers(ragq, job_ids, seconds=40)
        assert [answer["status"] for answer in answers] == ["completed"] * 200
        assert all("61 metres" in answer["result"]["answer"] for answer in answers)
        assert all(answer["result"]["sources"][0]["filename"] == "harbour.md" for answer in answers)
        pids = {worker.pid for worker in workers}

        def shares() -> dict[int, int]:
            found = httpx2.get(f"{ragq.url}/status").json()["workers"]
            shares = {one["pid"]: one["finished"] for one in found if one["pid"] in pids}
            return shares if sum(shares.values()) == 200 else {}

        shared = wait_until(shares)
        assert set(shared) == pids  # the pid that was started did the work
        assert min(shared.values()) > 0
    finally:
        for worker in workers:
            stop(worker)


async def test_a_worker_that_loses_valkey_after_its_first_look_waits_for_it(ragq: Ragq, tmp_path: Path) -> None:
    services = ragq.services
    target = Path(parse_url(services["valkey_url"])["path"])  # type: ignore[no-untyped-call]
    tries_of_rq = range(2, 6)
    async with ValkeyProxy(tmp_path / "v.sock", target, refused=tries_of_rq) as proxy:
        worker = ragq.spawn("worker", "queries", RAGQ_VALKEY_URL=proxy.url, RAGQ_DATABASE_URL=services["database_url"])
        try:
            await asyncio.to_thread(wait_for_workers, ragq, 1)
            assert proxy.connections > tries_of_rq.stop
            assert worker.poll() is None
        finally:
            await asyncio.to_thread(stop, worker)


async def test_a_killed_workers_50_questions_each_get_one_result_within_lease_and_5_seconds(
    ragq: Ragq, llm: FakeLlm
) -> None:
    victim, survivor = ragq.spawn("worker", "queries"), None
    try:
        wait_for_workers(ragq, 1)
        calls = llm.calls()
        job_ids = await ask_together(ragq, 50)
        wait_until(lambda: llm.calls() == calls + 50, what="all 50 questions are with the LLM")
        survivor = ragq.spawn("worker", "queries")
        victim.send_signal(signal.SIGKILL)
        killed_at = time.monotonic()
        answers = wait_for_answers(ragq, job_ids, seconds=LEASE_SECONDS + 5)
        recovery = time.monotonic() - killed_at
        assert [answer["status"] for answer in answers] == ["completed"] * 50
        assert visible_results(ragq, job_ids) == [1] * 50
        assert llm.calls() - calls <= 100
        print(f"recovered after {recovery:.1f} s with {llm.calls() - calls} LLM calls")  # noqa: T201  (who started it reads it)
    finally:
        stop(victim)
        if survivor:
            stop(survivor)


def test_a_worker_killed_in_the_middle_of_a_stream_leaves_one_true_text(ragq: Ragq) -> None:
    victim, survivor = ragq.spawn("worker", "queries", RAGQ_LEASE_SECONDS=2, RAGQ_HEARTBEAT_SECONDS=0.5), None
    events: list[Any] = []
    try:
        wait_for_workers(ragq, 1)
        with openai.OpenAI(base_url=f"{ragq.url}/v1", api_key="unused", max_retries=0) as sdk:
            shown: Any = ["file_search_call.results"]
            with sdk.responses.stream(model="ragq", input=SLOW, background=True, include=shown) as stream:
                for event in stream:
                    events.append(event)
                    if event.type == "response.output_text.delta" and survivor is None:
                        survivor = ragq.spawn("worker", "queries")
                        victim.kill()
                final = stream.get_final_response()
            stored = sdk.responses.retrieve(final.id)
    finally:
        stop(victim)
        if survivor:
            stop(survivor)
    assert stored.model_extra
    assert stored.model_extra["attempt"] == 2
    assert final.output_text == stored.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))
    closed = [event.item for event in events if event.type == "response.output_item.done"]
    assert [item.status for item in closed] == ["completed", "incomplete", "completed", "completed"]
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert "".join(event.delta for event in deltas if event.item_id == closed[-1].id) == stored.output_text


async def test_sigterm_hands_jobs_back_at_once_and_charges_nothing(ragq: Ragq, llm: FakeLlm) -> None:
    first, second = ragq.spawn("worker", "queries", RAGQ_SHUTDOWN_GRACE_SECONDS=0), None
    try:
        wait_for_workers(ragq, 1)
        calls = llm.calls()
        job_ids = await ask_together(ragq, 20)
        wait_until(lambda: llm.calls() == calls + 20)
        first.terminate()
        assert first.wait(5) == 0
        services = ragq.services
        with redis.Redis.from_url(services["valkey_url"]) as connection:
            for job_id in job_ids:
                status, tries, deaths = connection.hmget(f"ragq:job:{job_id}", "status", "tries", "deaths")
                assert (status, tries, deaths) == (b"queued", b"0", None)
        second = ragq.spawn("worker", "queries")
        answers = wait_for_answers(ragq, job_ids, seconds=20)
        assert [answer["status"] for answer in answers] == ["completed"] * 20
    finally:
        stop(first)
        if second:
            stop(second)


async def test_a_dead_llm_costs_a_bounded_number_of_calls(ragq: Ragq, llm: FakeLlm) -> None:
    limits = {"RAGQ_JOB_TRIES": 2, "RAGQ_LLM_TRIES": 2}
    waits = {"RAGQ_LLM_BACKOFF_SECONDS": 0.1, "RAGQ_LLM_BACKOFF_MAX_SECONDS": 0.2}
    worker = ragq.spawn("worker", "queries", **limits, **waits)
    try:
        wait_for_workers(ragq, 1)
        with httpx2.Client(base_url=ragq.url, timeout=30) as client:
            calls = llm.calls()
            question = "[[fake status=500]] How tall is the lighthouse of Quorra?"
            job_id = client.post("/chat", json={"query": question}).json()["job_id"]
            (answer,) = wait_for_answers(ragq, [job_id], seconds=30)
        assert (answer["status"], answer["error"]["code"]) == ("failed", "llm_unavailable")
        assert llm.calls() - calls == 2  # two runs of the job, one call each
    finally:
        stop(worker)


async def test_a_stock_rq_worker_takes_nothing_of_ours(ragq: Ragq) -> None:
    (job_id,) = await ask_together(ragq, 1)
    services = ragq.services
    stock = [sys.executable, "-m", "rq.cli", "worker", "--burst", "--url", services["valkey_url"], "queries", "default"]
    done = subprocess.run(stock, env=environment(), capture_output=True, text=True, timeout=60, check=False)  # noqa: ASYNC221  (nothing else runs)
    assert done.returncode == 0, done.stderr
    with httpx2.Client(base_url=ragq.url, timeout=30) as client:
        assert client.get("/job-status", params={"job_id": job_id}).json()["status"] == "queued"
        assert client.post(f"/v1/responses/{job_id}/cancel").status_code == 200


@pytest.fixture(scope="module")
def worker(ragq: Ragq) -> Iterator[subprocess.Popen[bytes]]:
    """One query worker for the rest of the tests, which it must survive."""
    process = ragq.spawn("worker", "queries")
    try:
        wait_for_workers(ragq, 1)
        yield process
    finally:
        stop(process)


async def test_a_canceled_question_stops_its_llm_call_and_stays_canceled(
    ragq: Ragq, worker: subprocess.Popen[bytes], llm: FakeLlm
) -> None:
    assert worker.poll() is None
    with httpx2.Client(base_url=ragq.url, timeout=30) as client:
        calls = llm.calls()
        created = client.post("/v1/responses", json={"input": "How tall is it?", "background": True}).json()
        wait_until(lambda: llm.calls() == calls + 1)
        for _ in range(2):
            assert client.post(f"/v1/responses/{created['id']}/cancel").json()["status"] == "cancelled"
        stats_url = llm.base_url.removesuffix("/v1") + "/stats"
        wait_until(lambda: client.get(stats_url).json()["in_flight"] == 0, seconds=1, what="the call is closed")
        assert client.get(f"/v1/responses/{created['id']}").json()["status"] == "cancelled"


async def test_killed_servers_come_back_and_what_was_accepted_is_answered(
    ragq: Ragq, worker: subprocess.Popen[bytes]
) -> None:
    job_ids = await ask_together(ragq, 10)
    pids = ragq.pids
    for name in ("Valkey", "PostgreSQL"):
        os.kill(pids[name], signal.SIGKILL)
    with httpx2.Client(base_url=ragq.url, timeout=30) as client:
        away = client.post("/chat", params={"query": "Anyone there?"})
        if away.status_code != 200:  # unless it was back already
            assert away.status_code == 503
            assert int(away.headers["Retry-After"]) >= 1
            assert away.json()["error"]["code"] in ("queue_unavailable", "database_unavailable")
        wait_until(lambda: client.get("/readyz").status_code == 200, seconds=20)
    answers = wait_for_answers(ragq, job_ids, seconds=40)
    assert [answer["status"] for answer in answers] == ["completed"] * 10
    assert visible_results(ragq, job_ids) == [1] * 10
    assert worker.poll() is None


async def test_a_question_is_accepted_while_postgresql_is_away(ragq: Ragq, worker: subprocess.Popen[bytes]) -> None:
    def is_away() -> bool:
        try:
            psycopg.connect(ragq.services["database_url"]).close()
        except psycopg.OperationalError:
            return True
        return False

    os.kill(ragq.pids["PostgreSQL"], signal.SIGKILL)
    wait_until(is_away, seconds=5, what="PostgreSQL is away")  # for half a second
    job_ids = await ask_together(ragq, 3)
    assert [answer["status"] for answer in wait_for_answers(ragq, job_ids, seconds=40)] == ["completed"] * 3
    assert visible_results(ragq, job_ids) == [1] * 3
    assert worker.poll() is None


def test_configured_services_are_used_and_neither_is_started(ragq: Ragq, tmp_path: Path) -> None:
    services = ragq.services
    second = Ragq(
        tmp_path / "data",
        "--query-workers",
        "0",
        "--document-workers",
        "0",
        RAGQ_VALKEY_URL=services["valkey_url"],
        RAGQ_DATABASE_URL=services["database_url"],
    ).start()
    try:
        processes = json.loads((second.folder / "services.json").read_text())["processes"]
        assert set(processes) == {"api"}
        with psycopg.connect(services["database_url"]) as connection:
            assert connection.execute("SELECT count(*) FROM files").fetchone() == (1,)
        assert httpx2.get(f"{second.url}/v1/files").json()["data"][0]["filename"] == "harbour.md"
    finally:
        assert second.stop() == 0
