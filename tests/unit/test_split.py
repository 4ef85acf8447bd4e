"""Splitting: exact offsets, sizes within the window, pages and headings."""

from __future__ import annotations

from itertools import pairwise

import pytest

from ragq.client.embedding_client import load_tokenizer
from ragq.models import Chunk, ParsedDocument, Place, PlaceKind, Table
from ragq.rag import split as split_module
from ragq.rag.split import split

SCRIPTS = {
    "english": "The committee met in 1990 and agreed on the plan. ",
    "german": "Die Größe der Straße übertraf alle Erwartungen für Köln. ",
    "hindi": "भारत की राजधानी नई दिल्ली है और यह बड़ा शहर है। ",
    "japanese": "東京は日本の首都であり、人口が多い。",
    "emoji": "👩‍👩‍👧 family 🇩🇪 flag 😀 ",
    "no spaces": "x" * 50,
    "punctuation": "!?.,;:" * 9,
}


def cut(document: ParsedDocument, max_tokens: int = 200, overlap_tokens: int = 40) -> list[Chunk]:
    chunks = split(document, load_tokenizer(), max_tokens=max_tokens, overlap_tokens=overlap_tokens)
    assert all(document.text[chunk.start : chunk.end] == chunk.text for chunk in chunks)
    assert all(chunk.text.strip() and chunk.token_count <= max_tokens for chunk in chunks)
    return chunks


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("max_tokens", [10, 200])
def test_every_script_is_split_at_exact_offsets_within_the_limit(script: str, max_tokens: int) -> None:
    text = SCRIPTS[script] * 120
    chunks = cut(ParsedDocument(text), max_tokens, max_tokens // 5)
    covered = {position for chunk in chunks for position in range(chunk.start, chunk.end)}
    assert all(position in covered or character.isspace() for position, character in enumerate(text))


def test_token_counts_are_the_tokenizers() -> None:
    chunks = cut(ParsedDocument(SCRIPTS["german"] * 40))
    assert len(chunks) > 1
    for chunk in chunks:
        assert chunk.token_count == len(load_tokenizer().encode(chunk.text, add_special_tokens=False).ids)


def test_chunks_of_prose_fill_the_window_and_overlap() -> None:
    chunks = cut(ParsedDocument(SCRIPTS["english"] * 200))
    assert sum(chunk.token_count for chunk in chunks) / len(chunks) > 130
    assert all(after.start < before.end for before, after in pairwise(chunks))


@pytest.mark.parametrize("dense", ["japanese", "punctuation"])
def test_what_is_denser_than_its_document_overlaps_no_more_than_the_rest(dense: str) -> None:
    prose, tail = SCRIPTS["english"] * 200, SCRIPTS[dense] * 80
    chunks = cut(ParsedDocument(prose + tail))
    alone = len(load_tokenizer().encode(tail, add_special_tokens=False).ids)
    assert sum(chunk.token_count for chunk in chunks if chunk.start >= len(prose)) < 1.5 * alone


def test_no_chunk_crosses_a_page() -> None:
    pages = [f"Page {number} says a little about itself. " * (number % 7) for number in range(40)]
    starts = [sum(len(page) for page in pages[:number]) for number in range(40)]
    places = tuple(Place(start, PlaceKind.PAGE, number) for number, start in enumerate(starts, 1))
    document = ParsedDocument("".join(pages), places)
    chunks = cut(document)
    assert len(chunks) >= sum(not page.isspace() and bool(page) for page in pages)
    for chunk in chunks:
        place = document.place_at(chunk.start)
        assert place
        assert place == document.place_at(chunk.end - 1)
        assert place.number == chunk.page


def test_markdown_is_split_at_headings_and_chunks_know_theirs() -> None:
    text = "# A\n\n" + "alpha " * 120 + "\n\n## B\n\n" + "beta " * 120
    second = text.index("## B")
    chunks = cut(ParsedDocument(text, headings=((0, "A"), (second, "A › B")), has_lines=True))
    assert {chunk.heading for chunk in chunks} == {"A", "A › B"}
    assert not any(chunk.start < second < chunk.end for chunk in chunks)


def test_a_word_without_end_is_cut_although_it_counts_as_one_token() -> None:
    chunks = cut(ParsedDocument("x" * 100_000))
    assert max(len(chunk.text) for chunk in chunks) <= 1200


@pytest.mark.parametrize("text", ["", " \n\n\t ", "\n"])
def test_nothing_makes_no_chunk(text: str) -> None:
    assert cut(ParsedDocument(text)) == []


def test_a_long_text_is_cut_in_parts_that_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_module, "_PART_CHARACTERS", 2_000)
    for boundary in ("\n\n", "\n", " ", ""):
        text = boundary.join(f"word{number}." for number in range(2_000))
        chunks = cut(ParsedDocument(text), 100, 0)
        assert "".join("".join(chunk.text.split()) for chunk in chunks) == "".join(text.split())
        assert all(one.end <= other.start for one, other in pairwise(chunks))


def test_a_text_that_is_no_longer_wanted_is_split_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_module, "_PART_CHARACTERS", 2_000)
    asked = []

    def is_wanted() -> bool:
        asked.append(True)
        return len(asked) < 3

    text = "word " * 10_000
    chunks = split(ParsedDocument(text), load_tokenizer(), max_tokens=100, overlap_tokens=0, is_wanted=is_wanted)
    assert 0 < chunks[-1].end <= 4_000


@pytest.mark.parametrize("long_cell", ["", "; Notes: " + "many words of one cell " * 200])
def test_a_very_wide_row_is_cut_between_its_cells_and_each_part_is_searched_with_the_first(long_cell: str) -> None:
    cells = ["Station: Cape Wrath", *(f"Reading {number}: {number * 37} hPa" for number in range(1, 200))]
    row = "; ".join(cells) + long_cell
    chunks = cut(ParsedDocument("Ahead.\n" + row, tables=(Table(7, 7 + len(row), ((7, 2),)),)))[1:]
    assert len(chunks) > 4
    assert not chunks[0].context
    assert {chunk.context for chunk in chunks[1:]} == {"Station: Cape Wrath"}
    assert {chunk.location.numbers for chunk in chunks} == {(2,)}
    whole = [cell for chunk in chunks for cell in chunk.text.split("; ") if cell in cells]
    assert whole == cells


def test_a_row_that_is_not_very_long_stays_whole() -> None:
    row = "; ".join(f"Reading {number}: {number}" for number in range(100))
    chunks = split(
        ParsedDocument(row, tables=(Table(0, len(row), ((0, 2),)),)), load_tokenizer(), max_tokens=200, overlap_tokens=0
    )
    assert [chunk.text for chunk in chunks] == [row]
