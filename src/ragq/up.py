"""`ragq up`: the embedded services, the API and the workers as one, watched and started again when they die."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from types import FrameType
from typing import Self

import structlog
from pydantic import SecretStr

from ragq.client.api_client import ApiClient
from ragq.client.database import Database
from ragq.embedded.services import EmbeddedServices
from ragq.environment import worker_variables
from ragq.errors import ConfigurationError, RagqError
from ragq.models import QueueName
from ragq.settings import Settings, check_exposure

log = structlog.get_logger(__name__)

WATCH_SECONDS = 0.5
RESTART_SECONDS = 1.0  # between two starts of a child that dies at once; doubles up to the next
RESTART_MAX_SECONDS = 30.0
SETTLED_SECONDS = 10.0  # a child that lived this long starts again after the shortest pause
READY_SECONDS = 120.0
STOP_MARGIN_SECONDS = 5.0  # given to a worker beyond its own grace


class Child:
    """A process of the fleet, started again whenever it ends."""

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

    def start(self, environment: dict[str, str]) -> int:
        """Start it, out of reach of the terminal's Ctrl-C; returns its pid."""
        self.process = subprocess.Popen(self._command, env=environment, pass_fds=self._pass_fds, start_new_session=True)
        self._starts_at, self._started_at = 0, time.monotonic()
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(number)


class Fleet:
    """All processes of one `ragq up`; a context manager that leaves none behind."""

    def __init__(self, settings: Settings, *, query_workers: int, document_workers: int) -> None:
        check_exposure(settings)
        self._settings = settings
        self._services = EmbeddedServices(
            settings.data_dir, valkey=settings.valkey_url is None, postgres=settings.database_url is None
        )
        self._socket = _listen(settings)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self.url = f"http://{host}:{self._socket.getsockname()[1]}"
        fd = self._socket.fileno()
        serve = Child("api", [sys.executable, "-m", "ragq.cli", "serve", "--fd", str(fd)], (fd,))
        counts = {QueueName.QUERIES: query_workers, QueueName.DOCUMENTS: document_workers}
        workers = [
            Child(f"{queue} worker {number + 1}", [sys.executable, "-m", "ragq.cli", "worker", queue])
            for queue, count in counts.items()
            for number in range(count)
        ]
        self._children = [serve, *workers]
        self._stopping = threading.Event()

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._request_stop)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_children()
        self._services.stop()
        self._socket.close()

    def _request_stop(self, _number: int, _frame: FrameType | None) -> None:
        if self._stopping.is_set():  # asked twice: workers hand back what they hold
            for child in self._children:
                child.signal(signal.SIGTERM)
        self._stopping.set()
        self._services.cancel()

    def start(self) -> None:
        """Start the services, migrate, start the children and wait until the API is ready."""
        services = self._services.start()
        ours = {"valkey_url": services.valkey_url, "database_url": services.database_url}
        found = {name: SecretStr(url) for name, url in ours.items() if url}
        self._settings = self._settings.model_copy(update=found)
        asyncio.run(migrate(self._settings))
        self._environment = os.environ | _as_variables(self._settings) | worker_variables(self._settings)
        self._start_children()
        asyncio.run(self._wait_until_ready())

    async def _wait_until_ready(self) -> None:
        key = self._settings.api_key
        async with ApiClient(self.url, key.get_secret_value() if key else None) as client:
            await client.wait_until_ready(READY_SECONDS)

    def watch(self) -> None:
        """Start again whatever dies, until a signal asks to stop."""
        while not self._stopping.wait(WATCH_SECONDS):
            try:
                self._services.check()
            except RagqError as error:
                log.error("service_failed", error=str(error))
            self._start_children()

    def _start_children(self) -> None:
        for child in self._children:
            if child.is_due():
                self._services.record(child.name, child.start(self._environment))

    def _stop_children(self) -> None:
        """Ask all to end, wait for the workers' grace, then insist."""
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


async def migrate(settings: Settings) -> None:
    """Bring the database's schema up to date.

    Raises:
        UnavailableError: It does not answer.
        ConfigurationError: It was made with other settings.
    """
    assert settings.database_url
    database = await Database.open(settings, settings.database_url.get_secret_value(), connections=1)
    try:
        await database.migrate(embedding_model=settings.embedding_name)
    finally:
        await database.close()


def _listen(settings: Settings) -> socket.socket:
    """Open the API's socket here, so that connections wait, and are not refused, while the API starts again."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"Cannot listen on {settings.host} port {settings.port}: {error.strerror}. Choose another with --port."
        ) from error
    listener.listen(2048)
    return listener


def _as_variables(settings: Settings) -> dict[str, str]:
    """Write settings as the environment from which a child reads the same."""
    values = settings.model_dump(exclude_none=True)
    return {
        f"RAGQ_{name.upper()}": value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in values.items()
    }
