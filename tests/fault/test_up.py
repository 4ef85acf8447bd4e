"""`ragq up` while it starts: told to stop at any moment, without what it needs, and killed with its cleaner."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from tests.servers import Ragq, Valkey, command, environment, free_port, processes_in, wait_until

STOP_SECONDS = 20  # 2 on a machine with nothing else to do; a start that ignores the signal goes on for longer
CAUSE_SECONDS = 40


class Start:
    """A `ragq up` that may never be ready; nothing of it may be left."""

    def __init__(self, folder: Path, *arguments: str, **variables: object) -> None:
        self.folder = folder
        self._log = folder / "up.log"
        self._log.write_bytes(b"")
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                command("up", "--port", "0", *arguments),
                env=environment(RAGQ_DATA_DIR=folder / "d", **variables),
                cwd=folder,
                stdout=log,
                stderr=log,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def last_words(self) -> str:
        """Wait until it has failed; returns the message with which it ended."""
        assert self.process.wait(CAUSE_SECONDS) in (1, 3)
        _, named, last = self.log.rpartition("ragq: ")
        assert named
        return last

    def children(self) -> dict[str, int]:
        try:
            state = json.loads((self.folder / "d" / "services.json").read_text())
        except (OSError, ValueError):
            return {}
        return {name: one["pid"] for name, one in state["processes"].items()}


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a `ragq up` has run."""
    folder = tmp_path_factory.mktemp("up")
    Ragq(folder / "d", "--query-workers", "0", "--document-workers", "0").start().stop()
    return folder


@pytest.fixture(autouse=True)
def _nothing_left(used: Path, tmp_path: Path) -> Iterator[None]:
    yield
    left = processes_in(used) + processes_in(tmp_path)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


MOMENTS: dict[str, Callable[[Start], object]] = {
    "at once": lambda _: True,
    "when a server starts": lambda start: "starting_server" in start.log,
    "when PostgreSQL starts": lambda start: "PostgreSQL" in start.children(),
    "when it migrates": lambda start: "server_ready" in start.log.rpartition("PostgreSQL")[0],
    "when the API starts": lambda start: "api" in start.children(),
    "when a worker loads its model": lambda start: "worker_started" in start.log,
}


@pytest.mark.parametrize(
    ("moment", "number"),
    [(moment, signal.SIGTERM) for moment in MOMENTS] + [("when the API starts", signal.SIGINT)],
)
def test_a_signal_during_the_start_ends_it_soon(used: Path, moment: str, number: signal.Signals) -> None:
    start = Start(used)
    wait_until(lambda: MOMENTS[moment](start), seconds=40, what=moment)
    start.process.send_signal(number)
    assert start.process.wait(STOP_SECONDS) != 0
    assert "Traceback" not in start.log or moment == "at once"


def test_a_signal_while_the_cluster_is_made_ends_it_soon(tmp_path: Path) -> None:
    start = Start(tmp_path)
    wait_until((tmp_path / "d" / "postgresql" / "cluster.partial" / "global").exists, seconds=40)
    start.process.terminate()
    assert start.process.wait(STOP_SECONDS) != 0


def test_a_signal_while_the_api_does_not_answer_ends_it_soon(used: Path) -> None:
    start = Start(used)
    wait_until(lambda: "api" in start.children(), seconds=40)
    os.kill(start.children()["api"], signal.SIGSTOP)
    start.process.terminate()
    assert start.process.wait(STOP_SECONDS) != 0


def test_a_signal_while_postgresql_is_waited_for_ends_it_soon(tmp_path: Path) -> None:
    start = Start(tmp_path, RAGQ_DATABASE_URL=f"postgresql://nobody@127.0.0.1:{free_port()}/none")
    wait_until(lambda: "waiting_for_service" in start.log, seconds=40)
    start.process.terminate()
    assert start.process.wait(STOP_SECONDS) != 0
    assert "stopped before" in start.log


@pytest.mark.parametrize(
    ("variables", "cause"),
    [
        ({"RAGQ_EMBEDDING_DIMENSIONS": "512"}, "The database has vectors of all-MiniLM-L6-v2 (384 dimensions)"),
        ({"RAGQ_BLOB_URL": "nonsense://bucket"}, "ended with code"),
        ({"RAGQ_METRICS_PORT": "1", "RAGQ_METRICS_HOST": "192.0.2.1"}, "worker 1 ended with code 1"),
    ],
    ids=["other facts", "no such blob store", "a worker that cannot start"],
)
def test_a_start_that_cannot_succeed_ends_with_its_cause(used: Path, variables: dict[str, str], cause: str) -> None:
    assert cause in Start(used, **variables).last_words()


def test_a_start_without_a_configured_server_ends_with_its_name(used: Path, tmp_path: Path) -> None:
    starts = {
        "PostgreSQL does not answer": Start(used, RAGQ_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none"),
        "Valkey did not confirm the command": Start(tmp_path, RAGQ_VALKEY_URL="redis://127.0.0.1:1/0"),
    }
    for cause, start in starts.items():
        assert cause in start.last_words()


def test_an_unsafe_valkey_ends_the_start_with_its_cause(used: Path, tmp_path: Path) -> None:
    valkey = Valkey(tmp_path).start()
    try:
        with valkey.connect() as connection:
            connection.config_set("maxmemory-policy", "allkeys-lru")
        assert "maxmemory-policy" in Start(used, RAGQ_VALKEY_URL=valkey.url).last_words()
    finally:
        valkey.stop()


def test_a_port_in_use_is_refused_with_the_name_of_its_holder(used: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        start = Start(used, "--port", str(holder.getsockname()[1]))
        assert start.process.wait(CAUSE_SECONDS) == 1
        assert f"process {os.getpid()}" in start.log
        assert "starting_server" not in start.log


def test_up_is_up_when_its_worker_has_loaded_the_model_and_ends_with_its_terminal(used: Path) -> None:
    service = Ragq(used / "d").start()
    try:
        workers = httpx2.get(f"{service.url}/status").json()["workers"]
        (worker,) = [one for one in workers if one["queues"] == ["queries"]]
        assert worker["ready"]
        assert "onnxruntime" in Path(f"/proc/{worker['pid']}/maps").read_text()
        assert "worker_ready" in service.log()
        os.kill(service.pid, signal.SIGHUP)
    finally:
        assert service.wait() == 0


def test_nothing_is_left_when_up_and_its_cleaner_are_killed_but_the_servers(used: Path) -> None:
    service = Ragq(used / "d").start()
    pids = service.pids
    children = Path(f"/proc/{service.pid}/task/{service.pid}/children").read_text().split()
    (cleaner,) = {int(child) for child in children} - set(pids.values())
    os.kill(cleaner, signal.SIGKILL)
    service.kill()
    ragq = [pid for name, pid in pids.items() if name not in ("Valkey", "PostgreSQL")]
    assert len(ragq) == 3
    wait_until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in ragq), what="the children are gone")
    service.start()  # stops the servers
    assert service.stop() == 0


def test_nothing_is_left_when_up_is_killed_even_if_it_is_not_started_again(used: Path) -> None:
    service = Ragq(used / "d").start()
    pids = service.pids
    service.kill()
    wait_until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in pids.values()), what=f"{pids} are gone")
    assert "owner_was_killed" in service.log()
    wait_until(lambda: not processes_in(used), what="the cleaner is gone")
