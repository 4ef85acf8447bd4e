"""The systemd units against ragq's settings and commands."""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

import click
import pytest

from ragq.cli import main
from ragq.models import QueueName
from ragq.settings import Settings
from tests.programs import find_program

UNITS = sorted((Path(__file__).parents[2] / "deploy" / "systemd").glob("*.service"))


def read_service(path: Path) -> configparser.SectionProxy:
    unit = configparser.RawConfigParser(strict=True)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(path.read_text())
    return unit["Service"]


def test_there_is_a_unit_for_one_machine_and_one_for_workers() -> None:
    assert [path.name for path in UNITS] == ["ragq-worker@.service", "ragq.service"]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_runs_a_command_with_settings_that_exist_and_lets_it_stop(path: Path) -> None:
    service = read_service(path)
    program, command, *options = service["ExecStart"].split()
    assert program == "/opt/ragq/bin/ragq"
    assert isinstance(main, click.Group)
    for queue in QueueName:
        words = [option.replace("%i", queue) for option in options]
        main.commands[command].make_context(command, words).close()
    variables = {word.partition("=")[0] for word in service["Environment"].split()}
    assert variables <= {f"RAGQ_{field}".upper() for field in Settings.model_fields}
    grace: float = Settings.model_fields["shutdown_grace_seconds"].default
    assert float(service["TimeoutStopSec"]) >= grace + 5
    assert service["StateDirectory"] == service["User"] == "ragq"
    assert f"/var/lib/{service['StateDirectory']}" in service["Environment"]


def test_a_worker_that_ends_without_an_error_is_started_again() -> None:
    """It exits with 0 when the console drains it, and when the embedding model changes: it was not stopped for good."""
    (worker,) = (path for path in UNITS if path.name.startswith("ragq-worker"))
    assert read_service(worker)["Restart"] == "always"


@pytest.mark.skipif(sys.platform != "linux", reason="no systemd, so none to understand the units")
def test_systemd_understands_every_line(tmp_path: Path) -> None:
    analyze = find_program(["systemd-analyze"], install="apt-get install systemd")
    program = str(Path(sys.executable).with_name("ragq"))  # systemd asks whether it is there
    units = [tmp_path / path.name.replace("@.", f"@{QueueName.QUERIES}.") for path in UNITS]
    for path, unit in zip(UNITS, units, strict=True):
        unit.write_text(path.read_text().replace("/opt/ragq/bin/ragq", program))
    verify = [analyze, "verify", "--man=no", *map(str, units)]
    assert said(verify) == ""
    units[0].write_text(units[0].read_text().replace("KillMode=", "KilMode="))
    assert "Unknown key 'KilMode'" in said(verify)


def said(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr
