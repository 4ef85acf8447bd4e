"""Documents of realistic size for the benchmarks, made from the project's own pages.

Each has paragraphs of docs/ in a different order, so that no two are equal. Notes have one to three pages of about 300
words; every second one is a PDF, the others are Markdown. Reports are PDFs of 20 pages of about 500 words. The PDFs look
like those of word processors, justified and with an embedded font.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import matplotlib as mpl
from reportlab.lib.enums import TA_JUSTIFY
from reportlab.lib.pagesizes import A4, A5
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import Flowable, PageBreak, Paragraph, SimpleDocTemplate

ROOT = Path(__file__).resolve().parents[1]
FONT = "DejaVuSerif"  # included in Matplotlib
pdfmetrics.registerFont(TTFont(FONT, Path(mpl.get_data_path()) / "fonts" / "ttf" / f"{FONT}.ttf"))
_LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")


@dataclass(frozen=True, slots=True)
class Made:
    """A document and its number of pages; for Markdown, the number that a PDF would have."""

    path: Path
    pages: int


def write_notes(folder: Path, count: int) -> list[Made]:
    """Write short documents; a number always gives the same words."""
    folder.mkdir(parents=True)
    paragraphs = read_paragraphs()
    made = []
    for number in range(count):
        pages = list(_pages(random.Random(number), paragraphs, 1 + number % 3, words=300))
        path = folder / f"note-{number:04}.{'md' if number % 2 else 'pdf'}"
        if number % 2:
            _write_markdown(path, f"Note {number}", pages)
        else:
            _write_pdf(path, f"Note {number}", pages, size=A5, letters=7.5)
        made.append(Made(path, len(pages)))
    return made


def write_reports(folder: Path, count: int) -> list[Made]:
    """Write long documents; a number always gives the same words."""
    folder.mkdir(parents=True)
    paragraphs = read_paragraphs()
    made = []
    for number in range(count):
        pages = list(_pages(random.Random(number), paragraphs, 20, words=500))
        path = folder / f"report-{number:04}.pdf"
        _write_pdf(path, f"Report {number}", pages, size=A4, letters=9.5)
        made.append(Made(path, len(pages)))
    return made


def read_paragraphs() -> list[str]:
    """Read the paragraphs of docs/: prose and lists, without code and tables."""
    found = []
    for page in sorted((ROOT / "docs").rglob("*.md")):
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for block in re.split(r"\n\s*\n", text):
            plain = " ".join(_LINK.sub(r"\1", block).replace("`", "").replace("**", "").split())
            if len(plain) > 80 and not block.lstrip().startswith(("#", "|", "<")):
                found.append(plain)
    return found


def _pages(dice: random.Random, paragraphs: list[str], count: int, *, words: int) -> list[list[str]]:
    order = iter(dice.sample(paragraphs, len(paragraphs)))
    pages = []
    for _ in range(count):
        page: list[str] = []
        while sum(len(paragraph.split()) for paragraph in page) < words:
            page.append(" ".join(next(order).split()[:words]))
        pages.append(page)
    return pages


def _write_pdf(path: Path, title: str, pages: list[list[str]], *, size: tuple[float, float], letters: float) -> None:
    body = ParagraphStyle(
        "body", fontName=FONT, fontSize=letters, leading=letters + 2, spaceAfter=4, alignment=TA_JUSTIFY
    )
    heading = ParagraphStyle("heading", body, fontSize=12, leading=16)
    story: list[Flowable] = []
    for page_number, paragraphs in enumerate(pages, 1):
        story.append(Paragraph(f"{title}, page {page_number}", heading))
        story += [Paragraph(escape(paragraph), body) for paragraph in paragraphs]
        story.append(PageBreak())
    SimpleDocTemplate(str(path), pagesize=size, topMargin=28, bottomMargin=28, leftMargin=36, rightMargin=36).build(
        story
    )


def _write_markdown(path: Path, title: str, pages: list[list[str]]) -> None:
    parts = [f"# {title}"]
    for page_number, paragraphs in enumerate(pages, 1):
        parts += [f"## Part {page_number}", *paragraphs]
    path.write_text("\n\n".join(parts) + "\n")
