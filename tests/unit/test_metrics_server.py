"""Where a worker says that its metrics are, and whether it is ready; `make compose-test` reads both in other containers."""

from __future__ import annotations

import asyncio
import json
import socket
import time

import pytest
from pydantic import SecretStr

from ragq.queues.metrics_server import WorkerHealth, serve_metrics
from ragq.settings import Settings


@pytest.mark.parametrize("valkey", ["unix:///run/valkey.sock", "redis://127.0.0.1:6379/0", "redis://nowhere.invalid"])
async def test_on_every_interface_the_name_of_the_machine_stands_for_loopback(valkey: str) -> None:
    settings = Settings(_env_file=None, metrics_host="0.0.0.0", valkey_url=SecretStr(valkey))
    assert await address_of(settings) == socket.gethostname()


async def test_a_configured_address_is_the_one_named() -> None:
    assert await address_of(Settings(_env_file=None)) == "127.0.0.1"


async def address_of(settings: Settings) -> str:
    server, address = await serve_metrics(settings, WorkerHealth())
    server.close()
    host, _, port = address.rpartition(":")
    assert port.isdigit()
    return host


@pytest.mark.parametrize(
    ("health", "fault"),
    [
        (WorkerHealth(registered_at=time.monotonic() + 600, has_models=True), None),
        (WorkerHealth(has_models=True), "Valkey"),
        (WorkerHealth(registered_at=time.monotonic() - 60, has_models=True), "Valkey"),
        (WorkerHealth(registered_at=time.monotonic() + 600), "embedding model"),
        (WorkerHealth(registered_at=time.monotonic() + 600, has_models=True, is_stopping=True), "stopping"),
    ],
)
async def test_a_worker_is_ready_while_it_claims_jobs_and_has_its_models(
    health: WorkerHealth, fault: str | None
) -> None:
    server, address = await serve_metrics(Settings(_env_file=None), health)
    async with server:
        status, body = await get(address, "/readyz")
        assert status == (503 if fault else 200)
        assert (fault or "") in body.get("worker", "")
        assert body["status"] == ("not ready" if fault else "ready")
        assert await get(address, "/healthz") == (200, {"status": "ok"})


async def get(address: str, path: str) -> tuple[int, dict[str, str]]:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), json.loads(body)
