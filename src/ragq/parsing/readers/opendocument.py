"""OpenDocument: ODT, ODS and ODP, and the same as one XML file (FODT, FODS, FODP)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from xml.etree.ElementTree import Element

from ragq.models import PlaceKind
from ragq.parsing.archives import DAMAGED, ENCRYPTED, Archive, attribute, first_text, local_name, parse_xml
from ragq.parsing.readers.embedded import unpack, warn_of, write_embedded
from ragq.parsing.sheets import write_sheet
from ragq.parsing.tables import MAX_COLUMNS, Cells, Span, fill_grid
from ragq.parsing.writer import DocumentWriter, UnreadableError

MAX_REPEATED_ROWS = 1_000  # of rows that are not empty

_MANIFEST = "META-INF/manifest.xml"
_SKIPPED = frozenset(
    "tracked-changes sequence-decls variable-decls user-field-decls forms scripts ruby-text page-thumbnail bookmark-ref"
    " page-number date time slide-name".split()
)
_FRAMES = frozenset("frame text-box custom-shape rect g ellipse line connector caption circle polygon path".split())
_NOTES = frozenset(("note", "annotation"))
_OBJECTS = frozenset(("object", "object-ole"))
_INLINE = frozenset(("p", "h", "span", "a"))  # a frame in them is anchored there, and written after the paragraph
_COUNTS = ("-repeated", "-spanned")  # of columns and rows
_MARKS = {"tab": "\t", "line-break": "\n", "s": " "}


def read(data: bytes, filename: str, document: DocumentWriter) -> None:
    """Write a text with its sections, the rows of sheets, or slides with their notes."""
    del filename
    archive = None
    if data.startswith(b"PK"):
        archive = Archive(data)
        if _MANIFEST in archive.names and b"encryption-data" in archive.read(_MANIFEST):
            raise UnreadableError(ENCRYPTED, "encrypted")
        if "meta.xml" in archive.names:
            document.title = first_text(archive.read_xml("meta.xml"), ["title"])
        root = archive.read_xml("content.xml")
        pages = archive.read_xml("styles.xml") if "styles.xml" in archive.names else root
    else:
        pages = root = parse_xml(data)
        document.title = next((first_text(one, ["title"]) for one in root if local_name(one) == "meta"), "")
    content = _find_content(root)
    match local_name(content):
        case "spreadsheet":
            _write_sheets(content, document, archive)
        case "presentation" | "drawing":
            _write_slides(content, document, archive)
        case _:
            _write_page_margins(pages, document)
            _TextWriter(document, archive).write(content)
    if archive:
        write_embedded(archive, document)


def _find_content(root: Element) -> Element:
    body = next((one for one in root if local_name(one) == "body"), None)
    if body is None or not len(body):
        raise UnreadableError(DAMAGED)
    return body[0]


def _find_shown(root: Element, *, has_cells: bool) -> list[Element]:
    """Find what an embedded object shows: a formula, or a text, sheet or chart, of which the cells may be left out."""
    if local_name(root) == "math":
        return [root]
    content = _find_content(root)
    if has_cells and local_name(content) == "chart":
        return [part for chart in content for part in chart if local_name(part) != "table"]
    return list(content)


def _write_page_margins(styles: Element, document: DocumentWriter) -> None:
    """Write the lines at the top and the bottom of pages, each once."""
    margins = (_text_of(part) for part in styles.iter() if local_name(part) in ("header", "footer"))
    for margin in dict.fromkeys(margins):
        document.add_text(margin)


def _write_slides(content: Element, document: DocumentWriter, archive: Archive | None) -> None:
    pages = [page for page in content if local_name(page) == "page"]
    for number, page in enumerate(pages, 1):
        titles = (_text_of(part) for part in page if attribute(part, "class") == "title")
        title = next(filter(None, titles), "")
        document.start_place(PlaceKind.SLIDE, number, title)
        document.add_heading(1, title)
        notes = [part for part in page if local_name(part) == "notes"]
        _TextWriter(document, archive).write(
            [part for part in page if part not in notes and attribute(part, "class") != "title"]
        )
        if words := "\n".join(_text_of(part) for part in notes).strip():
            document.add_text(f"Notes: {words}")
        document.progress(number, len(pages))


def _write_sheets(content: Element, document: DocumentWriter, archive: Archive | None) -> None:
    sheets = [table for table in content if local_name(table) == "table"]
    for number, sheet in enumerate(sheets, 1):
        document.start_place(PlaceKind.SHEET, number, attribute(sheet, "name"))
        rows = list(_iterate_cells(sheet))
        write_sheet(document, lambda rows=rows: rows)  # type: ignore[misc]
        objects = [part for part in sheet.iter() if local_name(part) in _OBJECTS]
        _TextWriter(document, archive, has_cells=True).write(objects if archive else [])
        document.progress(number, len(sheets))


class _TextWriter:
    """Writes paragraphs, headings, lists and tables; what is anchored in a paragraph follows it."""

    def __init__(self, document: DocumentWriter, archive: Archive | None = None, *, has_cells: bool = False) -> None:
        """Write into a document.

        Args:
            archive: Holds the objects that are embedded: sheets, texts, charts and formulas.
            has_cells: The cells that charts show are in the document already.
        """
        self._document = document
        self._archive = archive
        self._has_cells = has_cells

    def write(self, elements: Element | list[Element]) -> None:
        for element in elements:
            self._write_one(element)

    def _write_one(self, element: Element) -> None:
        name = local_name(element)
        if name in _SKIPPED:
            return
        if name == "h":
            self._document.add_heading(_number(attribute(element, "outline-level")), _text_of(element))
        elif name == "p":
            self._document.add_text(_text_of(element))
        elif name == "list":
            self._document.add_text("\n".join(_iterate_items(element)))
        elif name == "table":
            self._document.add_table(_iterate_cells(element), header_rows=_count_header_rows(element) or None)
        elif name in _OBJECTS and self._archive:
            self._write_object(self._archive, attribute(element, "href").removeprefix("./"))
        elif name == "math":
            self._document.add_text(first_text(element, ["annotation"]) or " ".join(_text_of(element).split()))
        else:
            self.write(list(element))
            return
        for inner in _iterate_anchored(element) if name in ("h", "p") else ():
            self._write_anchored(inner)

    def _write_object(self, archive: Archive, name: str) -> None:
        part = f"{name}/content.xml"
        with warn_of(name, self._document):
            if part in archive.names:
                _TextWriter(self._document).write(_find_shown(archive.read_xml(part), has_cells=self._has_cells))
            elif name in archive.names:  # of a program that knows no OpenDocument
                self._document.add_attachment(unpack(archive.read(name)), name.rpartition("/")[2])

    def _write_anchored(self, element: Element) -> None:
        match local_name(element):
            case "note":
                words = " ".join(_text_of(part) for part in element if local_name(part) == "note-body")
                self._document.add_text(f"Note: {words}")
            case "annotation":
                words = "\n".join(_text_of(part) for part in element if local_name(part) in ("p", "list"))
                author = first_text(element, ["creator"])
                self._document.add_text(f"Comment ({author}): {words}" if author else f"Comment: {words}")
            case _:
                self.write(list(element))


def _iterate_anchored(element: Element) -> Iterator[Element]:
    """Yield the notes, comments and frames in a paragraph, but not those within them."""
    for part in element:
        if local_name(part) in _NOTES | _FRAMES:
            yield part
        else:
            yield from _iterate_anchored(part)


def _iterate_items(part: Element, indent: str = "") -> Iterator[str]:
    """Yield a line for each paragraph of a list; `text:list` gives no numbers, its style does."""
    for item in part:
        sign = "- "
        for block in item:
            if local_name(block) == "list":
                yield from _iterate_items(block, indent + "  ")
            elif text := _text_of(block):
                yield f"{indent}{sign}{text}"
                sign = "  "


def _text_of(element: Element) -> str:
    """The text of a paragraph or of several, without what is anchored in it."""
    return "".join(_iterate_text(element)).strip()


def _iterate_text(element: Element) -> Iterator[str]:
    yield element.text or ""
    for part in element:
        name = local_name(part)
        if mark := _MARKS.get(name):
            yield mark * min(_number(attribute(part, "c")), 100)
        elif name in ("p", "h"):
            yield from _iterate_text(part)
            yield "\n"
        elif name not in _SKIPPED and name not in _NOTES and not (name in _FRAMES and local_name(element) in _INLINE):
            yield from _iterate_text(part)
        yield part.tail or ""


def _iterate_rows(table: Element) -> Iterator[Element]:
    for part in table:
        match local_name(part):
            case "table-row":
                yield part
            case "table-header-rows" | "table-rows" | "table-row-group":
                yield from _iterate_rows(part)


def _count_header_rows(table: Element) -> int:
    return sum(len(list(_iterate_rows(part))) for part in table if local_name(part) == "table-header-rows")


def _iterate_cells(table: Element) -> Iterator[Cells]:
    """Yield the cells of each row, merged ones repeated; of a sheet's empty rows to its end, which are many, none."""
    empty = 0
    for row, count in _fill_rows(table):
        if any(row):
            yield from repeat([], empty)
            empty = 0
            yield from repeat(row, min(count, MAX_REPEATED_ROWS))
        else:
            empty += count


