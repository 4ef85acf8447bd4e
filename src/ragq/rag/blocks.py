"""Find what is quoted whole: the steps of a list, a piece of code, each with the line that introduces it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ragq.rag.sentences import Span

MAX_BLOCK_CHARACTERS = 1200  # a longer list or piece of code is not quoted whole
MAX_PARAGRAPH_CHARACTERS = 500
MAX_DEFINITION_CHARACTERS = 1200
MAX_TERM_CHARACTERS = 100
MAX_OPTIONS_CHARACTERS = 300  # names of one option
FEWEST_LINKS, LINKS_SHARE = 3, 0.6  # of a text that lists links

_LINE = re.compile(r"[^\n]*\n?")
_ITEM = re.compile(r"[ \t]*(?:[-*+•·○●▪‣◦–]|\(?(?:\d{1,3}|[a-zA-Z])[.)])[ \t]+\S")
_FENCE = re.compile(r"[ \t]*(?:```|~~~)")
_INDENTED = re.compile(r"[ \t]{2,}\S")
_COMMENT = re.compile(r"[ \t]*<!--.*-->\s*$", re.DOTALL)
_HEADING = re.compile(r"#{1,6}[ \t]+[^`/_\n]*([`/_])?")  # the group: it is a name in code
_BREAK = re.compile(r"\n\s*\n|[?？]\s")
_INDENT = re.compile(r"[ \t]*")
_ENDS = (".", ":", ";", ",", "?", "!")
_LISTED_OPTION = re.compile(r"[ \t]*(?:[-*•·○●▪‣◦–][ \t]+)?`?--?\w[^\n]*:\Z")
_OPTIONS = re.compile(r"(?:^--?\w[^\n]{0,100}(?<![.:;,?!])\n\n)+\Z", re.MULTILINE)
_LINK = re.compile(r"\[[^\]\n]{0,200}\]\([^)\n]{0,200}\)")
_ASKS_HOW = re.compile(
    r"\W*(?:how (?:do|can|should|to|would)\b|what (?:do|can|should|must) (?:i|we|you|one) do\b|what to do\b"
    r"|wie \w+ (?:ich|man|wir)\b|was (?:mache|tue) (?:ich|man|wir)\b"
    r"|was (?:kann|muss|soll) (?:ich|man|wir) (?:machen|tun)\b"
    r"|c[oó]mo\b|qu[eé] (?:hago|hacer|debo hacer|hay que hacer)\b|\w+ कैसे)",
    re.IGNORECASE,
)
# Questions that ask for a procedure or for several things, by their first words.
_ASKS_FOR_SEVERAL = re.compile(
    r"\W*(?:how (?:do|can|should|to|would|is|are)\b|what (?:are|steps|happens)\b|which \w+s\b|(?:show|list|name|give|explain)\b"
    r"|wie (?:kann|starte|mache|richte|wird|werden|man|soll)\b|welche \w+n?\b|nenne|zeige|liste"
    r"|c[oó]mo (?:se|puedo|hago|debo)\b|cu[aá]les\b|qu[eé] pasos\b|कैसे|कौन[- ]कौन)",
    re.IGNORECASE,
)


def asks_for_several(question: str) -> bool:
    """Whether a question asks for a procedure or a list rather than for one fact."""
    return _ASKS_FOR_SEVERAL.match(question) is not None


def asks_how(question: str) -> bool:
    """Whether a question asks what to do."""
    return _ASKS_HOW.match(question) is not None


def asks_what_to_do(question: str) -> bool:
    """Whether a question asks how, or is none: a task in a few words, such as "rename a window"."""
    return asks_how(question) or not question.rstrip().endswith(("?", "？", "؟"))


def find_paragraph(passage: str, start: int, end: int) -> Span:
    """The paragraph around a span, without a question before it, if it is not long; else the span."""
    before = passage[max(0, start - MAX_PARAGRAPH_CHARACTERS) : start]
    first = start - len(before) + max((one.end() for one in _BREAK.finditer(before)), default=0)
    last = passage.find("\n\n", end)
    whole = _trim(passage, first, len(passage) if last < 0 else last)
    is_text = not passage[whole[0] : whole[1]].startswith(("#", "|", "<!--", "```", "~~~"))
    return whole if is_text and whole[0] <= start and whole[1] - whole[0] <= MAX_PARAGRAPH_CHARACTERS else (start, end)


def find_term(passage: str, start: int, end: int) -> int | None:
    """Where the term begins that a span defines or describes, not far above it.

    It is a short line that is indented less, as in manual pages and the help of programs, or a heading that is a name in
    code, such as `GET /readyz`, over its first paragraph, or the options right above it, as in manuals read from HTML.
    """
    if (options := _find_options(passage, start)) is not None:
        return options
    nearby = 0
    if end > MAX_DEFINITION_CHARACTERS and not (
        nearby := passage.find("\n", end - MAX_DEFINITION_CHARACTERS, start) + 1
    ):
        return None
    lines = [match.span() for match in _LINE.finditer(passage, nearby, start) if match.group()]
    if not lines:
        return None
    begin = start if passage[lines[-1][1] - 1] == "\n" else lines[-1][0]
    indent = _indent(passage[begin:end])
    for first, last in reversed(lines):
        line = passage[first:last].rstrip()
        if heading := _HEADING.match(line):
            return first if heading[1] else None
        if first < begin and line and _indent(line) <= indent - 2:
            is_listed = is_listed_option(line)
            is_term = (is_listed or not line.endswith(_ENDS)) and len(line.strip()) <= MAX_TERM_CHARACTERS
            # A passage begins without the indent of its first line.
            is_indented = bool(_indent(line)) or (first == 0 and (is_listed or line.startswith("-")))
            return first + _indent(line) if is_term and is_indented else None
    return None


def is_listed_option(line: str) -> bool:
    """Whether a line is the name of an option and a colon, be it with a list's sign before it."""
    return _LISTED_OPTION.match(line) is not None


