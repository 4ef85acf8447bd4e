"""The headings of a Markdown document, read by a CommonMark parser."""

from __future__ import annotations

import re
from itertools import pairwise

from markdown_it import MarkdownIt

TITLE_CHARACTERS = 200  # of a heading alone
PATH_CHARACTERS = 300  # of a heading with its parents

_LINE_END = re.compile(r"\r\n?|\n")
_FRONT_MATTER = re.compile(r"---[ \t]*\r?\n(?:.*\n){0,200}?---[ \t]*(?:\r?\n|$)")
_BLOCKS = MarkdownIt("commonmark").disable("inline")  # the text in the blocks is not read
_INLINE = MarkdownIt("commonmark")


def find_headings(text: str) -> list[tuple[int, str]]:
    """Find the headings outside of code, HTML, quotes and lists, each with its parents' titles ("A › B")."""
    front_matter = _FRONT_MATTER.match(text)
    start = front_matter.end() if front_matter else 0
    line_starts = [start, *(match.end() for match in _LINE_END.finditer(text, start))]
    headings: list[tuple[int, str]] = []
    path: list[tuple[int, str]] = []
    for heading, content in pairwise(_BLOCKS.parse(text[start:])):
        if heading.type != "heading_open" or heading.level or not heading.map:
            continue
        if title := _read_title(content.content):
            level = int(heading.tag[1])
            path = [entry for entry in path if entry[0] < level] + [(level, title)]
            headings.append((line_starts[heading.map[0]], _shorten(" › ".join(entry[1] for entry in path))))
    return headings


def _read_title(source: str) -> str:
    """Read a title without its markup."""
    (line,) = _INLINE.parseInline(source[: 2 * TITLE_CHARACTERS])
    parts = (" " if part.type == "softbreak" else part.content for part in line.children or [])
    return "".join(parts).strip()[:TITLE_CHARACTERS]


def _shorten(path: str) -> str:
    """Keep the end, which says most: each chunk carries its path, and is embedded with it."""
    return path if len(path) <= PATH_CHARACTERS else f"…{path[1 - PATH_CHARACTERS :]}"
