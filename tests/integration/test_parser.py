"""Reading documents in a process that may crash: what comes out, and what a person is told when nothing can."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas

from ragq.errors import DocumentError, PoisonError, TransientError
from ragq.models import ParsedDocument, Place, PlaceKind
from ragq.parsing import parser as parse_module
from ragq.parsing.parser import OcrSettings, Parser
from tests.parsers import list_children, some_parser

MEMORY_BYTES = 1 << 28


def make_pdf(pages: list[list[str]], *, password: str | None = None) -> bytes:
    file = io.BytesIO()
    encryption = StandardEncryption(password) if password else None
    canvas = Canvas(file, encrypt=encryption)
    for lines in pages:
        for number, line in enumerate(lines):
            canvas.drawString(72, 700 - 15 * number, line)
        canvas.rect(10, 10, 50, 50)
        canvas.showPage()
    canvas.save()
    return file.getvalue()


async def read(
    folder: Path,
    filename: str,
    data: bytes,
    *,
    timeout_seconds: float = 20,
    memory_bytes: int = MEMORY_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> ParsedDocument:
    del folder
    async with some_parser() as parser:
        with tempfile.TemporaryFile() as file:  # as `BlobStore.as_file` makes it
            file.write(data)
            file.seek(0)
            path = Path(f"/dev/fd/{file.fileno()}")
            return await parser.parse(
                path, filename, timeout_seconds=timeout_seconds, memory_bytes=memory_bytes, progress=progress
            )


async def fail(folder: Path, filename: str, data: bytes, **limits: float) -> str:
    with pytest.raises(DocumentError) as caught:
        await read(folder, filename, data, **limits)  # type: ignore[arg-type]
    return caught.value.message


async def test_a_pdf_keeps_its_pages_and_joins_words_hyphenated_at_line_ends(tmp_path: Path) -> None:
    document = await read(tmp_path, "a.PDF", make_pdf([["An exam-", "ple of well-known"], [], ["The third page"]]))
    assert document.text.startswith("An example of well-known")
    offset = document.text.index("The third page")
    assert document.place_at(0) == Place(0, PlaceKind.PAGE, 1)
    assert document.place_at(offset) == Place(offset, PlaceKind.PAGE, 3)


async def test_progress_ends_with_all_pages(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    await read(tmp_path, "a.pdf", make_pdf([["text"]] * 30), progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (30, 30)


@pytest.mark.parametrize(
    ("filename", "data", "words"),
    [
        ("a.pdf", b"", "empty"),
        ("a.pdf", b"plain words", "not a PDF"),
        ("a.pdf", b"%PDF-1.7\n" + b"\x00\xff" * 500, "damaged"),
        ("a.pdf", make_pdf([[], []]), "pages are blank"),
        ("a.pdf", make_pdf([["secret"]], password="open sesame"), "password"),
        ("a.docx", b"PK\x03\x04" + b"x" * 500, "damaged"),
    ],
)
async def test_what_cannot_be_read_is_explained(tmp_path: Path, filename: str, data: bytes, words: str) -> None:
    assert words in await fail(tmp_path, filename, data)


async def test_a_truncated_pdf_is_refused(tmp_path: Path) -> None:
    whole = make_pdf([[f"page {number}"] for number in range(20)])
    assert "damaged" in await fail(tmp_path, "a.pdf", whole[: len(whole) // 2])


async def test_markdown_is_kept_verbatim_with_its_headings(tmp_path: Path) -> None:
    text = "# Guide\r\n\r\ntext **bold**\r\n\r\n## Set `up` #\r\nmore\r\n"
    document = await read(tmp_path, "a.md", text.encode())
    assert document.text == text
    assert document.headings == ((0, "Guide"), (text.index("## Set"), "Guide › Set up"))


async def test_a_hungry_parser_is_stopped(tmp_path: Path) -> None:
    assert "memory" in await fail(tmp_path, "a.txt", b"word " * 18_000_000, memory_bytes=1 << 27)


async def test_more_text_than_is_allowed_is_refused(tmp_path: Path) -> None:
    assert "split it" in await fail(tmp_path, "a.txt", b"word " * 4_000_001)


async def test_a_cancelled_parse_leaves_no_process(tmp_path: Path) -> None:
    task = asyncio.create_task(read(tmp_path, "a.txt", b"word " * 3_000_000))
    while not any(list_children(forker) for forker in list_children()):  # noqa: ASYNC110  (nothing tells when)
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("os._exit(3)", "exit code 3"),
        ("os.write(1, b'{\"text\": 1}'); os._exit(0)", "invalid output"),
        (
            'os.write(1, b\'{"text": "a", "places": [{"start": 5, "kind": "page", "number": 1}]}\'); os._exit(0)',
            "invalid output",
        ),
        ('os.write(1, b\'{"text": "a", "headings": [[1]]}\'); os._exit(0)', "invalid output"),
        ("os.write(1, b'[]'); os._exit(0)", "invalid output"),
        ("while True: os.write(1, b'y' * 10_000)", "split it"),
        ("while True: os.write(2, b'y' * 10_000)", "longer than"),
        ("os.fork()\nsignal.pause()", "longer than"),
        ("os.fork() or signal.pause()\nos._exit(3)", "exit code 3"),
    ],
)
async def test_a_parser_taken_over_by_a_file_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, words: str
) -> None:
    monkeypatch.setattr(sys, "executable", write_parser(tmp_path, body))
    monkeypatch.setattr(parse_module, "OUTPUT_BYTES", 0.05)
    assert words in await fail(tmp_path, "a.txt", b"text", timeout_seconds=1 if words == "longer than" else 20)


def write_parser(folder: Path, body: str) -> str:
    """Write a stand-in for Python that runs our own program, but with `body` in place of reading text."""
    lines = "\n    ".join(body.splitlines())
    (folder / "bomb.py").write_text(
        f"""import ctypes, os, signal, sys, time