def _fill_rows(table: Element) -> Iterator[tuple[Cells, int]]:
    rows = list(_iterate_rows(table))
    counts = (_number(attribute(row, "number-rows-repeated")) for row in rows)
    return zip(fill_grid(map(_iterate_spans, rows)), counts, strict=True)


def _iterate_spans(row: Element) -> Iterator[Span]:
    """Yield the cells of a row; of the empty ones at its end, which are many, none."""
    empty = 0
    for cell in row:
        if local_name(cell) != "table-cell":  # covered ones are filled by those that cover them
            continue
        counts = {key.rpartition("}")[2]: _number(value) for key, value in cell.items() if key.endswith(_COUNTS)}
        count, width = counts.get("number-columns-repeated", 1), counts.get("number-columns-spanned", 1)
        height = counts.get("number-rows-spanned", 1)
        span = Span(_text_of_cell(cell), width, height)
        if not span.text and height == 1:
            empty += count * width
            continue
        yield from repeat(Span(""), min(empty, MAX_COLUMNS))
        empty = 0
        yield from repeat(span, min(count, MAX_COLUMNS))


def _text_of_cell(cell: Element) -> str:
    if len(cell) == 1 and not len(cell[0]) and local_name(cell[0]) == "p":  # as nearly all are
        return (cell[0].text or "").strip()
    return _text_of(cell)


def _number(value: str) -> int:
    return max(1, int(value)) if value.isdecimal() and len(value) < 10 else 1
