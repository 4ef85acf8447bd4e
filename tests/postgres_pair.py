"""A PostgreSQL on a port of loopback and its streaming replica, which can be promoted."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

from ragq.embedded.binaries import choose_account, find_postgres
from ragq.embedded.processes import ENVIRONMENT, run_as
from tests.servers import free_port, wait_until

HERE = "/proc/self/cwd"  # the account may not be able to enter a parent of the folder
OPTIONS = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "io_method=sync", "max_wal_senders=5")
SIZES = ("--set", "shared_buffers=64MB")


class Postgres:
    """One of the servers."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.folder = folder / f"postgres-{self.port}"
        self.url = f"postgresql://ragq@127.0.0.1:{self.port}/ragq"
        self._account = choose_account(self.folder)
        self._binaries = find_postgres(self._account) / "bin"
        self._process: subprocess.Popen[bytes] | None = None

    def create(self) -> Postgres:
        """Make and start a new primary with our database."""
        self._run(
            "initdb",
            "--username",
            "ragq",
            "--auth",
            "trust",
            "--encoding",
            "UTF8",
            "--locale",
            "C",
            "--no-sync",
            *SIZES,
        )
        self.start()
        self.execute("CREATE DATABASE ragq", database="postgres")
        return self

    def follow(self, primary: Postgres) -> Postgres:
        """Make and start a replica of another."""
        source = f"host=127.0.0.1 port={primary.port} user=ragq application_name=replica"
        self._run("pg_basebackup", "--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--dbname", source)
        return self.start()

    def _run(self, program: str, *arguments: str) -> None:
        self.folder.mkdir(mode=0o700)
        if self._account:
            os.chown(self.folder, *self._account)
        command = [str(self._binaries / program), *arguments, "-D", HERE]
        subprocess.run(
            command, cwd=self.folder, env=ENVIRONMENT, check=True, capture_output=True, **run_as(self._account)
        )

    def start(self) -> Postgres:
        options = [part for option in (*OPTIONS, f"port={self.port}") for part in ("-c", option)]
        with (self.folder.parent / f"{self.folder.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._binaries / "postgres"), "-D", HERE, *options],
                cwd=self.folder,
                env=ENVIRONMENT,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **run_as(self._account),
            )
        wait_until(self._answers, seconds=30, what="PostgreSQL answers")
        return self

    def _answers(self) -> bool:
        with suppress(psycopg.OperationalError):
            return bool(self.execute("SELECT true", database="postgres"))
        return False

    def execute(self, statement: str, *, database: str = "ragq") -> list[Any]:
        url = f"postgresql://ragq@127.0.0.1:{self.port}/{database}"
        with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def commit_on_replica(self) -> None:
        """Let each commit wait until the replica has it on disk."""
        self.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.execute("SELECT pg_reload_conf()")
        wait_until(
            lambda: self.execute("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"),
            what="a synchronous replica",
        )

    def promote(self) -> None:
        self.execute("ALTER SYSTEM RESET synchronous_standby_names")
        assert self.execute("SELECT pg_promote()") == [(True,)]

    def kill(self) -> None:
        """SIGKILL the server and all its processes."""
        assert self._process
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def pause(self) -> None:
        """Stop all its processes where they are, so that its connections stay open and silent."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process
        server = self._process.pid
        os.kill(server, number)  # first, so that it begins no more processes
        for child in Path(f"/proc/{server}/task/{server}/children").read_text().split():
            os.kill(int(child), number)

    def stop(self) -> None:
        if self._process and self._process.poll() is None:
            self.kill()


@contextmanager
def running_postgres_pair(folder: Path) -> Iterator[tuple[Postgres, Postgres]]:
    """A primary and its replica."""
    primary, replica = Postgres(folder), Postgres(folder)
    try:
        primary.create()
        yield primary, replica.follow(primary)
    finally:
        primary.stop()
        replica.stop()


def url_of(kind: str, *servers: Postgres) -> str:
    """A URL that leads to whichever of the servers is `read-write` or `standby`."""
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    return f"postgresql://ragq@{hosts}/ragq?target_session_attrs={kind}"
