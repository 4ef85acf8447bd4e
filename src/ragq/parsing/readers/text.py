"""Plain text, code, data and logs: as they are, with the headings of reStructuredText, AsciiDoc and TeX."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import PurePath

from ragq.parsing.encodings import decode
from ragq.parsing.headings import HeadingPath
from ragq.parsing.writer import DocumentWriter

MAX_LINE = 330  # characters of a title and what marks it

Heading = tuple[int, int, str]  # offset, level, title

_UNDERLINED = re.compile(r"^( {0,20})(\S[^\r\n]{0,300})\r?\n(([!-/:-@\[-`{-~])\4{1,300})[ \t]*\r?$", re.MULTILINE)
_OVERLINED = re.compile(r"([!-/:-@\[-`{-~])\1+[ \t]*\r?\n[ \t]*\Z")
_ASCIIDOC = re.compile(r"^(={1,6})[ \t]+(\S[^\r\n]{0,300})", re.MULTILINE)
_ASCIIDOC_BLOCK = re.compile(r"^(-{4,}|={4,}|\.{4,}|\+{4,})[ \t]*\r?\n.*?^\1[ \t]*\r?$", re.MULTILINE | re.DOTALL)
_TEX = re.compile(
    r"^[ \t]*\\(part|chapter|section|subsection|subsubsection|paragraph)\*?[ \t]*(?:\[[^\]\r\n]{0,200}\])?\{([^{}\r\n]{1,300})\}",
    re.MULTILINE,
)
_TEX_LEVELS = ("part", "chapter", "section", "subsection", "subsubsection", "paragraph")
_TEX_TITLE = re.compile(r"\\title\{([^{}]{1,300})\}")


def read(data: bytes, filename: str, document: DocumentWriter) -> None:
    """Write the text verbatim."""
    text = decode(data, document)
    find = _FINDERS.get(PurePath(filename).suffix.lower())
    path = HeadingPath()
    headings = [(offset, path.add(level, title)) for offset, level, title in find(text)] if find else []
    if find is _find_tex and (title := _TEX_TITLE.search(text)):
        document.title = title[1]
    document.add_verbatim(text, headings=headings, has_lines=True)


def _find_restructured(text: str) -> Iterator[Heading]:
    """Yield underlined titles; a level is a sign, and whether it is above the title, too, in the order of use."""
    levels: list[tuple[str, bool]] = []
    for match in _UNDERLINED.finditer(text):
        indent, title, sign = match[1], match[2].strip(), match[4]
        above = _OVERLINED.search(text, max(0, match.start() - MAX_LINE), match.start())
        style = (sign, above is not None and above[1] == sign)
        is_title = len(match[3]) >= len(title) and len(set(title)) > 1 and (style[1] or not indent)
        if is_title and style not in levels:
            levels.append(style)
        if is_title:
            yield match.start(), levels.index(style) + 1, title


def _find_asciidoc(text: str) -> Iterator[Heading]:
    blocks = [match.span() for match in _ASCIIDOC_BLOCK.finditer(text)]
    for match in _ASCIIDOC.finditer(text):
        if not any(start <= match.start() < end for start, end in blocks):
            yield match.start(), len(match[1]), match[2].strip()


def _find_tex(text: str) -> Iterator[Heading]:
    for match in _TEX.finditer(text):
        yield match.start(), _TEX_LEVELS.index(match[1]) + 1, match[2].strip()


_FINDERS: dict[str, Callable[[str], Iterator[Heading]]] = {
    **dict.fromkeys((".rst", ".rest"), _find_restructured),
    **dict.fromkeys((".adoc", ".asciidoc", ".asc"), _find_asciidoc),
    **dict.fromkeys((".tex", ".latex", ".ltx"), _find_tex),
}