def lists_links(text: str) -> bool:
    """Whether a text is mainly links to other pages, as in a table of contents."""
    links = _LINK.findall(text)
    return len(links) >= FEWEST_LINKS and sum(map(len, links)) > LINKS_SHARE * len(text)


def _find_options(passage: str, start: int) -> int | None:
    """Where the lines of options begin that stand, each a paragraph of its own, right above the paragraph of a sentence."""
    paragraph = passage.rfind("\n\n", max(0, start - MAX_DEFINITION_CHARACTERS), start) + 2
    found = _OPTIONS.search(passage, max(0, paragraph - MAX_OPTIONS_CHARACTERS), paragraph)
    return found.start() if found else None


def _indent(line: str) -> int:
    return len(_INDENT.match(line).group())  # type: ignore[union-attr]  # it matches the empty string


def find_blocks(passage: str) -> list[Span]:
    """The spans of lists and pieces of code, each from the line that introduces it, if one does."""
    return [_trim(passage, start, end) for start, end in _read_blocks(passage) if end - start <= MAX_BLOCK_CHARACTERS]


def _read_blocks(passage: str) -> Iterator[Span]:
    lines = [match.span() for match in _LINE.finditer(passage) if match.group()]
    place = 0
    while place < len(lines):
        last = _end_of_code(passage, lines, place) or _end_of_list(passage, lines, place)
        if last is None:
            place += 1
            continue
        first = _introduction(passage, lines, place)
        yield lines[first][0], lines[last][1]
        place = last + 1


def _end_of_code(passage: str, lines: list[Span], first: int) -> int | None:
    """The last line of a fenced piece of code that begins at `first`; None if none begins there or ends."""
    if not _FENCE.match(passage, *lines[first]):
        return None
    return next((place for place in range(first + 1, len(lines)) if _FENCE.match(passage, *lines[place])), None)


def _end_of_list(passage: str, lines: list[Span], first: int) -> int | None:
    """The last line of a list of two items or more that begins at `first`, with lines that go on with an item."""
    if not _ITEM.match(passage, *lines[first]):
        return None
    items, last, place = 1, first, first + 1
    while place < len(lines):
        line = passage[slice(*lines[place])]
        if _ITEM.match(line):
            items, last = items + 1, place
        elif _INDENTED.match(line) or (line.strip() and place == last + 1):
            last = place
        elif line.strip() or place > last + 1:
            break
        place += 1
    return last if items > 1 else None


def _introduction(passage: str, lines: list[Span], first: int) -> int:
    """The line before a block that ends with a colon, over blank lines and up to its paragraph's start; else the block's own."""
    place = first - 1
    while place >= 0 and (not (line := passage[slice(*lines[place])]).strip() or _COMMENT.match(line)):
        place -= 1
    if place < 0 or not passage[slice(*lines[place])].rstrip().endswith((":", "：")):
        return first
    while place > 0 and (before := passage[slice(*lines[place - 1])]).strip() and not before.lstrip().startswith("#"):
        place -= 1
    return place


def _trim(passage: str, start: int, end: int) -> Span:
    text = passage[start:end]
    return start + len(text) - len(text.lstrip()), end - (len(text) - len(text.rstrip()))
