"""The service for a drill, in processes: Valkey, PostgreSQL, the fake LLM, `ragq up` with the API, and workers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import httpx2

from ragq.embedded.services import EmbeddedServices
from tests.servers import FakeLlm, Valkey, command, environment, free_port, wait_until

FINAL = {"completed": "finished", "incomplete": "finished", "failed": "failed", "cancelled": "cancelled"}
READY = b"worker_started"  # after this it claims; `worker_ready` follows when its embedding model is loaded
UP = b"ragq is up: "
LIFTED = 1_000_000  # deaths before quarantine, for drills that must not quarantine
START_SECONDS = 60
POLL_SECONDS = 0.15


@dataclass
class Worker:
    """A worker process; it sends its name as the model to the LLM, so that the witness shows which worker ran a job."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    started_at: float = field(default_factory=time.time)
    killed_at: float | None = None

    def kill(self) -> None:
        """SIGKILL the worker and, for stock RQ, its work horse, as when a machine is lost."""
        for horse in _children(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(horse, 9)
        self.killed_at = time.time()
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def events(self, *names: str) -> list[dict[str, Any]]:
        """The lines of its log with one of these events."""
        lines = self.log.read_text(errors="replace").splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [line for line in found if line.get("event") in names]

    def is_ready(self) -> bool:
        return READY in self.log.read_bytes()

    def ready_seconds(self) -> float | None:
        """Seconds from its start to `worker_started`; None if it was never ready."""
        for line in self.events(READY.decode()):
            return datetime.fromisoformat(line["timestamp"]).timestamp() - self.started_at
        return None


def is_ready(url: str) -> bool:
    """Whether an API process is ready."""
    with contextlib.suppress(httpx2.TransportError):
        return httpx2.get(f"{url}/readyz").status_code == 200
    return False


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


class Stage:
    """The processes of one drill; `with` starts all but the workers, and stops everything.

    Args:
        folder: An empty folder with a short path, for sockets.
        latency: Seconds of an LLM call.
        settings: Variables of the API and of the workers.
        valkey: Servers instead of one Valkey on a socket.
        database_url: A PostgreSQL instead of an embedded one.
    """

    prefix = "ragq"

    def __init__(
        self,
        folder: Path,
        *,
        latency: float = 0.5,
        settings: Mapping[str, object] | None = None,
        valkey: Valkey | None = None,
        database_url: str | None = None,
    ) -> None:
        self.folder = folder
        self.valkey = valkey or Valkey(folder)
        self.workers: list[Worker] = []  # workers that should be alive
        self.past: list[Worker] = []
        self.exits: list[str] = []  # of workers that were ready
        self.failed_starts: list[str] = []
        self._database_url = database_url
        self._latency, self._settings = latency, settings or {}
        self._number = 0
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self._closing.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def _open(self) -> None:
        self.valkey.start()
        self._closing.callback(self.valkey.stop)
        database_url = self._database_url
        if database_url is None:
            services = EmbeddedServices(self.folder / "servers", valkey=False, postgres=True)
            self._closing.callback(services.stop)
            database_url = services.start().database_url
        self.llm = FakeLlm(self.folder, latency=self._latency)
        self._closing.callback(self.llm.stop)
        self._closing.callback(self.stop_workers)
        self.environment = environment(
            RAGQ_DATA_DIR=self.folder / "data",
            RAGQ_VALKEY_URL=self.valkey.url,
            RAGQ_DATABASE_URL=database_url,
            RAGQ_LLM_BASE_URL=self.llm.base_url,
            RAGQ_LLM_MODEL="api",
            RAGQ_LOG_FORMAT="json",
            **self._settings,
        )
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)  # so that starts are measured as in an installation
        subprocess.run(command("migrate"), env=self.environment, cwd=self.folder, check=True, capture_output=True)
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        try:
            self.start_supervisor()
        finally:
            self._closing.callback(self.stop_supervisor)

    def stop_supervisor(self) -> None:
        self.supervisor.stop()

    def start_supervisor(self) -> float:
        """Run `ragq up` with the API, always by the same command; returns the seconds until it is ready."""
        self._number += 1
        workers = ("--query-workers", "0", "--document-workers", "0")
        self.supervisor = self.spawn(f"up-{self._number}", "up", "--port", str(self._port), *workers)
        wait_until(lambda: UP in self.supervisor.log.read_bytes(), seconds=START_SECONDS, what="ragq up is ready")
        return time.time() - self.supervisor.started_at

    def _start_api(self, **variables: object) -> tuple[Worker, str]:
        """Start an API process and wait until it is ready; returns it and its address."""
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        api = self.spawn(f"api-{port}", "serve", "--port", str(port), **variables)
        try:
            wait_until(lambda: is_ready(url), seconds=START_SECONDS, what="the API is ready")
        except BaseException:
            api.stop()
            raise
        return api, url

    @contextlib.asynccontextmanager
    async def api_beside(self, **variables: object) -> AsyncIterator[str]:
        """Run another API for a while, without blocking the event loop, on which its proxy may run."""
        api, url = await asyncio.to_thread(self._start_api, **variables)
        try:
            yield url
        finally:
            await asyncio.to_thread(api.stop)

    def spawn(self, name: str, *arguments: str, **variables: object) -> Worker:
        """Start a `ragq` command that logs to a file of its own."""
        log = self.folder / f"{name}.log"
        settings = self.environment | {key: str(value) for key, value in variables.items()}
        started_at = time.time()
        with log.open("ab") as output:
            process = subprocess.Popen(command(*arguments), env=settings, cwd=self.folder, stdout=output, stderr=output)
        return Worker(name, process, log, started_at)

    def start_worker(self, **variables: object) -> Worker:
        """Start a query worker, without waiting until it is ready."""
        self._number += 1
        name = f"worker-{self._number}"
        worker = self.spawn(name, "worker", "queries", **({"RAGQ_LLM_MODEL": name} | variables))
        self.workers.append(worker)
        return worker

    def kill_worker(self, worker: Worker) -> None:
        if worker not in self.workers:
            return  # it has ended already
        worker.kill()
        self.workers.remove(worker)
        self.past.append(worker)

    def replace_exited(self) -> None:
        """Replace each worker that exited by itself, and record whether it had been ready."""
        for worker in [one for one in self.workers if one.process.poll() is not None]:
            exits = self.exits if worker.is_ready() else self.failed_starts
            exits.append(f"{worker.name}: code {worker.process.returncode}")
            self.workers.remove(worker)
            self.past.append(worker)
            self.start_worker()

    def stop_workers(self) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.terminate()
        for worker in self.workers:
            worker.stop()
        self.past += self.workers
        self.workers = []

    def exited(self) -> list[str]:
        """Names of the workers that exited by themselves and were not replaced."""
        return [worker.name for worker in self.workers if worker.process.poll() is not None]

    @property
    def lease_seconds(self) -> float:
        return float(self.environment.get("RAGQ_LEASE_SECONDS", 10))

    @property
    def valkey_socket(self) -> Path:
        return self.folder / "valkey.sock"

    async def start_workers(self, count: int, **variables: object) -> list[Worker]:
        """Start workers and wait until they are ready."""
        workers = [self.start_worker(**variables) for _ in range(count)]
        deadline = time.monotonic() + START_SECONDS
        while not all(worker.is_ready() for worker in workers):
            assert time.monotonic() < deadline, "a worker did not start: " + workers[0].log.read_text()[-2000:]
            await asyncio.sleep(0.05)
        return workers

    def count_results(self, ids: list[str]) -> dict[str, int]:
        """How many visible results each job has in Valkey."""
        with self.valkey.connect() as connection:
            pipeline = connection.pipeline(transaction=False)
            for id_ in ids:
                pipeline.xlen(f"{self.prefix}:results:{id_}")
            return dict(zip(ids, pipeline.execute(), strict=True))

    def runs(self) -> list[Run]:
        """Every call of the LLM, oldest first: the outside witness."""
        return list(read_witness(self.llm.witness))

    def ready_times(self, *, without: Sequence[tuple[float, float]] = ()) -> list[float]:
        """The time of each start, without those that overlap one of these periods."""
        found = []
        for worker in [*self.past, *self.workers]:
            seconds = worker.ready_seconds()
            if seconds is not None and not any(
                worker.started_at < end and start < worker.started_at + seconds for start, end in without
            ):
                found.append(seconds)
        return sorted(found)


@dataclass(frozen=True)
class Run:
    """A call of the LLM for a job."""

    tag: str
    worker: str
    began_at: float


def read_witness(path: Path) -> Iterator[Run]:
    """Read the lines that the fake LLM wrote so far."""
    lines = path.read_text().splitlines() if path.exists() else []
    for line in lines if not lines or lines[-1].endswith("}") else lines[:-1]:  # the last line may be incomplete
        seen = json.loads(line)
        yield Run(seen["job"], seen["model"], seen["time"])
