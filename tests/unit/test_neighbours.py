"""What is joined of the sources that an LLM is given."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer

from ragq.client.embedding_client import load_tokenizer
from ragq.models import Location, ParsedDocument, PlaceKind, Question, SearchResult
from ragq.rag.neighbours import join_neighbours
from ragq.rag.prompt import build_messages
from ragq.rag.split import split
from tests.unit.test_answer import make_result

DOCUMENT = "".join(f"Sentence {number} of the harbour's long report is here. " for number in range(200))
OTHER = make_result("Dogs bark.", file_id="other")


def passage(start: int, end: int, **fields: Any) -> SearchResult:
    return make_result(DOCUMENT[start:end], start=start, **fields)


def test_what_overlaps_becomes_one_source_in_the_place_of_the_best() -> None:
    found = [passage(0, 300, score=0.5), OTHER, passage(200, 500, score=0.9)]
    joined, other = join_neighbours(found)
    assert (joined.start, joined.end, joined.text) == (0, 500, DOCUMENT[:500])
    assert (joined.score, other) == (0.9, found[1])
    assert found[0].token_count < joined.token_count < found[0].token_count + found[2].token_count


def test_a_prompt_has_no_text_twice_and_quotes_keep_their_offsets() -> None:
    found = [passage(400, 800), passage(0, 300), passage(200, 500), passage(450, 600)]
    messages, sources = build_messages(Question("Which?", ["vs_1"]), found, budget_tokens=10_000)
    assert [(one.start, one.end) for one in sources] == [(0, 800)]
    assert messages[-1]["content"].count("Sentence 4 of") == 1
    assert sources[0].text == DOCUMENT[:800]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer()


def test_the_chunks_of_a_document_join_to_its_own_text(tokenizer: Tokenizer) -> None:
    chunks = split(ParsedDocument(DOCUMENT, has_lines=True), tokenizer, max_tokens=100, overlap_tokens=20)
    found = [make_result(one.text, start=one.start, location=one.location) for one in chunks]
    joined = join_neighbours(found[::-1])
    assert len(joined) < len(found)
    assert all(one.text == DOCUMENT[one.start : one.end] for one in joined)
    assert sum(len(one.text) for one in joined) <= len(DOCUMENT)


def test_what_white_space_parts_stays_two_and_the_best_stays_first() -> None:
    found = [passage(50, 100), OTHER, passage(0, 49)]
    assert join_neighbours(found) == found


@pytest.mark.parametrize(
    "second",
    [
        passage(200, 500, file_id="f2"),
        passage(200, 500, page=2),
        make_result("Another version of this text.", start=200),
        passage(310, 500),
    ],
    ids=["another file", "another page", "another text", "further on"],
)
def test_others_are_not_joined(second: SearchResult) -> None:
    found = [second, passage(0, 300, page=1 if second.page else None)]
    assert join_neighbours(found) == found


def test_rows_of_a_table_are_not_joined() -> None:
    rows = Location(PlaceKind.SHEET, 1, "Prices", unit="row", numbers=(1,))
    found = [make_result("a: 1", location=rows), make_result("b: 2", start=4, location=rows)]
    assert join_neighbours(found) == found


def test_lines_and_sections_are_those_of_the_whole() -> None:
    lines = [Location(unit="line", numbers=numbers) for numbers in ((3, 4), (4, 6))]
    first, second = make_result("a\nb", location=lines[0]), make_result("b\nc\nd", start=2, location=lines[1])
    (joined,) = join_neighbours([first, second])
    assert (joined.text, str(joined.location)) == ("a\nb\nc\nd", "lines 3–6")
    assert str(joined.location.narrow(joined.text, 4, 5)) == "line 5"

    sections = [
        Location(PlaceKind.SECTION, name="Fees", sections=((3, "Terms"),)),
        Location(PlaceKind.SECTION, name="Terms", sections=((4, "Law"),)),
    ]
    first, second = make_result("abcdef", location=sections[0]), make_result("efghijk", start=4, location=sections[1])
    (joined,) = join_neighbours([first, second])
    narrowed = [str(joined.location.narrow(joined.text, place, place + 1)) for place in (2, 5, 8)]
    assert narrowed == ["section Fees", "section Terms", "section Law"]


def test_nothing_is_joined_of_nothing() -> None:
    assert join_neighbours([]) == []
