"""compose.yaml and the Dockerfile against the settings, the command line and the queue's own checks."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from ragq.cli import main
from ragq.client.rq_client import JobQueue
from ragq.errors import ConfigurationError
from ragq.models import QueueName
from ragq.settings import Settings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if service["image"].startswith("ragq:")]
INTERPOLATION = re.compile(r"(?<!\$)\$\{(\w+)([^}]*)\}")


class _ConfiguredValkey:
    """Answers CONFIG GET with flags of a command line, and INFO with nothing."""

    def __init__(self, flags: dict[str, str]) -> None:
        self._flags = flags

    async def call(self, *command: str) -> list[bytes] | bytes:
        if command == ("INFO",):
            return b""
        assert command[:2] == ("CONFIG", "GET")
        return [part.encode() for name in command[2:] if name in self._flags for part in (name, self._flags[name])]


def valkey_flags() -> dict[str, str]:
    program, *arguments = SERVICES["valkey"]["command"]
    assert program == "valkey-server"
    return {name.removeprefix("--"): value for name, value in zip(arguments[::2], arguments[1::2], strict=True)}


def queue_with(flags: dict[str, str]) -> JobQueue:
    queue = JobQueue(Settings(_env_file=None), "redis://localhost:1")
    queue._valkey = _ConfiguredValkey(flags)  # type: ignore[assignment]
    return queue


async def test_valkeys_flags_are_what_the_queue_asks_for() -> None:
    flags = valkey_flags()
    await queue_with(flags).check_server()
    for name in ("appendonly", "appendfsync", "maxmemory-policy"):
        with pytest.raises(ConfigurationError, match=name):
            await queue_with({**flags, name: "else"}).check_server()


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_a_setting(name: str) -> None:
    for variable, value in SERVICES[name]["environment"].items():
        assert variable.startswith("RAGQ_")
        assert variable.removeprefix("RAGQ_").lower() in Settings.model_fields, variable
        assert isinstance(value, str), f"{variable}: YAML makes {value!r} of it"


@pytest.mark.parametrize("name", OURS)
def test_the_environment_makes_valid_settings(name: str) -> None:
    values = {
        variable.removeprefix("RAGQ_").lower(): INTERPOLATION.sub("a1", value)
        for variable, value in SERVICES[name]["environment"].items()
    }
    settings = Settings.model_validate({**Settings(_env_file=None).model_dump(), **values})
    assert settings.valkey_url
    assert settings.database_url
    assert not settings.allow_unsafe_valkey


@pytest.mark.parametrize("name", OURS)
def test_every_command_exists_with_its_options(name: str) -> None:
    assert is_command(SERVICES[name]["command"])


def is_command(words: list[str]) -> bool:
    """Tell whether the command line takes the words; raises UsageError for options it does not know."""
    assert isinstance(main, click.Group)
    if words[0] != "ragq" or words[1] not in main.commands:
        return False
    main.commands[words[1]].make_context(words[1], words[2:]).close()
    return True


def test_the_workers_serve_every_queue_between_them() -> None:
    served = [
        word for name in OURS for word in SERVICES[name]["command"][2:] if SERVICES[name]["command"][1] == "worker"
    ]
    assert sorted(served) == sorted(str(queue) for queue in QueueName)


def test_published_checked_and_served_ports_match() -> None:
    api = SERVICES["api"]
    port = int(api["command"][api["command"].index("--port") + 1])
    assert api["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert f"http://127.0.0.1:{port}/readyz" in api["healthcheck"]["test"][-1]
    assert port == Settings.model_fields["port"].default
    assert str(Settings.model_fields["url"].default).endswith(f":{port}")
    assert f"EXPOSE {port}\n" in (ROOT / "Dockerfile").read_text()
    urls = SERVICES["worker"]["environment"]
    assert f"@valkey:{word_after(SERVICES['valkey'], '-p')}/" in urls["RAGQ_VALKEY_URL"]
    assert f"@database:{word_after(SERVICES['database'], '--port')}/" in urls["RAGQ_DATABASE_URL"]


def word_after(service: dict[str, Any], flag: str) -> str:
    """The word after a flag in a service's health check."""
    words = [word for part in service["healthcheck"]["test"] for word in shlex.split(part)]
    return words[words.index(flag) + 1]


def test_only_the_api_is_published_and_only_on_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert list(published) == ["api"]


def test_services_wait_for_what_they_need_to_be_healthy() -> None:
    servers = {name: {"condition": "service_healthy"} for name in ("valkey", "database")}
    assert SERVICES["migrate"]["depends_on"] == servers
    for name in set(OURS) - {"migrate"}:
        assert SERVICES[name]["depends_on"] == {**servers, "migrate": {"condition": "service_completed_successfully"}}
    for name in ("valkey", "database", "api"):
        assert SERVICES[name]["healthcheck"]["test"]


def test_workers_have_longer_to_stop_than_their_grace() -> None:
    grace: float = Settings.model_fields["shutdown_grace_seconds"].default
    workers = [SERVICES[name] for name in OURS if SERVICES[name]["command"][1] == "worker"]
    assert len(workers) == 2
    for worker in workers:
        assert float(worker["stop_grace_period"].removesuffix("s")) >= grace + 5


def test_every_secret_is_asked_for_with_an_explanation() -> None:
    secrets = INTERPOLATION.findall(TEXT)
    assert {name for name, _ in secrets} == {"VALKEY_PASSWORD", "POSTGRES_PASSWORD", "RAGQ_API_KEY"}
    for name, rest in secrets:
        assert rest.startswith(f":?set {name} in .env"), name


def test_what_must_last_is_in_a_volume() -> None:
    mounts = {name: [mount.split(":") for mount in service["volumes"]] for name, service in SERVICES.items()}
    assert mounts["valkey"] == [["valkey", "/data"]]
    # Images of PostgreSQL 18 and later declare /var/lib/postgresql and keep a folder for each version in it.
    assert SERVICES["database"]["image"] == "pgvector/pgvector:pg18"
    assert mounts["database"] == [["database", "/var/lib/postgresql"]]
    for name in OURS:
        assert mounts[name] == [["files", SERVICES[name]["environment"]["RAGQ_DATA_DIR"]]]
    assert set(COMPOSE["volumes"]) == {"valkey", "database", "files"}


def test_the_image_runs_as_an_ordinary_user_that_owns_the_data_folder() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert lines.index("USER ragq") < next(number for number, line in enumerate(lines) if line.startswith("CMD"))
    assert any("install --directory --owner ragq" in line and line.endswith(" /data") for line in lines)
    assert f"RAGQ_DATA_DIR={SERVICES['api']['environment']['RAGQ_DATA_DIR']}" in "\n".join(lines)
    assert is_command(json.loads(lines[-1].removeprefix("CMD ")))


def test_the_image_takes_what_it_copies_and_no_secret() -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [
        source
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ")
        for source in line.split()[1:-1]
    ]
    assert sorted(allowed) == sorted(copied)
    assert all((ROOT / source).exists() for source in copied)
