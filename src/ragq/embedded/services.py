"""Supervise embedded Valkey and PostgreSQL in a data folder.

The data folder, closed to other users:
├── version.json    the version of ragq that used the folder last
├── lock            held with flock for the life of the owner; holds its pid
├── services.json   addresses (with the password) and processes of the owner
├── logs/           output of the servers, and log lines of the owner and its children
├── valkey/         append-only files, and the socket
└── postgresql/     cluster/ (cluster.partial until initdb has finished), its password, and the socket
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

import structlog

from ragq.embedded.processes import (
    Process,
    StopSteps,
    stop_processes,
)
from ragq.embedded.servers import (
    PostgreSQL,
    Server,
    Valkey,
    write_secret,
)
from ragq.embedded.stamp import check_folder
from ragq.errors import ConfigurationError, UnavailableError

log = structlog.get_logger(__name__)

SOCKET_PATH_BYTES = 100  # the system's limit is 107, on macOS 103
LOCK_SECONDS = 1.0  # a killed owner keeps its lock a moment longer
# At a second SIGTERM a worker hands its jobs back at once, and the API ends its streams.
CHILD_STOP: StopSteps = ((signal.SIGTERM, 0.1), (signal.SIGTERM, 3), (signal.SIGKILL, 5))
SERVER_STOP: dict[str, StopSteps] = {
    "PostgreSQL": ((signal.SIGINT, 20), (signal.SIGQUIT, 5), (signal.SIGKILL, 5)),
    "Valkey": ((signal.SIGTERM, 20), (signal.SIGKILL, 5)),
}


@dataclass(frozen=True, slots=True)
class Services:
    """Addresses of the servers in a data folder; None for a server that we do not run."""

    valkey_url: str | None
    database_url: str | None = field(repr=False)


@dataclass(slots=True)
class State:
    """The content of `services.json`. Paths to sockets begin with `home`: the data folder, or a short link to it."""

    data_dir: str
    home: str
    owner: Process
    services: Services | None = None  # None until the servers are ready
    processes: dict[str, Process] = field(default_factory=dict)

    @classmethod
    def read(cls, data_dir: Path) -> State | None:
        """Read the file; None if it is missing, damaged, or was copied with another data folder."""
        try:
            data = json.loads((data_dir / "services.json").read_text())
            processes = {name: Process(**process) for name, process in data.pop("processes").items()}
            services = Services(**found) if (found := data.pop("services")) else None
            state = cls(owner=Process(**data.pop("owner")), services=services, processes=processes, **data)
        except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):
            return None
        return state if state.data_dir == str(data_dir) else None

    def write(self) -> None:
        path = Path(self.data_dir, "services.json")
        path.with_suffix(".partial").unlink(missing_ok=True)
        write_secret(path.with_suffix(".partial"), json.dumps(asdict(self), indent=2))
        path.with_suffix(".partial").replace(path)

    def stop_all(self) -> None:
        """Stop all recorded processes: children first, since they need the servers to finish their work."""
        stop_processes([process for name, process in self.processes.items() if name not in SERVER_STOP], CHILD_STOP)
        for name, steps in SERVER_STOP.items():
            if name in self.processes:
                stop_processes([self.processes[name]], steps)
        if self.home != self.data_dir:
            shutil.rmtree(Path(self.home).parent, ignore_errors=True)


@contextmanager
def explain_os_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"The data folder cannot be used: {error}. Free its disk, run as the user who owns it, choose another "
            "with RAGQ_DATA_DIR, or set RAGQ_VALKEY_URL and RAGQ_DATABASE_URL to servers of yours."
        ) from error


class EmbeddedServices:
    """The servers of one data folder; they cannot be started again after `stop`.

    All methods except `cancel` block; they may be called from any thread.

    Args:
        valkey: Whether to run Valkey; False if one is configured.
        postgres: Whether to run PostgreSQL; False if one is configured.
    """

    def __init__(self, data_dir: Path, *, valkey: bool, postgres: bool) -> None:
        self._data_dir = data_dir.resolve()
        self._kinds = [kind for kind, wanted in ((Valkey, valkey), (PostgreSQL, postgres)) if wanted]
        self._servers: list[Server] = []
        self._state: State | None = None
        self._lock: int | None = None
        self._guard = threading.RLock()
        self._is_cancelled = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @explain_os_errors()
    def start(self) -> Services:
        """Stop the processes of a killed owner, start the servers and wait until they answer.

        Raises:
            ConfigurationError: Another process owns the folder, a binary is missing, or a server does not start.
        """
        with self._guard:
            try:
                return self._start()
            except BaseException:
                self.stop()
                raise

    @explain_os_errors()
    def take_over(self) -> None:
        """Become the owner of the folder and stop the processes of a killed owner; `start` calls it if needed.

        Raises:
            ConfigurationError: Another process owns the folder.
        """
        with self._guard:
            if self._is_cancelled:
                raise UnavailableError("The embedded servers were stopped: create a new EmbeddedServices.")
            if self._lock is not None:
                return
            self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self._data_dir / "logs").mkdir(mode=0o700, exist_ok=True)
            self._lock = take_lock(self._data_dir)
            if leftover := State.read(self._data_dir):
                leftover.stop_all()

    def _start(self) -> Services:
        self.take_over()
        check_folder(self._data_dir)
        home = make_home(self._data_dir)
        self._state = State(str(self._data_dir), str(home), Process.of(os.getpid()))
        self._state.write()
        self._servers = [kind(self._data_dir, home, lambda: self._is_cancelled) for kind in self._kinds]
        self._launch(self._servers)
        urls = {server.name: server.url for server in self._servers}
        self._state.services = Services(urls.get("Valkey"), urls.get("PostgreSQL"))
        self._state.write()
        return self._state.services

    @explain_os_errors()
    def check(self) -> list[str]:
        """Restart servers that have died, with the same data and addresses; returns their names.

        Raises:
            ConfigurationError: A server does not start; the next check tries again.
        """
        with self._guard:
            if self._state and self._state.home != self._state.data_dir:
                os.utime(self._state.home, follow_symlinks=False)  # or a cleaner of temporary files may remove it
            dead = [server for server in self._servers if not server.is_alive()]
            for server in dead:
                exit_code = server.process and server.process.returncode
                log.warning("server_died", server=server.name, exit_code=exit_code)
            self._launch(dead)
            return [server.name for server in dead]

    @explain_os_errors()
    def record(self, name: str, pid: int) -> None:
        """Record a child of the owner, so that `stop`, or the next start after a SIGKILL, stops it too.

        A child of the same name is replaced. Does nothing while the servers are not started.
        """
        with self._guard:
            if self._state:
                self._state.processes[name] = Process.of(pid)
                self._state.write()

    def cancel(self) -> None:
        """Make a waiting `start` or `check` raise UnavailableError; safe in a signal handler."""
        self._is_cancelled = True

    def stop(self) -> None:
        """Stop the recorded children, PostgreSQL and Valkey, in this order, and release the folder."""
        self.cancel()
        with self._guard:
            state, self._state = self._state, None
            servers, self._servers = self._servers, []
            lock, self._lock = self._lock, None
            try:
                if state:
                    log.info("stopping_servers", folder=str(self._data_dir))
                    state.stop_all()
                    for server in servers:
                        server.reap()
                        server.clear()
                    (self._data_dir / "services.json").unlink(missing_ok=True)
            finally:
                if lock is not None:
                    os.close(lock)

    def _launch(self, servers: list[Server]) -> None:
        for server in servers:
            server.launch()
            if server.process:
                self.record(server.name, server.process.pid)
        for server in servers:
            server.wait()


@explain_os_errors()
def read_services(data_dir: Path) -> Services:
    """Read the addresses of the servers that run in a folder.

    Raises:
        ConfigurationError: No servers run there, they are not ready yet, or the folder is another user's.
    """
    state = State.read(data_dir.resolve())
    if state is None or not state.owner.is_alive():
        raise ConfigurationError(
            f"No ragq runs in the data folder {data_dir.resolve()}. Start it with `ragq up`, set its folder in "
            "RAGQ_DATA_DIR, or set RAGQ_VALKEY_URL and RAGQ_DATABASE_URL."
        )
    if state.services is None:
        raise ConfigurationError(f"The servers in {data_dir} are still starting: try again when `ragq up` is ready.")
    return state.services


def take_lock(data_dir: Path) -> int:
    """Lock the folder; closing the returned descriptor unlocks it."""
    descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + LOCK_SECONDS
    while not try_lock(descriptor):
        if time.monotonic() > deadline:
            owner = os.pread(descriptor, 20, 0).decode().partition("\n")[0]
            os.close(descriptor)
            raise ConfigurationError(
                f"The data folder {data_dir} is in use by process {owner}. Stop that one, or choose another folder "
                "with RAGQ_DATA_DIR."
            )
        time.sleep(0.02)
    os.ftruncate(descriptor, os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0))
    return descriptor


def try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def make_home(data_dir: Path) -> Path:
    """The folder, or a short link to it if socket paths would be too long or have a comma (two hosts to libpq)."""
    if len(os.fsencode(data_dir / "postgresql" / ".s.PGSQL.5432")) <= SOCKET_PATH_BYTES and "," not in str(data_dir):
        return data_dir
    link = Path(tempfile.mkdtemp(prefix="ragq-"), "data")
    link.symlink_to(data_dir)
    return link
