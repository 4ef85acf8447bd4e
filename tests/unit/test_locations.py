"""Where passages stand, in words."""

from __future__ import annotations

import pytest

from ragq.client.embedding_client import load_tokenizer
from ragq.models import Location, ParsedDocument, Place, PlaceKind, Table
from ragq.rag.split import searched_text, split


@pytest.mark.parametrize(
    ("location", "words"),
    [
        (Location(), ""),
        (Location(PlaceKind.PAGE, 5), "page 5"),
        (Location(PlaceKind.PAGE, 5, "iii"), "page 5 (iii)"),
        (Location(PlaceKind.SLIDE, 2, "The plan"), "slide 2: The plan"),
        (Location(PlaceKind.SHEET, 1, "Sheet1"), "sheet 1"),
        (Location(PlaceKind.SHEET, 2, "Prices", unit="row", numbers=(12, 13)), "sheet Prices, rows 12–13"),
        (Location(PlaceKind.CHAPTER, 3, "Ducks"), "chapter 3: Ducks"),
        (Location(PlaceKind.SECTION, name="A › B"), "section A › B"),
        (Location(unit="row", numbers=(7,)), "row 7"),
        (Location(unit="line", numbers=(40, 52)), "lines 40–52"),
        (Location(PlaceKind.PAGE, 2, within="a.pdf"), "attachment a.pdf, page 2"),
    ],
)
def test_a_location_is_said_in_words(location: Location, words: str) -> None:
    assert str(location) == words


def test_a_quote_has_the_rows_lines_or_section_that_it_stands_in() -> None:
    text = "one\ntwo\nthree"
    rows = Location(PlaceKind.SHEET, 1, "A", unit="row", numbers=(3, 5, 9))
    assert str(rows.narrow(text, 4, 7)) == "sheet A, row 5"
    assert str(rows.narrow(text, 4, 13)) == "sheet A, rows 5–9"
    assert (
        str(Location(unit="line", numbers=(10, 12)).narrow(text, 4, 8)) == "line 11"
    )  # its line end is not another line
    sections = Location(PlaceKind.SECTION, name="First", sections=((4, "Second"), (8, "Third")))
    assert [str(sections.narrow(text, start, start + 3)) for start in (0, 4, 8)] == [
        "section First",
        "section Second",
        "section Third",
    ]


def cut(document: ParsedDocument, **options: str) -> list[tuple[str, str]]:
    chunks = split(document, load_tokenizer(), max_tokens=20, overlap_tokens=0, **options)  # type: ignore[arg-type]
    assert all(document.text[chunk.start : chunk.end] == chunk.text for chunk in chunks)
    return [(chunk.text, str(chunk.location)) for chunk in chunks]


def test_rows_are_kept_whole_and_no_chunk_crosses_a_table_or_a_place() -> None:
    rows = [f"Name: item {number}; Price: {number}.00" for number in range(1, 6)]
    before, table, after = "Before it.", "\n".join(rows), "After it, on the second sheet."
    text = f"{before}\n\n{table}\n\n{after}"
    start, second = text.index(table), text.index(after)
    offsets = tuple((text.index(row), number) for number, row in enumerate(rows, 2))
    document = ParsedDocument(
        text,
        (Place(0, PlaceKind.SHEET, 1, "A"), Place(second, PlaceKind.SHEET, 2, "B")),
        tables=(Table(start, start + len(table), offsets),),
    )
    found = cut(document)
    assert found[0] == (before, "sheet A")
    assert found[-1] == (after, "sheet B")
    in_table = found[1:-1]
    assert "\n".join(text for text, _ in in_table) == table
    assert len(in_table) > 1
    assert in_table[0][1] in ("sheet A, row 2", "sheet A, rows 2–3")


def test_a_row_is_kept_whole_unless_it_is_very_long() -> None:
    row = "; ".join(f"Column {number}: value" for number in range(12))
    assert cut(ParsedDocument(row, tables=(Table(0, len(row), ((0, 1),)),))) == [(row, "row 1")]
    endless = "; ".join(f"Column {number}: value" for number in range(5000))
    chunks = cut(
        ParsedDocument(
            f"{endless}\n{row}", tables=(Table(0, len(endless) + 1 + len(row), ((0, 1), (len(endless) + 1, 2))),)
        )
    )
    assert max(len(text) for text, _ in chunks[:-1]) < 200
    assert {where for _, where in chunks[:-1]} == {"row 1"}
    assert chunks[-1] == (row, "row 2")


def test_a_chunk_is_searched_by_its_documents_name_its_heading_and_its_tables_header() -> None:
    text = "| 1 | 2 |"
    document = ParsedDocument(text, headings=((0, "Prices"),), tables=(Table(0, len(text), ((0, 3),), "Item; Price"),))
    (chunk,) = split(document, load_tokenizer(), max_tokens=50, overlap_tokens=0, context="the list")
    assert searched_text(chunk) == "the list Item; Price\nPrices\n| 1 | 2 |"
    assert chunk.text == text
