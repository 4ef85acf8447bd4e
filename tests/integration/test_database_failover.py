"""The primary of PostgreSQL is lost, and its replica promoted: one URL leads to whichever takes writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from ragq.errors import UnavailableError
from ragq.settings import Settings
from ragq.storage.database import Database
from ragq.storage.tenancy import access
from tests.postgres_pair import Postgres, running_postgres_pair, url_of

Pair = tuple[Postgres, Postgres]
CONNECTIONS = 5


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with running_postgres_pair(tmp_path) as pair:
        pair[0].execute("CREATE TABLE notes (id int PRIMARY KEY)")
        pair[0].commit_on_replica()
        yield pair


@pytest.fixture
async def database(pair: Pair, settings: Settings) -> AsyncIterator[Database]:
    database = await Database.open(settings, url_of("read-write", *pair), connections=CONNECTIONS)
    await asyncio.gather(*(database.for_all().row("SELECT pg_sleep(0.05)") for _ in range(CONNECTIONS)))  # all are open
    yield database
    await database.close()


async def write(database: Database, number: int) -> None:
    """Write until it is acknowledged, as a client does that gets a 503."""
    while True:
        try:
            await database.for_all().row(
                "INSERT INTO notes VALUES (%(id)s) ON CONFLICT (id) DO NOTHING RETURNING id", id=number
            )
        except UnavailableError:
            await asyncio.sleep(0.1)
        else:
            return


async def test_reads_wait_for_the_new_primary_and_no_acknowledged_write_is_lost(pair: Pair, database: Database) -> None:
    for number in range(50):
        await write(database, number)
    pair[0].kill()
    reads = [
        asyncio.create_task(database.for_all().row("SELECT count(*) AS notes FROM notes"))
        for _ in range(2 * CONNECTIONS)
    ]
    writes = [asyncio.create_task(write(database, number)) for number in range(50, 60)]
    await asyncio.to_thread(pair[1].promote)
    for found in await asyncio.gather(*reads):
        assert found
        assert found["notes"] >= 50
    await asyncio.gather(*writes)
    assert pair[1].execute("SELECT count(*), sum(id) FROM notes") == [(60, sum(range(60)))]


async def test_without_a_primary_a_read_fails_after_a_bounded_wait_and_one_in_a_transaction_at_once(
    pair: Pair, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "READ_AGAIN_SECONDS", 0.5)

    async def lose_the_primary_in_a_transaction() -> None:
        async with database.transaction():
            await database.for_all().row("SELECT 1 AS one")
            pair[0].kill()
            await database.for_all().row("SELECT 1 AS one")

    async with asyncio.timeout(20):
        with pytest.raises(UnavailableError):
            await lose_the_primary_in_a_transaction()
        with pytest.raises(UnavailableError) as failure:
            await database.for_all().row("SELECT 1 AS one")
    assert failure.value.code == "database_unavailable"
