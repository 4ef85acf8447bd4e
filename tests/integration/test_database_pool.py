"""The pool of connections to PostgreSQL."""

from __future__ import annotations

import asyncio
import time

import psycopg
import pytest
from psycopg import conninfo

from ragq.settings import Settings
from ragq.storage import database as module
from ragq.storage.database import Database

NAME = "a-pool-that-rests"


def count(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", [NAME]).fetchone()
        assert row
        return int(row[0])


async def test_a_pool_gives_back_connections_after_a_crowd_and_opens_them_for_the_next(
    database_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert module.SURPLUS_SECONDS < 60
    monkeypatch.setattr(module, "SURPLUS_SECONDS", 0.2)
    database = await Database.open(settings, conninfo.make_conninfo(database_url, application_name=NAME), connections=4)
    try:

        async def use() -> None:
            async with database.for_all().connection() as connection:
                await connection.execute("SELECT pg_sleep(0.4)")

        for _ in range(2):
            await asyncio.gather(*(use() for _ in range(4)))
            deadline = time.monotonic() + 15
            while (left := await asyncio.to_thread(count, database_url)) > 1:
                assert time.monotonic() < deadline, left
                await asyncio.sleep(0.05)
        await use()
    finally:
        await database.close()
