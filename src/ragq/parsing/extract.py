"""What the parser's child process runs: one file is read or a page of it drawn, under limits.

Progress goes to standard error as lines `DONE TOTAL`, and `ocr PAGES` before pages that are read as pictures. The outcome
goes to standard output. That is one JSON object: `text` and the structure that `ParsedDocument` has, or `error` with
`code`; of a drawing, it is the PNG. The child trusts nothing in the file.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from ragq.parsing.ocr import Ocr
from ragq.parsing.readers import read
from ragq.parsing.terms import OCR_REST_SECONDS, OUT_OF_MEMORY
from ragq.parsing.writer import DocumentWriter, Progress, UnreadableError

FILE = Path("/dev/fd/0")  # what is to be read is the child's standard input: it needs no name
ALARM_SECONDS = 5  # an alarm ends this process so long after its time limit, in case nobody else has
WRITTEN_CHARACTERS = 1 << 20  # of the text at once


def main(task: str, seconds: int, longest_seconds: int, memory_bytes: int, *arguments: Any) -> None:
    """Do one of the TASKS and print the outcome; the limits are this process' for good.

    Args:
        longest_seconds: Of CPU, if pages for OCR extend the time limit.
    """
    _limit(seconds, longest_seconds, memory_bytes)
    try:
        TASKS[task](*arguments)
    except UnreadableError as error:
        sys.stdout.buffer.write(json.dumps({"error": str(error), "code": error.code}).encode())
    except MemoryError:
        sys.exit(OUT_OF_MEMORY)
    sys.stdout.buffer.flush()


def _read(filename: str, max_characters: int, ocr_languages: str, ocr_page_seconds: int) -> None:
    ocr = Ocr(ocr_languages, ocr_page_seconds, announce=lambda pages: _take_longer(pages, ocr_page_seconds))
    document = DocumentWriter(read, max_characters=max_characters, progress=_make_progress(), ocr=ocr)
    read(FILE.read_bytes(), filename, document)
    _write(*document.finish())


def _draw(number: int, quote: str) -> None:
    from ragq.parsing.draw import draw  # noqa: PLC0415  (few children draw)

    sys.stdout.buffer.write(draw(FILE.read_bytes(), number, quote))


TASKS: dict[str, Callable[..., None]] = {"read": _read, "draw": _draw}


def _limit(seconds: int, longest_seconds: int, memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, longest_seconds))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def _take_longer(pages: int, page_seconds: int) -> None:
    """Leave at least this time, CPU and wall clock, from now on; who started this process does so when it reads the line."""
    seconds = pages * page_seconds + OCR_REST_SECONDS
    soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (min(max(soft, int(time.process_time()) + seconds + 1), hard), hard))
    signal.alarm(max(signal.alarm(0), seconds + ALARM_SECONDS))
    print("ocr", pages, file=sys.stderr, flush=True)  # noqa: T201


def _make_progress() -> Progress:
    told = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal told
        if done == total or time.monotonic() - told > 0.1:
            told = time.monotonic()
            print(done, total, file=sys.stderr, flush=True)  # noqa: T201  (who started it reads it)

    return progress


def _write(text: str, others: dict[str, object]) -> None:
    """Print one JSON object; a long text in parts, so that it is not held in memory again and again."""
    output = sys.stdout.buffer
    output.write(b'{"text": "')
    for start in range(0, len(text), WRITTEN_CHARACTERS):
        part = text[start : start + WRITTEN_CHARACTERS].encode("utf-8", "replace").decode()
        output.write(msgspec.json.encode(part)[1:-1])
    try:
        encoded = msgspec.json.encode(others)
    except UnicodeEncodeError:  # it has half a surrogate pair
        encoded = json.dumps(others, ensure_ascii=False).encode("utf-8", "replace")
    output.write(b'", ' + encoded[1:])
