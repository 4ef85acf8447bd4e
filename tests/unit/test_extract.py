"""The text and headings of documents, without the process that reads them."""

from __future__ import annotations

import pytest

from ragq.errors import DocumentError
from ragq.parsing.kinds import Kind, detect
from ragq.parsing.parser import check_supported
from ragq.parsing.readers.markdown import find_headings
from ragq.parsing.readers.pdf.pages import clean_pdf_text
from tests.unit.test_linear_time import assert_linear


@pytest.mark.parametrize("filename", ["a.exe", "a.pdf.zip", "A.MP4"])
def test_files_that_are_never_read_are_unsupported(filename: str) -> None:
    with pytest.raises(DocumentError) as caught:
        check_supported(filename)
    assert caught.value.code == "unsupported_file"
    assert "documents, tables, mails, images and text" in caught.value.message


@pytest.mark.parametrize("filename", ["a", ".pdf", "Makefile", "x" * 255, "a.docx", "b.log", "a.jpeg"])
def test_other_files_may_be_sent_and_are_told_by_their_content(filename: str) -> None:
    check_supported(filename)
    assert detect(b"Plain words.", filename) is Kind.TEXT
    assert detect(b"%PDF-1.7\n", filename) is Kind.PDF


def test_headings_are_found_but_not_in_code_rules_lists_or_front_matter() -> None:
    text = (
        "---\ntitle: x\n---\n\nTop\n===\n\n```sh\n# a comment\n~~~\n```\n\n- item\n---\n#hashtag\n    # indented\n\n"
        "Sub [link](http://x)\n---\n\n~~~\n# no\n~~~\n# Next\n### Deep\n## Less\n#\n"
    )
    titles = [title for _, title in find_headings(text)]
    assert titles == ["Top", "Top › Sub link", "Next", "Next › Deep", "Next › Less"]
    assert all(text[offset - 1] == "\n" for offset, _ in find_headings(text))


@pytest.mark.parametrize(
    ("text", "titles"),
    [
        ("<!--\n# hidden\n-->\n\n# Shown\n", ["Shown"]),
        ("<pre>\n# a comment\n</pre>\n# Shown\n", ["Shown"]),
        ("> # quoted\n\n- # an item\n\n# Shown\n", ["Shown"]),
        ("# *ragq* at [![build](https://a/b)](https://c/d) &amp; \\*work\\*\n", ["ragq at build & *work*"]),
        ("A title of\ntwo lines\n===\ntext\n", ["A title of two lines"]),
        ("# One\r## Two\r\n### Three\n", ["One", "One › Two", "One › Two › Three"]),
        ("[a]: /b\n# \n#\nShown\n---\n", ["Shown"]),
        ("É\n\n  ## 漢字 in `code`\n", ["漢字 in code"]),
    ],
)
def test_headings_are_those_of_commonmark(text: str, titles: list[str]) -> None:
    headings = find_headings(text)
    assert [title for _, title in headings] == titles
    assert all(offset == 0 or text[offset - 1] in "\r\n" for offset, _ in headings)


@pytest.mark.parametrize(
    "unit", ["[a]: /b\n", "[a]: /b '\n", "[\n", "- a\n", "> a\n", "a\n-\n", "# *a [b](\n", "> - ", "\t", "`", "#"]
)
def test_headings_are_found_in_time_linear_in_the_text(unit: str) -> None:
    assert_linear(find_headings, unit, seconds=1.5)


def test_pdf_text_loses_what_is_no_text() -> None:
    raw = "one\x00 two \r\nexam\ufffe\r\nple Anglo\x02\r\nSaxon end\ufffe"
    assert clean_pdf_text(raw) == "one two\nexample Anglo-Saxon end-"


def test_a_heading_under_long_ones_keeps_its_end() -> None:
    text = "".join(f"{'#' * level} {'long ' * 30}{level}\n" for level in range(1, 6)) + "###### the last\n" * 1000
    titles = [title for _, title in find_headings(text)]
    assert titles[-1].startswith("…")
    assert titles[-1].endswith("5 › the last")
    assert max(map(len, titles)) == 300
