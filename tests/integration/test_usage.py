"""What was used: counted once whatever dies, told as OpenAI tells it, priced, and held against budgets."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import itertools
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx2
import openai
import pytest

from ragq.accounts.usage import JobUsage
from ragq.client.job import Outcome
from ragq.client.rq_client import JobQueue
from ragq.queues.running import WorkerContext
from ragq.queues.upkeep.usage import add_usage
from ragq.storage.database import Database
from tests.queue_steps import DONE, claim, enqueue
from tests.receiver import Receiver, running_receiver
from tests.servers import KEY, FakeLlm, Ragq, wait_until
from tests.tenants import Caller

NUMBERS = itertools.count()
PRICES = '{"fake/model": {"input": 1000, "output": 3000}}'
SLOW = "[[fake latency=0.3]] Which is number"


@pytest.fixture(scope="module")
def service(llm: FakeLlm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ragq]:
    """A service with prices, whose processes are killed."""
    started = Ragq(
        tmp_path_factory.mktemp("usage") / "data",
        RAGQ_API_KEY=KEY,
        RAGQ_LLM_BASE_URL=llm.base_url,
        RAGQ_LLM_MODEL="fake/model",
        RAGQ_PRICES=PRICES,
        RAGQ_WEBHOOK_ALLOWED_HOSTS="127.0.0.1",
        RAGQ_LEASE_SECONDS=3,
        RAGQ_HEARTBEAT_SECONDS=1,
    ).start()
    yield started
    assert started.stop() == 0


@pytest.fixture
def root(service: Ragq) -> Caller:
    return Caller(service.url, KEY)


def make_caller(root: Caller, **limits: Any) -> tuple[str, Caller]:
    """A tenant and an admin's key of it."""
    tenant = f"paying-{next(NUMBERS)}"
    root.post("/v1/admin/tenants", {"id": tenant})
    root.post(f"/v1/admin/tenants/{tenant}/limits", limits)
    key = root.post("/v1/admin/keys", {"name": "a", "role": "admin", "tenant": tenant})
    return tenant, Caller(root.url, key["value"])


def ask(caller: Caller, text: str = "How tall is it?", **fields: Any) -> Any:
    answer = caller.call("POST", "/v1/responses", json={"model": "ragq", "input": text, **fields})
    return answer.json() if answer.status_code == 200 else answer


def results_of(caller: Caller, query: str = "") -> list[dict[str, Any]]:
    answer = caller.call("GET", f"/v1/admin/usage?bucket_width=all&{query}")
    assert answer.status_code == 200, answer.text
    return [one for bucket in answer.json()["data"] for one in bucket["results"]]


def requests_of(caller: Caller) -> int:
    return sum(one["num_model_requests"] for one in results_of(caller))


# Once


@pytest.fixture
async def home(context: WorkerContext, queue: JobQueue, database: Database) -> WorkerContext:
    """An empty queue and an empty database."""
    async with database.for_all().connection() as connection:
        await connection.execute("TRUNCATE usage, usage_positions")
    context.queue = queue
    return context


async def end_jobs(queue: JobQueue, *names: str) -> None:

    for name in names:
        await enqueue(queue, name)
    for job in await claim(queue):
        usage = JobUsage("a-model", input_tokens=10, output_tokens=1)
        outcome = Outcome(job.id, job.attempt, DONE, usage=usage)
        assert await queue.commit("w1", [outcome]) == [True]
        assert await queue.commit("w1", [outcome]) == [True]  # sent again, since its answer was lost


async def total(context: WorkerContext) -> tuple[int, int]:
    today = datetime.now(UTC).date()
    (one,) = await context.usage.report(None, first=today, last=today, by=["model"])
    return one.requests, one.input_tokens


