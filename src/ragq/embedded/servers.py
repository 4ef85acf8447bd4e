"""Configure, start and restart Valkey and PostgreSQL as our own processes."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import structlog

from ragq.embedded.binaries import (
    choose_account,
    find_postgres,
    find_valkey,
)
from ragq.embedded.processes import (
    LINUX,
    kill_strays,
    spawn,
)
from ragq.errors import ConfigurationError, UnavailableError

log = structlog.get_logger(__name__)

START_LIMIT_SECONDS = 900.0  # a large append-only file or a long crash recovery takes minutes
PROGRESS_SECONDS = 5.0
LOG_LIMIT_BYTES = 10_000_000
CONTAINER_MEMORY = Path("/sys/fs/cgroup/memory.max")
VALKEY_OPTIONS = {
    "port": "0",
    "unixsocket": "valkey.sock",
    "unixsocketperm": "700",
    "appendonly": "yes",
    "appendfsync": "always",
    "save": "",
    "maxmemory-policy": "noeviction",
}
# Set at every start: these keep the server private and its commits safe.
POSTGRES_OPTIONS = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_directories": "..",  # relative to the cluster, the server's working directory
    "unix_socket_permissions": "0700",
    "fsync": "on",
    "synchronous_commit": "on",
    "log_lock_waits": "on",  # a statement that stands still says for whom
}
# Written once, by initdb; `ALTER SYSTEM` may change them. Parallel queries are off, since they need a large /dev/shm.
POSTGRES_SIZES = {
    "max_connections": "100",
    "shared_buffers": "256MB",
    "wal_buffers": "2MB",  # the WAL writer soon touches all of them; by default they are 8 MB
    "work_mem": "8MB",
    "maintenance_work_mem": "128MB",
    "max_parallel_workers": "2",
    "max_parallel_workers_per_gather": "0",
    "max_parallel_maintenance_workers": "0",
    "jit": "off",
    "io_method": "sync",  # most reads hit memory, where I/O workers cost more
    "io_max_concurrency": "8",  # reads at once of a process, which with `sync` is one; room for 64 would take 6 MB
    "max_logical_replication_workers": "0",  # or a process waits for subscriptions, of which there are none
}


class Server(ABC):
    """A server process of ours."""

    name: str
    setting: str  # the variable that selects another server instead
    leftovers: tuple[str, ...]  # files of a killed server to delete before the next start
    process: subprocess.Popen[bytes] | None = None

    def __init__(self, data_dir: Path, home: Path, is_cancelled: Callable[[], bool]) -> None:
        self.is_cancelled = is_cancelled
        self.folder = data_dir / self.name.lower()
        self.home = home / self.name.lower()
        self.log_path = data_dir / "logs" / f"{self.name.lower()}.log"
        self.log_start = 0
        self.launched_at = 0.0

    @property
    @abstractmethod
    def url(self) -> str:
        """URL for clients."""

    @abstractmethod
    def spawn(self, log_descriptor: int) -> subprocess.Popen[bytes]:
        """Start the process, with its output in the log."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether the server answers."""

    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def reap(self) -> None:
        """Wait for the stopped process; its threads may need a moment longer."""
        if self.process:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=5)

    def launch(self) -> None:
        """Start the process, after the previous one in its folder has ended."""
        log.info("starting_server", server=self.name, folder=str(self.folder))
        self.launched_at = time.monotonic()
        self.clear()
        if self.log_path.exists() and self.log_path.stat().st_size > LOG_LIMIT_BYTES:
            self.log_path.replace(self.log_path.with_suffix(".log.1"))
        descriptor = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self.log_start = os.fstat(descriptor).st_size
            self.process = self.spawn(descriptor)
        finally:
            os.close(descriptor)

    def clear(self) -> None:
        """Remove the processes and files of a dead server."""
        kill_strays(self.folder)
        for pattern in self.leftovers:
            for path in self.folder.glob(pattern):
                path.unlink()

    def wait(self) -> None:
        """Wait until the server answers.

        Raises:
            ConfigurationError: The server stopped or did not answer in time.
            UnavailableError: `cancel` was called.
        """
        report_at = self.launched_at + PROGRESS_SECONDS
        while not self.is_ready():
            seconds = time.monotonic() - self.launched_at
            if not self.is_alive():
                raise self.failure("stopped while starting", self.log_tail())
            if seconds > START_LIMIT_SECONDS:
                raise self.failure(f"did not answer within {seconds:.0f} s", self.log_tail())
            if time.monotonic() > report_at:
                report_at += PROGRESS_SECONDS
                last_line = self.log_tail().rpartition("\n")[2]
                log.info("waiting_for_server", server=self.name, seconds=round(seconds), says=last_line)
            self.check_cancelled()
            time.sleep(0.01)
        log.info("server_ready", server=self.name, seconds=round(time.monotonic() - self.launched_at, 2))

    def check_cancelled(self) -> None:
        if self.is_cancelled():
            raise UnavailableError(f"{self.name} is not started: ragq is stopping.")

    def log_tail(self) -> str:
        """The end of the server's log since its last start."""
        with self.log_path.open("rb") as file:
            file.seek(max(self.log_start, self.log_path.stat().st_size - 2000))
            return file.read().decode(errors="replace").strip()

    def failure(self, what: str, output: str) -> ConfigurationError:
        return ConfigurationError(
            f"{self.name} {what}. Is the disk full, or {self.folder} damaged? Fix that, or set {self.setting} "
            f"to a server of yours. The end of its log ({self.log_path}):\n{output}"
        )


