"""Processes told apart by pid and start, started apart from the terminal, and stopped step by step."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

log = structlog.get_logger(__name__)

LINUX = sys.platform == "linux"
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}  # none of the user's PG* variables
PROGRAMS = ("valkey-server", "postgres", "initdb")
StopSteps = tuple[tuple[signal.Signals, float], ...]  # each signal, and how many seconds it is given


@dataclass(frozen=True, slots=True)
class Process:
    """A process, told from a later one with the same pid by the time it started; empty when it was gone already."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Process:
        """Identify a process; a zombie counts as gone."""
        if LINUX:
            try:
                fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
                state, started = fields[0], f"{fields[19]} {Path('/proc/sys/kernel/random/boot_id').read_text()}"
            except OSError:
                return cls(pid, "")
        else:
            command = ["/bin/ps", "-o", "state=,lstart=", "-p", str(pid)]
            text = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False).stdout
            state, _, started = text.strip().partition(" ")
        return cls(pid, "" if state[:1] in ("Z", "X") else started.strip())

    def is_alive(self) -> bool:
        return self.started != "" and Process.of(self.pid) == self


def spawn(
    command: list[str], folder: Path, account: tuple[int, int] | None, log_descriptor: int
) -> subprocess.Popen[bytes]:
    """Start a server in its folder, out of reach of the terminal's Ctrl-C."""
    return subprocess.Popen(
        command,
        cwd=folder,  # entered as ourselves, before the account is taken on
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=log_descriptor,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        **run_as(account),
    )


def run_as(account: tuple[int, int] | None) -> dict[str, Any]:
    return {"user": account[0], "group": account[1], "extra_groups": []} if account else {}


def stop_processes(processes: list[Process], steps: StopSteps) -> None:
    """Send the signals one after the other until none of the processes is alive."""
    for number, seconds in steps:
        alive = [process for process in processes if process.is_alive()]
        deadline = time.monotonic() + seconds
        for process in alive:
            log.debug("stopping_process", pid=process.pid, signal=number.name)
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)
        while any(process.is_alive() for process in alive) and time.monotonic() < deadline:
            time.sleep(0.01)


def kill_strays(folder: Path) -> None:
    """Kill the servers that work in the folder: backends without a postmaster, servers that nobody recorded."""
    if LINUX:
        pids = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # gone meanwhile, or another user's
                program = (entry / "exe").readlink().name.removesuffix(" (deleted)")
                if program in PROGRAMS and (entry / "cwd").readlink().is_relative_to(folder):
                    pids.append(int(entry.name))
    else:
        names = [part for program in PROGRAMS for part in ("-c", program)]
        command = ["lsof", "-t", "-a", "-d", "cwd", *names, "+D", str(folder)]
        pids = [int(pid) for pid in subprocess.run(command, capture_output=True, check=False).stdout.split()]
    stop_processes([Process.of(pid) for pid in pids], ((signal.SIGKILL, 10),))
