"""Identify processes by pid and start time, start them apart from the terminal, stop them, tie them to their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
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
PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of linux/prctl.h
StopSteps = tuple[tuple[signal.Signals, float], ...]  # each signal, and how many seconds to wait after it


@dataclass(frozen=True, slots=True)
class Process:
    """A process, identified by pid and start time, since pids are reused; empty if it had ended already."""

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
    command: list[str],
    folder: Path,
    account: tuple[int, int] | None,
    log_descriptor: int,
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a server in its folder, in a session that Ctrl-C does not reach."""
    return subprocess.Popen(
        command,
        cwd=folder,  # entered as ourselves, before the switch to the account
        env=ENVIRONMENT,
        stdin=stdin,
        stdout=log_descriptor,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        **run_as(account),
    )


def run_as(account: tuple[int, int] | None) -> dict[str, Any]:
    return {"user": account[0], "group": account[1], "extra_groups": []} if account else {}


def stop_processes(processes: list[Process], steps: StopSteps) -> None:
    """Send the signals one after the other until all processes have ended."""
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
    """Kill processes that work in the folder: backends without a postmaster, and unrecorded servers."""
    if LINUX:
        pids = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # ended meanwhile, or another user's
                program = (entry / "exe").readlink().name.removesuffix(" (deleted)")
                if program in PROGRAMS and (entry / "cwd").readlink().is_relative_to(folder):
                    pids.append(int(entry.name))
    else:
        names = [part for program in PROGRAMS for part in ("-c", program)]
        command = ["lsof", "-t", "-a", "-d", "cwd", *names, "+D", str(folder)]
        pids = [int(pid) for pid in subprocess.run(command, capture_output=True, check=False).stdout.split()]
    stop_processes([Process.of(pid) for pid in pids], ((signal.SIGKILL, 10),))


def end_with_parent() -> None:
    """Send this process SIGTERM when its parent has died. The parent holds the other end of our standard input.

    The pipe works on every system. On Linux the kernel sends a SIGTERM of its own, even while Python is stuck in a
    library. The second SIGTERM is intended: with it a worker hands back its jobs at once, because the servers stop next.
    """
    threading.Thread(target=_wait_for_end_of_input, name="parent", daemon=True).start()
    if LINUX:
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGTERM)


def _wait_for_end_of_input() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def find_listener(port: int) -> str | None:
    """Name the process that listens on a TCP port, if this user may see it (Linux only)."""
    inodes = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        with suppress(OSError):
            rows = [line.split() for line in table.read_text().splitlines()[1:]]
            inodes |= {f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")}
    for entry in Path("/proc").glob("[0-9]*/fd/*") if inodes else ():
        with suppress(OSError):  # ended meanwhile, or another user's
            if str(entry.readlink()) in inodes:
                return f"{(entry.parents[1] / 'comm').read_text().strip()}, process {entry.parents[1].name}"
    return None
