"""RTF: its text, headings and tables."""

from __future__ import annotations

import re
from collections.abc import Iterator

from striprtf.striprtf import rtf_to_text

from ragq.parsing.writer import DocumentWriter, UnreadableError

MAX_DEPTH = 1_000

_TITLE = re.compile(r"\{\\title ([^{}\\]{1,300})\}")
_PICTURE = re.compile(r"(?:[0-9a-fA-F]{40,}\s*)+")
_OUTLINE = re.compile(r"\\outlinelevel([0-8])(?!\d) ?")  # of a paragraph's style; 9 is running text
_MARKED = r"\g<0>\\'01\1 "  # leaves the control character 1 and the level before the text of a heading
_HEADING = re.compile(r"\x01(\d) (.*)")


def read(data: bytes, filename: str, document: DocumentWriter) -> None:
    """Write the text; rows of tables come as lines with their cells between bars."""
    del filename
    source = _PICTURE.sub("", data.decode("latin-1"))  # a picture is of no use, and most of a file
    _check_depth(source)
    if title := _TITLE.search(source):
        document.title = title[1]
    source = _OUTLINE.sub(_MARKED, source)
    text: str = rtf_to_text(source, encoding="cp1252", errors="replace")  # type: ignore[no-untyped-call]
    for is_table, lines in _iterate_blocks(text):
        plain = [_HEADING.sub(r"\2", line) for line in lines]
        if is_table:
            document.add_table(
                [[cell.strip() for cell in line.rstrip().removesuffix("|").split("|")] for line in plain]
            )
        elif heading := _HEADING.fullmatch(lines[0]):
            document.add_heading(int(heading[1]) + 1, heading[2])
        else:
            document.add_text("\n".join(plain))


def _check_depth(source: str) -> None:
    """Check how deep groups nest.

    Raises:
        UnreadableError: Deeper than any program writes.
    """
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", source):
        depth += 1 if brace == "{" else -1
        if depth > MAX_DEPTH:
            raise UnreadableError("The groups of the file nest too deep.")


def _iterate_blocks(text: str) -> Iterator[tuple[bool, list[str]]]:
    """Yield runs of lines: rows of a table, or one paragraph."""
    lines: list[str] = []
    for line in text.split("\n"):
        is_row = line.rstrip().endswith("|")
        if lines and not (is_row and lines[-1].rstrip().endswith("|")):
            yield lines[-1].rstrip().endswith("|"), lines
            lines = []
        lines.append(line)
    if lines:
        yield lines[-1].rstrip().endswith("|"), lines
