"""Documents and slides of Microsoft Office: DOCX, DOC, PPTX, PPT."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal

from office_oxide import Document, OfficeOxideError

from ragq.models import PlaceKind
from ragq.parsing.archives import DAMAGED, ENCRYPTED, Archive, first_text
from ragq.parsing.kinds import Kind, detect, open_ole
from ragq.parsing.readers.embedded import write_embedded
from ragq.parsing.tables import Span, fill_grid
from ragq.parsing.writer import DocumentWriter, UnreadableError

Node = dict[str, Any]

CORE_PROPERTIES = "docProps/core.xml"
NAME_CHARACTERS = 100  # a longer first paragraph is no slide's title
MAX_DEPTH = 100

_FORMATS: dict[Kind, Literal["docx", "doc", "pptx", "ppt", "xlsx", "xls"]] = {
    Kind.DOCX: "docx",
    Kind.DOC: "doc",
    Kind.PPTX: "pptx",
    Kind.PPT: "ppt",
    Kind.XLSX: "xlsx",
    Kind.XLS: "xls",
}
_PAGE_MARGINS = ("first_page_header", "header", "first_page_footer", "footer")
_DOC, _PPT = "WordDocument", "Current User"
_PPT_ENCRYPTED = b"\xdf\xc4\xd1\xf3"  # [MS-PPT] CurrentUserAtom.headerToken


def read(data: bytes, filename: str, document: DocumentWriter) -> None:
    """Write a text with its sections, or slides with their notes."""
    kind = detect(data, filename)
    tree = read_tree(data, kind)
    document.title = read_title(data, kind, tree)
    if kind in (Kind.PPTX, Kind.PPT):
        _write_slides(tree["sections"], document)
    else:
        _write_sections(tree["sections"], document)
    if kind in (Kind.DOCX, Kind.PPTX):
        write_embedded(Archive(data), document)


def read_tree(data: bytes, kind: Kind) -> Node:
    """Read a file of Office as the library's tree of sections and elements.

    Raises:
        UnreadableError: It is damaged or encrypted.
    """
    if data.startswith(b"PK"):
        Archive(data).check_parts((".xml", ".rels"))
    else:
        _check_ole(data)
    try:
        return Document.from_bytes(data, _FORMATS[kind]).to_ir()
    except OfficeOxideError as error:
        is_encrypted = "encrypt" in str(error).lower() or "password" in str(error).lower()
        raise UnreadableError(*((ENCRYPTED, "encrypted") if is_encrypted else (DAMAGED, "damaged"))) from error


def read_title(data: bytes, kind: Kind, tree: Node) -> str:
    """The title in the file's properties; the library falls back to the first heading, which is no title of the whole."""
    if kind not in (Kind.DOCX, Kind.PPTX, Kind.XLSX):
        return str(tree["metadata"].get("title") or "")
    archive = Archive(data)
    return first_text(archive.read_xml(CORE_PROPERTIES), ["title"]) if CORE_PROPERTIES in archive.names else ""


def _check_ole(data: bytes) -> None:
    """Refuse an old file that is encrypted: its text would be noise.

    Raises:
        UnreadableError: It is.
    """
    with open_ole(data) as container:
        start = {name: container.openstream(name).read(16) for name in (_DOC, _PPT) if container.exists(name)}
    is_encrypted = start.get(_DOC, b"")[11:12] >= b"\x01" and start[_DOC][11] & 1  # [MS-DOC] FibBase.fEncrypted
    if is_encrypted or start.get(_PPT, b"")[12:16] == _PPT_ENCRYPTED:
        raise UnreadableError(ENCRYPTED, "encrypted")


def _write_slides(slides: list[Node], document: DocumentWriter) -> None:
    for number, slide in enumerate(slides, 1):
        elements = slide.get("elements", [])
        title = _find_slide_title(slide)
        document.start_place(PlaceKind.SLIDE, number, title)
        has_heading = any(element.get("type") == "heading" for element in elements)
        if title and not has_heading and slide.get("title") == title:
            document.add_heading(1, title)
        _ElementWriter(document).write(elements)
        if notes := _text_of(slide.get("speaker_notes", [])).strip():
            document.add_text(f"Notes: {notes}")
        document.progress(number, len(slides))


def _find_slide_title(slide: Node) -> str:
    """What a slide is called: its title, else its first short paragraph."""
    title = str(slide.get("title") or "")
    if title and not (title.startswith("Slide ") and title[6:].isdigit()):
        return title
    first = next((text for element in slide.get("elements", []) if (text := _text_of([element]).strip())), "")
    first = first.partition("\n")[0]
    return first if len(first) <= NAME_CHARACTERS else ""


