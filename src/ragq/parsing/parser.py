"""Parse a document in a child process, whose crash, hang or memory use does not harm the caller."""

from __future__ import annotations

import asyncio
import json
import math
import re
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from ragq.errors import DocumentError, PoisonError, TransientError
from ragq.models import ParsedDocument
from ragq.parsing.extract import OUT_OF_MEMORY, too_long

T = TypeVar("T")

SUPPORTED_EXTENSIONS = {".pdf": "pdf", ".md": "markdown", ".markdown": "markdown", ".txt": "text"}
MAX_CHARACTERS = 20_000_000
OUTPUT_BYTES = 6  # most bytes printed for a character
INVALID_OUTPUT = "The parser returned invalid output for this file. It is probably damaged."
GONE = "The process that starts parsers has ended. Try again."
END_SECONDS = 5.0  # time for a kill to take effect
LATE_SECONDS = 1.0  # a time limit noticed this late means that this process was frozen, not that the file is slow

_PACKAGE_PARENT = Path(__file__).resolve().parents[2]
_PROGRESS_LINE = re.compile(rb"^(\d{1,9}) (\d{1,9})$", re.MULTILINE)
_READ_BYTES = 1 << 18


def check_supported(filename: str) -> str:
    """The kind of a file, from its extension.

    Raises:
        DocumentError: The extension is not supported; the code is `unsupported_file`.
    """
    kind = SUPPORTED_EXTENSIONS.get(Path(filename).suffix.lower())
    if kind is None:
        extensions = ", ".join(SUPPORTED_EXTENSIONS)
        raise DocumentError(f"Files like {filename[-80:]!r} cannot be read; {extensions} can.", code="unsupported_file")
    return kind


class Parser:
    """Reads documents, each in a child of a forker process, which is started on first use and again after it ends."""

    def __init__(self) -> None:
        self._forker: _Forker | None = None
        self._starting = asyncio.Lock()

    async def parse(
        self,
        path: Path,
        filename: str,
        *,
        timeout_seconds: float,
        memory_bytes: int,
        max_characters: int = MAX_CHARACTERS,
        progress: Callable[[int, int], None] | None = None,
    ) -> ParsedDocument:
        """Read the text, pages and headings of a file.

        Args:
            max_characters: A longer text is refused.
            progress: Called with (pages done, total pages), at most about ten times a second.

        Raises:
            DocumentError: The file's kind is not supported, or it cannot be read; the message says what to do.
            PoisonError: Reading it crashed, or took too much time, memory or output.
            TransientError: This process was frozen meanwhile, or the forker ended.
        """
        kind = check_supported(filename)
        if not path.stat().st_size:  # noqa: ASYNC240  (a local temporary file)
            raise DocumentError("The file is empty.")
        request: list[str | int] = [kind, max_characters, math.ceil(timeout_seconds), memory_bytes]
        with path.open("rb") as file:
            forker, child = await self._fork(request, file)
        try:
            output, code = await _in_time(_read_all(child, max_characters, progress), timeout_seconds)
        finally:
            await self._end(forker, child)
        if code:
            raise _explain_crash(code, timeout_seconds)
        return await asyncio.to_thread(_read_outcome, output)

    async def _fork(self, request: list[str | int], file: BinaryIO) -> tuple[_Forker, _Child]:
        """Fork a child.

        Raises:
            TransientError: The forker has ended; the next call starts another.
        """
        async with self._starting:
            forker = self._forker = self._forker or await _Forker.start()
        ours, theirs = zip(*(socket.socketpair() for _ in range(3)), strict=True)
        child = await _Child.connect(*ours)
        child.line.write(json.dumps(request).encode() + b"\n")
        await child.line.drain()
        try:
            socket.send_fds(forker.requests, [b"."], [one.fileno() for one in (file, *theirs)])
        except OSError as error:
            child.close()
            await self._drop(forker)
            raise TransientError(GONE) from error
        finally:
            for one in theirs:
                one.close()
        return forker, child

    async def _end(self, forker: _Forker, child: _Child) -> None:
        """Kill a child with all that it started, and wait until it has ended."""
        try:
            async with asyncio.timeout(END_SECONDS):
                await child.hang_up()
        except (TimeoutError, TransientError) as error:
            await self._drop(forker)
            raise TransientError(GONE) from error
        finally:
            child.close()

    async def _drop(self, forker: _Forker) -> None:
        """Discard a forker that has stopped working."""
        if self._forker is forker:
            self._forker = None
        await forker.close()

    async def close(self) -> None:
        """End the forker and with it every child."""
        if self._forker:
            await self._drop(self._forker)


