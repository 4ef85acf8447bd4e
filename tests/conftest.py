"""Fixtures: real servers, once per run of the tests, each in a folder of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator

import pytest

os.environ["RQ_KEY_PREFIX"] = "ragq"  # before RQ is imported, as `ragq env` does

from ragq.client.rq_client import JobQueue
from ragq.settings import Settings
from tests.servers import Valkey

# What starts the tests may ignore these, as nohup does, and every process of theirs would ignore them too.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A durable Valkey for all tests; each test flushes it."""
    server = Valkey(tmp_path_factory.mktemp("v")).start()
    yield server
    server.stop()


@pytest.fixture
def settings() -> Settings:
    """Settings at their defaults, whatever the environment says, but for a short lease."""
    return Settings(_env_file=None, lease_seconds=1, heartbeat_seconds=0.3)


@pytest.fixture
async def queue(valkey: Valkey, settings: Settings) -> AsyncIterator[JobQueue]:
    """An empty queue."""
    with valkey.connect() as connection:
        connection.flushall()
    queue = JobQueue(settings, valkey.url)
    yield queue
    await queue.close()
