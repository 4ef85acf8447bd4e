"""Make src/ragq/handbook from pages of docs/: a PDF and a Markdown file, which `ragq demo` ingests.

`--check` only compares. The output is the same bytes for the same pages: no dates, no compression, standard fonts.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from generated_files import ROOT, write_or_check
from reportlab.lib import colors
from reportlab.lib.pagesizes import A5
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    BaseDocTemplate,
    Flowable,
    Frame,
    PageBreak,
    PageTemplate,
    Paragraph,
    Preformatted,
    Spacer,
    Table,
    TableStyle,
)

from ragq import __version__

DOCS = ROOT / "docs"
HANDBOOK = ROOT / "src" / "ragq" / "handbook"
CHAPTERS = ("explanation/queue.md", "explanation/answers.md", "explanation/embedded.md", "glossary.md")
OPERATIONS = ("how-to/operate.md", "how-to/add-workers.md", "how-to/ingest-documents.md", "how-to/use-an-llm.md")
OPERATIONS_HEAD = "# Operations\n\nThe second part of ragq's handbook: how to run it from day to day.\n"

MARGIN = 16 * mm
CODE_COLUMNS = 74
SUBSTITUTES = {"\N{MINUS SIGN}": "-", "≥": ">=", "≤": "<=", "→": "->"}  # what the standard fonts do not have

HEADING = re.compile(r"(#{1,4}) (.+)")
ITEM = re.compile(r"(?:[-*]|\d+\.) +(.+)")
MARK = re.compile(r"^<!-- test: .*\n\n?", re.MULTILINE)  # for the tests that run a page's commands
LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")
RULE_ROW = re.compile(r"[\s|:-]+")

BODY = ParagraphStyle("body", fontName="Helvetica", fontSize=9, leading=12.5, spaceAfter=5)
ITEM_STYLE = ParagraphStyle("item", BODY, leftIndent=12, bulletIndent=2, spaceAfter=2.5)
CELL = ParagraphStyle("cell", BODY, fontSize=7.5, leading=9.5, spaceAfter=0)
CODE = ParagraphStyle(
    "code", BODY, fontName="Courier", fontSize=7, leading=9, backColor=colors.whitesmoke, leftIndent=3
)
HEADINGS = [
    ParagraphStyle("h1", BODY, fontName="Helvetica-Bold", fontSize=17, leading=21, spaceAfter=8, keepWithNext=1),
    ParagraphStyle("h2", BODY, fontName="Helvetica-Bold", fontSize=12, leading=15, spaceBefore=8, keepWithNext=1),
    ParagraphStyle("h3", BODY, fontName="Helvetica-Bold", fontSize=10, leading=13, spaceBefore=5, keepWithNext=1),
    ParagraphStyle("h4", BODY, fontName="Helvetica-Oblique", fontSize=9, leading=12, spaceBefore=4, keepWithNext=1),
]
TITLE = ParagraphStyle("title", BODY, fontName="Helvetica-Bold", fontSize=26, leading=32, spaceBefore=60, spaceAfter=14)


@dataclass
class Block:
    """A piece of Markdown: `kind` is heading, code, table, item or text; `level` that of a heading."""

    kind: str
    lines: list[str] = field(default_factory=list)
    level: int = 0
    language: str = ""


def read_blocks(markdown: str) -> Iterator[Block]:
    """Split Markdown as docs/ uses it: headings, fences, tables, flat lists and paragraphs."""
    block: Block | None = None
    for line in markdown.splitlines():
        if block and block.kind == "code":
            if line.startswith("```"):
                yield block
                block = None
            else:
                block.lines.append(line)
            continue
        heading, item = HEADING.fullmatch(line), ITEM.fullmatch(line)
        starts_table = line.startswith("|") and not (block and block.kind == "table")
        if block and (not line.strip() or heading or item or starts_table or line.startswith("```")):
            yield block
            block = None
        if line.startswith("```"):
            block = Block("code", language=line.removeprefix("```").strip())
        elif heading:
            yield Block("heading", [heading[2]], level=len(heading[1]))
        elif item:
            block = Block("item", [item[1]])
        elif line.strip():
            block = block or Block("table" if line.startswith("|") else "text")
            block.lines.append(line.strip())
    if block:
        yield block


def read_page(name: str) -> str:
    return MARK.sub("", (DOCS / name).read_text())


def substitute(text: str) -> str:
    """Replace what the standard fonts cannot show; stop at what is unknown."""
    for character, substitute_ in SUBSTITUTES.items():
        text = text.replace(character, substitute_)
    try:
        text.encode("cp1252")
    except UnicodeEncodeError as error:
        sys.exit(f"make_handbook: the fonts cannot show {text[error.start]!r} in {text[:60]!r}: add a substitute.")
    return text


def render_inline(text: str) -> str:
    """Turn code, bold and links into ReportLab's markup; a link becomes its text."""
    pieces = re.split(r"(`[^`]+`)", substitute(LINK.sub(r"\1", text)))
    return "".join(
        f'<font name="Courier">{escape(piece[1:-1])}</font>'
        if piece.startswith("`")
        else re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", escape(piece))
        for piece in pieces
    )