@dataclass(frozen=True, slots=True)
class _Forker:
    """The forker process."""

    process: asyncio.subprocess.Process
    requests: socket.socket

    @classmethod
    async def start(cls) -> _Forker:
        requests, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "ragq.parsing.forker"),
                stdin=theirs.fileno(),
                stdout=asyncio.subprocess.DEVNULL,
                start_new_session=True,
                env={"PYTHONPATH": str(_PACKAGE_PARENT), "PYTHONUTF8": "1"},  # without our keys
            )
        return cls(process, requests)

    async def close(self) -> None:
        """End the forker, which kills its children."""
        self.requests.close()
        try:
            async with asyncio.timeout(END_SECONDS):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


@dataclass(slots=True)
class _Child:
    """A child that reads one file.

    Attributes:
        line: Socket to the forker: it carries the request, and closing it makes the forker kill the child.
    """

    output: asyncio.StreamReader
    errors: asyncio.StreamReader
    line: asyncio.StreamWriter
    _answer: asyncio.StreamReader
    _writers: tuple[asyncio.StreamWriter, ...]
    _code: int | None = None

    @classmethod
    async def connect(cls, *sockets: socket.socket) -> _Child:
        """Connect to the three sockets of a request."""
        readers, writers = zip(*[await asyncio.open_unix_connection(sock=one) for one in sockets], strict=True)
        return cls(readers[0], readers[1], writers[2], readers[2], writers)

    async def wait(self) -> int:
        """Wait for the child's end; returns its exit code.

        Raises:
            TransientError: The forker ended first.
        """
        if self._code is None:
            try:
                self._code = int(await self._answer.read())
            except (OSError, ValueError) as error:
                raise TransientError(GONE) from error
        return self._code

    async def hang_up(self) -> None:
        """Have the forker kill the child, if it still runs, and wait for its end."""
        if self._code is None and not self.line.is_closing():
            self.line.write_eof()
        await self.wait()

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


async def _read_output(stream: asyncio.StreamReader, max_characters: int) -> bytearray:
    output = bytearray()
    while part := await stream.read(_READ_BYTES):
        output += part
        if len(output) > OUTPUT_BYTES * max_characters:
            raise PoisonError(too_long(max_characters))
    return output


async def _read_progress(stream: asyncio.StreamReader, progress: Callable[[int, int], None] | None) -> None:
    tail = b""
    while part := await stream.read(_READ_BYTES):
        lines, _, rest = (tail + part).rpartition(b"\n")
        found = _PROGRESS_LINE.findall(lines)
        if found and progress:
            progress(int(found[-1][0]), int(found[-1][1]))
        tail = rest[-100:]


async def _in_time(reading: Coroutine[Any, Any, T], timeout_seconds: float) -> T:
    """Wait for a child within its time limit.

    Raises:
        PoisonError: The child took too long.
        TransientError: It took too long, but this process was frozen meanwhile.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_seconds
    try:
        async with asyncio.timeout_at(deadline):
            return await reading
    except TimeoutError as error:
        if loop.time() > deadline + LATE_SECONDS:
            raise TransientError("The worker was frozen while it read the file.") from error
        raise PoisonError(f"Reading the file took longer than {timeout_seconds:g} s: split it.") from error


async def _read_all(
    child: _Child, max_characters: int, progress: Callable[[int, int], None] | None
) -> tuple[bytearray, int]:
    """Read a child's output and its exit code."""
    output, _ = await asyncio.gather(_read_output(child.output, max_characters), _read_progress(child.errors, progress))
    return output, await child.wait()


def _explain_crash(code: int, timeout_seconds: float) -> DocumentError:
    if -code in (signal.SIGXCPU, signal.SIGKILL):
        return PoisonError(
            f"Reading the file took more than {timeout_seconds:g} s of CPU or too much memory: split it."
        )
    if code == OUT_OF_MEMORY:
        return PoisonError(
            "Reading the file takes more memory than is allowed: split it, or raise RAGQ_PARSE_MEMORY_BYTES."
        )
    if code < 0:
        how = signal.Signals(-code).name
        return PoisonError(f"The file crashed the parser ({how}): it is damaged, or needs more memory than is allowed.")
    return DocumentError(
        f"The parser failed with exit code {code}: the file is damaged, or ragq is not installed well."
    )


def _read_outcome(output: bytearray) -> ParsedDocument:
    """Validate the child's output, since a hostile file may have taken over the child."""
    try:
        outcome: Any = json.loads(output)
        if "error" in outcome:
            raise DocumentError(str(outcome["error"])[:500])
        text = str(outcome["text"])
        page_starts = tuple(int(start) for start in outcome["page_starts"])
        headings = tuple((int(offset), str(title)) for offset, title in outcome["headings"])
    except (ValueError, TypeError, KeyError) as error:
        raise PoisonError(INVALID_OUTPUT) from error
    offsets = [offset for offset, _ in headings]
    if any(
        list(group) != sorted(group) or (group and not 0 <= group[0] <= group[-1] <= len(text))
        for group in (page_starts, offsets)
    ):
        raise PoisonError(INVALID_OUTPUT)
    return ParsedDocument(text, page_starts, headings)
