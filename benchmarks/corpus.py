"""Documents of realistic size for the benchmarks, made of the project's own pages.

Each takes paragraphs of docs/ in an order of its own, so that no two are alike: every second one is a PDF, the others are
Markdown. They have one to three pages of about 300 words. The PDFs are set as word processors set them, justified and with
an embedded font.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import matplotlib as mpl
from reportlab.lib.enums import TA_JUSTIFY
from reportlab.lib.pagesizes import A5
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import Flowable, PageBreak, Paragraph, SimpleDocTemplate

ROOT = Path(__file__).resolve().parents[1]
PAGE_WORDS = 300
FONT = "DejaVuSerif"  # which Matplotlib brings
BODY = ParagraphStyle("body", fontName=FONT, fontSize=7.5, leading=9.5, spaceAfter=4, alignment=TA_JUSTIFY)
HEADING = ParagraphStyle("heading", BODY, fontSize=12, leading=16)
_LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")


@dataclass(frozen=True, slots=True)
class Made:
    """A document that was made, and its pages: those of Markdown are what a PDF would have needed."""

    path: Path
    pages: int


def write_documents(folder: Path, count: int) -> list[Made]:
    """Write documents; the same numbers give the same words."""
    folder.mkdir(parents=True)
    pdfmetrics.registerFont(TTFont(FONT, Path(mpl.get_data_path()) / "fonts" / "ttf" / f"{FONT}.ttf"))
    paragraphs = read_paragraphs()
    made = []
    for number in range(count):
        pages = list(_pages(random.Random(number), paragraphs, 1 + number % 3))
        path = folder / f"report-{number:04}.{'md' if number % 2 else 'pdf'}"
        (_write_markdown if number % 2 else _write_pdf)(path, number, pages)
        made.append(Made(path, len(pages)))
    return made


def read_paragraphs() -> list[str]:
    """Read the paragraphs of docs/: prose and lists, no code and no tables."""
    found = []
    for page in sorted((ROOT / "docs").rglob("*.md")):
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for block in re.split(r"\n\s*\n", text):
            plain = " ".join(_LINK.sub(r"\1", block).replace("`", "").replace("**", "").split())
            if len(plain) > 80 and not block.lstrip().startswith(("#", "|", "<")):
                found.append(plain)
    return found


def _pages(dice: random.Random, paragraphs: list[str], count: int) -> list[list[str]]:
    order = iter(dice.sample(paragraphs, len(paragraphs)))
    pages = []
    for _ in range(count):
        page: list[str] = []
        while sum(len(paragraph.split()) for paragraph in page) < PAGE_WORDS:
            words = next(order).split()
            page.append(" ".join(words[:PAGE_WORDS]))
        pages.append(page)
    return pages


def _write_pdf(path: Path, number: int, pages: list[list[str]]) -> None:
    story: list[Flowable] = []
    for page_number, paragraphs in enumerate(pages, 1):
        story.append(Paragraph(f"Report {number}, page {page_number}", HEADING))
        story += [Paragraph(escape(paragraph), BODY) for paragraph in paragraphs]
        story.append(PageBreak())
    SimpleDocTemplate(str(path), pagesize=A5, topMargin=28, bottomMargin=28, leftMargin=36, rightMargin=36).build(story)


def _write_markdown(path: Path, number: int, pages: list[list[str]]) -> None:
    parts = [f"# Report {number}"]
    for page_number, paragraphs in enumerate(pages, 1):
        parts += [f"## Part {page_number}", *paragraphs]
    path.write_text("\n\n".join(parts) + "\n")
