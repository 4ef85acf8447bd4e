"""Started once per process of the tests: a PostgreSQL, which each test finds empty; a fake LLM; and a whole `ragq up`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import openai
import pytest
import pytest_asyncio

from ragq.embedded.servers import POSTGRES_OPTIONS
from ragq.embedded.services import EmbeddedServices
from ragq.queues.running import WorkerContext
from ragq.settings import Settings
from ragq.storage.database import Database
from tests.ingests import open_context
from tests.oidc_provider import OidcProvider
from tests.parsers import sharing_parser
from tests.rows import empty_tables
from tests.servers import KEY, MAX_FILE_BYTES, FakeLlm, Ragq, give_cluster, stop
from tests.tenants import Caller

TABLES = "files vector_stores chunks responses jobs job_actions poison webhook_endpoints batches conversations".split()
HARBOUR = b"# Harbour\n\nThe lighthouse of Quorra is 61 metres tall.\n\n## Ferry\n\nThe ferry leaves at noon.\n"


@pytest.fixture(scope="session")
def database_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of the tests' PostgreSQL, which syncs no file: a thousand tests would wait for the disk, and none cuts the power."""
    folder = tmp_path_factory.mktemp("p") / "data"
    give_cluster(folder)
    services = EmbeddedServices(folder, valkey=False, postgres=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(POSTGRES_OPTIONS, "fsync", "off")
        url = services.start().database_url
    assert url
    yield url
    services.stop()


@pytest.fixture
async def database(database_url: str, settings: Settings) -> AsyncIterator[Database]:
    """A migrated database without rows."""
    database = await Database.open(settings, database_url, connections=4)
    await database.migrate(embedding_model=settings.embedding_name)
    async with database.for_all().connection() as connection:
        await empty_tables(connection, *TABLES)
    yield database
    await database.close()


@pytest.fixture
async def context(
    database: Database, database_url: str, settings: Settings, tmp_path: Path
) -> AsyncIterator[WorkerContext]:
    """The context of job functions, with an empty database and an empty blob store."""
    assert database
    context = await open_context(settings.model_copy(update={"data_dir": tmp_path}), database_url)
    yield context
    await context.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_parser() -> AsyncIterator[None]:
    """One parser for all tests of a file, whose event loop is one, too."""
    async with sharing_parser():
        yield


@pytest.fixture(scope="session")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeLlm]:
    """A fake LLM that answers at once."""
    with FakeLlm(tmp_path_factory.mktemp("llm")) as fake:
        yield fake


@pytest.fixture(scope="session")
def ragq(llm: FakeLlm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ragq]:
    """A service for all tests that need no settings of their own; its default store has two documents.

    What a test makes in it gets a name of its own. A test removes what others would meet: webhook endpoints, jobs that
    run on, thousands of files.
    """
    folder = tmp_path_factory.mktemp("ragq")
    service = Ragq(
        folder / "data",
        RAGQ_API_KEY=KEY,
        RAGQ_LLM_BASE_URL=llm.base_url,
        RAGQ_LLM_MODEL="fake/model",
        RAGQ_LLM_TRIES=1,
        RAGQ_MAX_FILE_BYTES=MAX_FILE_BYTES,
        RAGQ_WEBHOOK_ALLOWED_HOSTS="127.0.0.1, hooks.test",
    ).start()
    (folder / "harbour.md").write_text("The lighthouse of Quorra is 61 metres tall.\n")
    (folder / "ferry.md").write_text("The ferry to Quorra leaves at noon.\n")
    done = service.run("ingest", str(folder / "harbour.md"), str(folder / "ferry.md"))
    assert done.returncode == 0, done.stderr
    yield service
    assert service.stop() == 0


@pytest.fixture(scope="session")
def plain_ragq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ragq]:
    """A service without a key and without an LLM, as most people try it."""
    service = Ragq(tmp_path_factory.mktemp("plain") / "data").start()
    yield service
    assert service.stop() == 0


@pytest.fixture(scope="session")
def root(plain_ragq: Ragq) -> Iterator[Caller]:
    """The operator, at an API process with a key, beside the plain service."""
    api, url = plain_ragq.spawn_api(RAGQ_API_KEY=KEY)
    yield Caller(url, KEY)
    stop(api)


@pytest.fixture(scope="session")
def http(ragq: Ragq) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=ragq.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60) as session:
        yield session


@pytest.fixture(scope="session")
def client(ragq: Ragq) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{ragq.url}/v1", api_key=KEY, max_retries=0) as sdk:
        yield sdk


@pytest.fixture
async def async_client(ragq: Ragq) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{ragq.url}/v1", api_key=KEY, max_retries=0) as sdk:
        yield sdk


@pytest.fixture(scope="session")
def store_id(client: openai.OpenAI) -> str:
    """A store with one document of two sections."""
    store = client.vector_stores.create(name="harbour")
    client.vector_stores.files.upload_and_poll(vector_store_id=store.id, file=("harbour.md", HARBOUR))
    return store.id


@pytest.fixture(scope="module")
def running_provider() -> Iterator[OidcProvider]:
    """An OpenID provider for the tests of a file."""
    with OidcProvider() as provider:
        yield provider


@pytest.fixture
def provider(running_provider: OidcProvider) -> OidcProvider:
    """The provider, which does nothing wrong yet."""
    running_provider.set()
    return running_provider
