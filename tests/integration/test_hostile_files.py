"""Files that are made to harm their reader end with a reason, within its limits, and harm no other file."""

from __future__ import annotations

import asyncio
import io
import itertools
import struct
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path
from socket import create_server

import pytest

from ragq.errors import DocumentError
from ragq.models import ParsedDocument
from tests.integration.test_formats import make_epub, sample
from tests.integration.test_parser import read
from tests.parsers import some_parser

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("shared_parser")]

MEMORY_BYTES = 1 << 30
TIMEOUT_SECONDS = 30
CONTENT = '<office:document-content xmlns:office="o" xmlns:text="t" xmlns:table="b"><office:body>'
END = "</office:body></office:document-content>"


async def read_within_limits(folder: Path, name: str, data: bytes) -> ParsedDocument:
    return await read(folder, name, data, timeout_seconds=TIMEOUT_SECONDS, memory_bytes=MEMORY_BYTES)


async def refuse(folder: Path, name: str, data: bytes) -> tuple[str, str]:
    """Read a file that must be refused, beside one that must be read; returns the code and the message."""
    bad, good = folder / "bad", folder / "good"
    bad.write_bytes(data)
    good.write_bytes(sample("report.docx"))
    limits = {"timeout_seconds": TIMEOUT_SECONDS, "memory_bytes": MEMORY_BYTES}
    async with some_parser() as parser:
        refused, neighbour = await asyncio.gather(
            parser.parse(bad, name, **limits),  # type: ignore[arg-type]
            parser.parse(good, "good.docx", **limits),  # type: ignore[arg-type]
            return_exceptions=True,
        )
    assert isinstance(neighbour, ParsedDocument)
    assert isinstance(refused, DocumentError), refused
    return refused.code, refused.message


