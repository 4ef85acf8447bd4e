"""Searches on a read replica of PostgreSQL: what was committed before a search is found by it, whatever the replica does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretStr

from ragq.errors import TransientError, UnavailableError
from ragq.queues.running import WorkerContext
from ragq.settings import Settings
from ragq.storage.database import OTHER_MODEL, Database
from ragq.storage.search import replica as module
from tests.ingests import TENANT, attach, ingest, open_context
from tests.postgres_pair import Postgres, running_postgres_pair

VECTOR = np.eye(1, 384, dtype=np.float32)[0]
Pair = tuple[Postgres, Postgres]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with running_postgres_pair(tmp_path_factory.mktemp("pair")) as pair:
        yield pair


@pytest.fixture
async def context(
    pair: Pair, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[WorkerContext]:
    """The context of job functions of a worker that searches on the replica."""
    monkeypatch.setattr(module, "LEFT_SECONDS", 0.0)
    primary, replica = pair
    settings = settings.model_copy(update={"data_dir": tmp_path, "database_read_url": SecretStr(replica.url)})
    database = await Database.open(settings, primary.url, connections=1)
    await database.migrate(embedding_model=settings.embedding_name)
    await database.close()
    context = await open_context(settings, primary.url)
    yield context
    await context.close()


async def search(context: WorkerContext, word: str) -> set[str]:
    scope = await context.chunks.find_scope(TENANT, ["default"], word)
    return {found.filename for found in await context.chunks.search(scope, VECTOR, limit=50, meaning=0)}


async def add(context: WorkerContext, word: str) -> None:
    assert await ingest(context, await attach(context, f"The word is {word}.", filename=word)) == "completed"


def has_searched(server: Postgres) -> bool:
    """Whether a search was the last statement of one of the server's connections."""
    asked = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%<=>%'"
    return int(server.execute(f"{asked} AND pid <> pg_backend_pid()")[0][0]) > 0


async def chosen(context: WorkerContext) -> Database:
    """Where a search runs now."""

    async def name_it(server: Database) -> Database:
        return server

    return await context.chunks._servers.run(name_it)


async def until_chosen(context: WorkerContext) -> None:
    """Wait until searches run on the replica."""
    async with asyncio.timeout(30):
        while await chosen(context) is not context.replica:  # noqa: ASYNC110  (there is no event)
            await asyncio.sleep(0.05)


@contextlib.contextmanager
def silent(server: Postgres) -> Iterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()


async def test_a_file_is_found_as_soon_as_it_is_completed(context: WorkerContext) -> None:
    for number in range(20):
        await add(context, f"lantern{number}")
        assert f"lantern{number}" in await search(context, f"lantern{number}")


async def test_a_replica_that_has_all_of_it_is_searched(context: WorkerContext, pair: Pair) -> None:
    await add(context, "harbour")
    await until_chosen(context)
    assert "harbour" in await search(context, "harbour")
    assert has_searched(pair[1])


async def test_a_replica_that_is_behind_is_not_searched(context: WorkerContext, pair: Pair) -> None:
    pair[1].execute("SELECT pg_wal_replay_pause()")
    try:
        await add(context, "breakwater")
        assert await search(context, "breakwater") >= {"breakwater"}
        assert await chosen(context) is context.database
    finally:
        pair[1].execute("SELECT pg_wal_replay_resume()")


async def test_searches_go_on_without_the_replica_and_return_to_it(context: WorkerContext, pair: Pair) -> None:
    await add(context, "jetty")
    assert await search(context, "jetty") >= {"jetty"}
    pair[1].kill()
    try:
        assert await search(context, "jetty") >= {"jetty"}
    finally:
        pair[1].start()
    await until_chosen(context)


async def test_a_silent_replica_holds_no_search(context: WorkerContext, pair: Pair) -> None:
    await add(context, "mole")
    await until_chosen(context)
    with silent(pair[1]):
        async with asyncio.timeout(3):
            for _ in range(3):
                assert "mole" in await search(context, "mole")
    await until_chosen(context)


async def test_a_replica_that_falls_silent_in_a_search_does_not_take_the_searchs_time(
    context: WorkerContext, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUIET_SECONDS", 0.2)
    asked: list[Database] = []

    async def look(server: Database) -> dict[str, int] | None:
        if not asked:
            pair[1].pause()
        asked.append(server)
        return await server.for_all().row("SELECT 1 AS found")

    await until_chosen(context)
    try:
        async with asyncio.timeout(3):
            assert await context.chunks._servers.run(look) == {"found": 1}
    finally:
        pair[1].resume()
    assert asked == [context.replica, context.database]
    await until_chosen(context)


async def take_seconds(server: Database, seconds: float) -> Database:
    """A slow search, which tells where it ran."""
    await server.for_all().row("SELECT pg_sleep(%(seconds)s)", seconds=seconds)
    return server


async def test_a_search_that_takes_long_ends_on_the_replica_and_no_other_leaves_it(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUIET_SECONDS", 0.2)
    monkeypatch.setattr(module, "LEFT_SECONDS", 60.0)
    await until_chosen(context)
    slow = [asyncio.create_task(run_slowly(context, 2.5)) for _ in range(module.MOST_CONNECTIONS)]
    await asyncio.sleep(0.5)
    next_one = asyncio.create_task(chosen(context))  # when all connections for searches are in use
    assert {await one for one in slow} == {context.replica}
    assert await next_one is context.replica
    assert await chosen(context) is context.replica


async def test_a_search_that_waits_too_long_for_a_connection_takes_no_other_to_the_primary(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEFT_SECONDS", 60.0)
    await until_chosen(context)
    slow = [asyncio.create_task(run_slowly(context, 7)) for _ in range(module.MOST_CONNECTIONS)]
    await asyncio.sleep(0.5)
    assert await run_slowly(context, 0) is context.database
    assert {await one for one in slow} == {context.replica}
    assert await chosen(context) is context.replica


async def test_a_statement_that_takes_too_long_is_not_begun_again_on_the_primary(context: WorkerContext) -> None:
    asked: list[Database] = []

    async def look(server: Database) -> None:
        asked.append(server)
        async with server.for_all().connection() as connection, connection.transaction():
            await connection.execute("SET LOCAL statement_timeout = '0.1s'")
            await connection.execute("SELECT pg_sleep(10)")

    await until_chosen(context)
    with pytest.raises(TransientError):
        await context.chunks._servers.run(look)
    assert asked == [context.replica]


async def run_slowly(context: WorkerContext, seconds: float) -> Database:
    return await context.chunks._servers.run(lambda server: take_seconds(server, seconds))


async def test_that_the_embedding_model_was_changed_is_told_also_where_a_replica_is_searched(
    context: WorkerContext, pair: Pair
) -> None:
    await add(context, "pier")
    await until_chosen(context)
    pair[0].execute("ALTER TABLE chunks RENAME COLUMN embedding TO embedding_2")
    try:
        with pytest.raises(UnavailableError) as caught:
            await search(context, "pier")
        assert caught.value.code == OTHER_MODEL
    finally:
        pair[0].execute("ALTER TABLE chunks RENAME COLUMN embedding_2 TO embedding")
