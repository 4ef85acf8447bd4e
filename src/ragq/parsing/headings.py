"""The headings of a Markdown document, read by a CommonMark parser."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pyromark

TITLE_CHARACTERS = 200  # of a heading alone
PATH_CHARACTERS = 300  # of a heading with its parents

_FRONT_MATTER = re.compile(r"---[ \t]*\r?\n(?:.*\n){0,200}?---[ \t]*(?:\r?\n|$)")


def find_headings(text: str) -> list[tuple[int, str]]:
    """Find the headings outside of code, HTML, quotes and lists, each with its parents' titles ("A › B")."""
    front_matter = _FRONT_MATTER.match(text)
    start = front_matter.end() if front_matter else 0
    headings: list[tuple[int, str]] = []
    path: list[tuple[int, str]] = []
    for offset, level, title in _read_headings(text[start:]):
        if title:
            path = [entry for entry in path if entry[0] < level] + [(level, title[:TITLE_CHARACTERS])]
            headings.append((start + offset, _shorten(" › ".join(entry[1] for entry in path))))
    return headings


def _read_headings(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield the offset, level and title of each heading that is in no other block."""
    data = text.encode()  # the parser counts bytes
    offset = counted = depth = first = 0
    words: list[str] = []
    for event, span in pyromark.events_with_range(text):
        match event:
            case {"Start": _}:
                if not depth:
                    first, words = span["start"], []
                depth += 1
            case {"Text": str(part)} | {"Code": str(part)}:
                words.append(part)
            case "SoftBreak" | "HardBreak":
                words.append(" ")
            case {"End": block}:
                depth -= 1
                if not depth and isinstance(block, dict) and (level := block.get("Heading")):
                    before = data[counted:first].rstrip(b" ")  # a heading's line may be indented
                    offset += len(before.decode())
                    counted += len(before)
                    yield offset, int(level[1]), "".join(words).strip()


def _shorten(path: str) -> str:
    """Keep the end, which says most: each chunk carries its path, and is embedded with it."""
    return path if len(path) <= PATH_CHARACTERS else f"…{path[1 - PATH_CHARACTERS :]}"
