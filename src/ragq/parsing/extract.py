"""What the parser's child process runs: the text, pages and headings of one file, under limits.

Progress goes to standard error as lines `DONE TOTAL`, the outcome to standard output as one JSON object: `text`,
`page_starts`, `headings`, or `error`. It trusts nothing in the file.
"""

from __future__ import annotations

import codecs
import json
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

OUT_OF_MEMORY = 86  # exit code; as a rule the traceback of a MemoryError finds no memory either
FILE = "/dev/fd/0"  # what is to be read is the child's standard input: it needs no name
WRITTEN_CHARACTERS = 1 << 20  # of the text at once

Progress = Callable[[int, int], None]

# pdfium puts U+FFFE or 0x02 where a hyphen ended a line.
_LINE_END_HYPHEN = re.compile(r"[\ufffe\x02](?:\r?\n)?(?P<next>.?)")
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class UnreadableError(Exception):
    """The file cannot be read; the message is for the person who uploaded it."""


def extract_pdf(path: Path, progress: Progress) -> dict[str, object]:
    """Read the text of each page; pages are set apart by a blank line."""
    import pypdfium2  # noqa: PLC0415  (only the processes that need it pay for it)

    data = path.read_bytes()  # by its path pypdfium2 finds no file that has no name
    if b"%PDF-" not in data[:1024]:
        raise UnreadableError("The file is not a PDF although its name says so.")
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise UnreadableError("The PDF is encrypted and needs a password: remove it and try again.") from error
        raise UnreadableError("The PDF is damaged: open it in a viewer, save it anew and try again.") from error
    pages: list[str] = []
    for number in range(len(document)):
        try:
            page = document[number]
            text_page = page.get_textpage()
            raw = text_page.get_text_range()
            text_page.close()
            page.close()
        except pypdfium2.PdfiumError as error:
            raise UnreadableError(f"Page {number + 1} of the PDF is damaged: save the file anew.") from error
        pages.append(clean_pdf_text(raw))
        progress(number + 1, len(document))
    if not any(pages):
        raise UnreadableError(
            f"No text found in the PDF's {len(pages)} page(s): it seems to be scanned. Run OCR on it, then try again."
        )
    return {"text": "\n\n".join(pages), "page_starts": list(_find_starts(pages)), "headings": []}


def clean_pdf_text(raw: str) -> str:
    """Join words hyphenated at line ends and remove what is no text: NULs, lone surrogates, carriage returns."""

    def join(match: re.Match[str]) -> str:
        following = match["next"]
        return ("" if following.islower() else "-") + following if following else "-"

    text = _LINE_END_HYPHEN.sub(join, raw.replace("\x00", "")).replace("\r\n", "\n").replace("\r", "\n")
    text = text.encode("utf-8", "ignore").decode("utf-8")
    return re.sub(r"[^\S\n]+(?=\n|$)", "", text).strip()


def extract_markdown(path: Path, progress: Progress) -> dict[str, object]:
    """Read Markdown verbatim, with its headings."""
    from ragq.parsing.headings import find_headings  # noqa: PLC0415  (only the processes that need it pay for it)

    text = decode(path.read_bytes())
    progress(1, 1)
    return {"text": text, "page_starts": [], "headings": find_headings(text)}


def extract_text(path: Path, progress: Progress) -> dict[str, object]:
    """Read plain text verbatim."""
    text = decode(path.read_bytes())
    progress(1, 1)
    return {"text": text, "page_starts": [], "headings": []}


def decode(data: bytes) -> str:
    """Decode text by its byte order mark, else as UTF-8.

    Raises:
        UnreadableError: It is binary, another encoding, or empty.
    """
    if data.startswith(b"%PDF-"):
        raise UnreadableError("The file is a PDF although its name says text: name it .pdf.")
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        what = "binary" if b"\x00" in data[:8192] else f"not {encoding.upper().removesuffix('-SIG')}"
        raise UnreadableError(f"The file is {what} at byte {error.start}: save it as UTF-8 text.") from error
    controls = sum(character < " " and character not in "\t\n\r\f" for character in text[:8192])
    if "\x00" in text or controls > len(text[:8192]) // 20:
        raise UnreadableError("The file is binary, not text.")
    if not text or text.isspace():
        raise UnreadableError("No text found: the file holds only white space.")
    return text


def _find_starts(pages: list[str]) -> Iterator[int]:
    start = 0
    for page in pages:
        yield start
        start += len(page) + 2


def _limit(cpu_seconds: int, memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def _make_progress() -> Progress:
    told = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal told
        if done == total or time.monotonic() - told > 0.1:
            told = time.monotonic()
            print(done, total, file=sys.stderr, flush=True)  # noqa: T201  (who started it reads it)

    return progress


def main(kind: str, max_characters: int, cpu_seconds: int, memory_bytes: int) -> None:
    """Extract the file and print the outcome; the limits are this process' for good."""
    _limit(cpu_seconds, memory_bytes)
    extract = {"pdf": extract_pdf, "markdown": extract_markdown, "text": extract_text}[kind]
    try:
        outcome = extract(Path(FILE), _make_progress())
        text = str(outcome.pop("text"))
        if len(text) > max_characters:
            raise UnreadableError(too_long(max_characters))
        _write(text, outcome)
    except UnreadableError as error:
        sys.stdout.buffer.write(json.dumps({"error": str(error)}).encode())
    except MemoryError:
        sys.exit(OUT_OF_MEMORY)
    sys.stdout.buffer.flush()


def too_long(max_characters: int) -> str:
    """Say that a text is too long."""
    return f"The file has more than {max_characters:,} characters of text: split it, or raise RAGQ_MAX_FILE_BYTES."


def _write(text: str, others: dict[str, object]) -> None:
    """Print one JSON object; a long text in parts, so that it is not held in memory again and again."""
    output = sys.stdout.buffer
    output.write(b'{"text": "')
    for start in range(0, len(text), WRITTEN_CHARACTERS):
        part = json.dumps(text[start : start + WRITTEN_CHARACTERS], ensure_ascii=False)
        output.write(part[1:-1].encode("utf-8", "replace"))
    output.write(b'", ' + json.dumps(others, ensure_ascii=False).encode("utf-8", "replace")[1:])
