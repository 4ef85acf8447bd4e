"""Each format, made by its own program or library: its words, where a fact stands, and a row with its header."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from email.message import EmailMessage
from pathlib import Path

import pytest

from ragq.client.embedding_client import load_tokenizer
from ragq.models import ParsedDocument
from ragq.rag.split import split
from tests.integration.test_parser import read
from tests.outlook import make_folder, make_msg

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("shared_parser")]

FILES = Path(__file__).parents[1] / "files"
OIL = "Service: Oily waste; Unit: m³; Price: 31.00 €"
NOTE, COMMENT = "Note: Measured at low water in June.", "Ask the cashier about credit."
LETTERHEAD, BOX = "Letterhead of the harbour office", "Boxed: call channel 12."
ANCHOR = "Item: Anchor; Price: 1,234.50; Rebate: 15.3%; Since: 2024-03-05"
RED = "Line: Red; Passengers a day: 4,310"
ROPE = "Item: Rope; Price: 95.00; Since: 2024-01-15"


def sample(name: str) -> bytes:
    data = (FILES / name).read_bytes()
    return gzip.decompress(data) if name.endswith(".gz") else data


def locate(document: ParsedDocument, words: str) -> str:
    """Where the words stand, as a citation says it; of a chunk with several sections, the section of the words."""
    for chunk in split(document, load_tokenizer(), max_tokens=200, overlap_tokens=20):
        if (start := chunk.text.find(words)) >= 0:
            return str(chunk.location.narrow(chunk.text, start, start + len(words)))
    raise AssertionError(f"{words!r} is in no chunk of {document.text!r}")


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        *(
            (
                f"report.{suffix}",
                {"180 metres": "section Berths", OIL: "section Berths › Fees", "follows the moon": "section Tides"}
                | dict.fromkeys((NOTE,), "section Tides" if suffix == "doc" else "section Berths")
                | dict.fromkeys((COMMENT,), "section Tides" if suffix == "doc" else "section Berths › Fees")
                | {LETTERHEAD: "", BOX: "section Berths › Fees", "  - oily waste": "section Berths › Fees"},
            )
            for suffix in ("docx", "doc", "odt", "fodt")
        ),
        *(
            (
                f"prices.{suffix}",
                {
                    "Prices of the yard": "sheet Prices, row 3",
                    ANCHOR: "sheet Prices, row 5",
                    ROPE: "sheet Prices, row 7",
                }
                | {"Item: Total; Price: 1,409.50": "sheet Prices, row 11"}
                | {"Item: Anchor; Pieces: 7": "sheet Stock 2024, row 2", "613": "sheet Secret, row 2"},
            )
            for suffix in ("xlsx", "xls", "ods", "fods")
        ),
        *(
            (
                f"talk.{suffix}",
                {
                    "leaves at 05:40": "slide 1: Ferry lines of the bay",
                    "winter pause": "slide 1: Ferry lines of the bay",
                }
                | ({"4,310": "slide 2: Passengers"} if suffix == "ppt.gz" else {RED: "slide 2: Passengers, row 2"}),
            )
            for suffix in ("pptx", "odp", "ppt.gz")
        ),
        ("report.epub", {"180 metres": "chapter 1: Berths", "follows the moon": "chapter 2: Tides"}),
        (
            "report.rtf",
            {
                "180 metres. Grüße aus Łódź.": "section Berths",
                "Service: Pilot; Price: 250.00 €": "section Berths › Fees",
            },
        ),
    ],
)
async def test_samples_of_office_programs(tmp_path: Path, name: str, facts: dict[str, str]) -> None:
    document = await read(tmp_path, name.removesuffix(".gz"), sample(name))
    assert {words: locate(document, words) for words in facts} == facts
    assert document.title == {"r": "Harbour report", "p": "Price list", "t": "Ferry lines"}[name[0]]
    assert not document.warnings


async def test_rtf_has_headings_where_its_styles_say_so(tmp_path: Path) -> None:
    row = rb"\trowd\cellx100\cellx200\intbl\outlinelevel1 Fee\cell Price\cell\row "
    data = rb"{\rtf1{\stylesheet{\s1\outlinelevel0 heading 1;}}\pard\outlinelevel0 Berths\par\pard\outlinelevel2\par"
    data += rb"\pard\outlinelevel1{\b Fees} of 2024\par\pard\outlinelevel9 Due at once.\par " + row * 2 + rb"}"
    document = await read(tmp_path, "a.rtf", data)
    assert document.headings == ((0, "Berths"), (8, "Berths › Fees of 2024"))
    assert document.text.startswith("Berths\n\nFees of 2024\n\nDue at once.\n\n")
    assert "\x01" not in document.text


PAGE = """<!doctype html><html><head><title>Fees</title><meta charset="{charset}"><script>var hidden = 1</script></head>
<body><header>Logo<nav><a href="/">Home</a></nav></header><div class="cookie-banner">We use cookies</div>
<main><h1>Harbour fees</h1><p>Fees of the <b>north</b> quay,<br>as of Grüße day.</p>
<h2>Table</h2><table><caption>Sales in dollars</caption><thead><tr><th>Year<th colspan=2>2023<th colspan=2>2022</thead>
<tr><td rowspan=2>Net<td>$<td>1,234<td>$<td>999<tr><td>(<td>12)<td><td>7<tr><td>Loss<td><td><td><td>3</table>
<h2>Steps</h2><ol start=3><li>moor<li>pay<ul><li>by card</ul></ol><pre>  two
    words</pre></main><footer>Imprint</footer></body></html>"""


@pytest.mark.parametrize("charset", ["utf-8", "iso-8859-1"])
async def test_html_gives_its_main_text(tmp_path: Path, charset: str) -> None:
    document = await read(tmp_path, "page", PAGE.format(charset=charset).encode(charset))
    assert document.text == (
        "Harbour fees\n\nFees of the north quay,\nas of Grüße day.\n\nTable\n\nSales in dollars\n\n"
        "Year: Net; 2023: $1,234; 2022: $999\nYear: Net; 2023: (12); 2022: 7\nYear: Loss; 2022: 3\n\n"
        "Steps\n\n3. moor\n4. pay\n  - by card\n\ntwo\n    words"
    )
    assert locate(document, "2022: $999") == "section Harbour fees › Table"
    assert document.title == "Fees"


async def test_a_page_without_a_marked_main_text_loses_menus_alone(tmp_path: Path) -> None:
    page = b"<body><div class='sidebar'>Menu</div><article><header>Title</header>Words of it.</article><footer>End</footer>"
    document = await read(tmp_path, "a.html", page + b"<table><tr><td><p>laid<td><table><tr><td>out</table></table>")
    assert document.text == "Title\n\nWords of it.\n\nlaid\n\nout"


async def test_csv_names_the_columns_and_numbers_rows_as_the_file_does(tmp_path: Path) -> None:
    data = 'Bericht Mai;;\r\n\r\nName;Betrag;Datum\r\n"Müller; Jan";1.234,50;01.02.2024\r\nLi;;"2.\r\n3."\r\n'
    document = await read(tmp_path, "a.csv", data.encode("cp1252"))
    assert document.encoding == "cp1252"
    assert locate(document, "Bericht Mai") == "row 1"
    assert locate(document, "Name: Müller; Jan; Betrag: 1.234,50; Datum: 01.02.2024") == "row 4"
    assert locate(document, "Name: Li; Datum: 2. 3.") == "row 5"


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
async def test_separators_are_told(tmp_path: Path, separator: str) -> None:
    rows = [["Item", "Price"], ["Anchor, small", "12"], ["Rope", "3"]]
    lines = (separator.join(f'"{cell}"' if separator in cell else cell for cell in row) for row in rows)
    document = await read(tmp_path, "a.csv", "\n".join(lines).encode())
    assert document.text == "Item: Anchor, small; Price: 12\nItem: Rope; Price: 3"


async def test_a_notebook_gives_its_text_code_and_outputs(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Tides\n", "Of the *moon*."]},
        {
            "cell_type": "code",
            "source": "# no heading\nprint(12)",
            "outputs": [{"output_type": "stream", "text": ["12\n"]}],
        },
        {"cell_type": "code", "source": "t", "outputs": [{"data": {"text/plain": ["a table"], "text/html": "<b>"}}]},
    ]
    data = json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).encode()
    for name in ("a.ipynb", "a"):
        document = await read(tmp_path, name, data)
        assert document.text == "Tides\n\nOf the *moon*.\n\n# no heading\nprint(12)\n\n12\n\nt\n\na table"
        assert locate(document, "print(12)") == "section Tides"


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.xml", "a.yaml", "a.ini", "a.log", "a.py", "Dockerfile"])
async def test_data_and_source_keep_their_lines(tmp_path: Path, name: str) -> None:
    text = '<?xml version="1.0"?>\n<a>\n  <b>words</b>\n</a>\n' if name == "a.xml" else '{"a": 1,\n\n  "b": "words"}\n'
    document = await read(tmp_path, name, text.encode())
    assert document.text == text
    assert locate(document, "words") == "line 3"


def make_mail(subject: str, *, html: str = "", text: str = "") -> EmailMessage:
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = subject, "Jo <jo@example.org>", "Li <li@example.org>"
    mail["Date"] = "Mon, 04 Mar 2024 04:26:40 +0000"
    if text:
        mail.set_content(text, charset="iso-8859-1")
    if html:
        mail.add_alternative(html, subtype="html")
    return mail


async def test_a_mail_holds_its_attachments(tmp_path: Path) -> None:
    mail = make_mail("Grüße vom Kai", text="Der Kran läuft.", html="<p>not this</p>")
    mail.add_attachment(sample("prices.xlsx"), maintype="application", subtype="octet-stream", filename="prices.xlsx")
    mail.add_attachment(make_mail("Inner", html="<p>Only <b>HTML</b> here.</p>"))
    mail.add_attachment(b"\0\1\2" * 50, maintype="application", subtype="octet-stream", filename="noise.bin")
    document = await read(tmp_path, "a.eml", mail.as_bytes())
    assert document.text.startswith("Grüße vom Kai\n\nFrom: Jo <jo@example.org>\nTo: Li <li@example.org>\nDate: Mon")
    assert "not this" not in document.text
    assert locate(document, "Der Kran läuft.") == "section Grüße vom Kai"
    assert locate(document, ANCHOR) == "attachment prices.xlsx, sheet Prices, row 5"
    assert locate(document, "Only HTML here.") == "attachment Inner.eml, section Inner"
    assert document.title == "Grüße vom Kai"
    assert [warning.partition(":")[0] for warning in document.warnings] == ["attachment noise.bin"]


async def test_a_message_of_outlook_is_a_mail(tmp_path: Path) -> None:
    inner = make_folder("Inner", "Within it.")
    attachments = (("prices.xlsx", sample("prices.xlsx")), ("", inner))
    data = make_msg("Berth 12", "The crane is repaired.", sender="Jo", to="Li", attachments=attachments)
    document = await read(tmp_path, "a.msg", data)
    assert "From: Jo\nTo: Li\nDate: Mon, 04 Mar 2024" in document.text
    assert locate(document, "The crane is repaired.") == "section Berth 12"
    assert locate(document, ROPE) == "attachment prices.xlsx, sheet Prices, row 7"
    assert locate(document, "Within it.") == "attachment Inner.eml, section Inner"


async def test_a_mailbox_holds_several_mails(tmp_path: Path) -> None:
    mails = [b"From a@b Sat Jan  6 00:00:00 2024\n" + make_mail(f"No {n}", text=f"word{n}").as_bytes() for n in (1, 2)]
    document = await read(tmp_path, "archive", b"\n".join(mails))
    assert locate(document, "word2") == "section No 2"


async def test_an_epub_says_who_wrote_it(tmp_path: Path) -> None:
    document = await read(tmp_path, "a.epub", make_epub({"one.xhtml": "<h1>Ice</h1><p>Skates glide.</p>"}))
    assert document.text == "Winter by A. Writer\n\nIce\n\nSkates glide."
    assert locate(document, "A. Writer") == "chapter 1: Ice"


def make_epub(chapters: dict[str, str], *, references: list[str] | None = None) -> bytes:
    items = "".join(
        f'<item id="c{number}" href="{name}" media-type="application/xhtml+xml"/>'
        for number, name in enumerate(references or chapters)
    )
    spine = "".join(f'<itemref idref="c{number}"/>' for number in range(len(references or chapters)))
    package = f"""<package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">
