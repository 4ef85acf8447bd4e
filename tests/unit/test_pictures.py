"""Pictures beside the text of a PDF: which are read, with a stand-in of OCR."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pypdfium2
import pytest
from PIL import Image
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

from ragq.parsing.readers.pdf import reader
from ragq.parsing.readers.pdf.pages import MAX_PICTURES
from ragq.parsing.writer import DocumentWriter

SIDE = 210  # points: more than a twelfth of the page
PLACES = [(60 + 230 * column, 30 + 240 * row) for row in (2, 1, 0) for column in (0, 1)]


class Reads:
    """Finds a text in each picture: how many it has been given."""

    is_available = True

    def __init__(self) -> None:
        self.pictures: list[bytes] = []

    def read_pages(self, picture: bytes) -> list[str]:
        self.pictures.append(picture)
        return [f"Text of picture {len(self.pictures)}."]


def draw(canvas: Canvas, grey: int, place: tuple[int, int], side: int = SIDE) -> None:
    canvas.drawImage(ImageReader(Image.new("L", (30, 30), grey)), *place, side, side)


def make_pdf(*pages: Callable[[Canvas], None]) -> bytes:
    file = io.BytesIO()
    canvas = Canvas(file, pagesize=(595, 842))
    for page in pages:
        for line in range(3):
            canvas.drawString(60, 820 - 15 * line, "Above the pictures the page has a text of its own, of some length.")
        page(canvas)
        canvas.showPage()
    canvas.save()
    return file.getvalue()


def read(data: bytes) -> tuple[Reads, str, Any]:
    ocr: Any = Reads()
    document = DocumentWriter(lambda *_: None, max_characters=100_000, ocr=ocr)
    reader.read(data, "a.pdf", document)
    text, structure = document.finish()
    return ocr, text, structure["warnings"]


def test_pictures_beyond_the_most_are_a_warning_and_a_page_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = list[pypdfium2.PdfPage]()
    render = pypdfium2.PdfPage.render

    def count(page: pypdfium2.PdfPage, **options: Any) -> pypdfium2.PdfBitmap:
        drawn.append(page)
        return render(page, **options)

    monkeypatch.setattr(pypdfium2.PdfPage, "render", count)

    def page_of(number: int) -> Callable[[Canvas], None]:
        def page(canvas: Canvas) -> None:
            for place, one in enumerate(PLACES):
                draw(canvas, 6 * number + place, one)

        return page

    ocr, text, warnings = read(make_pdf(*map(page_of, range(4))))
    assert len(ocr.pictures) == text.count("Text of picture") == MAX_PICTURES == 20
    assert warnings == ["4 pictures were not read: there are too many."]
    assert len(drawn) == 4
    assert {picture[:15].split()[1] for picture in ocr.pictures} <= {b"875", b"876"}, "each is cut out at 300 dpi"
    assert len(set(ocr.pictures)) == 20


def test_a_letterhead_is_read_once_and_leaves_room_for_others() -> None:
    def page_of(number: int) -> Callable[[Canvas], None]:
        def page(canvas: Canvas) -> None:
            draw(canvas, 250, PLACES[0])
            if number % 2:
                draw(canvas, number, PLACES[1])

        return page

    ocr, text, warnings = read(make_pdf(*map(page_of, range(38))))
    assert len(ocr.pictures) == len(set(ocr.pictures)) == text.count("Text of picture") == 1 + 19
    assert warnings == []


def test_what_lies_on_the_same_picture_may_differ() -> None:
    def page_of(number: int) -> Callable[[Canvas], None]:
        def page(canvas: Canvas) -> None:
            draw(canvas, 250, PLACES[0])
            draw(canvas, number, PLACES[0], 40)

        return page

    assert len(read(make_pdf(page_of(1), page_of(2)))[0].pictures) == 2