async def test_what_a_job_cost_is_added_once_whenever_the_adding_is_cut_off(
    home: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = home.queue
    await end_jobs(queue, "a", "b")

    async def cut(*_: object) -> None:
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(queue.usage, "trim", cut)
        with pytest.raises(ConnectionError):
            await add_usage(home)
    assert await total(home) == (2, 20)
    await end_jobs(queue, "c")
    await add_usage(home)
    await add_usage(home)
    assert await total(home) == (3, 30)
    assert await queue.usage.read(10) == []


async def test_two_processes_that_read_the_same_entries_add_them_once(home: WorkerContext) -> None:
    await end_jobs(home.queue, "a", "b")
    entries = await home.queue.usage.read(10)
    for _ in range(2):
        await home.usage.add("ragq", entries, {})
    assert await total(home) == (2, 20)


def kill(service: Ragq, *names: str) -> None:
    """Kill processes, but for the servers; `ragq up` starts them again."""
    for name in names:
        if name not in ("valkey", "postgres"):
            with contextlib.suppress(ProcessLookupError):  # killed before, and not started yet
                os.kill(service.pids[name], signal.SIGKILL)


@pytest.mark.timeout(240)
def test_kills_neither_lose_nor_double_what_was_used(service: Ragq, root: Caller) -> None:
    _, caller = make_caller(root)
    seed = random.Random(17)
    ids: list[str] = []
    for number in range(80):
        ids.append(ask(caller, f"{SLOW} {number}?", background=True)["id"])
        if number % 8 == 7:
            kill(service, seed.choice([name for name in service.pids if "worker" in name]))
    kill(service, *service.pids)  # the API, too: each process adds up

    def all_ended() -> bool:
        try:
            states = [caller.call("GET", f"/v1/responses/{id_}").json().get("status") for id_ in ids]
        except httpx2.TransportError:
            return False
        return all(state == "completed" for state in states)

    wait_until(all_ended, seconds=120)
    wait_until(lambda: requests_of(caller) >= len(ids), seconds=30)
    ask(caller)
    wait_until(lambda: requests_of(caller) > len(ids), seconds=30)  # so all that came before it was added, too
    assert requests_of(caller) == len(ids) + 1


# What it says


def test_each_door_is_counted_with_its_model_key_and_tokens(root: Caller) -> None:
    tenant, caller = make_caller(root)
    sdk = openai.OpenAI(base_url=f"{caller.url}/v1", api_key=caller.key, max_retries=0)
    used = sdk.responses.create(model="ragq", input="How tall?").usage
    chat = sdk.chat.completions.create(model="ragq", messages=[{"role": "user", "content": "How tall?"}]).usage
    assert used
    assert chat
    embedded = sdk.embeddings.create(model="all-MiniLM-L6-v2", input="How tall?").usage.prompt_tokens
    sdk.vector_stores.create(name="a")
    store = sdk.vector_stores.list().data[0].id
    sdk.vector_stores.files.upload_and_poll(vector_store_id=store, file=("a.md", b"It is 61 metres tall."))
    wait_until(lambda: requests_of(caller) == 4)
    by_model = {one["model"]: one for one in results_of(caller, "group_by=model&group_by=api_key_id")}
    asked, other = by_model["fake/model"], by_model["all-MiniLM-L6-v2"]
    assert asked["num_model_requests"] == 2
    assert asked["input_tokens"] == used.input_tokens + chat.prompt_tokens
    assert asked["output_tokens"] == used.output_tokens + chat.completion_tokens
    assert asked["estimated_tokens"] == 0
    assert asked["cost"] == pytest.approx((asked["input_tokens"] * 1000 + asked["output_tokens"] * 3000) / 1e6)
    assert asked["answer_seconds"] > 0
    assert (other["input_tokens"], other["documents"], other["cost"]) == (embedded, 1, 0)
    key_id = caller.call("GET", "/v1/admin/keys").json()["data"][0]["id"]
    assert asked["api_key_id"] == other["api_key_id"] == key_id
    assert [one["project_id"] for one in results_of(root, "group_by=tenant") if one["project_id"] == tenant] == [tenant]


def test_an_llm_that_counts_no_tokens_is_estimated_and_marked(root: Caller) -> None:
    _, caller = make_caller(root)
    ask(caller, "[[fake usage=0]] How tall?")
    wait_until(lambda: requests_of(caller) == 1)
    (one,) = results_of(caller)
    assert one["estimated_tokens"] == one["input_tokens"] + one["output_tokens"] > 10


def begin_answer(caller: Caller, llm: FakeLlm) -> str:
    """Ask for an answer that takes long; returns its address when the LLM has been called."""
    calls = llm.calls()
    asked = ask(caller, "[[fake tokens=500 rate=20]] How tall?", background=True)
    wait_until(lambda: llm.calls() > calls)
    return f"/v1/responses/{asked['id']}"


def test_a_cancelled_answer_is_paid_for_as_far_as_it_came(root: Caller, llm: FakeLlm) -> None:
    _, caller = make_caller(root)
    caller.post(f"{begin_answer(caller, llm)}/cancel")
    wait_until(lambda: results_of(caller))
    (one,) = results_of(caller)
    assert (one["num_model_requests"], one["input_tokens"] > 10) == (0, True)


def test_deleting_an_answer_that_runs_does_not_make_its_tokens_free(root: Caller, llm: FakeLlm) -> None:
    tenant, caller = make_caller(root, tokens_per_day=10)
    assert caller.call("DELETE", begin_answer(caller, llm)).status_code == 200
    wait_until(lambda: _refused(caller))
    wait_until(lambda: results_of(root, f"tenant={tenant}&group_by=key"))
    assert results_of(root, f"tenant={tenant}&group_by=key")[0]["api_key_id"].startswith("key_")


def test_csv_json_and_the_range_of_days(root: Caller, service: Ragq) -> None:
    tenant, caller = make_caller(root)
    ask(caller)
    wait_until(lambda: requests_of(caller) == 1)
    text = caller.call("GET", "/v1/admin/usage?format=csv&group_by=model").text
    (row,) = csv.DictReader(io.StringIO(text))
    assert (row["day"], row["model"], row["requests"]) == (f"{datetime.now(UTC):%Y-%m-%d}", "fake/model", "1")
    headers = {"Authorization": f"Bearer {caller.key}", "Accept": "text/csv"}
    accepted = httpx2.get(f"{caller.url}/v1/admin/usage?group_by=model", headers=headers)
    assert (accepted.text, accepted.headers["content-type"]) == (text, "text/csv; charset=utf-8")
    day = int(time.time()) // 86_400 * 86_400
    (bucket,) = caller.call("GET", f"/v1/admin/usage?start_time={day}&end_time={day + 86_400}").json()["data"]
    assert (bucket["start_time"], bucket["end_time"]) == (day, day + 86_400)
    assert caller.call("GET", f"/v1/admin/usage?end_time={day}").json()["data"] == []
    bad = caller.call("GET", f"/v1/admin/usage?start_time={day}&end_time={day - 86_400}")
    assert bad.json()["error"]["param"] == "start_time"
    for query, param in (
        ("end_time=253402300799", "end_time"),
        ("start_time=253402300799", "start_time"),
        ("start_time=8589934592", "start_time"),
        ("start_time=0&end_time=0", "start_time"),
    ):
        bad = caller.call("GET", f"/v1/admin/usage?{query}")
        assert (bad.status_code, bad.json()["error"]["param"]) == (400, param), query
    for query in ("end_time=0", "end_time=8589934592"):
        assert caller.call("GET", f"/v1/admin/usage?{query}").json()["data"] == [], query
    shown = service.run("usage", "--tenant", tenant, "--by", "model", "--csv", RAGQ_API_KEY=KEY)
    (row,) = csv.DictReader(io.StringIO(shown.stdout))
    assert (row["model"], row["requests"]) == ("fake/model", "1")


def test_a_tenant_sees_its_own_usage_only(root: Caller) -> None:
    tenant, _ = make_caller(root)
    _, other = make_caller(root)
    ask(other)
    wait_until(lambda: requests_of(other) == 1)
    assert other.call("GET", f"/v1/admin/usage?tenant={tenant}").status_code == 403
    assert len(results_of(other, "group_by=tenant")) == 1


# Budgets


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with running_receiver() as running:
        yield running


async def test_a_budget_warns_once_and_then_refuses_until_the_month_ends_or_it_is_raised(
    root: Caller, receiver: Receiver
) -> None:

    tenant, caller = make_caller(root)
    caller.post("/v1/webhook_endpoints", {"url": f"{receiver.url}/ok", "events": ["budget.warning", "budget.exceeded"]})
    tokens = (await asyncio.to_thread(ask, caller))["usage"]["total_tokens"]
    await asyncio.to_thread(wait_until, lambda: requests_of(caller) == 1)

    def types() -> list[str]:
        return [event["type"] for event in receiver.got("/ok")]

    await asyncio.to_thread(root.post, f"/v1/admin/tenants/{tenant}/limits", {"tokens_per_month": int(tokens / 0.85)})
    await asyncio.to_thread(wait_until, lambda: types() == ["budget.warning"])
    assert receiver.got("/ok")[0]["data"] == {"id": tenant}

    refused = await asyncio.to_thread(wait_until, lambda: _refused(caller), seconds=20)
    error = refused.json()["error"]
    assert (error["code"], error["type"]) == ("insufficient_quota", "insufficient_quota")
    assert 0 < int(refused.headers["retry-after"]) <= 31 * 86_400
    assert refused.headers["x-should-retry"] == "false"
    await asyncio.to_thread(wait_until, lambda: types() == ["budget.warning", "budget.exceeded"])

    body = {"tokens_per_month": None, "cost_per_month": 1_000_000}
    await asyncio.to_thread(root.post, f"/v1/admin/tenants/{tenant}/limits", body)
    assert (await asyncio.to_thread(ask, caller))["status"] == "completed"
    assert len(types()) == 2


def _refused(caller: Caller) -> Any:
    answer = ask(caller)
    return None if isinstance(answer, dict) else answer
