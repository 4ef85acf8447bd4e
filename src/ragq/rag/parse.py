"""Parse a document in a child process that may crash, hang or swell without harm to the caller."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ragq.errors import DocumentError, PoisonError, TransientError
from ragq.models import ParsedDocument
from ragq.rag.extract import MAX_CHARACTERS, OUT_OF_MEMORY

SUPPORTED_EXTENSIONS = {".pdf": "pdf", ".md": "markdown", ".markdown": "markdown", ".txt": "text"}
MAX_OUTPUT_BYTES = 6 * MAX_CHARACTERS
NONSENSE = "The file made the parser print nonsense: it is damaged."
LATE_SECONDS = 1.0  # a time limit noticed this late says that we were frozen, not that the file is slow

_PACKAGE_PARENT = Path(__file__).resolve().parents[2]
_PROGRESS_LINE = re.compile(rb"^(\d{1,9}) (\d{1,9})$", re.MULTILINE)
_READ_BYTES = 1 << 18


def check_supported(filename: str) -> str:
    """Name the kind of a file by its extension.

    Raises:
        DocumentError: With code `unsupported_file`, naming what is supported.
    """
    kind = SUPPORTED_EXTENSIONS.get(Path(filename).suffix.lower())
    if kind is None:
        extensions = ", ".join(SUPPORTED_EXTENSIONS)
        raise DocumentError(f"Files like {filename[-80:]!r} cannot be read; {extensions} can.", code="unsupported_file")
    return kind


async def parse(
    path: Path,
    filename: str,
    *,
    timeout_seconds: float,
    memory_bytes: int,
    progress: Callable[[int, int], None] | None = None,
) -> ParsedDocument:
    """Read the text, pages and headings of a file.

    Args:
        progress: Called with (pages done, pages in all), at most about ten times a second.

    Raises:
        DocumentError: The file is of no supported kind, or cannot be read; the message says what to do.
        PoisonError: Reading it crashed, or took too much time, memory or output.
        TransientError: This process was frozen meanwhile.
    """
    kind = check_supported(filename)
    if not path.stat().st_size:  # noqa: ASYNC240  (a local temporary file)
        raise DocumentError("The file is empty.")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "ragq.rag.extract", kind, str(path.resolve())),  # noqa: ASYNC240  (a local temporary file)
        *(str(math.ceil(timeout_seconds)), str(memory_bytes)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        env={"PYTHONPATH": str(_PACKAGE_PARENT), "PYTHONUTF8": "1"},  # no keys of ours
    )
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_seconds
    try:
        async with asyncio.timeout_at(deadline):
            output, _ = await asyncio.gather(_read_output(process), _read_progress(process, progress))
            code = await process.wait()
    except TimeoutError as error:
        if loop.time() > deadline + LATE_SECONDS:
            raise TransientError("The worker was frozen while it read the file.") from error
        raise PoisonError(f"Reading the file took longer than {timeout_seconds:g} s: split it.") from error
    finally:
        await _end(process)
    if code:
        raise _explain_crash(code, timeout_seconds)
    return await asyncio.to_thread(_read_outcome, output)


async def _read_output(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout
    output = bytearray()
    while part := await process.stdout.read(_READ_BYTES):
        output += part
        if len(output) > MAX_OUTPUT_BYTES:
            raise PoisonError(f"The file has more than {MAX_CHARACTERS:,} characters of text: split it.")
    return bytes(output)


async def _read_progress(process: asyncio.subprocess.Process, progress: Callable[[int, int], None] | None) -> None:
    """Follow standard error."""
    assert process.stderr
    tail = b""
    while part := await process.stderr.read(_READ_BYTES):
        lines, _, rest = (tail + part).rpartition(b"\n")
        found = _PROGRESS_LINE.findall(lines)
        if found and progress:
            progress(int(found[-1][0]), int(found[-1][1]))
        tail = rest[-100:]


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill the child with all it started, and reap it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # A pipe that still holds output stays open otherwise, and `wait` waits for it; asyncio has no public way.
    process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001  (asyncio has no public way)
    await process.wait()


def _explain_crash(code: int, timeout_seconds: float) -> DocumentError:
    if -code in (signal.SIGXCPU, signal.SIGKILL):
        return PoisonError(
            f"Reading the file took more than {timeout_seconds:g} s of CPU or too much memory: split it."
        )
    if code == OUT_OF_MEMORY:
        return PoisonError("Reading the file takes more memory than is allowed: split it.")
    if code < 0:
        how = signal.Signals(-code).name
        return PoisonError(f"The file crashed the parser ({how}): it is damaged, or needs more memory than is allowed.")
    return DocumentError(
        f"The parser failed with exit code {code}: the file is damaged, or ragq is not installed well."
    )


def _read_outcome(output: bytes) -> ParsedDocument:
    """Check what the child printed: it handled a hostile file."""
    try:
        outcome: Any = json.loads(output)
        if "error" in outcome:
            raise DocumentError(str(outcome["error"])[:500])
        text = str(outcome["text"])
        page_starts = tuple(int(start) for start in outcome["page_starts"])
        headings = tuple((int(offset), str(title)) for offset, title in outcome["headings"])
    except (ValueError, TypeError, KeyError) as error:
        raise PoisonError(NONSENSE) from error
    offsets = [offset for offset, _ in headings]
    if any(
        list(group) != sorted(group) or (group and not 0 <= group[0] <= group[-1] <= len(text))
        for group in (page_starts, offsets)
    ):
        raise PoisonError(NONSENSE)
    return ParsedDocument(text, page_starts, headings)
