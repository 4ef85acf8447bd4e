"""PDFs: what is read of each page, and what is said of pages that cannot be read."""

from __future__ import annotations

import io
import os
import shutil
import stat
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

from ragq.errors import DocumentError, PoisonError
from ragq.models import ParsedDocument
from ragq.parsing.parser import OcrSettings
from tests.parsers import some_parser

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("shared_parser")]

MEMORY_BYTES = 1 << 30
LINES = [
    "The kestrel nests in the old water tower.",
    "Wardens of the park counted nineteen birds",
    "in the month of May.",
]

needs_ocr = pytest.mark.skipif(
    not shutil.which("tesseract") and not os.environ.get("CI"),
    reason="tesseract is not installed: as root, apt-get install tesseract-ocr",
)


async def read(folder: Path, data: bytes, filename: str = "a.pdf", *, seconds: float = 30) -> ParsedDocument:
    file = folder / "file"
    file.write_bytes(data)
    async with some_parser() as parser:
        return await parser.parse(
            file, filename, timeout_seconds=seconds, memory_bytes=MEMORY_BYTES, ocr=OcrSettings("", 30)
        )


async def fail(folder: Path, data: bytes, filename: str = "a.pdf", *, seconds: float = 30) -> DocumentError:
    with pytest.raises(DocumentError) as caught:
        await read(folder, data, filename, seconds=seconds)
    return caught.value


def make_pdf(*pages: Callable[[Canvas], object], size: tuple[float, float] = (595, 842)) -> bytes:
    file = io.BytesIO()
    canvas = Canvas(file, pagesize=size)
    for draw in pages:
        draw(canvas)
        canvas.showPage()
    canvas.save()
    return file.getvalue()


def text(*lines: str, size: float = 12, top: float = 760) -> Callable[[Canvas], None]:
    def draw(canvas: Canvas) -> None:
        canvas.setFont("Helvetica", size)
        for number, line in enumerate(lines):
            canvas.drawString(72, top - number * size * 1.5, line)

    return draw


def make_picture(lines: list[str], *, turn: float = 0) -> Image.Image:
    picture = Image.new("L", (1240, 1754), 255)
    drawing, font = ImageDraw.Draw(picture), ImageFont.load_default(34)
    for number, line in enumerate(lines * 4):
        drawing.text((120, 120 + 60 * number), line, fill=20, font=font)
    return picture.rotate(turn, expand=True, fillcolor=255)


def scan(lines: list[str], *, turn: float = 0) -> Callable[[Canvas], None]:
    def draw(canvas: Canvas) -> None:
        canvas.drawImage(ImageReader(make_picture(lines, turn=turn)), 0, 0, 595, 842)

    return draw