class Valkey(Server):
    """Valkey on a socket; each write is on disk before it is acknowledged."""

    name = "Valkey"
    setting = "RAGQ_VALKEY_URL"
    leftovers = ("valkey.sock", "temp-*")  # temp-*: from an interrupted rewrite

    def __init__(self, data_dir: Path, home: Path, is_cancelled: Callable[[], bool]) -> None:
        super().__init__(data_dir, home, is_cancelled)
        self.binary = find_valkey()

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self.home))}/valkey.sock?db=0"

    def spawn(self, log_descriptor: int) -> subprocess.Popen[bytes]:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        options = {
            **VALKEY_OPTIONS,
            "maxmemory": str(memory_bytes() // 2),
        }  # a rewrite may need the other half for its copy
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        return spawn([str(self.binary), *arguments], self.folder, None, log_descriptor)

    def is_ready(self) -> bool:
        """Whether the reply to PING is PONG, not LOADING."""
        with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
            client.settimeout(2)
            client.connect(str(self.home / "valkey.sock"))
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith(b"+PONG")
        return False


class PostgreSQL(Server):
    """PostgreSQL with pgvector on a socket; never run as root, which it refuses.

    Its account may not be able to enter a parent of the data folder. So we start it in the cluster's folder, with paths
    relative to it.
    """

    name = "PostgreSQL"
    setting = "RAGQ_DATABASE_URL"
    leftovers = (".s.PGSQL.*", "cluster/postmaster.pid")  # a pid in them may belong to another process by now

    def __init__(self, data_dir: Path, home: Path, is_cancelled: Callable[[], bool]) -> None:
        super().__init__(data_dir, home, is_cancelled)
        self.cluster = self.folder / "cluster"
        self.account = choose_account(self.folder)
        self.binaries = find_postgres(self.account) / "bin"

    @property
    def url(self) -> str:
        password = (self.folder / "password").read_text()
        return f"postgresql://ragq:{password}@/ragq?host={quote(str(self.home), safe='')}&port=5432"

    def spawn(self, log_descriptor: int) -> subprocess.Popen[bytes]:
        if not self.cluster.exists():
            self.create_cluster(log_descriptor)
        arguments = [part for name, value in POSTGRES_OPTIONS.items() for part in ("-c", f"{name}={value}")]
        return self.spawn_in(self.cluster, ["postgres", *arguments], log_descriptor)

    def spawn_in(
        self, cluster: Path, command: list[str], log_descriptor: int, stdin: int = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        """Start a program of PostgreSQL in the cluster's folder, by a path that its account can open."""
        program, *arguments = command
        name = "/proc/self/cwd" if self.account else str(cluster)
        return spawn(
            [str(self.binaries / program), *arguments, "-D", name], cluster, self.account, log_descriptor, stdin
        )

    def create_cluster(self, log_descriptor: int) -> None:
        """Create the cluster and our database in a folder of another name: what has the cluster's name is complete.

        The server itself creates the database, in single-user mode. A client would stay in the supervisor's memory.
        """
        partial = self.folder / "cluster.partial"
        password = self.folder / "password"
        shutil.rmtree(partial, ignore_errors=True)
        password.unlink(missing_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        partial.mkdir(mode=0o700)
        write_secret(password, secrets.token_urlsafe(32))
        if self.account:
            for path in (self.folder, partial, password):
                os.chown(path, *self.account)
        command = [
            *("initdb", "--username", "ragq", "--pwfile", "../password", "--auth", "scram-sha-256"),
            *("--encoding", "UTF8", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--locale", "C"),
            *("--lc-ctype", "C.UTF-8" if LINUX else "en_US.UTF-8"),  # with C, full-text search treats “—” as a letter
            *(part for option, value in POSTGRES_SIZES.items() for part in ("--set", f"{option}={value}")),
        ]
        self.set_up(partial, command, log_descriptor)
        single = ["postgres", "--single", "-c", "exit_on_error=on", "template1"]
        self.set_up(partial, single, log_descriptor, b"CREATE DATABASE ragq\n")
        partial.rename(self.cluster)
        sync_folders(self.folder, self.folder.parent)

    def set_up(self, cluster: Path, command: list[str], log_descriptor: int, statement: bytes = b"") -> None:
        """Run a program of PostgreSQL to its end, with a statement as its standard input.

        Raises:
            ConfigurationError: It failed.
            UnavailableError: `cancel` was called.
        """
        with self.spawn_in(cluster, command, log_descriptor, subprocess.PIPE) as program:
            assert program.stdin
            try:
                with suppress(BrokenPipeError), program.stdin:  # it has ended: its exit code tells
                    program.stdin.write(statement)
                while program.poll() is None:
                    self.check_cancelled()
                    time.sleep(0.01)
                if program.returncode != 0:
                    raise self.failure("could not be set up", self.log_tail())
            finally:
                program.kill()

    def is_ready(self) -> bool:
        """Whether the server accepts connections, by its status file."""
        try:
            lines = (self.cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return self.process is not None and lines[:1] == [str(self.process.pid)] and lines[7:] == ["ready   "]


def memory_bytes() -> int:
    """Memory of this machine, or the limit of its container."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):  # no such file, or "max"
        return min(machine, int(CONTAINER_MEMORY.read_text()))
    return machine


def sync_folders(*folders: Path) -> None:
    """Sync folders to disk, so that a power cut cannot undo new names in them."""
    for folder in folders:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_secret(path: Path, text: str) -> None:
    """Write a new file that only we can read, synced to disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
