"""The cleaner: a process that outlives a killed `ragq up` for a moment and stops the processes it left.

It waits as a shell, which takes less than a megabyte, and then becomes `python -m ragq.embedded.cleaner`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import structlog

from ragq.embedded.processes import kill_strays
from ragq.embedded.services import State
from ragq.errors import RagqError
from ragq.logs import configure_logging
from ragq.settings import read_settings

log = structlog.get_logger(__name__)

WAIT = "trap '' INT TERM HUP; read -r _; exec \"$@\""  # until every process has closed the other end of standard input


@dataclass(frozen=True, slots=True)
class Cleaner:
    """The process and a pipe to it. No one writes to the pipe, so its readers see its end when this process has ended.

    Attributes:
        read_end: Standard input for every child that must end with this process.
    """

    process: subprocess.Popen[bytes]
    read_end: int
    write_end: int

    @classmethod
    def start(cls, data_dir: Path) -> Self:
        """Start the cleaner, before the processes that it may have to stop."""
        read_end, write_end = os.pipe()
        command = [sys.executable, "-m", "ragq.embedded.cleaner", str(os.getpid()), str(data_dir.resolve())]
        process = subprocess.Popen(
            ["/bin/sh", "-c", WAIT, "cleaner", *command],
            stdin=read_end,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        return cls(process, read_end, write_end)

    def stop(self) -> None:
        """End the cleaner, after the services are stopped."""
        self.process.kill()
        self.process.wait()
        os.close(self.write_end)
        os.close(self.read_end)


def clean_up_after(owner: int, data_dir: Path) -> None:
    """Stop the processes in `services.json` after its owner has ended.

    The next start on the folder may do the same concurrently. Its new processes are safe: either they are not in the file
    yet, or the file names a new owner.
    """
    state = State.read(data_dir)
    if state and state.owner.pid == owner:  # the pipe ends a moment before the owner is seen to be dead
        log.warning("owner_was_killed", pid=state.owner.pid, folder=str(data_dir))
        state.stop_all()
        kill_strays(data_dir)  # started but not recorded yet


if __name__ == "__main__":
    with suppress(RagqError):  # the file changed and is invalid now
        configure_logging(read_settings())
    clean_up_after(int(sys.argv[1]), Path(sys.argv[2]))
