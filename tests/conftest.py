"""Fixtures: real servers, once per test run, each in its own folder."""

from __future__ import annotations

import functools
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import httpcore2
import pytest

os.environ["RQ_KEY_PREFIX"] = "ragq"  # before RQ is imported, as `ragq env` does

from ragq.client.rq_client import JobQueue
from ragq.settings import Settings
from tests import servers
from tests.servers import Ragq, Valkey

LONG_FILES = (
    "test_drills",
    "test_tutorial",
    "test_workers",
    "test_batches",
    "test_up",
    "test_backup",
    "test_tool_calls",
    "test_reembed",
    "test_rolling_restart",
    "test_rules",
    "test_failover",
    "test_queue_model",
    "test_console",
)
# Each client of httpx2 and of the SDK would read all certificates of the system anew: 24 ms, often for a single request.
httpcore2.default_ssl_context = functools.cache(httpcore2.default_ssl_context)
# The parent process may ignore these signals, as nohup does, and every child of the tests would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what takes longest first, so that none of it is the last to run, alone: those files, then files of many tests."""
    folders = {Path(__file__).parent / name for name in ("integration", "fault")}
    if not {item.path.parent for item in items} <= folders:
        return
    tests = Counter(item.path for item in items)
    ranks = {name: rank for rank, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: (ranks.get(item.path.stem, len(ranks)), -tests[item.path]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show, with a test that fails, the end of the logs of the `ragq up` that it used."""
    report = yield
    if report.failed:
        for name, service in getattr(item, "funcargs", {}).items():
            if isinstance(service, Ragq):
                report.sections += [(f"the end of {path}, of {name}", end) for path, end in service.log_ends()]
    return report


@pytest.fixture(scope="session", autouse=True)
def _cluster_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let `Ragq` make one cluster for all its data folders, below the folder that pytest clears."""
    servers.cluster_folder = tmp_path_factory.mktemp("cluster") / "data"


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A durable Valkey for all tests; each test flushes it."""
    server = Valkey(tmp_path_factory.mktemp("v")).start()
    yield server
    server.stop()


@pytest.fixture
def settings() -> Settings:
    """Default settings, independent of the environment, with a short lease."""
    return Settings(_env_file=None, lease_seconds=1, heartbeat_seconds=0.3)


@pytest.fixture
async def queue(valkey: Valkey, settings: Settings) -> AsyncIterator[JobQueue]:
    """An empty queue."""
    with valkey.connect() as connection:
        connection.flushall()
    queue = JobQueue(settings, valkey.url)
    yield queue
    await queue.close()
