"""A process that outlives a killed `ragq up` for a moment, and stops what it leaves running."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Self

import structlog

from ragq.embedded.services import State

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Cleaner:
    """The process, and a pipe to it: nobody writes, and whoever reads the pipe sees its end when this process is gone.

    Attributes:
        read_end: The standard input of every child that is to end with this process.
    """

    pid: int
    read_end: int
    write_end: int

    @classmethod
    def start(cls, data_dir: Path) -> Self:
        """Fork it. Call this before any thread, lock or socket is there: a fork would share them."""
        read_end, write_end = os.pipe()
        owner = os.getpid()
        pid = os.fork() or _clean_up_after(owner, data_dir.resolve(), read_end, write_end)
        return cls(pid, read_end, write_end)

    def stop(self) -> None:
        """End the process; nothing is left for it to do once the services are stopped."""
        os.close(self.write_end)
        os.close(self.read_end)
        os.waitpid(self.pid, 0)


def _clean_up_after(owner: int, data_dir: Path, read_end: int, write_end: int) -> NoReturn:
    """Wait in the forked process until the parent is gone, then stop what its `services.json` names.

    The next start on the folder may do the same at the same time. Its new processes are not in the file that is read here,
    or the file names a new owner.
    """
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.close(write_end)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        os.read(read_end, 1)
        state = State.read(data_dir)
        if state and state.owner.pid == owner:  # whose pipe ends a moment before it is seen to be dead
            log.warning("owner_was_killed", pid=state.owner.pid, folder=str(data_dir))
            state.stop_all()
    finally:
        os._exit(0)
