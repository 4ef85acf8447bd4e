"""Headings and tables that are found in text that is kept as it is."""

from __future__ import annotations

import pytest

from ragq.parsing.readers import read
from ragq.parsing.readers.markdown import find_structure
from ragq.parsing.writer import DocumentWriter
from tests.unit.test_linear_time import assert_linear

RST = "=======\n Guide\n=======\n\ntext\n\nSet up\n======\n\nmore\n\nLinux\n-----\n\n---------\n\nUse\n===\n"
ASCIIDOC = "= Guide\n\n== Set up\n\n----\n== no\n----\n\n=== Linux\n\n== Use\n"
TEX = "\\title{The book}\n\\section{Set up}\n\\subsection*{Linux}\n% \\section{no}\n\\section[short]{Use}\n"


def structure_of(name: str, text: str) -> dict[str, object]:
    document = DocumentWriter(read, max_characters=100_000)
    read(text.encode(), name, document)
    written, structure = document.finish()
    assert written == text
    return structure


@pytest.mark.parametrize(
    ("name", "text", "titles"),
    [
        ("a.rst", RST, ["Guide", "Guide › Set up", "Guide › Set up › Linux", "Guide › Use"]),
        ("a.adoc", ASCIIDOC, ["Guide", "Guide › Set up", "Guide › Set up › Linux", "Guide › Use"]),
        ("a.tex", TEX, ["Set up", "Set up › Linux", "Use"]),
    ],
)
def test_headings_of_other_markup_are_found(name: str, text: str, titles: list[str]) -> None:
    headings = structure_of(name, text)["headings"]
    assert isinstance(headings, list)
    assert [title for _, title in headings] == titles


@pytest.mark.parametrize("name", ["a.py", "Makefile", "a.yaml", "a"])
def test_other_text_has_lines_and_no_headings(name: str) -> None:
    structure = structure_of(name, "# a comment\n\nmore\n")
    assert (structure["headings"], structure["has_lines"]) == ([], True)


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_table_in_markdown_keeps_its_rows_as_they_are(line_end: str) -> None:
    text = "É\n\n| Name | *Age* |\n|:---|---|\n| Jo | `4` |\n| Li | |\n\nend\n".replace("\n", line_end)
    (table,) = find_structure(text)[1]
    rows = [
        text[start:end].rstrip()
        for start, end in zip([row[0] for row in table.rows], ends(table.rows, table.end), strict=True)
    ]
    assert rows == ["| Name | *Age* |", "|:---|---|", "| Jo | `4` |", "| Li | |"]
    assert table.header == "Name; Age"
    assert [number for _, number in table.rows] == [1, 1, 2, 3]


def ends(rows: tuple[tuple[int, int], ...], end: int) -> list[int]:
    return [*(start for start, _ in rows[1:]), end]


def test_a_table_in_code_is_none() -> None:
    assert find_structure("```\n| a | b |\n|---|---|\n| 1 | 2 |\n```\n")[1] == []


@pytest.mark.parametrize("unit", ["=\n", "a\n=\n", "----\n", "== a\n", "\\section{"])
@pytest.mark.parametrize("name", ["a.rst", "a.adoc", "a.tex"])
def test_headings_of_other_markup_are_found_in_linear_time(name: str, unit: str) -> None:
    def find(text: str) -> None:
        read(text.encode(), name, DocumentWriter(read, max_characters=10_000_000))

    assert_linear(find, unit, seconds=1.5)
