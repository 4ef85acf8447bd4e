"""The commands of a page of the documents, run as its reader runs them.

Of a page's fenced blocks these are run, in their order:

- `sh`: commands, which must succeed. What they print is not compared.
- `console`: each command follows `$ `, what it prints follows the command, and is compared.
- `python`: a program, which must succeed.

In what a page prints, `…` stands for any part of a line, with the blanks of a table around it, and a line that is `…` alone for
any lines. In a command, `resp_…`, `file-…` and `key_…` stand for the last id of that form that was printed, as a reader copies it.

A comment on a line of its own says what the page's prose says about the next block, or what the reader does there:

- `<!-- test: new terminal -->`: open a terminal. A command goes to the newest terminal that has nothing running.
- `<!-- test: runs on -->`: the `console` block's last command keeps its terminal busy; what it prints later is not compared.
- `<!-- test: again -->`: run the block again until it prints this.
- `<!-- test: Ctrl-C -->`: stop the command that was started last and runs on.
- `<!-- test: not run, WHY -->`: the block cannot run here. The tests name each of these.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tests.servers import wait_until

LANGUAGES = ("sh", "console", "python")
MARK = re.compile(r"<!-- test: (.+) -->")
WITHOUT_BLOCK = ("new terminal", "Ctrl-C")
ID = re.compile(r"\b(resp_|file-|key_)…")
ELLIPSIS = re.compile(r"(?: {2,})?…(?: {2,})?")
END = "[end of the command]"
PATIENCE_SECONDS = 40


@dataclass(frozen=True)
class Step:
    """What the reader does at a line of a page: run a command, or one of `WITHOUT_BLOCK`."""

    place: str
    marks: tuple[str, ...]
    command: str = ""
    printed: str | None = None

    @property
    def reason_not_run(self) -> str | None:
        return next((mark.partition(", ")[2] for mark in self.marks if mark.startswith("not run, ")), None)


def read_steps(page: Path) -> list[Step]:
    """Read the steps of a page."""
    steps: list[Step] = []
    marks: list[str] = []
    language, block, start = "", [""], 0
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if start:
            if line == "```":
                if language in LANGUAGES:
                    steps += _steps_of(language, block, f"{page.name}:{start}", tuple(marks))
                    marks = []
                start = 0
            block.append(line)
        elif line.startswith("```"):
            language, block, start = line.removeprefix("```"), [], number
        elif mark := MARK.fullmatch(line):
            if mark[1] in WITHOUT_BLOCK:
                steps.append(Step(f"{page.name}:{number}", (mark[1],)))
            else:
                marks.append(mark[1])
    assert not marks, f"{page.name}: no block follows {marks}"
    return steps


def _steps_of(language: str, lines: list[str], place: str, marks: tuple[str, ...]) -> list[Step]:
    text = "\n".join(lines)
    if language == "python":
        return [Step(place, marks, f"python - <<'END_OF_PROGRAM'\n{text}\nEND_OF_PROGRAM")]
    if language == "sh":
        return [Step(place, marks, text)]
    _, *parts = re.split(r"^\$ ", text, flags=re.MULTILINE)
    found = []
    for part in parts:
        command = re.match(r"(?:.*\\\n)*.*", part)  # a backslash at the end of a line continues the command
        assert command
        is_last = part is parts[-1]
        its = tuple(mark for mark in marks if is_last or mark != "runs on")
        found.append(Step(place, its, command[0], part[command.end() :].strip("\n")))
    return found


def matches(expected: str, printed: str) -> bool:
    """Whether a command printed what the page says."""
    pattern = [
        r"(?:.*\n)*" if line == "…" else ".*".join(map(re.escape, ELLIPSIS.split(line.rstrip()))) + r"[ \t]*\n"
        for line in expected.splitlines()
    ]
    text = printed.strip("\n")
    return re.fullmatch("".join(pattern), f"{text}\n" if text else "") is not None


class Terminal:
    """A shell as a reader has it; what its commands print goes to a file."""

    def __init__(self, folder: Path, environment: dict[str, str], log: Path) -> None:
        self._log = log
        self._start = 0
        self.is_busy = False
        with log.open("ab") as output:
            self._shell = subprocess.Popen(
                ["bash", "--noprofile", "--norc"],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C reaches the shell and what it runs
            )
        self._send("trap : INT\ntrap 'FAILED=$?' ERR\n")  # it outlives its commands, and notices each that fails

    def _send(self, text: str) -> None:
        assert self._shell.stdin
        self._shell.stdin.write(text.encode())
        self._shell.stdin.flush()

    def start(self, command: str) -> None:
        self.is_busy = True
        self._start = self._log.stat().st_size
        self._send(f"FAILED=0\n{{\n{command}\n}} </dev/null\nprintf '\\n%s %s\\n' '{END}' $FAILED\n")

    def output(self) -> str:
        """What the command has printed so far."""
        return self._log.read_bytes()[self._start :].decode()

    def wait(self) -> tuple[str, int]:
        """Wait for the command's end; returns what it printed, and its exit code."""
        wait_until(lambda: END in self.output(), seconds=PATIENCE_SECONDS, what=f"the end of: {self.output()}")
        printed, _, code = self.output().rpartition(f"\n{END} ")
        self.is_busy = False
        return printed, int(code)

    def press_ctrl_c(self) -> None:
        os.killpg(self._shell.pid, signal.SIGINT)
        self.wait()

    def close(self) -> None:
        """End the shell, and what it runs."""
        try:
            if self.is_busy:
                self.press_ctrl_c()
        finally:
            os.killpg(self._shell.pid, signal.SIGKILL)
            self._shell.wait()
            assert self._shell.stdin
            self._shell.stdin.close()


