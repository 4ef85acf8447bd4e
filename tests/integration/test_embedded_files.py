"""What a document holds beside its own text: files of other programs, and pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.test_formats import ANCHOR, locate, sample
from tests.integration.test_hostile_files import make_zip
from tests.integration.test_parser import read
from tests.integration.test_pdf import LINES, make_picture, needs_ocr, save, without_ocr
from tests.outlook import write_compound_file

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("shared_parser")]

SHEET = "word/embeddings/Microsoft_Excel_Worksheet.xlsx"


@pytest.mark.parametrize(
    ("name", "part"),
    [("report.docx", SHEET), ("talk.pptx", "ppt/embeddings/sheet1.xlsx"), ("prices.xlsx", "xl/embeddings/sheet1.xlsx")],
)
async def test_a_sheet_within_a_document_is_read_after_it(tmp_path: Path, name: str, part: str) -> None:
    within = sample("prices.xlsx")
    document = await read(tmp_path, name, make_zip({part: within}, sample(name)))
    row = document.text.rindex(ANCHOR)
    place = document.place_at(row)
    assert place
    assert (place.within, place.name) == (part.rpartition("/")[2], "Prices")
    assert not document.warnings


async def test_a_sheet_within_an_ole_object_is_read(tmp_path: Path) -> None:
    ole = write_compound_file({"Package": sample("prices.xlsx")})
    document = await read(tmp_path, "a.docx", make_zip({"word/embeddings/oleObject1.bin": ole}, sample("report.docx")))
    assert locate(document, ANCHOR) == "attachment oleObject1.bin, sheet Prices, row 5"


async def test_a_damaged_part_costs_a_warning_and_nothing_else(tmp_path: Path) -> None:
    whole = await read(tmp_path, "a.docx", sample("report.docx"))
    ole = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)
    parts: dict[str, bytes | str] = {"word/embeddings/oleObject1.bin": ole, SHEET: b"PK\x03\x04 and no more"}
    document = await read(tmp_path, "a.docx", make_zip(parts, sample("report.docx")))
    assert document.text == whole.text
    assert len(document.warnings) == 2
    assert all("damaged" in warning for warning in document.warnings)


async def test_documents_within_each_other_end_at_some_depth(tmp_path: Path) -> None:
    data = sample("report.docx")
    for _ in range(6):
        data = make_zip({"word/embeddings/report.docx": data}, sample("report.docx"))
    document = await read(tmp_path, "a.docx", data)
    assert document.text.count("180 metres") == 4
    assert any("too many" in warning for warning in document.warnings)


@needs_ocr
@pytest.mark.parametrize(
    ("name", "part"),
    [("report.docx", "word/media/image1.png"), ("talk.pptx", "ppt/media/image1.png"), ("report.odt", "Pictures/1.png")],
)
async def test_the_text_of_a_large_picture_is_read_and_small_ones_are_left_out(
    tmp_path: Path, name: str, part: str
) -> None:
    icon = save(make_picture(["Not read"]).resize((60, 80)), "PNG")
    picture = save(make_picture(LINES), "PNG")
    document = await read(tmp_path, name, make_zip({part: picture, part.replace("1", "2"): icon}, sample(name)))
    assert locate(document, "nineteen birds") == f"attachment {part.rpartition('/')[2]}"
    assert not document.warnings
    assert "Not read" not in document.text


async def test_without_ocr_pictures_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_ocr(tmp_path, monkeypatch)
    picture = save(make_picture(LINES), "PNG")
    parts: dict[str, bytes | str] = {f"word/media/image{number}.png": picture for number in range(3)}
    document = await read(tmp_path, "a.docx", make_zip(parts, sample("report.docx")))
    assert document.warnings == ("3 pictures were not read: install tesseract-ocr and put the file in again.",)
