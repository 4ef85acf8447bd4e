"""A real PostgreSQL, once per test run and emptied for each test, and a fake LLM."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from ragq.embedded.services import EmbeddedServices, read_services
from ragq.queues.worker import Clients
from ragq.settings import Settings
from ragq.storage.database import Database
from tests.ingests import open_clients
from tests.servers import FakeLlm


@pytest.fixture(scope="session")
def database_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of the tests' PostgreSQL."""
    folder = tmp_path_factory.mktemp("p") / "data"
    with EmbeddedServices(folder, valkey=False, postgres=True):
        url = read_services(folder).database_url
        assert url
        yield url


@pytest.fixture
async def database(database_url: str, settings: Settings) -> AsyncIterator[Database]:
    """A migrated database without rows."""
    database = await Database.open(settings, database_url, connections=4)
    await database.migrate(embedding_model=settings.embedding_name)
    async with database.connection() as connection:
        tables = "files, vector_stores, chunks, responses, poison, webhook_endpoints, batches"
        await connection.execute(f"TRUNCATE {tables} CASCADE")
    yield database
    await database.close()


@pytest.fixture
async def clients(database: Database, database_url: str, settings: Settings, tmp_path: Path) -> AsyncIterator[Clients]:
    """The clients of job functions, with an empty database and an empty blob store."""
    assert database
    clients = await open_clients(settings.model_copy(update={"data_dir": tmp_path}), database_url)
    yield clients
    await clients.close()


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeLlm]:
    """A fake LLM that answers at once."""
    fake = FakeLlm(tmp_path_factory.mktemp("llm"))
    yield fake
    fake.stop()
