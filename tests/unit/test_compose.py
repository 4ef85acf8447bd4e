"""compose.yaml and the Dockerfile against ragq's settings and commands; `make compose-test` runs them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from ragq import __version__
from ragq.cli import main
from ragq.client.rq_client import JobQueue
from ragq.errors import ConfigurationError
from ragq.models import QueueName
from ragq.settings import Settings

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
OURS = [name for name, service in SERVICES.items() if service["image"] == f"ragq:{__version__}"]
DOCKERFILE = (ROOT / "Dockerfile").read_text().splitlines()


class _ConfiguredValkey:
    """Answers CONFIG GET with flags of a command line, INFO with nothing, and has no keys."""

    def __init__(self, flags: dict[str, str]) -> None:
        self._flags = flags

    async def call(self, *command: str) -> list[bytes] | bytes | int:
        if command == ("INFO",):
            return b""
        if command[0] == "EXISTS":
            return 0
        assert command[:2] == ("CONFIG", "GET")
        return [part.encode() for name in command[2:] if name in self._flags for part in (name, self._flags[name])]


async def test_valkeys_flags_are_what_the_queue_asks_for() -> None:
    words = SERVICES["valkey"]["command"][1:]
    flags = {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}
    await queue_with(flags).check_server()
    for name in ("appendonly", "appendfsync", "maxmemory-policy"):
        with pytest.raises(ConfigurationError, match=name):
            await queue_with({**flags, name: "else"}).check_server()


def queue_with(flags: dict[str, str]) -> JobQueue:
    queue = JobQueue(Settings(_env_file=None), "redis://localhost:1")
    queue._valkey = _ConfiguredValkey(flags)  # type: ignore[assignment]
    return queue


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_a_setting(name: str) -> None:
    assert {variable.lower() for variable in SERVICES[name]["environment"]} <= {
        f"ragq_{field}" for field in Settings.model_fields
    }


@pytest.mark.parametrize("words", [SERVICES[name]["command"] for name in OURS] + [json.loads(DOCKERFILE[-1][4:])])
def test_every_command_exists_with_its_options(words: list[str]) -> None:
    assert isinstance(main, click.Group)
    assert words[0] == "ragq"
    main.commands[words[1]].make_context(words[1], words[2:]).close()


def test_the_workers_serve_every_queue_and_have_longer_to_stop_than_their_grace() -> None:
    assert OURS == ["migrate", "api", "worker", "document-worker"]
    workers = [SERVICES[name] for name in OURS if SERVICES[name]["command"][1] == "worker"]
    assert sorted(queue for worker in workers for queue in worker["command"][2:]) == sorted(map(str, QueueName))
    grace: float = Settings.model_fields["shutdown_grace_seconds"].default
    assert all(float(worker["stop_grace_period"].removesuffix("s")) >= grace + 5 for worker in workers)


def test_only_the_api_is_published_and_only_on_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    port = Settings.model_fields["port"].default
    assert published == {"api": [f"127.0.0.1:{port}:{port}"]}


def test_the_image_takes_what_it_copies_and_no_secret() -> None:
    allowed = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    copies = [line.split()[1:-1] for line in DOCKERFILE if line.startswith("COPY ") and "--from" not in line]
    assert sorted(allowed) == sorted(source for sources in copies for source in sources)
