"""What readers write: text, and where its places, headings and tables are."""

from __future__ import annotations

import json

import pytest

from ragq.errors import DocumentError, PoisonError
from ragq.models import PlaceKind
from ragq.parsing.parser import _read_outcome
from ragq.parsing.readers import read
from ragq.parsing.readers.notebook import MAX_OUTPUT_CHARACTERS
from ragq.parsing.writer import DocumentWriter, UnreadableError


def write(*, max_characters: int = 10_000) -> DocumentWriter:
    return DocumentWriter(read, max_characters=max_characters)


def test_nothing_of_a_file_that_postgresql_refuses_is_written() -> None:
    document = write()
    document.title = "T\0"
    document.warn("sheet S\0 is damaged.")
    document.start_place(PlaceKind.PAGE, 1, "A\0B")
    document.add_heading(1, "H\0")
    document.add_table([["a\0", "b\ud800"], ["c\0", "d"]], caption="C\0")
    document.add_text("x\0y")
    with_attachment = "n\0.txt"
    document.add_attachment(b"text\0 of it", with_attachment)
    text, structure = document.finish()
    assert "\\u0000" not in json.dumps([text, structure])
    assert "\\ud800" not in json.dumps([text, structure])


def test_an_attachment_that_is_too_long_costs_only_itself() -> None:
    document = write(max_characters=60)
    document.add_text("The mail itself.")
    document.add_attachment(
        b"<html><body><h1>" + b"A heading that is too long. " * 5 + b"</h1></body></html>", "a.html"
    )
    text, structure = document.finish()
    assert text == "The mail itself."
    assert "more than 60 characters" in str(structure["warnings"])
    assert _read_outcome(bytearray(json.dumps({"text": text} | structure).encode())).text == text


def test_a_document_that_is_too_long_is_refused() -> None:
    with pytest.raises(UnreadableError, match="more than 5 characters") as caught:
        write(max_characters=5).add_text("six letters")
    assert caught.value.code == "too_large"


@pytest.mark.parametrize(
    "outcome",
    [
        "[" * 100_000,
        '{"text": "a", "tables": [{"start": 0, "end": 1, "rows": []}]}',
        '{"text": "a", "places": [{"start": 5}]}',
    ],
)
def test_an_outcome_that_no_reader_writes_is_poison(outcome: str) -> None:
    with pytest.raises(PoisonError, match="invalid output"):
        _read_outcome(bytearray(outcome.encode()))


def test_the_reason_why_a_file_cannot_be_read_holds_no_nul() -> None:
    with pytest.raises(DocumentError) as caught:
        _read_outcome(bytearray(json.dumps({"error": "The part a\0b is damaged.", "code": "damaged"}).encode()))
    assert caught.value.message == "The part ab is damaged."


def test_printed_results_of_a_notebook_that_are_cut_are_a_warning() -> None:
    document = write(max_characters=100_000)
    outputs = [{"text": "x" * length} for length in (MAX_OUTPUT_CHARACTERS, MAX_OUTPUT_CHARACTERS + 1)]
    cells = [{"cell_type": "code", "source": "print()", "outputs": outputs}]
    read(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4}).encode(), "a.ipynb", document)
    text, structure = document.finish()
    assert text.count("x") == 2 * MAX_OUTPUT_CHARACTERS
    assert structure["warnings"] == ["1 output is cut after 20,000 characters."]


def test_a_long_cell_is_kept_and_a_long_row_of_another_separator_does_not_cost_the_file() -> None:
    document = write(max_characters=1_000_000)
    read(("name\ttext\n" + "first\t" + "word " * 30_000 + "ENDMARK\n").encode(), "a.tsv", document)
    text, structure = document.finish()
    assert text.startswith("name: first; text: word")
    assert text.endswith("ENDMARK")
    assert structure["warnings"] == []
