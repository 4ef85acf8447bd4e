"""A cancelled response stops at every stage within a second: in the queue, in its search, in the LLM's stream."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import httpx2
import openai
import psycopg
import pytest
from pydantic import SecretStr

from ragq.client.job import ClaimedJob
from ragq.client.rq_client import JobQueue
from ragq.models import JobStatus, Lane, QueueName
from ragq.queues.async_worker import AsyncWorker, InFlight, _Runner
from ragq.queues.running import RunningJob
from ragq.settings import Settings
from ragq.storage.database import Database
from tests.queue_steps import claim, enqueue, expire_leases, state
from tests.servers import FakeLlm, Ragq, Valkey, wait_until

DOCUMENT = "The lighthouse of Quorra is 61 metres tall.\n"
QUESTION = "How tall is the lighthouse of Quorra?"
LIMIT_SECONDS = 1.0


@pytest.fixture(scope="module")
def ragq(tmp_path_factory: pytest.TempPathFactory, llm: FakeLlm) -> Iterator[Ragq]:
    """A service whose worker runs one question at a time."""
    folder = tmp_path_factory.mktemp("cancel")
    service = Ragq(
        folder / "data", RAGQ_LLM_BASE_URL=llm.base_url, RAGQ_LLM_MODEL="fake", RAGQ_QUERY_CONCURRENCY=1
    ).start()
    (folder / "harbour.md").write_text(DOCUMENT)
    assert service.run("ingest", str(folder / "harbour.md")).returncode == 0
    yield service
    assert service.stop() == 0


@pytest.fixture(scope="module")
def client(ragq: Ragq) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{ragq.url}/v1", api_key="unused", max_retries=0) as sdk:
        yield sdk


def stats(llm: FakeLlm) -> dict[str, int]:
    return dict(httpx2.get(llm.base_url.removesuffix("/v1") + "/stats").json())


def seconds_until(check: Callable[[], bool], what: str) -> float:
    started = time.monotonic()
    wait_until(check, seconds=10, what=what)
    return time.monotonic() - started


def ask(client: openai.OpenAI, behaviour: str = "") -> str:
    return client.responses.create(model="ragq", input=f"[[fake {behaviour}]] {QUESTION}", background=True).id


def runs(client: openai.OpenAI, response_id: str) -> bool:
    return client.responses.retrieve(response_id).status == "in_progress"


@pytest.mark.parametrize("behaviour", ["latency=60", "latency_after_headers=60", "rate=1 tokens=60"])
def test_a_cancelled_response_ends_its_call_of_the_llm(client: openai.OpenAI, llm: FakeLlm, behaviour: str) -> None:
    gone = stats(llm)["disconnected"]
    response_id = ask(client, behaviour)
    wait_until(lambda: stats(llm)["in_flight"] == 1, what="the LLM is called")
    assert client.responses.cancel(response_id).status == "cancelled"
    assert seconds_until(lambda: stats(llm)["in_flight"] == 0, "the call has ended") < LIMIT_SECONDS
    assert stats(llm)["disconnected"] == gone + 1


def test_a_response_that_is_cancelled_in_the_queue_is_never_begun(client: openai.OpenAI, llm: FakeLlm) -> None:
    running = ask(client, "latency=60")
    wait_until(lambda: stats(llm)["in_flight"] == 1, what="the only slot is taken")
    calls = stats(llm)["calls"]
    waiting = ask(client)
    assert client.responses.retrieve(waiting).status == "queued"
    assert client.responses.cancel(waiting).status == "cancelled"
    client.responses.cancel(running)
    last = client.responses.create(model="ragq", input=QUESTION)
    assert last.status == "completed"
    assert stats(llm)["calls"] == calls + 1
    assert client.responses.retrieve(waiting).status == "cancelled"


def test_a_response_that_is_cancelled_in_its_search_ends_the_search_and_frees_the_slot(
    ragq: Ragq, client: openai.OpenAI, llm: FakeLlm
) -> None:
    url = ragq.services["database_url"]
    searching = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ILIKE '%%chunks%%'"
    calls = stats(llm)["calls"]
    with psycopg.connect(url) as blocker, psycopg.connect(url, autocommit=True) as observer:

        def searches() -> int:
            row = observer.execute(searching).fetchone()
            assert row
            return int(row[0])

        blocker.execute("LOCK TABLE chunks IN ACCESS EXCLUSIVE MODE")
        response_id = ask(client)
        wait_until(lambda: searches() == 1, what="the search waits")
        assert runs(client, response_id)
        assert client.responses.cancel(response_id).status == "cancelled"
        assert seconds_until(lambda: searches() == 0, "the search has ended") < LIMIT_SECONDS
        blocker.rollback()
    assert stats(llm)["calls"] == calls
    assert client.responses.create(model="ragq", input=QUESTION).status == "completed"


@pytest.fixture
async def runner(database_url: str, settings: Settings, valkey: Valkey) -> AsyncIterator[_Runner]:
    urls = {"valkey_url": SecretStr(valkey.url), "database_url": SecretStr(database_url)}
    runner = _Runner(AsyncWorker([], connection=valkey.connect()), settings.model_copy(update=urls), burst=False)
    yield runner
    await runner._queue.close()


def hold(runner: _Runner, work: Coroutine[Any, Any, None], *, attempt: int = 1) -> asyncio.Task[None]:
    """Let a worker hold a job `a`, in the place of an earlier attempt."""
    claimed = ClaimedJob("a", attempt, b"", QueueName.QUERIES, Lane.DEFAULT, "default", 0, 0, 0, 0, alone=False)
    task = asyncio.create_task(work)
    runner._in_flight["a"] = InFlight(claimed, RunningJob("a", attempt, "default", 0), task)
    return task


async def has_ended(task: asyncio.Task[None]) -> bool:
    done, _ = await asyncio.wait([task], timeout=5)
    return bool(done)


async def test_a_job_ends_though_it_is_cancelled_as_it_gets_a_connection(
    database_url: str, settings: Settings, runner: _Runner
) -> None:
    database = await Database.open(settings, database_url, connections=1)

    async def work() -> None:
        async with database.for_all().connection():
            await asyncio.sleep(3600)

    async with database.for_all().connection():
        task = hold(runner, work())
        await asyncio.sleep(0.2)
    runner._drop("a", 1, reason="cancelled")
    ended = await has_ended(task)
    task.cancel()
    await database.close()
    assert ended


async def test_a_connection_still_takes_copies_whenever_a_task_was_cancelled_that_used_it(
    database_url: str, settings: Settings
) -> None:
    database = await Database.open(settings, database_url, connections=1)
    access = database.for_tenant("default")

    async def change() -> None:
        async with access.transaction() as connection:
            await connection.execute("SELECT 1")

    async with database.for_all().connection() as connection:
        await connection.execute("CREATE TABLE copied (number int)")
    await access.row("SELECT 1")  # so that it is known which role to take
    uses: list[Callable[[], Coroutine[Any, Any, object]]] = [lambda: access.row("SELECT 1"), change]
    for use in uses:
        for turns in range(8):  # of the event loop, before the task is cancelled
            await asyncio.sleep(0.02)  # psycopg gives way to other tasks when it has not for 5 ms
            task = asyncio.create_task(use())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            async with access.copying() as (connection, _), connection.cursor().copy("COPY copied FROM STDIN") as copy:
                await copy.write_row((turns,))
    row = await database.for_all().row("SELECT count(*) AS count FROM copied")
    async with database.for_all().connection() as connection:
        await connection.execute("DROP TABLE copied")  # other tests look at all tables
    await database.close()
    assert row == {"count": 16}


async def test_a_late_word_of_a_cancelled_attempt_does_not_end_the_run_after_a_retry(
    runner: _Runner, queue: JobQueue, valkey: Valkey
) -> None:
    await enqueue(queue, "a")
    await claim(queue)
    first = hold(runner, asyncio.sleep(3600))
    with valkey.connect() as connection, connection.pubsub(ignore_subscribe_messages=True) as heard:
        heard.subscribe("ragq:pubsub:w1")
        heard.get_message(timeout=5)  # of the subscription
        await queue.cancel("a")
        word = json.loads((heard.get_message(timeout=5) or {})["data"])
    assert await queue.live.retry("a")
    await runner._handle_command(word)
    assert await has_ended(first)
    assert (await state(queue, "a")).status is JobStatus.QUEUED
    (again,) = await claim(queue)
    second = hold(runner, asyncio.sleep(3600), attempt=again.attempt)
    await runner._handle_command(word)
    assert (await state(queue, "a")).status is JobStatus.STARTED
    assert "a" in runner._in_flight
    await runner._handle_command(word | {"attempt": again.attempt})
    assert await has_ended(second)


async def test_rqs_stop_command_to_a_worker_that_lost_the_job_does_not_end_its_next_run(
    runner: _Runner, queue: JobQueue, valkey: Valkey
) -> None:
    await enqueue(queue, "a")
    await claim(queue)
    first = hold(runner, asyncio.sleep(3600))
    assert await expire_leases(queue, valkey) == ["a"]
    (again,) = await claim(queue, worker="w2")
    await runner._handle_command({"command": "stop-job", "job_id": "a"})
    assert await has_ended(first)
    assert (await state(queue, "a")).status is JobStatus.STARTED
    second = hold(runner, asyncio.sleep(3600), attempt=again.attempt)
    await runner._handle_command({"command": "stop-job", "job_id": "a"})
    assert await has_ended(second)
    assert (await state(queue, "a")).status is JobStatus.STOPPED


async def test_a_heartbeat_of_a_lost_attempt_does_not_end_the_one_after_it(runner: _Runner) -> None:
    first = hold(runner, asyncio.sleep(3600))
    beating = asyncio.create_task(runner._heartbeat(everything=True))  # it names the first attempt, which is lost
    await asyncio.sleep(0)
    second = hold(runner, asyncio.sleep(3600), attempt=2)
    await beating
    assert "a" in runner._in_flight
    for task in (first, second):
        task.cancel()