class Desk:
    """A folder with the terminals that a reader has open in it.

    Args:
        instead: What stands in commands for words of the page, such as another port; what is printed is turned back.
    """

    def __init__(self, folder: Path, environment: dict[str, str], instead: dict[str, str]) -> None:
        self._folder = folder
        self._environment = environment
        self._instead = instead
        self._terminals: list[Terminal] = []
        self._closing = contextlib.ExitStack()
        self._ids: dict[str, str] = {}
        self.open()

    def open(self) -> None:
        log = self._folder / f"terminal-{len(self._terminals) + 1}.log"
        self._terminals.append(Terminal(self._folder, self._environment, log))
        self._closing.callback(self._terminals[-1].close)

    def run(self, steps: list[Step]) -> str:
        """Take the steps of a page, but for those that cannot run here; returns the first that is not as the page says."""
        for step in steps:
            if step.marks == ("new terminal",):
                self.open()
            elif step.marks == ("Ctrl-C",):
                next(terminal for terminal in reversed(self._terminals) if terminal.is_busy).press_ctrl_c()
            elif step.reason_not_run is None and (fault := self._take(step)):
                return fault
        return ""

    def _take(self, step: Step) -> str:
        """Take a step, for as long as it may need; returns what is not as the page says."""
        free = [terminal for terminal in self._terminals if not terminal.is_busy]
        assert free, f"{step.place}: every terminal is busy: {step.command}"
        terminal = free[-1]
        assert step.printed or "runs on" not in step.marks, f"{step.place}: the page says nothing to wait for"
        if "runs on" in step.marks:
            terminal.start(self._translate(step.command))
        waits = not {"runs on", "again"}.isdisjoint(step.marks)
        deadline = time.monotonic() + (PATIENCE_SECONDS if waits else 0)
        while complaint := self._find_fault(step, terminal):
            if time.monotonic() >= deadline:
                return f"{step.place}: {step.command}\n{complaint}"
            time.sleep(0.2)
        return ""

    def _find_fault(self, step: Step, terminal: Terminal) -> str:
        """Run the command, unless it runs on already, and compare what it printed with the page."""
        if "runs on" in step.marks:
            printed, code = terminal.output(), 0
        else:
            terminal.start(self._translate(step.command))
            printed, code = terminal.wait()
        printed = self._read(printed)
        expected = step.printed
        if expected is not None and "runs on" in step.marks:
            expected += "\n…"
        if code == 0 and (expected is None or matches(expected, printed)):
            return ""
        return f"--- the page says:\n{step.printed}\n--- it printed:\n{printed}\n--- and ended with code {code}"

    def _translate(self, command: str) -> str:
        for word, other in self._instead.items():
            command = command.replace(word, other)
        command = ID.sub(lambda found: self._ids[found[1]], command)
        assert "…" not in command, f"nothing was printed that this stands for: {command}"
        return command

    def _read(self, printed: str) -> str:
        for found in re.finditer(r"\b(resp_|file-|key_)[0-9a-f]{32}", printed):
            self._ids[found[1]] = found[0]
        for word, other in self._instead.items():
            printed = printed.replace(other, word)
        return printed

    def close(self) -> None:
        """Stop everything, the newest first."""
        self._closing.close()
