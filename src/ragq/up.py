"""`ragq up`: run the embedded services, the API and the workers, and restart them when they die."""

from __future__ import annotations

import asyncio
import errno
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Self

import structlog
from pydantic import SecretStr

from ragq.embedded.cleaner import Cleaner
from ragq.embedded.processes import find_listener
from ragq.embedded.services import EmbeddedServices
from ragq.environment import worker_variables
from ragq.errors import ConfigurationError, RagqError, UnavailableError
from ragq.http.exposure import check_exposure
from ragq.logs import log_to
from ragq.models import QueueName
from ragq.rag.synonyms.table import check_synonyms
from ragq.settings import Settings
from ragq.tasks import end_tasks, freeze_heap

log = structlog.get_logger(__name__)

WATCH_SECONDS = 0.5
RESTART_SECONDS = 1.0  # between starts of a child that dies at once; doubles up to the next line
RESTART_MAX_SECONDS = 30.0
SETTLED_SECONDS = 10.0  # after a child has lived this long, the pause is the shortest again
READY_SECONDS = 60.0
PROBE_SECONDS = 5.0  # time for the API to report whether it is ready
BIND_SECONDS = 2.0  # time for a dying process to release the port
TICK_SECONDS = 0.1
STOP_MARGIN_SECONDS = 5.0  # for a worker, beyond its own grace


class Child:
    """A process of the fleet, restarted whenever it ends."""

    def __init__(self, name: str, command: list[str], pass_fds: tuple[int, ...] = ()) -> None:
        self.name = name
        self._command = command
        self._pass_fds = pass_fds
        self._starts_at = 0.0
        self._started_at = 0.0
        self._pause = RESTART_SECONDS
        self.process: subprocess.Popen[bytes] | None = None

    def is_due(self) -> bool:
        """Whether it is not running and may be started now."""
        if self.process is None or self.process.poll() is None:
            return self.process is None
        if self._starts_at == 0:
            log.warning("child_ended", child=self.name, exit_code=self.process.returncode)
            if time.monotonic() - self._started_at > SETTLED_SECONDS:
                self._pause = RESTART_SECONDS
            self._starts_at = time.monotonic() + self._pause
            self._pause = min(RESTART_MAX_SECONDS, self._pause * 2)
        return time.monotonic() >= self._starts_at

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self.process.poll() if self.process else None

    def start(self, environment: dict[str, str], parent: int) -> int:
        """Start the child in a session that Ctrl-C does not reach; returns its pid.

        Args:
            parent: Its standard input, a pipe that ends when this process ends.
        """
        self.process = subprocess.Popen(
            self._command, env=environment, stdin=parent, pass_fds=self._pass_fds, start_new_session=True
        )
        self._starts_at, self._started_at = 0, time.monotonic()
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(number)


