"""Parse a document in a child process, whose crash, hang or memory use does not harm the caller."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from ragq.errors import DOCUMENT_CODES, DocumentError, PoisonError, TransientError
from ragq.models import ParsedDocument
from ragq.parsing.terms import OCR_REST_SECONDS, OUT_OF_MEMORY, REFUSED_EXTENSIONS, clean, too_long

Request = list[str | int]

MAX_CHARACTERS = 20_000_000
MAX_OCR_PAGES = 2000  # by the time of so many, at most, a document's limit is extended
DRAWING_BYTES = 20 << 20
PNG = b"\x89PNG\r\n\x1a\n"
OUTPUT_BYTES = 6  # most bytes printed for a character
INVALID_OUTPUT = "The parser returned invalid output for this file. It is probably damaged."
GONE = "The process that starts parsers has ended. Try again."
END_SECONDS = 5.0  # time for a kill to take effect
KEPT_CHUNKS = 500  # freed chunks of each size, at most
LATE_SECONDS = 1.0  # a time limit noticed this late means that this process was frozen, not that the file is slow

_PACKAGE_PARENT = Path(__file__).resolve().parents[2]
_PROGRESS_LINE = re.compile(rb"^(\d{1,9}) (\d{1,9})$", re.MULTILINE)
_OCR_LINE = re.compile(rb"^ocr (\d{1,9})$", re.MULTILINE)
_READ_BYTES = 1 << 18
# msgspec prepares a type at its first use, and crashes the process if two threads do that at once: so prepare it now.
msgspec.json.Decoder(ParsedDocument)


def check_supported(filename: str) -> None:
    """Check that a file is not of a kind that is never read; what it is otherwise is told by its content.

    Raises:
        DocumentError: It is; the code is `unsupported_file`.
    """
    if Path(filename).suffix.lower() in REFUSED_EXTENSIONS:
        raise DocumentError(
            f"Files like {filename[-80:]!r} cannot be read: documents, tables, mails, images and text can.",
            code="unsupported_file",
        )


@dataclass(frozen=True, slots=True)
class OcrSettings:
    """How text in pictures is read.

    Attributes:
        languages: As tesseract calls them; empty: those that are installed.
        page_seconds: Time of a page for OCR, which is there even if the file's time limit ends sooner.
    """

    languages: str = ""
    page_seconds: float = 30


DEFAULT_OCR = OcrSettings()


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
        ocr: OcrSettings = DEFAULT_OCR,
        max_characters: int = MAX_CHARACTERS,
        progress: Callable[[int, int], None] | None = None,
    ) -> ParsedDocument:
        """Read the text, pages and headings of a file.

        Args:
            ocr: Of pages without text, and of pictures.
            max_characters: A longer text is refused.
            progress: Called with (pages done, total pages), at most about ten times a second.

        Raises:
            DocumentError: The file's kind is not supported, or it cannot be read; the message says what to do.
            PoisonError: Reading it crashed, or took too much time, memory or output.
            TransientError: This process was frozen meanwhile, or the forker ended.
        """
        check_supported(filename)
        if not path.stat().st_size:  # noqa: ASYNC240  (a local temporary file)
            raise DocumentError("The file is empty.", code="no_text")
        time = _Time(math.ceil(timeout_seconds), math.ceil(ocr.page_seconds))
        request: Request = ["read", time.seconds, time.longest_seconds, memory_bytes]
        request += [filename, max_characters, ocr.languages, time.page_seconds]
        output = await self._run(path, request, time, OUTPUT_BYTES * max_characters, too_long(max_characters), progress)
        return await asyncio.to_thread(_read_outcome, output)

    async def draw(self, path: Path, page: int, quote: str, *, timeout_seconds: float, memory_bytes: int) -> bytes:
        """Draw a page of a PDF, from 1, as a PNG with the quote marked.

        Raises:
            DocumentError: The file is no PDF, or has no such page.
            PoisonError, TransientError: As `parse`.
        """
        time = _Time(math.ceil(timeout_seconds))
        request: Request = ["draw", time.seconds, time.longest_seconds, memory_bytes, page, quote]
        output = await self._run(path, request, time, DRAWING_BYTES, "The page is too large to be drawn.")
        if not output.startswith(PNG):
            await asyncio.to_thread(_read_outcome, output)
            raise PoisonError(INVALID_OUTPUT)
        return bytes(output)

    async def _run(
        self,
        path: Path,
        request: Request,
        time: _Time,
        most_bytes: float,
        too_much: str,
        progress: Callable[[int, int], None] | None = None,
    ) -> bytearray:
        """Run one task on a file in a child, and return what it printed."""
        with path.open("rb") as file:
            forker, child = await self._fork(request, file)
        try:
            reading = _read_output(child.output, most_bytes, too_much)
            output, code = await _read_in_time(child, reading, progress, time)
        finally:
            await self._end(forker, child)
        if code:
            raise _explain_crash(code, time.seconds)
        return output

    async def _fork(self, request: Request, file: BinaryIO) -> tuple[_Forker, _Child]:
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
                env=_make_environment(),
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


def _make_environment() -> dict[str, str]:
    """Make the forker's environment: without our keys, without HOME, but with what leads to tesseract.

    pdfium allocates much that is small: it takes a fiftieth less time if glibc keeps more of what is freed at hand.
    """
    kept = {name: os.environ[name] for name in ("PATH", "TESSDATA_PREFIX") if name in os.environ}
    tunables = f"glibc.malloc.tcache_count={KEPT_CHUNKS}"
    return {"PYTHONPATH": str(_PACKAGE_PARENT), "PYTHONUTF8": "1", "GLIBC_TUNABLES": tunables, **kept}


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


@dataclass(frozen=True, slots=True)
class _Time:
    """The time that a child has, and what a page for OCR has at least."""

    seconds: int
    page_seconds: int = 0

    @property
    def longest_seconds(self) -> int:
        return self.seconds + MAX_OCR_PAGES * self.page_seconds


async def _read_output(stream: asyncio.StreamReader, most_bytes: float, too_much: str) -> bytearray:
    output = bytearray()
    while part := await stream.read(_READ_BYTES):
        output += part
        if len(output) > most_bytes:
            raise PoisonError(too_much)
    return output


async def _read_progress(
    stream: asyncio.StreamReader, progress: Callable[[int, int], None] | None, extend: Callable[[int], None]
) -> None:
    tail = b""
    while part := await stream.read(_READ_BYTES):
        lines, _, rest = (tail + part).rpartition(b"\n")
        found = _PROGRESS_LINE.findall(lines)
        if found and progress:
            progress(int(found[-1][0]), int(found[-1][1]))
        if pages := [int(number) for number in _OCR_LINE.findall(lines)]:
            extend(max(pages))
        tail = rest[-100:]


async def _read_in_time(
    child: _Child,
    reading: Coroutine[Any, Any, bytearray],
    progress: Callable[[int, int], None] | None,
    time: _Time,
) -> tuple[bytearray, int]:
    """Read a child's output and its exit code within its time limit, which each page for OCR extends.

    Raises:
        PoisonError: The child took too long.
        TransientError: It took too long, but this process was frozen meanwhile.
    """
    loop = asyncio.get_running_loop()
    begun = loop.time()
    deadline, latest = begun + time.seconds, begun + time.longest_seconds
    limit = asyncio.timeout_at(deadline)
    what, seconds = "Reading the file", time.seconds

    def extend(pages: int) -> None:
        nonlocal deadline, what, seconds
        page_seconds = pages * time.page_seconds + OCR_REST_SECONDS
        extended = min(latest, loop.time() + page_seconds)
        if extended > deadline and not limit.expired():
            what, seconds = "A page for OCR" if pages == 1 else f"OCR of {pages:,} pages", page_seconds
            deadline = extended
            limit.reschedule(deadline)

    try:
        async with limit:
            output, _ = await asyncio.gather(reading, _read_progress(child.errors, progress, extend))
            return output, await child.wait()
    except TimeoutError as error:
        if loop.time() > deadline + LATE_SECONDS:
            raise TransientError("The worker was frozen while it read the file.") from error
        raise PoisonError(f"{what} took longer than {seconds} s: split the file.") from error


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
            code = str(outcome["code"])
            raise DocumentError(clean(str(outcome["error"]))[:500], code=code if code in DOCUMENT_CODES else "damaged")
        document = msgspec.convert(outcome, ParsedDocument)
    except (ValueError, TypeError, KeyError, RecursionError, msgspec.ValidationError) as error:
        raise PoisonError(INVALID_OUTPUT) from error
    if not all(table.rows for table in document.tables):
        raise PoisonError(INVALID_OUTPUT)
    for group in (
        [place.start for place in document.places],
        [offset for offset, _ in document.headings],
        [offset for table in document.tables for offset in (table.start, *(row[0] for row in table.rows), table.end)],
    ):
        if group != sorted(group) or (group and not 0 <= group[0] <= group[-1] <= len(document.text)):
            raise PoisonError(INVALID_OUTPUT)
    return document