def save(picture: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def without_ocr(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the parser run as on a machine without tesseract."""
    (folder / "main.py").write_text(
        "from ragq.parsing import forker, ocr\nocr.find_tesseract = lambda: None\nforker.main()\n"
    )
    program = folder / "python"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -P {folder}/main.py\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(program))


@needs_ocr
@pytest.mark.parametrize("turn", [0, 1.5, 90, 180, 270])
async def test_scanned_pages_are_read_however_they_are_turned(tmp_path: Path, turn: float) -> None:
    document = await read(tmp_path, make_pdf(text("A page of text that can be read as it is."), scan(LINES, turn=turn)))
    assert document.text.startswith("A page of text that can be read as it is.")
    place = document.place_at(document.text.index("kestrel nests in the old water tower"))
    assert place
    assert place.number == 2
    assert not document.warnings


@needs_ocr
@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP"])
async def test_pictures_are_documents(tmp_path: Path, form: str) -> None:
    document = await read(tmp_path, save(make_picture(LINES), form), "scan")
    assert "nests in the old water tower" in document.text


@needs_ocr
async def test_a_picture_beside_text_is_read_on_its_page(tmp_path: Path) -> None:
    def draw(top: int, height: int) -> Callable[[Canvas], None]:
        def page(canvas: Canvas) -> None:
            text(*["The survey of the park was pasted in below, as the office scanned it."] * 3)(canvas)
            canvas.drawImage(ImageReader(make_picture(LINES)), 50, top - height, 500, height)

        return page

    document = await read(tmp_path, make_pdf(draw(690, 600), draw(200, 50), text(*LINES)))
    assert document.text.count("The survey of the park") == 6
    first, second, _ = (place.start for place in document.places)
    assert first < document.text.index(LINES[0]) < second
    assert document.text.count(LINES[0]) == 4 + 1  # the second picture is too small, and the last page has it as text


@needs_ocr
async def test_a_scan_with_its_text_is_not_read_again(tmp_path: Path) -> None:
    def page(canvas: Canvas) -> None:
        scan(LINES)(canvas)
        text(*LINES, "Its text lies on the picture, as scanners put it, so that it can be searched.")(canvas)

    document = await read(tmp_path, make_pdf(page))
    assert document.text.count(LINES[0]) == 1


@needs_ocr
async def test_each_page_of_a_tiff_is_a_page(tmp_path: Path) -> None:
    pages = [make_picture([f"This is the {name} page of the fax."]) for name in ("first", "second", "third")]
    document = await read(tmp_path, save(pages[0], "TIFF", save_all=True, append_images=pages[1:]), "fax.tif")
    place = document.place_at(document.text.index("third page"))
    assert place
    assert place.number == 3


@needs_ocr
async def test_a_page_for_ocr_extends_the_time_limit(tmp_path: Path) -> None:
    document = await read(tmp_path, make_pdf(*[scan(LINES)] * 5), seconds=4)
    assert [place.number for place in document.places] == [1, 2, 3, 4, 5]


async def test_without_ocr_unreadable_pages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_ocr(tmp_path, monkeypatch)
    pages = [text(*LINES), *[scan(LINES)] * 3, text(*LINES), scan(LINES), lambda _: None]
    document = await read(tmp_path, make_pdf(*pages))
    assert document.warnings == ("Pages 2–4, 6 have no text: install tesseract-ocr and put the file in again.",)


async def test_without_ocr_a_scan_is_refused_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_ocr(tmp_path, monkeypatch)
    for data, name in ((make_pdf(scan(LINES), scan(LINES)), "a.pdf"), (save(make_picture(LINES), "PNG"), "a.png")):
        error = await fail(tmp_path, data, name)
        assert error.code == "no_text"
        assert "nstall tesseract-ocr" in error.message


async def test_headers_and_footers_that_repeat_are_left_out_but_once(tmp_path: Path) -> None:
    def draw(number: int) -> Callable[[Canvas], None]:
        body = [f"Sentence {number * 7}{letter} of the body speaks of something else." for letter in "abcdefghi"]
        return text("Annual report of the harbour", *body, f"Page {number} of 5")

    document = await read(tmp_path, make_pdf(*map(draw, range(1, 6))))
    assert document.text.count("Annual report of the harbour") == 1
    assert "Page 3" not in document.text
    assert document.text.count("of the body") == 45


async def test_lines_of_a_table_that_goes_on_over_pages_are_no_headers(tmp_path: Path) -> None:
    def draw(page: int) -> Callable[[Canvas], None]:
        return text(*[f"Station {page * 17 + row} had {page * 31 + row * 3} boats in that week" for row in range(12)])

    document = await read(tmp_path, make_pdf(*map(draw, range(4))))
    assert document.text.count("boats in that week") == 48


async def test_headings_come_from_the_outline_with_their_parents(tmp_path: Path) -> None:
    def draw(title: str, level: int) -> Callable[[Canvas], None]:
        def page(canvas: Canvas) -> None:
            canvas.bookmarkPage(title)
            canvas.addOutlineEntry(title, title, level)
            text(f"{level + 1}.1  {title}", *LINES)(canvas)

        return page

    document = await read(tmp_path, make_pdf(draw("Birds", 0), draw("Kestrels", 1), draw("Fish", 0)))
    assert [title for _, title in document.headings] == ["1.1 Birds", "1.1 Birds › 2.1 Kestrels", "1.1 Fish"]


async def test_without_an_outline_large_letters_are_headings(tmp_path: Path) -> None:
    def page(canvas: Canvas) -> None:
        text("Birds of the park", size=22)(canvas)
        text("How they were counted", size=16, top=720)(canvas)
        text(*LINES * 8, top=680)(canvas)

    document = await read(tmp_path, make_pdf(page))
    assert [title for _, title in document.headings] == [
        "Birds of the park",
        "Birds of the park › How they were counted",
    ]


async def test_a_page_is_named_by_its_label(tmp_path: Path) -> None:
    file = io.BytesIO()
    canvas = Canvas(file)
    canvas.addPageLabel(0, "ROMAN_LOWER")
    canvas.addPageLabel(2, "ARABIC", start=1)
    for number in range(4):
        canvas.drawString(72, 700, f"The body of page {number} in words.")
        canvas.showPage()
    canvas.setTitle("Birds of the park")
    canvas.save()
    document = await read(tmp_path, file.getvalue())
    assert [(place.number, place.name) for place in document.places] == [(1, "i"), (2, "ii"), (3, "1"), (4, "2")]
    assert document.title == "Birds of the park"


async def test_text_beyond_the_page_is_not_on_it(tmp_path: Path) -> None:
    def page(canvas: Canvas) -> None:
        canvas.setCropBox((0, 400, 595, 842))
        text(*LINES)(canvas)
        text("This sentence is cut off.", top=300)(canvas)

    document = await read(tmp_path, make_pdf(page))
    assert "kestrel" in document.text
    assert "cut off" not in document.text


async def test_a_turned_page_is_whole(tmp_path: Path) -> None:
    def page(canvas: Canvas) -> None:
        canvas.setPageSize((842, 595))  # which reportlab turns with the page
        canvas.setPageRotation(90)
        canvas.translate(595, 0)
        canvas.rotate(90)
        text(*LINES, top=500)(canvas)

    assert (await read(tmp_path, make_pdf(page))).text == "\n".join(LINES)


async def test_an_unknown_protection_is_told_from_a_scan(tmp_path: Path) -> None:
    data = make_pdf(text(*LINES)).replace(b"/Root", b"/Encrypt << /Filter /Unknown /V 9 >> /Root")
    error = await fail(tmp_path, data)
    assert (error.code, "protected" in error.message) == ("encrypted", True)


async def test_text_in_unknown_characters_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_ocr(tmp_path, monkeypatch)

    def page(canvas: Canvas) -> None:
        canvas.setFont("Helvetica", 12)
        canvas._code.append("BT 72 700 Td <0103040506070810> Tj ET")  # type: ignore[attr-defined]

    document = await read(tmp_path, make_pdf(text(*LINES), page))
    assert document.text == "\n".join(LINES)
    assert document.warnings[0].startswith("Page 2 has text in unknown characters")


async def test_a_hundred_thousand_pages_end_within_the_limits(tmp_path: Path) -> None:
    kids = b"4 0 R " * 100_000
    data = b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Count 100000/Kids[" + kids
    data += b"]>>endobj\n4 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>endobj\ntrailer<</Root 1 0 R>>\n"
    error = await fail(tmp_path, data, seconds=5)
    assert error.code in ("no_text", "damaged", "invalid_file")


@needs_ocr
@pytest.mark.parametrize("side", [14_400, 1_000_000])
async def test_a_huge_page_is_drawn_in_bounds(tmp_path: Path, side: int) -> None:
    def page(canvas: Canvas) -> None:
        canvas.drawImage(ImageReader(make_picture(LINES)), 0, 0, side, side)

    document = await read(tmp_path, make_pdf(page, size=(side, side)))
    assert "kestrel" in document.text


async def test_a_picture_that_is_a_bomb_does_no_harm(tmp_path: Path) -> None:
    side, packer = 25_000, zlib.compressobj(1)
    stream = b"".join(packer.compress(bytes(side)) for _ in range(side)) + packer.flush()
    data = (
        b"%%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Count 1/Kids[3 0 R]>>endobj\n"
        b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R/Resources<</XObject<</X 5 0 R>>>>>>endobj\n"
        b"4 0 obj<</Length 24>>stream\n600 0 0 800 0 0 cm /X Do\nendstream endobj\n5 0 obj<</Subtype/Image/Width %d/Height %d"
        b"/ColorSpace/DeviceGray/BitsPerComponent 8/Filter/FlateDecode/Length %d>>stream\n%b\nendstream endobj\n"
        b"trailer<</Root 1 0 R>>\n" % (side, side, len(stream), stream)
    )
    try:
        document = await read(tmp_path, data)
    except DocumentError as error:
        assert isinstance(error, PoisonError) or error.code == "no_text"  # noqa: PT017
    else:
        assert document.warnings


@pytest.mark.parametrize("kind", ["deep", "cyclic"])
async def test_an_outline_without_end_does_no_harm(tmp_path: Path, kind: str) -> None:
    count = 5000 if kind == "deep" else 2
    next_item = "" if kind == "deep" else "/Next 10 0 R"
    items = "".join(
        f"{number} 0 obj<</Title(T)/Parent 9 0 R/Dest[3 0 R /Fit]/First {number + 1 if kind == 'deep' else 10} 0 R{next_item}>>endobj\n"
        for number in range(10, 10 + count)
    )
    words = "BT /F1 12 Tf 9 500 Td (The kestrel nests in the tower.) Tj ET"
    data = (
        "%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R/Outlines 9 0 R>>endobj\n"
        "2 0 obj<</Type/Pages/Count 1/Kids[3 0 R]>>endobj\n"
        "3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>endobj\n"
        f"4 0 obj<</Length {len(words)}>>stream\n{words}\nendstream endobj\n"
        "5 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj\n"
        f"9 0 obj<</First 10 0 R/Last 10 0 R>>endobj\n{items}trailer<</Root 1 0 R>>\n"
    )
    assert "kestrel" in (await read(tmp_path, data.encode())).text


def table(rows: list[list[str]], *, ruled: bool, top: float = 700, widths: float = 110) -> Callable[[Canvas], None]:
    """Draw a table, row by row and cell by cell."""

    def draw(canvas: Canvas) -> None:
        for number, row in enumerate(rows):
            for column, cell in enumerate(row):
                left, bottom = 60 + widths * column, top - 20 * number
                canvas.drawString(left + 4, bottom + 6, cell)
                if ruled:
                    canvas.rect(left, bottom, widths, 20)

    return draw


def draw_all(*parts: Callable[[Canvas], None]) -> Callable[[Canvas], None]:
    def draw(canvas: Canvas) -> None:
        for part in parts:
            part(canvas)

    return draw


BOATS = [
    ["Harbour", "Boats", "Berths", "Depth"],
    ["Emden", "41", "60", "7.5 m"],
    ["Husum", "", "35", "3.1 m"],
    ["Norddeich", "28", "", "4.0 m"],
]
BOAT_ROWS = [
    "Harbour: Emden; Boats: 41; Berths: 60; Depth: 7.5 m",
    "Harbour: Husum; Berths: 35; Depth: 3.1 m",
    "Harbour: Norddeich; Boats: 28; Depth: 4.0 m",
]


@pytest.mark.parametrize("ruled", [True, False])
@pytest.mark.parametrize("turned", [True, False])
async def test_rows_of_a_table_name_their_columns(tmp_path: Path, ruled: bool, turned: bool) -> None:
    def turn(canvas: Canvas) -> None:
        if turned:
            canvas.setPageSize((842, 595))  # which reportlab turns with the page
            canvas.setPageRotation(90)
            canvas.translate(595, 0)
            canvas.rotate(90)

    before, after = text("The harbours of the coast.", top=560), text("They were counted in May.", top=300)
    document = await read(tmp_path, make_pdf(draw_all(turn, before, table(BOATS, ruled=ruled, top=500), after)))
    assert document.text == "\n\n".join(
        ["The harbours of the coast.", "\n".join(BOAT_ROWS), "They were counted in May."]
    )
    (found,) = document.tables
    assert document.text[found.start : found.end] == "\n".join(BOAT_ROWS)


async def test_a_cell_that_is_merged_counts_in_each_of_its_places(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        for left, bottom, width, height, words in (
            (60, 700, 100, 40, "Station"), (160, 720, 200, 20, "Boats"), (160, 700, 100, 20, "May"),
            (260, 700, 100, 20, "June"), (60, 680, 100, 20, "Emden"), (160, 680, 100, 20, "41"), (260, 680, 100, 20, "44"),
        ):  # fmt: skip
            canvas.rect(left, bottom, width, height)
            canvas.drawString(left + 4, bottom + height / 2 - 4, words)

    assert (await read(tmp_path, make_pdf(draw))).text == "Station: Emden; Boats May: 41; Boats June: 44"


async def test_names_and_values_in_two_columns_have_no_header(tmp_path: Path) -> None:
    rows = [["Country", "Norway"], ["Workers", "243"], ["Products", "caps and gloves"]]
    document = await read(tmp_path, make_pdf(table(rows, ruled=True)))
    assert document.text.split("\n") == ["Country; Norway", "Workers; 243", "Products; caps and gloves"]


async def test_cells_of_several_lines_are_one_row(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        table(
            [["State", "Meaning", "Next"], ["", "", "end"], ["queued", "waits in a list", "start"]],
            ruled=True,
            widths=150,
        )(canvas)
        canvas.drawString(64, 690, "started")
        canvas.setFont("Helvetica", 8)
        canvas.drawString(214, 692, "runs in a worker until")
        canvas.drawString(214, 683, "it has ended")

    assert (await read(tmp_path, make_pdf(draw))).text.split("\n") == [
        "State: started; Meaning: runs in a worker until it has ended; Next: end",
        "State: queued; Meaning: waits in a list; Next: start",
    ]


@pytest.mark.parametrize("columns", [2, 3])
async def test_columns_of_text_are_no_table(tmp_path: Path, columns: int) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.setFont("Helvetica", 7)
        for number in range(30):
            for column in range(columns):
                words = f"line {number} of the column has {number} words"
                canvas.drawString(50 + 520 / columns * column, 760 - 12 * number, words)

    assert not (await read(tmp_path, make_pdf(draw))).tables


async def test_boxes_around_paragraphs_are_no_table(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        for left in (60, 310):
            for bottom in (400, 600):
                canvas.rect(left, bottom, 250, 200)
                for number in range(12):
                    canvas.drawString(
                        left + 5, bottom + 180 - 15 * number, "The kestrel nests in the tower every year."
                    )

    assert not (await read(tmp_path, make_pdf(draw))).tables


async def test_a_maze_of_lines_takes_no_more_than_its_time(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        for number in range(2500):
            canvas.line(10 + number % 50 * 11, number / 4, 500, number / 4)
            canvas.line(10 + number / 5, 20, 10 + number / 5, 700)
        text(*LINES)(canvas)

    assert "kestrel" in (await read(tmp_path, make_pdf(draw), seconds=10)).text
