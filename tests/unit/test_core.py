"""The pure core: extractive answers, citations, prompts, and the names of things."""

from __future__ import annotations

import importlib

import pytest

from ragq.errors import ConfigurationError
from ragq.http.exposure import check_exposure
from ragq.models import JobFunction, ParsedDocument, Place, PlaceKind, Question, SearchResult
from ragq.queues.worker import FUNCTIONS
from ragq.rag.answer import NO_ANSWER, NO_DOCUMENTS, answer_extractively
from ragq.rag.citing.cite import cite
from ragq.rag.prompt import build_messages
from ragq.settings import Settings

HARBOUR = (
    "# Harbour\n\nThe lighthouse of Quorra is 61 metres tall. It was built in 1840.\n\nThe ferry leaves at noon.\n"
)


def found(text: str = HARBOUR, *, start: int = 100, similarity: float = 0.6, tokens: int = 30) -> SearchResult:
    return SearchResult("file-1", "harbour.pdf", text, start, start + len(text), 7, None, tokens, 1.0, similarity)


def test_an_extractive_answer_is_verbatim_with_page_and_offsets() -> None:
    answer = answer_extractively("How tall is the lighthouse of Quorra?", [found()])
    (citation, *_) = answer.citations
    assert "61 metres" in answer.text
    assert citation.quote in answer.text
    assert HARBOUR[citation.start - 100 : citation.end - 100] == citation.quote
    assert (citation.filename, citation.page) == ("harbour.pdf", 7)


def test_an_unrelated_question_is_refused_without_citations() -> None:
    answer = answer_extractively("Who won the football world cup?", [found(similarity=0.1)])
    assert (answer.text, answer.citations) == (NO_ANSWER, [])


@pytest.mark.parametrize("text", ["# Only a heading", "\n\n", "---", "।"])
def test_passages_without_sentences_are_no_answer(text: str) -> None:
    assert answer_extractively("Anything?", [found(text)]).citations == []


def test_no_results_say_that_there_are_no_documents() -> None:
    assert answer_extractively("Anything?", []).text == NO_DOCUMENTS


def test_a_marker_becomes_a_quote_of_the_sentence_that_supports_the_statement() -> None:
    text, (citation,), _, _ = cite("It is 61 metres tall [1].", [found()])
    assert text == "It is 61 metres tall [1]."
    assert citation.quote == "The lighthouse of Quorra is 61 metres tall."
    assert text[: citation.index].endswith("[1]")


def test_markers_that_name_no_source_are_taken_out() -> None:
    assert cite("It is tall [9].", [found("Nothing like it here.")])[:2] == ("It is tall.", [])
    text, citations, _, _ = cite("The ferry leaves at noon [1, 4].", [found()])
    assert (text, len(citations)) == ("The ferry leaves at noon [1].", 1)


def test_an_answer_without_markers_gets_the_sentences_that_clearly_support_it() -> None:
    _, (citation,), _, _ = cite("The ferry leaves at noon.", [found()])
    assert citation.quote == "The ferry leaves at noon."
    assert cite("Bananas are yellow fruits.", [found()]).citations == []


def test_the_prompt_keeps_to_its_budget_but_always_has_the_best_source() -> None:
    _, sources = build_messages(Question("q", []), [found(tokens=500), found(tokens=500)], budget_tokens=600)
    assert len(sources) == 1
    _, sources = build_messages(Question("q", []), [found(tokens=5000)], budget_tokens=600)
    assert len(sources) == 1


def test_places_and_headings_are_found_by_offset() -> None:
    pages = tuple(Place(start, PlaceKind.PAGE, number) for number, start in enumerate((0, 10, 20), 1))
    document = ParsedDocument("x" * 30, pages, headings=((5, "A"), (15, "A › B")))
    assert [document.place_at(offset) for offset in (0, 9, 10, 29)] == [pages[0], pages[0], pages[1], pages[2]]
    assert [document.heading_at(offset) for offset in (0, 5, 29)] == [None, "A", "A › B"]
    assert ParsedDocument("x").place_at(0) is None


def test_every_job_function_is_importable_by_its_name() -> None:
    assert set(FUNCTIONS) == set(JobFunction)
    for name, function in FUNCTIONS.items():
        module, _, attribute = name.rpartition(".")
        assert getattr(importlib.import_module(module), attribute) is function


def test_only_loopback_is_open_without_a_key() -> None:
    check_exposure(Settings(_env_file=None, host="127.0.0.1"))
    with pytest.raises(ConfigurationError, match="RAGQ_API_KEY"):
        check_exposure(Settings(_env_file=None, host="0.0.0.0"))
