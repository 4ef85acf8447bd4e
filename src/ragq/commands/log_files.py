"""Read the log files of a data folder: ours in JSON, PostgreSQL's and Valkey's in their own forms."""

from __future__ import annotations

import heapq
import json
import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TextIO

Entry = dict[str, Any]
"""`process`, `timestamp` in ISO 8601 and UTC, `level`, `event`, and what else our own lines have."""

LEVELS = ("debug", "info", "warning", "error", "critical")
POSTGRESQL = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d\.\d{3}) UTC \[\d+\] (\w+): +(.*)")
POSTGRESQL_LEVELS = {"WARNING": "warning", "ERROR": "error", "FATAL": "critical", "PANIC": "critical"}
VALKEY = re.compile(r"\d+:\w (\d\d \w{3} \d{4} \d\d:\d\d:\d\d\.\d{3}) ([.\-*#]) (.*)")
VALKEY_LEVELS = {".": "debug", "-": "debug", "*": "info", "#": "warning"}


def read_entry(line: str, process: str) -> Entry:
    """Read a line. One that begins nothing, such as the rest of a message, has no timestamp."""
    if line.startswith("{"):
        try:
            return {"process": process, **json.loads(line)}
        except ValueError:  # cut, as by a full disk
            pass
    elif found := POSTGRESQL.fullmatch(line):
        day, time, severity, event = found.groups()
        level = POSTGRESQL_LEVELS.get(severity, "info")
        return {"process": process, "timestamp": f"{day}T{time}Z", "level": level, "event": event}
    elif found := VALKEY.fullmatch(line):
        moment = datetime.strptime(found[1], "%d %b %Y %H:%M:%S.%f").replace(tzinfo=UTC)
        timestamp = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {"process": process, "timestamp": timestamp, "level": VALKEY_LEVELS[found[2]], "event": found[3]}
    return {"process": process, "event": line}


@dataclass(slots=True)
class LogFile:
    """The log of a process, which may be renamed to `.log.1` and begun again at any moment."""

    path: Path
    _last: Entry = field(default_factory=dict)
    _file: TextIO | None = None
    _inode: int = 0
    _begun: str = ""  # a line whose end is not written yet

    @property
    def process(self) -> str:
        return self.path.stem

    def read(self) -> Iterator[Entry]:
        """Read what was written since the last call; at first everything, also of the file before."""
        if self._file is None:
            before = self.path.with_suffix(".log.1")
            if before.exists():
                with before.open(encoding="utf-8", errors="replace") as file:
                    yield from self._read_lines(file)
        while True:
            if self._file is None and not self._open():
                return
            assert self._file
            is_current = self._is_current()  # before the last lines are read: nothing is written to a renamed one
            yield from self._read_lines(self._file)
            if is_current:
                return
            self.close()

    def _open(self) -> bool:
        try:
            self._file = self.path.open(encoding="utf-8", errors="replace")
        except FileNotFoundError:  # being renamed, or not begun
            return False
        self._inode = self.path.stat().st_ino
        return True

    def _is_current(self) -> bool:
        """Whether the file that is open is the one of that name."""
        try:
            return self.path.stat().st_ino == self._inode
        except FileNotFoundError:
            return True  # about to be begun: the next call finds it

    def _read_lines(self, file: TextIO) -> Iterator[Entry]:
        for piece in file:
            self._begun += piece
            if not piece.endswith("\n"):
                return
            line, self._begun = self._begun.rstrip("\n"), ""
            entry = read_entry(line, self.process)
            # The rest of a message belongs to its first line.
            entry.setdefault("timestamp", self._last.get("timestamp", ""))
            entry.setdefault("level", self._last.get("level", "info"))
            self._last = entry
            yield entry

    def close(self) -> None:
        if self._file:
            self._file.close()
        self._file, self._begun = None, ""


class LogFolder:
    """The logs in a folder of the processes whose names begin with one of `names`; without names, all."""

    def __init__(self, folder: Path, names: tuple[str, ...]) -> None:
        self._folder = folder
        self._names = names
        self._files: dict[Path, LogFile] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    @property
    def processes(self) -> list[str]:
        """All processes that have a log in the folder."""
        return sorted(path.stem for path in self._folder.glob("*.log"))

    def find(self) -> list[LogFile]:
        """The log files, with those that are new."""
        for path in sorted(self._folder.glob("*.log")):
            if not self._names or path.stem.startswith(self._names):
                self._files.setdefault(path, LogFile(path))
        return list(self._files.values())

    def read_last(self, count: int, keep: Callable[[Entry], bool]) -> list[Entry]:
        """Read the last entries of all files together, in the order of time."""
        last = [deque(filter(keep, file.read()), maxlen=count) for file in self.find()]
        return list(deque(heapq.merge(*last, key=_time_of), maxlen=count))

    def read_new(self, keep: Callable[[Entry], bool]) -> list[Entry]:
        """Read the entries since the last call, in the order of time."""
        return sorted((entry for file in self.find() for entry in file.read() if keep(entry)), key=_time_of)


def _time_of(entry: Entry) -> str:
    return str(entry["timestamp"])