<dc:title>Winter</dc:title><dc:creator>A. Writer</dc:creator></metadata><manifest>{items}</manifest>
<spine>{spine}</spine></package>"""
    container = '<container><rootfiles><rootfile full-path="O/p.opf"/></rootfiles></container>'
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("mimetype", "application/epub+zip")
        archive.writestr("META-INF/container.xml", container)
        archive.writestr("O/p.opf", package)
        for name, body in chapters.items():
            archive.writestr(f"O/{name}", f"<html><body>{body}</body></html>")
    return file.getvalue()


async def test_a_sheet_that_one_library_refuses_is_read_by_the_other(tmp_path: Path) -> None:
    """Some programs write numbers with a space before them, which Excel and LibreOffice accept."""
    made_file = io.BytesIO()
    with zipfile.ZipFile(FILES / "prices.xlsx") as source, zipfile.ZipFile(made_file, "w") as made:
        for entry in source.infolist():
            data = source.read(entry)
            if entry.filename.startswith("xl/worksheets/sheet"):
                data = data.replace(b"<v>", b"<v> ").replace(b"<v> </v>", b"<v></v>")
            made.writestr(entry, data)
    document = await read(tmp_path, "spaces.xlsx", made_file.getvalue())
    assert ANCHOR.partition("; Since")[0] in document.text
    assert document.warnings == ()
