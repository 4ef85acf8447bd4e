"""Where a quote stands on a page of a PDF."""

from __future__ import annotations

import io

import pypdfium2
import pytest
from reportlab.pdfgen.canvas import Canvas

from ragq.parsing.draw import MAX_CELLS, MAX_QUOTE_CHARACTERS, find_boxes


@pytest.mark.parametrize(
    ("before", "found"),
    [
        ("none; " * (MAX_CELLS - 1), 1),
        ("none; " * MAX_CELLS, 0),
        (" " * (MAX_QUOTE_CHARACTERS - len("; Amaranth")) + "; ", 1),
        (" " * MAX_QUOTE_CHARACTERS + "; ", 0),
    ],
)
def test_only_so_many_cells_and_characters_of_a_quote_are_looked_for(before: str, found: int) -> None:
    file = io.BytesIO()
    canvas = Canvas(file)
    canvas.drawString(72, 700, "The brig Amaranth")
    canvas.save()
    text_page = pypdfium2.PdfDocument(file.getvalue())[0].get_textpage()
    assert len(find_boxes(text_page, before + "Amaranth" + "; missing" * (not found))) == found
