"""A queue on a Valkey with a replica: what is acknowledged is on both, and outlives the loss of either."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from redis import exceptions

from ragq.client.replication import confirmed
from ragq.client.rq_client import JobQueue
from ragq.client.valkey_client import ValkeyClient
from ragq.environment import worker_variables
from ragq.errors import UnavailableError
from ragq.models import JobStatus
from ragq.queues.perform import retry_until_available
from ragq.records import Event, TextAdded
from ragq.settings import Settings
from tests.queue_steps import claim, enqueue, finish, state
from tests.replicas import ReplicatedValkey, Sentinel, running_pair
from tests.servers import environment, run, wait_until

Pair = tuple[ReplicatedValkey, ReplicatedValkey]


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A primary and its replica, for tests that leave both alive."""
    with running_pair(tmp_path_factory.mktemp("steady")) as pair:
        yield pair


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """A primary and its replica, one of which the test may lose."""
    with running_pair(tmp_path) as pair:
        yield pair


@pytest.fixture
def settings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(confirmed, "WAIT_SECONDS", 0.3)
    return settings.model_copy(update={"valkey_replicas": 1, "lease_seconds": 30.0})


@contextlib.asynccontextmanager
async def opened(settings: Settings, url: str) -> AsyncIterator[JobQueue]:
    queue = JobQueue(settings, url)
    try:
        yield queue
    finally:
        await queue.close()


@contextlib.contextmanager
def paused(server: ReplicatedValkey) -> Iterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()


@pytest.fixture
async def queue(settings: Settings, steady: Pair) -> AsyncIterator[JobQueue]:
    with steady[0].connect() as connection:
        connection.flushall()
    async with opened(settings, steady[0].url) as queue:
        yield queue


async def test_a_job_is_accepted_only_once_a_replica_has_it(queue: JobQueue, settings: Settings, steady: Pair) -> None:
    with paused(steady[1]):
        with pytest.raises(UnavailableError) as refused:
            await enqueue(queue, "a")
        assert (refused.value.code, refused.value.retry_after_seconds) == ("queue_unavailable", 2)
        async with opened(settings, steady[0].url) as other:  # it writes nothing, as the job is there
            with pytest.raises(UnavailableError):
                await enqueue(other, "a")
    assert not await enqueue(queue, "a")
    assert (await state(queue, "a")).status is JobStatus.QUEUED


async def test_many_calls_at_once_share_their_wait_and_get_their_own_answers(queue: JobQueue) -> None:
    ids = [f"job-{number}" for number in range(300)]
    assert all(await asyncio.gather(*(enqueue(queue, id_) for id_ in ids)))
    assert not any(await asyncio.gather(*(enqueue(queue, id_) for id_ in ids)))


async def test_an_unconfirmed_claim_starts_nothing_and_charges_nothing(queue: JobQueue, steady: Pair) -> None:
    await enqueue(queue, "a")
    with paused(steady[1]):
        with pytest.raises(UnavailableError):
            await claim(queue)
        assert (await state(queue, "a")).status is JobStatus.QUEUED
    (job,) = await claim(queue)
    assert (job.id, job.tries, job.deaths_alone) == ("a", 0, 0)


async def test_an_unconfirmed_commit_can_be_repeated(queue: JobQueue, steady: Pair) -> None:
    await enqueue(queue, "a")
    (job,) = await claim(queue)
    with paused(steady[1]), pytest.raises(UnavailableError):
        await finish(queue, job)
    assert await finish(queue, job)
    with steady[0].connect() as connection:
        assert connection.xlen("ragq:results:a") == 1


async def test_unconfirmed_events_are_logged_once(queue: JobQueue, steady: Pair) -> None:
    await enqueue(queue, "a")
    (job,) = await claim(queue)
    events: list[Event] = [TextAdded("once")]
    entry = ("a", job.attempt, 1, events)
    with paused(steady[1]), pytest.raises(UnavailableError):
        await queue.append([entry])
    assert await queue.append([entry]) == set()
    with steady[0].connect() as connection:
        assert connection.xlen("ragq:events:a") == 1


async def test_full_memory_refuses_new_jobs_but_no_results_of_the_same_batch(queue: JobQueue, steady: Pair) -> None:
    await enqueue(queue, "a")
    (job,) = await claim(queue)
    with steady[0].connect() as connection:
        connection.config_set("maxmemory", 1)
        try:
            refused, stored = await asyncio.gather(enqueue(queue, "b"), finish(queue, job), return_exceptions=True)
        finally:
            connection.config_set("maxmemory", 0)
    assert "memory is full" in str(refused)
    assert stored is True


async def test_a_lost_primary_leaves_a_replica_with_every_job_and_result(settings: Settings, pair: Pair) -> None:
    primary, replica = pair
    async with opened(settings, primary.url) as queue:
        await asyncio.gather(*(enqueue(queue, f"job-{number}") for number in range(50)))
        jobs = await claim(queue, 20)
        assert all(await asyncio.gather(*(finish(queue, job) for job in jobs[:10])))
        primary.lose()
    replica.promote()
    async with opened(settings.model_copy(update={"valkey_replicas": 0}), replica.url) as queue:
        statuses = await queue.statuses([f"job-{number}" for number in range(50)])
        counts = {one: statuses.count(one) for one in (JobStatus.FINISHED, JobStatus.STARTED, JobStatus.QUEUED)}
        assert counts == {JobStatus.FINISHED: 10, JobStatus.STARTED: 10, JobStatus.QUEUED: 30}
        assert all(await asyncio.gather(*(finish(queue, job) for job in jobs[10:])))


