"""Tables with ruling lines in scans: tesseract leaves out what is in them, unless the lines are taken out."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

from ragq.parsing.readers import read
from ragq.parsing.readers.pdf.ruled import take_out_tables
from ragq.parsing.writer import DocumentWriter
from tests.integration.test_pdf import needs_ocr

ROWS = ["Ferry Trips Passengers", "Merlin 412 18,240", "Osprey 388 9,115", "Kestrel 97 2,406"]
COLUMNS, TOP, HEIGHT = (200, 700, 1150, 1700), 500, 110
ABOVE, BELOW = "Ferries that leave the harbour in May", "The office of the harbour keeps this list."


def draw(*, degrees: float = 0.0, has_lines: bool = True) -> Image.Image:
    """Draw a page with a table between two lines of text."""
    page = Image.new("L", (2480, 1754), 255)
    drawing, font = ImageDraw.Draw(page), ImageFont.load_default(44)
    drawing.text((200, 300), ABOVE, fill=20, font=font)
    for number, row in enumerate(ROWS):
        for left, cell in zip(COLUMNS, row.split(), strict=False):
            drawing.text((left + 30, TOP + HEIGHT * number + 30), cell, fill=20, font=font)
    bottom = TOP + HEIGHT * len(ROWS)
    for number in range(len(ROWS) + 1) if has_lines else ():
        drawing.line((COLUMNS[0], TOP + HEIGHT * number, COLUMNS[-1], TOP + HEIGHT * number), fill=0, width=4)
    for left in COLUMNS if has_lines else ():
        drawing.line((left, TOP, left, bottom), fill=0, width=4)
    drawing.text((200, 1200), BELOW, fill=20, font=font)
    return page.rotate(degrees, resample=Image.Resampling.BICUBIC, fillcolor=255)


@pytest.mark.parametrize("degrees", [0.0, 0.8])
def test_a_ruled_table_is_found_and_its_lines_are_taken_out(degrees: float) -> None:
    parts = take_out_tables(np.asarray(draw(degrees=degrees)))
    assert parts
    page, table = parts
    assert take_out_tables(page) is None
    assert take_out_tables(table) is None
    assert len(ROWS) * HEIGHT < table.shape[0] < len(ROWS) * HEIGHT + 80
    assert table.min() < 100  # its words are there


def test_a_page_without_crossing_lines_is_left_as_it_is() -> None:
    page = draw(has_lines=False)
    drawing = ImageDraw.Draw(page)
    drawing.rectangle((100, 100, 2300, 1600), outline=0, width=4)  # a frame
    drawing.line((100, 400, 2300, 400), fill=0, width=4)
    drawing.text((1500, 1200), "TEH", fill=0, font=ImageFont.load_default(200))
    assert take_out_tables(np.asarray(page)) is None


@needs_ocr
def test_the_rows_of_a_ruled_table_in_a_scan_are_read() -> None:
    file = io.BytesIO()
    canvas = Canvas(file, pagesize=(595, 421))
    canvas.drawImage(ImageReader(draw()), 0, 0, 595, 421)
    canvas.save()
    document = DocumentWriter(read, max_characters=10_000)
    read(file.getvalue(), "a.pdf", document)
    lines = document.finish()[0].split("\n")
    assert [line for line in lines if line] == [ABOVE, BELOW, *ROWS]
