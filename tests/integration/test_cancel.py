"""A cancelled response stops at every stage within a second: in the queue, in its search, in the LLM's stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import httpx2
import openai
import psycopg
import pytest
from pydantic import SecretStr

from ragq.client.job import ClaimedJob
from ragq.models import Lane, QueueName
from ragq.queues.async_worker import AsyncWorker, InFlight, _Runner
from ragq.queues.running import RunningJob
from ragq.settings import Settings
from ragq.storage.database import Database
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


async def test_a_job_ends_though_it_is_cancelled_as_it_gets_a_connection(
    database_url: str, settings: Settings, valkey: Valkey
) -> None:
    database = await Database.open(settings, database_url, connections=1)
    urls = {"valkey_url": SecretStr(valkey.url), "database_url": SecretStr(database_url)}
    runner = _Runner(AsyncWorker([], connection=valkey.connect()), settings.model_copy(update=urls), burst=False)

    async def work() -> None:
        async with database.connection():
            await asyncio.sleep(3600)

    claimed = ClaimedJob("a", 1, b"", QueueName.QUERIES, Lane.DEFAULT, "default", 0, 0, 0, 0, alone=False)
    async with database.connection():
        task = asyncio.create_task(work())
        runner._in_flight["a"] = InFlight(claimed, RunningJob("a", 1, "default", 0), task)
        await asyncio.sleep(0.2)
    runner._drop("a", reason="cancelled")
    done, _ = await asyncio.wait([task], timeout=5)
    task.cancel()
    await database.close()
    assert done