from pathlib import Path
from ragq.parsing import forker, writer
from ragq.parsing.readers import text

def read(data, filename, document):
    path, progress = Path("/dev/fd/0"), document.progress
    {lines}
    document.add_text("survived")

text.read = read
forker.main()
"""
    )
    program = folder / "python"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -P {folder}/bomb.py\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program)


IGNORE = "for number in (signal.SIGTERM, signal.SIGXCPU): signal.signal(number, signal.SIG_IGN)"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("ctypes.string_at(0)", "SIGSEGV"),
        ("parts = [bytearray(1 << 24) for _ in range(20)]", "memory"),
        ("parts = []\nfor _ in range(4_000_000): parts.append([object()])", "memory"),
        (f"{IGNORE}\nwhile True: pass", "longer than 1 s"),
        ("signal.pause()", "longer than 1 s"),
        ("sys.stdout.write('[' * 2_000_000)\nsignal.pause()", "split it"),
    ],
)
async def test_a_file_that_crashes_the_parser_or_breaks_a_limit_is_poison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, words: str
) -> None:
    monkeypatch.setattr(sys, "executable", write_parser(tmp_path, body))
    monkeypatch.setattr(parse_module, "OUTPUT_BYTES", 0.05)
    with pytest.raises(PoisonError, match=words) as caught:
        await read(tmp_path, "a.txt", b"text", timeout_seconds=1 if "1 s" in words else 20)
    assert caught.value.code == "invalid_file"


@pytest.mark.parametrize(
    "body", ["raise RuntimeError('a bug of ours')", "raise writer.UnreadableError('The file is encrypted.')"]
)
async def test_a_file_that_is_only_refused_is_no_poison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    monkeypatch.setattr(sys, "executable", write_parser(tmp_path, body))
    with pytest.raises(DocumentError) as caught:
        await read(tmp_path, "a.txt", b"text")
    assert not isinstance(caught.value, PoisonError)


async def test_a_text_may_be_as_long_as_it_is_allowed_to_be(tmp_path: Path) -> None:
    text = 'Half a "sentence",\n' * 1_200_000
    parser, path = Parser(), tmp_path / "long.txt"
    path.write_text(text)
    limits: dict[str, Any] = {"timeout_seconds": 20, "memory_bytes": MEMORY_BYTES}
    document = await parser.parse(path, "long.txt", max_characters=len(text), **limits)
    assert document.text == text
    with pytest.raises(DocumentError, match=r"more than 22,799,999 characters .* raise RAGQ_MAX_FILE_BYTES"):
        await parser.parse(path, "long.txt", max_characters=len(text) - 1, **limits)
    await parser.close()


async def test_the_parser_can_write_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = tmp_path / "written"
    monkeypatch.setattr(sys, "executable", write_parser(tmp_path, f"Path({str(written)!r}).write_text('x' * 100)"))
    await fail(tmp_path, "a.txt", b"text")
    assert written.stat().st_size == 0


async def test_one_files_crash_harms_no_other_that_is_read_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "if path.stat().st_size == 4: ctypes.string_at(0)\ntime.sleep(0.3)"
    monkeypatch.setattr(sys, "executable", write_parser(tmp_path, body))
    (tmp_path / "bad.txt").write_text("text")
    (tmp_path / "good.txt").write_text("more text")
    parser = Parser()
    outcomes = await asyncio.gather(
        *(
            parser.parse(tmp_path / name, name, timeout_seconds=20, memory_bytes=MEMORY_BYTES)
            for name in ("good.txt", "bad.txt", "good.txt")
        ),
        return_exceptions=True,
    )
    await parser.close()
    assert [type(outcome) for outcome in outcomes] == [ParsedDocument, PoisonError, ParsedDocument]


async def test_a_child_holds_nothing_but_its_own_standard_streams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "return document.add_text(' '.join(sorted(os.listdir('/proc/self/fd'))))"
    monkeypatch.setattr(sys, "executable", write_parser(tmp_path, body))
    assert (await read(tmp_path, "a.txt", b"text")).text == "0 1 2 3"  # 3 is the listing's own


async def test_a_lost_forker_blames_no_file_and_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "if path.stat().st_size == 4: os.kill(os.getppid(), signal.SIGKILL); signal.pause()"
    monkeypatch.setattr(sys, "executable", write_parser(tmp_path, body))
    (tmp_path / "kills.txt").write_text("text")
    (tmp_path / "good.txt").write_text("more text")
    parser = Parser()
    for _ in range(2):
        with pytest.raises(TransientError, match="has ended"):
            await parser.parse(tmp_path / "kills.txt", "a.txt", timeout_seconds=1, memory_bytes=MEMORY_BYTES)
    document = await parser.parse(tmp_path / "good.txt", "a.txt", timeout_seconds=20, memory_bytes=MEMORY_BYTES)
    await parser.close()
    assert document.text == "survived"


async def begin_to_read(folder: Path, parser: Parser) -> tuple[asyncio.Task[ParsedDocument], int]:
    """Begin to read with a child that tells its pid as its progress."""
    (folder / "a.txt").write_text("text")
    told: asyncio.Queue[int] = asyncio.Queue()
    reading = parser.parse(
        folder / "a.txt",
        "a.txt",
        timeout_seconds=1,
        memory_bytes=MEMORY_BYTES,
        progress=lambda pid, _: told.put_nowait(pid),
    )
    task = asyncio.create_task(reading)
    return task, await told.get()


async def until_gone(pid: int) -> None:
    async with asyncio.timeout(20):
        while Path(f"/proc/{pid}").exists():  # noqa: ASYNC110, ASYNC240  (nothing tells when)
            await asyncio.sleep(0.01)


async def test_a_worker_that_ends_leaves_no_child_that_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "executable", write_parser(tmp_path, f"{IGNORE}\nprogress(os.getpid(), 1)\nsignal.pause()")
    )
    parser = Parser()
    task, child = await begin_to_read(tmp_path, parser)
    await parser.close()
    await until_gone(child)
    with pytest.raises(TransientError):
        await task


async def test_a_child_that_waits_ends_with_the_process_that_forked_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sys, "executable", write_parser(tmp_path, f"{IGNORE}\nprogress(os.getpid(), 1)\nsignal.pause()")
    )
    parser, others = Parser(), set(list_children())
    task, child = await begin_to_read(tmp_path, parser)
    for forker in set(list_children()) - others:
        os.kill(forker, signal.SIGKILL)
    await until_gone(child)
    with pytest.raises(TransientError):
        await task
    await parser.close()


async def test_a_worker_frozen_while_it_reads_tries_again_and_blames_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", write_parser(tmp_path, "progress(1, 1)\nsignal.pause()"))
    monkeypatch.setattr(parse_module, "LATE_SECONDS", 0.1)
    reading = asyncio.Event()
    task = asyncio.create_task(
        read(tmp_path, "a.txt", b"text", timeout_seconds=2, progress=lambda _done, _total: reading.set())
    )
    await reading.wait()
    time.sleep(2.2)  # noqa: ASYNC251  (as SIGSTOP does)
    with pytest.raises(TransientError, match="frozen"):
        await task


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_UNIX"])
@pytest.mark.parametrize("starts_a_program", [False, True])
async def test_a_parser_taken_over_by_a_file_cannot_connect_to_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, starts_a_program: bool
) -> None:
    connect = f"import socket; socket.socket(socket.{family}).connect"
    body = f"{connect}(address); return document.add_text('connected')"
    if starts_a_program:
        body = (
            f"import subprocess; program = {connect!r} + '(' + repr(address) + ')'\n"
            "subprocess.run([sys.executable, '-c', program], check=True); return document.add_text('connected')"
        )
    addresses: dict[str, Any] = {
        "AF_INET": ("127.0.0.1", 0),
        "AF_INET6": ("::1", 0),
        "AF_UNIX": str(tmp_path / "socket"),
    }
    with socket.socket(getattr(socket, family)) as listener:
        listener.bind(addresses[family])
        listener.listen()
        monkeypatch.setattr(sys, "executable", write_parser(tmp_path, f"address = {listener.getsockname()!r}\n{body}"))
        assert "exit code 1" in await fail(tmp_path, "a.txt", b"text")


async def test_a_parser_taken_over_by_a_file_cannot_connect_one_of_a_pair_of_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = "import socket; ours, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "socket"))
        body = f"{pair}\nours.connect({str(tmp_path / 'socket')!r})"
        monkeypatch.setattr(sys, "executable", write_parser(tmp_path, body))
        assert "exit code 1" in await fail(tmp_path, "a.txt", b"text")


START_SECONDS = 3  # a busy machine may need more than one to start the parser


async def read_by_ocr(folder: Path, *, page_seconds: int) -> str:
    (folder / "a.txt").write_text("text")
    parser, ocr = Parser(), OcrSettings(page_seconds=page_seconds)
    try:
        document = await parser.parse(
            folder / "a.txt", "a.txt", timeout_seconds=START_SECONDS, memory_bytes=MEMORY_BYTES, ocr=ocr
        )
    finally:
        await parser.close()
    return document.text


async def test_quick_pages_for_ocr_leave_no_time_to_one_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parse_module, "OCR_REST_SECONDS", 0)
    body = "for _ in range(5): document.ocr.announce(1); time.sleep(0.2)\nsignal.pause()"
    monkeypatch.setattr(sys, "executable", write_parser(tmp_path, body))
    begun = time.monotonic()
    with pytest.raises(PoisonError, match="A page for OCR took longer than 4 s"):
        await read_by_ocr(tmp_path, page_seconds=4)
    assert time.monotonic() - begun < 15  # with the time of all pages it would be 21


async def test_pages_that_are_read_by_ocr_at_once_have_the_time_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parse_module, "OCR_REST_SECONDS", 0)
    monkeypatch.setattr(sys, "executable", write_parser(tmp_path, "document.ocr.announce(4)\ntime.sleep(3.3)"))
    assert await read_by_ocr(tmp_path, page_seconds=2) == "survived"


async def test_the_parser_has_no_home_and_none_of_our_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGQ_API_KEY", "secret of the tests")
    monkeypatch.setattr(
        sys, "executable", write_parser(tmp_path, "return document.add_text(' '.join(sorted(os.environ)))")
    )
    names = (await read(tmp_path, "a.txt", b"text")).text.split()
    assert not {"HOME", "RAGQ_API_KEY"} & set(names)
    assert set(names) <= {
        "PATH",
        "PYTHONPATH",
        "PYTHONUTF8",
        "GLIBC_TUNABLES",
        "TESSDATA_PREFIX",
        "PWD",
        "OLDPWD",
        "SHLVL",
        "_",
        "LC_CTYPE",
    }