def render_block(block: Block, width: float) -> Iterator[Flowable]:
    """Turn a block into flowables; diagrams are left out."""
    if block.kind == "heading":
        yield Paragraph(render_inline(block.lines[0]), HEADINGS[block.level - 1])
    elif block.kind == "code":
        if block.language != "mermaid":
            yield Preformatted(substitute("\n".join(block.lines)), CODE, maxLineLength=CODE_COLUMNS, newLineChars="")
            yield Spacer(0, 5)
    elif block.kind == "table":
        yield render_table(block.lines, width)
        yield Spacer(0, 6)
    elif block.kind == "item":
        yield Paragraph(render_inline(" ".join(block.lines)), ITEM_STYLE, bulletText="•")
    else:
        yield Paragraph(render_inline(" ".join(block.lines)), BODY)


def render_table(lines: list[str], width: float) -> Table:
    """Turn the rows of a table into one whose columns are as wide as their longest texts ask for."""
    rows = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        for line in lines
        if not RULE_ROW.fullmatch(line)
    ]
    longest = [min(60, 6 + max(len(row[column]) for row in rows)) ** 0.7 for column in range(len(rows[0]))]
    table = Table(
        [[Paragraph(render_inline(cell), CELL) for cell in row] for row in rows],
        colWidths=[width * share / sum(longest) for share in longest],
        repeatRows=1,
    )
    table.setStyle(
        TableStyle(
            [
                ("GRID", (0, 0), (-1, -1), 0.3, colors.lightgrey),
                ("BACKGROUND", (0, 0), (-1, 0), colors.whitesmoke),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ]
        )
    )
    return table


class Handbook(BaseDocTemplate):
    """The PDF's pages: numbered after the title page, with the headings as its outline."""

    def __init__(self, target: io.BytesIO) -> None:
        super().__init__(
            target,
            pagesize=A5,
            title="ragq handbook",
            author="ragq",
            invariant=1,
            pageCompression=0,  # compressed bytes differ between versions of zlib
        )
        self.headings = 0
        self.text_width = A5[0] - 2 * MARGIN
        frame = Frame(MARGIN, MARGIN, self.text_width, A5[1] - 2 * MARGIN, 0, 0, 0, 0)
        self.addPageTemplates(PageTemplate("page", [frame], onPageEnd=self.number_page))

    def number_page(self, canvas: Canvas, _document: BaseDocTemplate) -> None:
        number = canvas.getPageNumber()
        if number > 1:
            canvas.setFont("Helvetica", 8)
            canvas.drawCentredString(A5[0] / 2, MARGIN / 2, str(number))

    def afterFlowable(self, flowable: Flowable) -> None:  # noqa: N802  (ReportLab's name)
        """Add a heading to the outline."""
        if isinstance(flowable, Paragraph) and flowable.style in HEADINGS[:2]:
            self.headings += 1
            title, key = flowable.getPlainText(), f"heading-{self.headings}"
            self.canv.bookmarkPage(key)
            self.canv.addOutlineEntry(title, key, level=HEADINGS.index(flowable.style))


def make_pdf() -> bytes:
    """Make the PDF."""
    target = io.BytesIO()
    handbook = Handbook(target)
    pages = [list(read_blocks(read_page(chapter))) for chapter in CHAPTERS]
    story: list[Flowable] = [
        Paragraph("The ragq handbook", TITLE),
        Paragraph(f"Version {__version__}", BODY),
        Spacer(0, 20),
        *(Paragraph(render_inline(blocks[0].lines[0]), ITEM_STYLE, bulletText="•") for blocks in pages),
    ]
    for blocks in pages:
        story.append(PageBreak())
        story += [flowable for block in blocks for flowable in render_block(block, handbook.text_width)]
    handbook.build(story)
    return target.getvalue()


def make_operations() -> bytes:
    """Join the how-to pages into one: headings one level lower, links as text."""
    parts = [OPERATIONS_HEAD]
    for page in OPERATIONS:
        lines, fenced = [], False
        for line in read_page(page).splitlines():
            fenced ^= line.startswith("```")
            lines.append(line if fenced else LINK.sub(r"\1", re.sub(r"^(?=#{1,5} )", "#", line)))
        parts.append("\n" + "\n".join(lines) + "\n")
    return "".join(parts).encode()


if __name__ == "__main__":
    sys.exit(
        write_or_check(
            {HANDBOOK / "handbook.pdf": make_pdf(), HANDBOOK / "operations.md": make_operations()},
            source="docs/",
            target="handbook",
        )
    )