async def test_a_failover_by_sentinels_is_followed_without_a_restart(
    settings: Settings, pair: Pair, tmp_path: Path
) -> None:
    primary, replica = pair
    sentinel = Sentinel(tmp_path, primary)
    try:
        wait_until(sentinel.knows_replica, seconds=30, what="the Sentinel knows the replica")
        async with opened(settings.model_copy(update={"valkey_replicas": 0}), sentinel.url) as queue:
            await enqueue(queue, "a")
            waiting = retry_until_available(lambda: queue.wait("a", "default", timeout_seconds=60))
            ended = asyncio.create_task(waiting)
            (job,) = await claim(queue)
            primary.lose()
            await asyncio.to_thread(wait_until, replica.is_primary, seconds=30, what="the replica is promoted")
            assert await retry_until_available(lambda: finish(queue, job))
            done = await ended
            assert done
            assert done.status is JobStatus.FINISHED
    finally:
        sentinel.stop()


def test_a_replica_that_is_still_empty_is_not_promoted(tmp_path: Path) -> None:
    """As docs/how-to/high-availability.md says; with a priority the Sentinel would take it, and all would be lost."""
    primary, replica = ReplicatedValkey(tmp_path), ReplicatedValkey(tmp_path)
    primary.begin()
    sentinel = Sentinel(tmp_path, primary)
    try:
        with primary.connect() as connection:
            connection.set("a", 1)
            connection.config_set("repl-diskless-sync-delay", 60)  # it gets nothing yet
        replica.begin(primary)
        wait_until(sentinel.replicas, seconds=30, what="the Sentinel has seen the replica")
        with paused(primary):
            wait_until(
                lambda: sentinel.says("-failover-abort-no-good-slave"), seconds=30, what="it finds none to promote"
            )
        with primary.connect() as connection:
            connection.config_set("repl-diskless-sync-delay", 0)
        wait_until(replica.is_in_step, seconds=90, what="the replica has the data")
        replica.allow_promotion()
        wait_until(sentinel.knows_replica, seconds=30, what="the Sentinel may promote it")
        with primary.connect() as connection:
            assert connection.get("a") == "1"
    finally:
        for server in (sentinel, replica, primary):
            server.stop()


async def test_a_primary_that_became_a_replica_is_left(pair: Pair) -> None:
    primary, replica = pair
    client = ValkeyClient(primary.url)
    await client.call("SET", "a", 1)
    with primary.connect() as connection:
        connection.execute_command("REPLICAOF", "127.0.0.1", str(replica.port))
        with pytest.raises(exceptions.ResponseError, match="READONLY"):
            await client.call("SET", "a", 2)
        connection.execute_command("REPLICAOF", "NO", "ONE")
        await client.call("SET", "a", 3)
        assert b"age=0" in await client.call("CLIENT", "INFO")  # a new connection
    await client.close()


@contextlib.asynccontextmanager
async def sentinel_that_names(named: list[ReplicatedValkey]) -> AsyncIterator[str]:
    """A Sentinel that names the last of these servers, whatever that is; yields the URL."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await reader.read(1000):
            port = str(named[-1].port).encode()
            primary = b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%b\r\n" % (len(port), port)
            is_asked = b"get-master-addr-by-name" in request.lower()
            writer.write(primary if is_asked else b"+OK\r\n" * request.count(b"*"))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"valkey+sentinel://{host}:{port}/mymaster/0"


async def test_a_sentinel_that_names_a_replica_is_not_believed(steady: Pair) -> None:
    async with sentinel_that_names([steady[1]]) as url:
        client = ValkeyClient(url)
        with pytest.raises(exceptions.ConnectionError, match="not a primary"):
            await client.call("PING")
        await client.close()


async def test_all_connections_follow_to_the_primary_that_confirms_while_the_old_one_still_answers(
    settings: Settings, pair: Pair, tmp_path: Path
) -> None:
    old, new = pair
    named = [old]
    third = ReplicatedValkey(tmp_path)
    try:
        async with sentinel_that_names(named) as url, opened(settings, url) as queue:
            await enqueue(queue, "a")
            ended = asyncio.create_task(queue.wait("a", "default", timeout_seconds=30))
            assert (await state(queue, "a")).status is JobStatus.QUEUED
            await asyncio.to_thread(wait_until, lambda: users_of(old) == 3, what="all connections")
            new.promote()
            await asyncio.to_thread(third.start, new)
            with pytest.raises(UnavailableError):
                await enqueue(queue, "b")  # the old primary has no replica any more
            await queue.statuses(["a"])  # and is what the Sentinels still name
            named.append(new)
            assert await enqueue(queue, "b")
            assert (await state(queue, "b")).status is JobStatus.QUEUED
            await asyncio.to_thread(wait_until, lambda: users_of(old) == 0, what="nothing is connected")
            await finish(queue, (await claim(queue, 1))[0])
            done = await ended
            assert done
            assert done.status is JobStatus.FINISHED
    finally:
        third.stop()


def users_of(server: ReplicatedValkey) -> int:
    """How many connections it has, but for its replicas' and the one that asks."""
    with server.connect() as connection:
        return len(connection.client_list(_type="normal")) + len(connection.client_list(_type="pubsub")) - 1


def test_rqs_own_tools_ask_the_sentinels(steady: Pair, settings: Settings, tmp_path: Path) -> None:
    sentinel = Sentinel(tmp_path, steady[0])
    try:
        known = settings.model_copy(
            update={"valkey_url": SecretStr(sentinel.url), "database_url": SecretStr("postgresql://x/y")}
        )
        shown = run(str(Path(sys.executable).with_name("rq")), "info", env=environment(**worker_variables(known)))
        assert "workers" in shown.stdout, shown.stderr
    finally:
        sentinel.stop()
