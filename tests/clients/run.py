"""Run unmodified clients against a real ragq, without and with an LLM, and say which of their checks pass.

`make clients-test ONLY="ai-sdk litellm"` runs some of them. Exits with 1 if a check fails that known_failures.toml does
not list. Writes build/clients.json, and what each program printed on stderr to build/clients/NAME.SERVICE.log.
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
import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.clients.environments import BUILD, HERE, PROGRAMS, ROOT, InstallError, client_names, prepare
from tests.clients.services import Service, running_services
from tests.servers import environment

SERVICES = ("extractive", "llm")
PROGRAM_SECONDS = 600
DETAIL_WIDTH = 150
STAY_HOME = {  # what some clients fetch or send by themselves
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "OTEL_SDK_DISABLED": "true",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "DO_NOT_TRACK": "1",
}


@dataclass(frozen=True)
class Result:
    """One check of one client against one service; `ok` is None if it did not run."""

    client: str
    service: str
    check: str
    ok: bool | None
    detail: str
    known: str = ""


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
    return summarize(results)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run unmodified clients against a real ragq.")
    parser.add_argument("--only", nargs="*", default=[], metavar="CLIENT")
    parser.add_argument("--service", nargs="*", default=[], choices=SERVICES)
    parser.add_argument("--verbose", action="store_true", help="print the checks that passed, too")
    return parser.parse_args()


def prepare_all(names: Iterable[str], results: list[Result]) -> dict[str, list[str]]:
    """Make the environments, one after another; a client without one is a failure."""
    commands = {}
    for name in names:
        started = time.monotonic()
        try:
            commands[name] = prepare(name)
        except InstallError as error:
            results.append(Result(name, "-", "(environment)", ok=False, detail=str(error)))
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
        results.append(Result(name, service.name, "(program)", ok=False, detail=f"{fault or 'no checks'}: {tail}"))
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
    return Result(client, service.name, said["check"], said["ok"], said["detail"], known)


def known_failure(client: str, service: str, check: str) -> str:
    """Why a check fails that is not ragq's to mend, or nothing."""
    for entry in tomllib.loads((HERE / "known_failures.toml").read_text()).get("failure", []):
        if (entry["client"], entry["check"]) == (client, check) and entry.get("service", service) == service:
            return f"{entry['whose']}: {entry['why']}"
    return ""


def print_rows(results: list[Result], *, everything: bool) -> None:
    for result in results:
        word = {True: "ok", False: "known" if result.known else "FAIL", None: "not run"}[result.ok]
        if everything or not result.ok:
            row = f"{word:8}{result.client:16}{result.service:11}{result.check:50} {result.known or result.detail}"
            print(row if everything else row[: 86 + DETAIL_WIDTH], flush=True)


def summarize(results: list[Result]) -> int:
    """Print a line for each client, write the JSON; returns the exit code."""
    (ROOT / "build" / "clients.json").write_text(json.dumps([asdict(result) for result in results], indent=1))
    print(f"\n{'client':20}{'extractive':>12}{'llm':>12}")
    for name in sorted({result.client for result in results}):
        cells = []
        for service in SERVICES:
            mine = [each for each in results if (each.client, each.service) == (name, service) and each.ok is not None]
            cells.append(f"{sum(bool(each.ok) for each in mine)}/{len(mine)}" if mine else "not run")
        print(f"{name:20}{cells[0]:>12}{cells[1]:>12}")
    failed = [result for result in results if result.ok is False and not result.known]
    passed = sum(bool(result.ok) for result in results)
    known = sum(bool(result.known) for result in results)
    skipped = sum(result.ok is None for result in results)
    print(f"\n{passed} passed, {len(failed)} failed, {known} failed as known, {skipped} not run: build/clients.json")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
