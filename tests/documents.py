"""Documents for tests."""

from __future__ import annotations

from pathlib import Path

from reportlab.lib.pagesizes import A5
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas

FILLER = (
    "The archive of the harbour office keeps its records by year and by ship.",
    "Every entry names the captain, the cargo and the day of arrival.",
    "Visitors may read the records in the reading room on working days.",
)


def write_pdf(path: Path, pages: list[list[str]], *, password: str | None = None) -> Path:
    """Write a PDF with the given lines on each page."""
    canvas = Canvas(str(path), pagesize=A5, encrypt=StandardEncryption(password) if password else None)
    for lines in pages:
        for number, line in enumerate(lines):
            canvas.drawString(30, 560 - 14 * number, line)
        canvas.showPage()
    canvas.save()
    return path


def write_long_pdf(path: Path, *, pages: int, facts: dict[int, str]) -> Path:
    """Write a PDF of many pages of filler, with a fact on some of them."""
    return write_pdf(
        path,
        [
            [f"Register, sheet {number}.", *FILLER, *([facts[number]] if number in facts else []), *FILLER]
            for number in range(1, pages + 1)
        ],
    )
