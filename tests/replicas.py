"""Valkey servers on ports, which can replicate each other, and Sentinels that watch them."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

from tests.servers import free_port, valkey_binary, wait_until

NAME = "mymaster"
DURABLE = ("--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction", "--save", "")
SENTINEL = """\
port {port}
dir {folder}
sentinel monitor {name} 127.0.0.1 {primary} 1
sentinel down-after-milliseconds {name} {down_ms}
sentinel failover-timeout {name} 3000
"""


class _Server:
    """A server process on a port of its own."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.folder = folder / str(self.port)
        self._process: subprocess.Popen[bytes] | None = None

    def connect(self) -> redis.Redis:
        return redis.Redis(port=self.port, socket_timeout=2, decode_responses=True)

    def _run(self, *arguments: str) -> None:
        with self.folder.with_suffix(".log").open("ab") as log:
            self._process = subprocess.Popen([valkey_binary(), *arguments], stdout=log, stderr=log)
        wait_until(self._answers, what="Valkey answers")

    def _answers(self) -> bool:
        with contextlib.suppress(redis.RedisError), self.connect() as connection:
            return bool(connection.ping())
        return False

    def pause(self) -> None:
        """Stop it where it is, so that its connections stay open and silent."""
        assert self._process
        self._process.send_signal(19)

    def resume(self) -> None:
        assert self._process
        self._process.send_signal(18)

    def kill(self) -> None:
        assert self._process
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        if self._process and self._process.poll() is None:
            self.kill()


class ReplicatedValkey(_Server):
    """A durable Valkey that is a primary, or the replica of another."""

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self, primary: ReplicatedValkey | None = None) -> ReplicatedValkey:
        """Start it and, for a replica, wait until it has all of the primary's data and may be promoted."""
        self.begin(primary)
        if primary:
            wait_until(self.is_in_step, seconds=30, what="the replica has the data")
            self.allow_promotion()
        return self

    def begin(self, primary: ReplicatedValkey | None = None) -> None:
        """Start it. A replica is not to be promoted yet: a Sentinel would take it while it is still empty."""
        self.folder.mkdir(exist_ok=True)
        follow = ("--replicaof", f"127.0.0.1 {primary.port}", "--replica-priority", "0") if primary else ()
        quick = ("--repl-diskless-sync-delay", "0")  # else a new replica waits 5 s for others that may come
        self._run("--port", str(self.port), "--dir", str(self.folder), *DURABLE, *quick, *follow)

    def allow_promotion(self) -> None:
        with self.connect() as connection:
            connection.config_set("replica-priority", 100)

    def is_in_step(self) -> bool:
        return self._info().get("master_link_status") == "up"

    def is_primary(self) -> bool:
        return self._info().get("role") == "master"

    def _info(self) -> dict[str, Any]:
        with contextlib.suppress(redis.RedisError), self.connect() as connection:
            found: dict[str, Any] = connection.info("replication")
            return found
        return {}

    def promote(self) -> None:
        with self.connect() as connection:
            connection.execute_command("REPLICAOF", "NO", "ONE")

    def lose(self) -> None:
        """Kill it and delete its disk."""
        self.kill()
        shutil.rmtree(self.folder)


class Sentinel(_Server):
    """A Sentinel that promotes the replica of a primary that does not answer for `down_ms`."""

    def __init__(self, folder: Path, primary: ReplicatedValkey, *, down_ms: int = 500) -> None:
        super().__init__(folder)
        self.folder.mkdir()
        config = self.folder / "sentinel.conf"
        config.write_text(
            SENTINEL.format(port=self.port, folder=self.folder, name=NAME, primary=primary.port, down_ms=down_ms)
        )
        self._run(str(config), "--sentinel")
        with self.connect() as connection:  # else it asks its servers what they are every 10 s
            connection.execute_command("SENTINEL", "DEBUG", "info-period", "500")

    @property
    def url(self) -> str:
        return f"valkey+sentinel://127.0.0.1:{self.port}/{NAME}/0"

    def says(self, event: str) -> bool:
        """Whether its log has this event."""
        return event in self.folder.with_suffix(".log").read_text()

    def knows_replica(self) -> bool:
        """Whether it knows a replica that it may promote."""
        return any(one["master-link-status"] == "ok" and one["slave-priority"] > 0 for one in self.replicas())

    def replicas(self) -> list[dict[str, Any]]:
        """What it says of the replicas that answer it."""
        with self.connect() as connection:
            found: list[dict[str, Any]] = connection.sentinel_slaves(NAME)
        return [one for one in found if "disconnected" not in one["flags"] and "down" not in one["flags"]]


@contextlib.contextmanager
def running_pair(folder: Path) -> Iterator[tuple[ReplicatedValkey, ReplicatedValkey]]:
    """A primary and its replica."""
    primary, replica = ReplicatedValkey(folder), ReplicatedValkey(folder)
    try:
        yield primary.start(), replica.start(primary)
    finally:
        primary.stop()
        replica.stop()
