"""The blocks of an HTML element: paragraphs, headings, lists, code and tables.

Nothing here calls itself for what is within an element, since a hostile page nests thousands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from selectolax.lexbor import LexborNode

from ragq.parsing.readers.html_tables import find_rows, is_data, read_table
from ragq.parsing.writer import DocumentWriter

MAX_LIST_INDENT = 8

_INLINE = frozenset(
    "a abbr acronym b bdi bdo big cite code data del dfn em font i img ins kbd label mark q rp rt ruby s samp small span"
    " strike strong sub sup time tt u var wbr -text -comment ix:nonnumeric ix:nonfraction".split()
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_LISTS = ("ul", "ol", "menu")


class BlockWriter:
    """Writes what is in an element, block by block.

    Args:
        unwanted: `mem_id` of the elements to leave out.
    """

    def __init__(self, document: DocumentWriter, unwanted: set[int]) -> None:
        self._document = document
        self._unwanted = unwanted
        self._inline: list[str] = []
        self._items: list[str] = []
        self._lists: list[int | None] = []  # of each open list, the number of its last item if it has numbers
        self._sign = ""

    def write(self, root: LexborNode) -> None:
        """Write an element."""
        walk = Walk(root, self._unwanted)
        for node, is_open in walk:
            tag = node.tag or ""
            if tag == "-text":
                self._inline.append(" ".join(_split_spaces(node.text_content or "")))
            elif tag == "br":
                self._inline.append("\n" if is_open else "")
            elif tag not in _INLINE:
                self._cross(node, tag, is_open, walk)
        self._flush()

    def _cross(self, node: LexborNode, tag: str, is_open: bool, walk: Walk) -> None:
        """Go into a block, or out of it."""
        if tag in _HEADINGS:
            self._cross_heading(tag, is_open)
        elif tag == "li":
            self._end_line()
            if is_open:
                self._sign = self._next_sign()
        elif tag in _LISTS:
            self._cross_list(node, tag, is_open)
        elif tag == "pre" and is_open:
            self._flush()
            self._document.add_text(join_text(node, self._unwanted, is_verbatim=True))
            walk.skip()
        elif tag == "table" and is_open and is_data(rows := find_rows(node), node):
            self._flush()
            self._write_table(node, rows)
            walk.skip()
        else:
            self._end_line()

    def _cross_heading(self, tag: str, is_open: bool) -> None:
        if is_open:
            self._flush()
        else:
            self._document.add_heading(_HEADINGS[tag], self._take_inline())

    def _cross_list(self, node: LexborNode, tag: str, is_open: bool) -> None:
        self._end_line()
        if is_open:
            start = node.attributes.get("start") or "1"
            self._lists.append((int(start) if start.isdecimal() else 1) - 1 if tag == "ol" else None)
        elif self._lists:
            self._lists.pop()
            self._sign = ""
            if not self._lists:
                self._flush()

    def _next_sign(self) -> str:
        if not self._lists or (number := self._lists[-1]) is None:
            return "- "
        self._lists[-1] = number + 1
        return f"{number + 1}. "

    def _write_table(self, node: LexborNode, rows: list[LexborNode]) -> None:
        self._document.add_table(**read_table(node, rows, lambda cell: join_text(cell, self._unwanted)))

    def _take_inline(self) -> str:
        text = "".join(self._inline)
        self._inline.clear()
        return "\n".join(" ".join(line.split()) for line in text.split("\n")).strip()

    def _end_line(self) -> None:
        if not (text := self._take_inline()):
            return
        if self._lists:
            indent = "  " * min(len(self._lists) - 1, MAX_LIST_INDENT)
            self._items.append(indent + (self._sign or "  ") + text)
            self._sign = ""
        else:
            self._document.add_text(text)

    def _flush(self) -> None:
        self._end_line()
        if self._items:
            self._document.add_text("\n".join(self._items))
            self._items = []


class Walk:
    """Goes through the nodes in an element: yields (node, True) before what is in it, and (node, False) after it."""

    def __init__(self, root: LexborNode, unwanted: set[int]) -> None:
        self._root = root
        self._unwanted = unwanted
        self._is_skipped = False

    def skip(self) -> None:
        """Do not go into the node that was yielded last."""
        self._is_skipped = True

    def __iter__(self) -> Iterator[tuple[LexborNode, bool]]:
        stack: list[tuple[LexborNode, LexborNode | None]] = [(self._root, self._root.first_child)]
        while stack:
            node, child = stack.pop()
            while child is not None and child.mem_id in self._unwanted:
                child = child.next
            if child is None:
                if stack:
                    yield node, False
                continue
            stack.append((node, child.next))
            if child.is_text_node:
                yield child, True
            elif child.is_element_node:
                self._is_skipped = False
                yield child, True
                if not self._is_skipped:
                    stack.append((child, child.first_child))


def join_text(root: LexborNode, unwanted: set[int], *, is_verbatim: bool = False) -> str:
    """The text in an element; blocks in it are separated by spaces."""
    child = root.first_child
    if child is not None and child.is_text_node and child.next is None and not is_verbatim:  # most cells of tables
        return " ".join(_INVISIBLE.sub("", child.text_content or "").split())
    parts = []
    for node, is_open in Walk(root, unwanted):
        if node.is_text_node:
            text = node.text_content or ""
            parts.append(text if is_verbatim else " ".join(_split_spaces(text)))
        elif node.tag == "br" and is_open:
            parts.append("\n")
        elif node.tag not in _INLINE and not is_verbatim:
            parts.append(" ")
    return "".join(parts) if is_verbatim else " ".join("".join(parts).split())


def measure(root: LexborNode, unwanted: set[int]) -> int:
    """How many characters of text are in an element."""
    return sum(len((node.text_content or "").strip()) for node, _ in Walk(root, unwanted) if node.is_text_node)


def _split_spaces(text: str) -> list[str]:
    """Split at white space as HTML does; what begins or ends with some begins or ends with an empty part."""
    return _SPACES.split(_INVISIBLE.sub("", text))


_SPACES = re.compile(r"\s+")
_INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff]")