def make_zip(parts: Mapping[str, bytes | str | Iterator[bytes]], base: bytes = b"") -> bytes:
    """Make an archive of what is in another, with some parts replaced or added."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        if base:
            with zipfile.ZipFile(io.BytesIO(base)) as old:
                for name in old.namelist():
                    if name not in parts:
                        archive.writestr(name, old.read(name))
        for name, data in parts.items():
            if isinstance(data, bytes | str):
                archive.writestr(name, data)
            else:
                with archive.open(name, "w") as part:
                    part.writelines(data)
    return file.getvalue()


def spaces(megabytes: int) -> Iterator[bytes]:
    """Megabytes of a text that begins with a tag, one at a time."""
    million = b"<a>".ljust(1_000_000)
    return itertools.chain([million], itertools.repeat(million.replace(b"<a>", b"   "), megabytes - 1))


def make_odt(body: str, kind: str = "text") -> bytes:
    mime_type = {"text": "text", "spreadsheet": "spreadsheet"}[kind]
    return make_zip(
        {
            "mimetype": f"application/vnd.oasis.opendocument.{mime_type}",
            "content.xml": f"{CONTENT}<office:{kind}>{body}</office:{kind}>{END}",
        }
    )


@pytest.mark.parametrize(
    ("name", "part"),
    [("report.docx", "word/document.xml"), ("prices.xlsx", "xl/worksheets/sheet1.xml"), ("report.odt", "content.xml")],
)
async def test_a_bomb_is_not_unpacked(tmp_path: Path, name: str, part: str) -> None:
    bomb = make_zip({part: spaces(401)}, sample(name))
    assert len(bomb) < 1_000_000
    assert (await refuse(tmp_path, name, bomb))[0] == "too_large"


@pytest.mark.parametrize(
    ("name", "part"),
    [("report.docx", "word/document.xml"), ("prices.xlsx", "xl/worksheets/sheet1.xml"), ("report.odt", "content.xml")],
)
async def test_a_bomb_that_says_it_is_small_is_damaged(tmp_path: Path, name: str, part: str) -> None:
    bomb = make_zip({part: spaces(300)}, sample(name)).replace(struct.pack("<I", 300_000_000), struct.pack("<I", 999))
    assert (await refuse(tmp_path, name, bomb))[0] == "damaged"


async def test_very_many_entries_are_refused_but_ten_thousand_are_read(tmp_path: Path) -> None:
    def add(count: int) -> bytes:
        return make_zip({f"word/media/{number}.xml": "" for number in range(count)}, sample("report.docx"))

    assert "180 metres" in (await read_within_limits(tmp_path, "a.docx", add(10_000))).text
    assert (await refuse(tmp_path, "a.docx", add(30_000)))[0] == "too_large"


ENTITIES = "".join(f'<!ENTITY {one} "{f"&{other};" * 10}">' for one, other in zip("bcdefghi", "abcdefgh", strict=True))
BILLION = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "lol">{ENTITIES}]>'
EXTERNAL = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY i SYSTEM "{url}">]>'


@pytest.mark.parametrize(("head", "entity"), [(BILLION, "&i;"), (EXTERNAL.format(url="file:///etc/passwd"), "&i;")])
async def test_entities_are_not_expanded(tmp_path: Path, head: str, entity: str) -> None:
    body = f"<office:text><text:p>{entity}</text:p></office:text>"
    data = make_zip({"content.xml": head + CONTENT + body + END}, sample("report.odt"))
    assert (await refuse(tmp_path, "a.odt", data))[0] == "damaged"
    assert (
        await refuse(
            tmp_path,
            "a.fodt",
            (head + CONTENT + 'office:mimetype="application/vnd.oasis.opendocument.text"' + END).encode(),
        )
    )[0] == "damaged"
    with zipfile.ZipFile(io.BytesIO(sample("report.docx"))) as archive:
        words = archive.read("word/document.xml").decode().partition("?>")[2].replace("180 metres", entity)
    docx = make_zip({"word/document.xml": head + words}, sample("report.docx"))
    try:
        text = (await read_within_limits(tmp_path, "a.docx", docx)).text
    except DocumentError:
        return
    assert "lol" * 10 not in text
    assert "root:" not in text


@contextmanager
def listening() -> Iterator[tuple[str, list[bytes]]]:
    """A server that notes who connects."""
    calls: list[bytes] = []
    with create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    calls.append(b"called")

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", calls
        server.shutdown(2)


async def test_nothing_outside_is_fetched(tmp_path: Path) -> None:
    with listening() as (url, calls):
        page = f'<link rel=stylesheet href="{url}"><img src="{url}/a.png"><iframe src="{url}"></iframe><p>words</p>'
        files = {
            "a.html": page.encode(),
            "a.epub": make_epub({"one.xhtml": page}),
            "a.odt": make_odt(f'<text:p>words<a xmlns:xlink="x" xlink:href="{url}"/></text:p>'),
            "a.rtf": rb"{\rtf1 {\field{\*\fldinst INCLUDEPICTURE " + url.encode() + rb"}} words}",
            "a.xml": EXTERNAL.format(url=url).encode() + b"<x>words &i;</x>",
            "a.eml": f"Subject: x\nFrom: y\nContent-Type: text/html\n\n{page}".encode(),
        }
        for name, data in files.items():
            assert "words" in (await read_within_limits(tmp_path, name, data)).text
        assert not calls


async def test_a_million_cells_are_read(tmp_path: Path) -> None:
    rows = "\n".join(",".join(str(row * column % 997) for column in range(20)) for row in range(50_000))
    document = await read_within_limits(tmp_path, "a.csv", rows.encode())
    assert len(document.tables[0].rows) == 50_000
    html = "<table>" + "<tr><td>1<td>2<td>3<td>4<td>5" * 100_000 + "</table>"
    assert len((await read_within_limits(tmp_path, "a.html", html.encode())).tables[0].rows) == 100_000


async def test_repeated_cells_are_not_written_out(tmp_path: Path) -> None:
    cell = '<table:table-cell table:number-columns-repeated="16384"><text:p>x</text:p></table:table-cell>'
    row = f'<table:table-row table:number-rows-repeated="1048576">{cell}</table:table-row>'
    sheet = make_odt(f"<table:table>{row}</table:table>", "spreadsheet")
    assert len((await read_within_limits(tmp_path, "a.ods", sheet)).tables[0].rows) == 1_000
    html = (
        b"<table><tr><td rowspan=65000 colspan=65000>" + b"word" * 100 + b"<td>2" + b"<tr><td>1" * 60_000 + b"</table>"
    )
    assert (await refuse(tmp_path, "a.html", html))[0] == "too_large"


DEEP = 100_000


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.html", b"<div>" * DEEP + b"words"),
        ("a.odt", make_odt("<text:section>" * DEEP + "</text:section>" * DEEP)),
        ("a.rtf", rb"{\rtf1 " + b"{" * DEEP + b"words" + b"}" * DEEP + b"}"),
        ("a.epub", make_epub({"a.xhtml": "<b>" * DEEP + "words"})),
    ],
)
async def test_deep_nesting_is_refused(tmp_path: Path, name: str, data: bytes) -> None:
    code, message = await refuse(tmp_path, name, data)
    assert code == "damaged"
    assert "deep" in message


@pytest.mark.parametrize(
    ("name", "part", "tag"),
    [("report.docx", "word/document.xml", "w:sdt"), ("talk.pptx", "ppt/slides/slide1.xml", "p:grpSp")],
)
async def test_deep_nesting_in_office_files_harms_no_one(tmp_path: Path, name: str, part: str, tag: str) -> None:
    with zipfile.ZipFile(io.BytesIO(sample(name))) as archive:
        xml = archive.read(part).decode()
    start = xml.index("<w:body>") + 8 if "<w:body>" in xml else xml.index("<p:spTree>") + 10
    deep = xml[:start] + f"<{tag}>" * DEEP + f"</{tag}>" * DEEP + xml[start:]
    try:
        document = await read_within_limits(tmp_path, name, make_zip({part: deep}, sample(name)))
    except DocumentError:
        return
    assert document.text


async def test_lists_and_data_may_nest_deep(tmp_path: Path) -> None:
    assert "words" in (await read_within_limits(tmp_path, "a.html", b"<ul><li>" * 1_000 + b"words")).text
    assert (await read_within_limits(tmp_path, "a.json", b"[" * DEEP)).text
    assert (await read_within_limits(tmp_path, "a.ipynb", b"[" * DEEP)).text


async def test_a_path_out_of_the_archive_is_no_chapter(tmp_path: Path) -> None:
    chapters = {"one.xhtml": "<p>words</p>"}
    for path in ("../../../../etc/passwd", "/etc/passwd", "file:///etc/passwd"):
        document = await read_within_limits(tmp_path, "a.epub", make_epub(chapters, references=["one.xhtml", path]))
        assert "root:" not in document.text
        assert document.warnings == ("Chapter 2 is missing in the file.",)


async def test_a_mail_within_mails_is_read_to_a_limit(tmp_path: Path) -> None:
    mail = EmailMessage()
    mail.set_content("innermost")
    for depth in range(50):
        inner, mail = mail, EmailMessage()
        mail["Subject"], mail["From"], mail["Date"] = f"No {depth}", "Jo <jo@example.org>", "today"
        mail.set_content("text")
        mail.add_attachment(inner)
    document = await read_within_limits(tmp_path, "a.eml", mail.as_bytes())
    assert "too many" in document.warnings[0]
    assert "No 46" in document.text
    assert "No 45" not in document.text
    endless = b"Subject: words\nFrom: y\n" + b"Content-Type: message/rfc822\n\n" * 5_000
    assert (await refuse(tmp_path, "a.eml", endless))[0] == "damaged"


async def test_macros_are_neither_run_nor_read(tmp_path: Path) -> None:
    data = make_zip({"word/vbaProject.bin": b"Sub AutoOpen()\nShell\nEnd Sub"}, sample("report.docx"))
    document = await read_within_limits(tmp_path, "a.docm", data)
    assert "180 metres" in document.text
    assert "AutoOpen" not in document.text


NEW = ["report.docx", "prices.xlsx", "talk.pptx", "report.odt", "prices.ods", "report.epub"]
OLD = ["report.doc", "prices.xls", "talk.ppt.gz"]


@pytest.mark.parametrize("name", [*NEW, *OLD])
async def test_half_a_file_is_damaged(tmp_path: Path, name: str) -> None:
    data = sample(name)
    assert (await refuse(tmp_path, name.removesuffix(".gz"), data[: len(data) // 2]))[0] == "damaged"


async def test_encrypted_files_say_so(tmp_path: Path) -> None:
    manifest = "<m><encryption-data/></m>"
    odt = make_zip({"META-INF/manifest.xml": manifest}, sample("report.odt"))
    book = make_zip(
        {"META-INF/encryption.xml": '<e><CipherReference URI="O/one.xhtml"/></e>'}, make_epub({"one.xhtml": "x"})
    )
    doc = bytearray(sample("report.doc"))
    start = doc.index(b"\xec\xa5")  # the first bytes of Word's stream
    doc[start + 11] |= 1
    for name, data in (("a.odt", odt), ("a.epub", book), ("a.doc", bytes(doc))):
        assert (await refuse(tmp_path, name, data))[0] == "encrypted"