class Preparation:
    """`ragq.prepare`, started while the services start: it takes its time to import what it needs."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ragq.prepare"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    async def finish(self, urls: dict[str, str]) -> None:
        """Let it prepare the servers at these URLs, and wait until it has.

        Raises:
            ConfigurationError: The servers do not fit.
            UnavailableError: One does not answer.
        """
        assert self._process.stdin
        assert self._process.stdout
        with suppress(BrokenPipeError):  # it has ended: its exit code tells
            self._process.stdin.write(json.dumps(urls).encode() + b"\n")
            self._process.stdin.flush()
        while self._process.poll() is None:  # noqa: ASYNC110  (a process that was started outside the loop)
            await asyncio.sleep(TICK_SECONDS / 4)
        if error := self._process.stdout.read():
            told = json.loads(error)
            raise (UnavailableError if told["is_temporary"] else ConfigurationError)(told["message"])
        if self._process.returncode:
            raise ConfigurationError("The servers could not be prepared. The lines above say why.")

    def stop(self) -> None:
        """End it, wherever it is."""
        self._process.kill()
        self._process.communicate()


class Fleet:
    """All processes of one `ragq up`; a context manager that stops them all."""

    def __init__(self, settings: Settings, *, query_workers: int, document_workers: int) -> None:
        check_exposure(settings)
        check_synonyms(settings.synonyms)
        self._settings = settings
        self._services = EmbeddedServices(
            settings.data_dir, valkey=settings.valkey_url is None, postgres=settings.database_url is None
        )
        self._counts = {QueueName.QUERIES: query_workers, QueueName.DOCUMENTS: document_workers}
        self._children: list[Child] = []
        self._cleaner: Cleaner | None = None
        self._preparation: Preparation | None = None
        self._socket: socket.socket | None = None
        self._stopping = threading.Event()
        self._is_ready = False
        self.url = ""  # set by `start`

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # ignored, for example, after nohup
                signal.signal(number, self._request_stop)
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_ready:
            self._drain_children()
        if self._preparation:
            self._preparation.stop()
        self._services.stop()
        for child in self._children:
            child.signal(signal.SIGKILL)  # still running only after a failure
            if child.process:
                child.process.wait()
        if self._cleaner:
            self._cleaner.stop()
        if self._socket:
            self._socket.close()

    def _request_stop(self, _number: int, _frame: FrameType | None) -> None:
        if self._stopping.is_set():  # second signal: workers hand back their jobs
            for child in self._children:
                child.signal(signal.SIGTERM)
        self._stopping.set()
        self._services.cancel()

    def start(self) -> None:
        """Start the services, migrate, start the children and wait until the API and a query worker are ready.

        Raises:
            ConfigurationError: A process does not start; the message names the cause.
            UnavailableError: A configured server does not answer, or a signal arrived.
        """
        self._cleaner = Cleaner.start(self._settings.data_dir)
        self._services.take_over()  # processes of a killed owner may hold the port
        log_to(Path(self._log_file("up")))
        self._socket = _listen(self._settings)
        host = f"[{self._settings.host}]" if ":" in self._settings.host else self._settings.host
        port = self._socket.getsockname()[1]
        self._settings = self._settings.model_copy(update={"port": port})
        self.url = f"http://{host}:{port}"
        self._preparation = Preparation(os.environ | _as_variables(self._settings))
        services = self._services.start()
        ours = {"valkey_url": services.valkey_url, "database_url": services.database_url}
        found = {name: url for name, url in ours.items() if url}
        self.run(self._preparation.finish(found))
        self._preparation.stop()
        self._preparation = None
        self._settings = self._settings.model_copy(update={name: SecretStr(url) for name, url in found.items()})
        self._environment = os.environ | _as_variables(self._settings) | worker_variables(self._settings)
        self._children = self._make_children(self._socket.fileno())
        self.run(self._wait_until_ready())
        self._is_ready = True
        freeze_heap()

    def _make_children(self, fd: int) -> list[Child]:
        ragq = [sys.executable, "-m", "ragq.cli"]
        names = {
            f"{queue} worker {number + 1}": queue for queue, count in self._counts.items() for number in range(count)
        }
        workers = [
            Child(name, [*ragq, "worker", "--with-parent", "--log-file", self._log_file(name), queue])
            for name, queue in names.items()
        ]
        serve = [*ragq, "serve", "--with-parent", "--log-file", self._log_file("api"), "--fd", str(fd)]
        return [Child("api", serve, (fd,)), *workers]

    def _log_file(self, name: str) -> str:
        """The file that `ragq logs` reads a process's lines from."""
        return str(self._settings.data_dir.resolve() / "logs" / f"{name.replace(' ', '-')}.log")

    async def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while fault := await asyncio.to_thread(self._find_fault):
            if time.monotonic() > deadline:
                raise UnavailableError(f"ragq is not ready after {READY_SECONDS:g} s. {fault}")
            await asyncio.sleep(TICK_SECONDS)

    def _find_fault(self) -> str | None:
        """The reason why the first question could not be answered at once yet; None if it could."""
        try:
            is_ready, faults = self._get("/readyz")
            _, status = self._get("/status")
        except (OSError, http.client.HTTPException, ValueError) as error:
            return f"The API does not answer at {self.url} ({error})."
        if not is_ready:
            return "; ".join(f"{name}: {fault}" for name, fault in faults.items() if name != "status")
        workers = status.get("workers", [])
        ours = {child.process.pid for child in self._children if child.process}
        ready = [one for one in workers if one["ready"] and one["pid"] in ours and QueueName.QUERIES in one["queues"]]
        return None if ready or not self._counts[QueueName.QUERIES] else "No query worker is ready."

    def _get(self, path: str) -> tuple[bool, dict[str, Any]]:
        """Ask the API for something; returns whether the answer is a good one, and its JSON."""
        assert self._socket
        host, port = self._socket.getsockname()[:2]
        connection = http.client.HTTPConnection(host, port, timeout=PROBE_SECONDS)
        key = self._settings.api_key
        try:
            connection.request(
                "GET", path, headers={"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
            )
            response = connection.getresponse()
            return response.status < 400, json.loads(response.read())
        finally:
            connection.close()

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run some work on an event loop while watching all processes.

        Raises:
            UnavailableError: A signal arrived and the work was cancelled.
        """
        asyncio.run(self._run(work))

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        try:
            while not task.done():
                if self._stopping.is_set():
                    raise UnavailableError("ragq was stopped before this was done.")
                self._look_after()
                await asyncio.wait([task], timeout=TICK_SECONDS)
        finally:
            await end_tasks([task])
        task.result()

    def watch(self) -> None:
        """Restart processes that die, until a signal arrives."""
        while not self._stopping.wait(WATCH_SECONDS):
            self._look_after()

    def _look_after(self) -> None:
        """Start processes that have died or were not started yet.

        Raises:
            ConfigurationError: A child exited during the start, as it would again.
        """
        try:
            self._services.check()
        except RagqError as error:
            log.error("service_failed", error=str(error))
        assert self._cleaner
        for child in self._children:
            if not self._is_ready and child.exit_code is not None and child.exit_code >= 0:
                raise ConfigurationError(
                    f"The {child.name} ended with code {child.exit_code} while it was starting. See its log lines above."
                )
            if child.is_due():
                self._services.record(child.name, child.start(self._environment, self._cleaner.read_end))

    def _drain_children(self) -> None:
        """Send SIGTERM to all children, wait for the workers' grace, then kill those that are left."""
        for child in self._children:
            child.signal(signal.SIGTERM)
        deadline = time.monotonic() + self._settings.shutdown_grace_seconds + STOP_MARGIN_SECONDS
        for child in self._children:
            if child.process:
                try:
                    child.process.wait(max(0.1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    child.process.kill()
                    child.process.wait()


def _listen(settings: Settings) -> socket.socket:
    """Open the API's socket in this process, so that connections wait, rather than fail, while the API restarts."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    deadline = time.monotonic() + BIND_SECONDS
    while True:
        try:
            listener.bind((settings.host, settings.port))
            listener.listen(2048)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and time.monotonic() < deadline:
                time.sleep(TICK_SECONDS)
                continue
            listener.close()
            holder = find_listener(settings.port) if error.errno == errno.EADDRINUSE else None
            why = f"{error.strerror} by {holder}" if holder else error.strerror
            raise ConfigurationError(
                f"Cannot listen on {settings.host} port {settings.port}: {why}. Choose another with --port."
            ) from error
        return listener


def _as_variables(settings: Settings) -> dict[str, str]:
    """The environment variables from which a child reads the same settings."""
    values = settings.model_dump(exclude_none=True)
    return {
        f"RAGQ_{name.upper()}": value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in values.items()
    }
