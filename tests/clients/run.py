"""Run unmodified clients against a real ragq, without and with an LLM, and say which of their checks pass.

`make clients-test ONLY="ai-sdk litellm"` runs some of them. Exits with 1 if a check fails that known_failures.toml does
not list. Writes build/clients.json, and what each program printed on stderr to build/clients/NAME.SERVICE.log. With
`--write` (`make clients-test WRITE=1`) the table in docs/how-to/use-your-client.md is written from that file.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from tests.clients.environments import BUILD, PROGRAMS, InstallError, client_names, prepare, version_of
from tests.clients.results import SERVICES, Result, keep, known_failure, print_rows, summarize, write_table
from tests.clients.services import Service, running_services
from tests.servers import environment

PROGRAM_SECONDS = 600
STAY_HOME = {  # what some clients fetch or send by themselves
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "OTEL_SDK_DISABLED": "true",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "DO_NOT_TRACK": "1",
}


def main() -> int:
    """Run the clients, print and write what they found."""
    arguments = read_arguments()
    names = arguments.only or client_names()
    if unknown := set(names) - set(client_names()):
        raise SystemExit(f"No such client: {', '.join(sorted(unknown))}. There are: {', '.join(client_names())}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    results: list[Result] = []
    folder = Path(tempfile.mkdtemp(prefix="ragq-clients-"))
    try:
        commands = prepare_all(names, results)
        with running_services(folder, tuple(arguments.service or SERVICES)) as services:
            for name, command in commands.items():
                for service in services:
                    results += run_program(name, command, service, folder)
                print_rows([result for result in results if result.client == name], everything=arguments.verbose)
    finally:
        for log in folder.glob("*.log"):
            shutil.copy(log, BUILD / f"ragq.{log.name}")
        shutil.rmtree(folder, ignore_errors=True)
    together = keep(results)
    if arguments.write:
        write_table(together)
    return summarize(results)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run unmodified clients against a real ragq.")
    parser.add_argument("--only", nargs="*", default=[], metavar="CLIENT")
    parser.add_argument("--service", nargs="*", default=[], choices=SERVICES)
    parser.add_argument("--verbose", action="store_true", help="print the checks that passed, too")
    parser.add_argument("--write", action="store_true", help="write the documentation's table")
    return parser.parse_args()


def prepare_all(names: Iterable[str], results: list[Result]) -> dict[str, list[str]]:
    """Make the environments, one after another; a client without one is a failure."""
    commands = {}
    for name in names:
        started = time.monotonic()
        try:
            commands[name] = prepare(name)
        except InstallError as error:
            results.append(Result(name, version_of(name), "-", "(environment)", ok=False, detail=str(error)))
            print(f"{name}: no environment: {error}", flush=True)
        if time.monotonic() - started > 1:
            print(f"{name}: installed in {time.monotonic() - started:.0f} s", flush=True)
    return commands


def run_program(name: str, command: list[str], service: Service, folder: Path) -> list[Result]:
    """Run a client's program to its end, or stop it and all that it started."""
    home = folder / f"{name}.{service.name}"
    home.mkdir()
    kept = {key: value for key, value in environment().items() if not key.startswith("VIRTUAL_ENV")}
    variables = (
        kept
        | STAY_HOME
        | service.variables
        | {
            "CLIENT": name,
            "HOME": str(home),
            "PYTHONPATH": str(PROGRAMS / "support"),
            "ENVIRONMENT": str(BUILD / name),
            "OPENRESPONSES": os.environ.get("OPENRESPONSES", ""),
        }
    )
    log = BUILD / f"{name}.{service.name}.log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            command, env=variables, cwd=home, stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True
        )
        output, fault = read_output(process)
    results = [read_line(line, name, service) for line in output.splitlines() if line.startswith("{")]
    if fault or not results:
        tail = " ".join(log.read_text()[-500:].split())
        results.append(
            Result(
                name, version_of(name), service.name, "(program)", ok=False, detail=f"{fault or 'no checks'}: {tail}"
            )
        )
    return results


def read_output(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Wait for a program's end; returns what it printed, and what was wrong with its end."""
    try:
        output, _ = process.communicate(timeout=PROGRAM_SECONDS)
        fault = f"exit code {process.returncode}" if process.returncode else ""
    except subprocess.TimeoutExpired:
        end_group(process.pid)
        output, _ = process.communicate()
        fault = f"not done in {PROGRAM_SECONDS} s"
    finally:
        end_group(process.pid)
    return output, fault


def end_group(group: int) -> None:
    """Stop a program and what it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            return
        time.sleep(0.5)


def read_line(line: str, client: str, service: Service) -> Result:
    said = json.loads(line)
    known = known_failure(client, service.name, said["check"]) if said["ok"] is False else ""
    return Result(client, version_of(client), service.name, said["check"], said["ok"], said["detail"], known)


if __name__ == "__main__":
    sys.exit(main())