def _write_sections(sections: list[Node], document: DocumentWriter) -> None:
    """Write a text; the lines at the top and the bottom of pages come first, each once."""
    margins = (
        _text_of(section[key].get("content", [])) for section in sections for key in _PAGE_MARGINS if section.get(key)
    )
    for margin in dict.fromkeys(margins):
        document.add_text(margin)
    for section in sections:
        elements = section.get("elements", [])
        _ElementWriter(document, _find_notes(elements)).write(elements)


NoteKey = tuple[str, Any]


def _find_notes(elements: list[Node]) -> dict[NoteKey, str]:
    """The footnotes, endnotes and comments, which the library puts last."""
    notes = {}
    for element in elements:
        if element.get("type") in ("footnote", "endnote"):
            marker = str(element.get("marker") or "")
            is_comment = marker.lower().startswith("comment")
            text = _text_of(element.get("content", [])).strip()
            key = ("comment" if is_comment else element["type"], element.get("id"))
            notes[key] = f"{marker[:1].upper() + marker[1:] if is_comment else 'Note'}: {text}"
    return notes


class _ElementWriter:
    """Writes elements; a note follows the paragraph that refers to it, so that both are found together."""

    def __init__(self, document: DocumentWriter, notes: dict[NoteKey, str] | None = None) -> None:
        self._document = document
        self._notes = notes or {}

    def write(self, elements: Iterable[Node], depth: int = 0) -> None:
        """Write elements and then the notes that nothing refers to."""
        for element in elements:
            self._write(element, depth)
        if not depth:
            self._write_notes(list(self._notes))

    def _write(self, element: Node, depth: int) -> None:
        if depth > MAX_DEPTH:
            return
        match element.get("type"):
            case "footnote" | "endnote":
                return
            case "heading":
                self._document.add_heading(int(element.get("level") or 1), _text_of([element]))
            case "list":
                self._document.add_text("\n".join(_iterate_items(element)))
            case "table":
                self._write_table(element, depth)
            case "text_box" | "quote":
                self.write(element.get("content", []), depth + 1)
            case _:
                self._document.add_text(_text_of([element]))
        self._write_notes(_find_references(element))

    def _write_table(self, table: Node, depth: int) -> None:
        rows = table.get("rows", [])
        if len(rows) == 1 and len(rows[0].get("cells", [])) == 1:  # a frame around text
            self.write(rows[0]["cells"][0].get("content", []), depth + 1)
            return
        header_rows = 0
        while header_rows < len(rows) and rows[header_rows].get("is_header"):
            header_rows += 1
        spans = (
            [
                Span(_text_of(cell.get("content", [])), int(cell.get("col_span") or 1), int(cell.get("row_span") or 1))
                for cell in row.get("cells", [])
            ]
            for row in rows
        )
        self._document.add_table(
            fill_grid(spans), header_rows=header_rows or None, caption=str(table.get("caption") or "")
        )

    def _write_notes(self, keys: Iterable[NoteKey]) -> None:
        for key in keys:
            if note := self._notes.pop(key, ""):
                self._document.add_text(note)


def _find_references(node: Any) -> Iterator[NoteKey]:
    """Yield the keys of the notes that an element refers to."""
    if isinstance(node, list):
        for one in node:
            yield from _find_references(one)
    elif isinstance(node, dict):
        kind = str(node.get("type") or "")
        if kind.endswith("_ref"):
            yield kind.removesuffix("_ref"), node.get("note_id", node.get("comment_id"))
        for key in ("content", "items", "nested", "rows", "cells"):
            yield from _find_references(node.get(key))


def _iterate_items(node: Node, indent: str = "") -> Iterator[str]:
    """Yield a line for each item of a list."""
    for number, item in enumerate(node.get("items", []), int(node.get("start_number") or 1)):
        sign = f"{number}." if node.get("ordered") else "-"
        if text := _text_of(item.get("content", [])).strip():
            yield f"{indent}{sign} {text}"
        if item.get("nested"):
            yield from _iterate_items(item["nested"], indent + "  ")


def _text_of(nodes: Any) -> str:
    """The text of elements, a line for each block."""
    return "\n".join(filter(None, (_text_of_one(node) for node in nodes)))


def _text_of_one(node: Any) -> str:
    if isinstance(node, str):
        return node
    content = node.get("content") or node.get("text") or node.get("elements") or ""
    match node.get("type"):
        case "paragraph" | "heading":
            text = "".join(map(_text_of_one, content))
        case "line_break":
            text = "\n"
        case "list":
            text = "\n".join(_iterate_items(node))
        case "table":
            text = " ".join(filter(None, map(_text_of, (cell.get("content", []) for cell in _iterate_cells(node)))))
        case "image":
            text = ""
        case _:
            text = content if isinstance(content, str) else _text_of(content)
    return text


def _iterate_cells(table: Node) -> Iterator[Node]:
    return (cell for row in table.get("rows", []) for cell in row.get("cells", []))
