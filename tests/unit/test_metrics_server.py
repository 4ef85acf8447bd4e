"""Where a worker says that its metrics are; `make compose-test` reads them from another container."""

from __future__ import annotations

import socket

import pytest
from pydantic import SecretStr

from ragq.queues.metrics_server import serve_metrics
from ragq.settings import Settings


@pytest.mark.parametrize("valkey", ["unix:///run/valkey.sock", "redis://127.0.0.1:6379/0", "redis://nowhere.invalid"])
async def test_on_every_interface_the_name_of_the_machine_stands_for_loopback(valkey: str) -> None:
    settings = Settings(_env_file=None, metrics_host="0.0.0.0", valkey_url=SecretStr(valkey))
    assert await address_of(settings) == socket.gethostname()


async def test_a_configured_address_is_the_one_named() -> None:
    assert await address_of(Settings(_env_file=None)) == "127.0.0.1"


async def address_of(settings: Settings) -> str:
    server, address = await serve_metrics(settings)
    server.close()
    host, _, port = address.rpartition(":")
    assert port.isdigit()
    return host
