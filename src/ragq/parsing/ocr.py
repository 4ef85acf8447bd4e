"""Read the text in a picture with tesseract, if it is installed."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

INSTALL = "install tesseract-ocr and put the file in again"
DEFAULT_LANGUAGES = 3  # of those installed: each makes it slower, and the wrong ones make it worse
LEAST_CONFIDENCE = 40.0  # percent; words below it are specks and lines
LEAST_PAGE_CONFIDENCE = 50.0  # percent, in the mean; a page below it is a photograph, or in another script
PARAGRAPH_GAP = 1.6  # of a line's height
_LIST_SECONDS = 10.0
_WORD, _COLUMNS = "5", 12
_BLOCK = "6"  # of tesseract's modes


def find_tesseract() -> str | None:
    """Return the path of the program, if it is installed."""
    path = os.pathsep.join(filter(None, [os.environ.get("PATH"), "/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"]))
    return shutil.which("tesseract", path=path)


def list_languages(program: str) -> list[str]:
    """Return the languages that are installed, English first; with "osd", which tells how a page is turned."""
    try:
        listed = subprocess.run(
            [program, "--list-langs"], capture_output=True, timeout=_LIST_SECONDS, check=True, env=_make_environment()
        )
    except (OSError, subprocess.SubprocessError):
        return []
    names = listed.stdout.decode("utf-8", "replace").splitlines()[1:]
    return sorted(names, key=lambda name: (name != "eng", name))


def choose_languages(wanted: str, installed: list[str]) -> list[str]:
    """Return which languages to read with: those wanted ("deu+eng" or "deu,eng") that are installed, or the first few."""
    if wanted:
        return [name for name in wanted.replace("+", ",").replace(" ", "").split(",") if name in installed]
    return [name for name in installed if name not in ("osd", "equ") and "/" not in name][:DEFAULT_LANGUAGES]


@dataclass(frozen=True)
class Ocr:
    """Optical character recognition for one document.

    Attributes:
        languages: As tesseract calls them, joined by "+" or commas; empty: those that are installed.
        page_seconds: Time limit of a page, wall clock and CPU.
        announce: Called with how many pages are read next: each may take a page's time.
    """

    languages: str = ""
    page_seconds: int = 60
    announce: Callable[[int], None] = lambda _: None

    @cached_property
    def _command(self) -> list[str]:
        if not (program := find_tesseract()):
            return []
        installed = list_languages(program)
        languages = choose_languages(self.languages, installed)
        if not languages:
            return []
        mode = "1" if "osd" in installed else "3"  # with the way a page is turned, or without
        return [program, "stdin", "stdout", "-l", "+".join(languages), "--psm", mode, "-c", "tessedit_create_tsv=1"]

    @property
    def is_available(self) -> bool:
        """Whether tesseract is installed, with a language that is wanted."""
        return bool(self._command)

    def read_pages(self, picture: bytes, *, pages: int = 1, is_block: bool = False) -> list[str]:
        """Return the text on each page of a picture; empty where nothing could be read in time.

        Args:
            picture: A file in a format that tesseract reads: PNG, JPEG, TIFF, GIF, BMP, WebP or PNM.
            is_block: Its lines run over the whole width, as the rows of a table do: there are no columns of text.
        """
        self.announce(pages)
        seconds = self.page_seconds * pages
        try:
            done = subprocess.run(
                [*self._command, *(("--psm", _BLOCK) if is_block else ())],
                input=picture,
                capture_output=True,
                timeout=seconds,
                check=False,
                env=_make_environment(),
                preexec_fn=lambda: _limit_cpu(seconds),
            )
        except (OSError, subprocess.SubprocessError):
            return []
        return _read_words(done.stdout.decode("utf-8", "replace"))


def _limit_cpu(seconds: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    seconds = seconds if hard == resource.RLIM_INFINITY else min(seconds, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))


def _make_environment() -> dict[str, str]:
    """Make the program's environment: one thread, and where its languages are, if that was set."""
    kept = {name: os.environ[name] for name in ("TESSDATA_PREFIX",) if name in os.environ}
    return {"OMP_THREAD_LIMIT": "1", **kept}


@dataclass(slots=True)
class _Line:
    words: list[str]
    top: int
    bottom: int

    def follows(self, other: _Line) -> bool:
        """Whether it stands closely below another line."""
        return self.top - other.top >= 0 and self.top - other.bottom <= PARAGRAPH_GAP * (other.bottom - other.top)


def _read_words(table: str) -> list[str]:
    """Put tesseract's table of words together again: lines, and a blank line between paragraphs."""
    pages: dict[int, dict[tuple[str, ...], _Line]] = defaultdict(dict)
    confidences: dict[int, list[float]] = defaultdict(list)
    for row in table.splitlines():
        cells = row.split("\t", _COLUMNS - 1)
        if len(cells) != _COLUMNS or cells[0] != _WORD or not cells[-1].strip():
            continue
        confidence = float(cells[10])
        if confidence >= LEAST_CONFIDENCE:
            page, top, height = int(cells[1]), int(cells[7]), int(cells[9])
            confidences[page].append(confidence)
            line = pages[page].setdefault(tuple(cells[2:5]), _Line([], top, top + height))
            line.words.append(cells[-1].strip())
            line.top, line.bottom = min(line.top, top), max(line.bottom, top + height)
    texts = [""] * max(pages, default=0)
    for page, lines in pages.items():
        if sum(confidences[page]) >= LEAST_PAGE_CONFIDENCE * len(confidences[page]):
            texts[page - 1] = _join(list(lines.values()))
    return texts


def _join(lines: list[_Line]) -> str:
    text = " ".join(lines[0].words)
    for before, line in pairwise(lines):
        text += ("\n" if line.follows(before) else "\n\n") + " ".join(line.words)
    return text
