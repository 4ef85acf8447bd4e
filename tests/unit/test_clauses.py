"""Statements whose clauses stand in different passages, and what a table says."""

from __future__ import annotations

import pytest

from ragq.models import Statement
from ragq.rag.citing.cite import Cited, cite
from ragq.rag.citing.clauses import cut_clauses
from tests.unit.test_answer import make_result

QUESTION = "When were the mill and the bridge built?"
SOURCES = [
    make_result("The mill was built in 1841 by Anna Reis. It has three wheels."),
    make_result(
        "The bridge was opened in 1902. Ships pass below. It is 120 metres long.", file_id="f2", filename="b.md"
    ),
    make_result("The school has 300 pupils. Jon Hale teaches there.", file_id="f3", filename="c.md"),
    make_result("Die Mühle wurde 1841 gebaut. Die Brücke ist 120 Meter lang.", file_id="f4", filename="d.md"),
    make_result("El molino fue construido en 1841. Los barcos pasan. El puente tiene 120 metros.", file_id="f5"),
]


def check(text: str, question: str = QUESTION) -> tuple[Statement, Cited]:
    cited = cite(text, SOURCES, question)
    (statement,) = cited.statements
    return statement, cited


@pytest.mark.parametrize(
    "text",
    [
        "The mill was built in 1841 [1] and the bridge was opened in 1902 [2].",
        "The mill was built in 1841, and the bridge opened in 1902 [1, 2].",
        "The mill was built in 1841 [1], the bridge in 1902 [2].",
        "The mill was built in 1841, while the school has 300 pupils [1][3].",
        "The mill was built in 1841; the school has 300 pupils.",
        "The bridge was opened in 1902 but the mill was built in 1841.",
        "The bridge is 120 metres long, and the bridge was opened in 1902 [2].",
        "Anna Reis built the mill and Jon Hale teaches [1][3].",
        "The mill was built in 1841 and the bridge in 1902 [1][2].",
        "It is about the mill [1], the bridge [2] and the school [3].",
        "Anna Reis [1] and Jon Hale [3] are named.",
        "The bridge was opened in 1902 and Jon Hale teaches there.",
        "Die Mühle wurde 1841 gebaut, während die Brücke 120 Meter lang ist [4].",
        "El molino fue construido en 1841 y el puente tiene 120 metros [5].",
    ],
)
def test_clauses_may_stand_in_different_passages(text: str) -> None:
    statement, cited = check(text)
    assert (statement.verdict, statement.reason) == ("supported", "")
    assert len(cited.citations) >= 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("The mill was built in 1902 [1] and the bridge was opened in 1841 [2].", "'1902' elsewhere"),
        ("The mill was built in 1841 [1] and the bridge was opened in 1903 [2].", "'1903' is neither"),
        ("The mill was built in 1841, while the school has 400 pupils [1][3].", "'400' is neither"),
        ("The mill was built in 1841 and the bridge was not opened in 1902.", "The answer says 'not'"),
        ("The mill has three wheels, and the bridge is 1841 metres long [1, 2].", "'1841' elsewhere"),
        ("The mill was built in 1841 by Anna Reis and Jon Hale [1].", "'Jon' elsewhere"),
        ("The mill was built in 1841 [1] by Jon Hale [3].", "'1841' elsewhere"),
        ("The mill was built in 1841 [1] and by Jon Hale [3].", "'1841' elsewhere"),
        (
            "It is about the mill [1], the bridge [2] and the harbour [3].",
            "No word of 'the harbour' is in the sources.",
        ),
        ("El molino fue construido en 1841 y el puente tiene 300 metros [5].", "'300' elsewhere"),
    ],
)
def test_each_clause_must_stand_somewhere(text: str, reason: str) -> None:
    statement, _ = check(text)
    assert statement.verdict == "unsupported"
    assert reason in statement.reason


def test_each_clause_is_quoted() -> None:
    quotes = ["The mill was built in 1841 by Anna Reis.", "The bridge was opened in 1902."]
    for text in (
        "The mill was built in 1841 [1] and the bridge was opened in 1902 [2].",
        "The mill was built in 1841 and the bridge was opened in 1902.",
    ):
        assert [one.quote for one in check(text)[1].citations] == quotes


def test_each_marker_within_a_statement_is_moved_to_the_source_of_its_clause() -> None:
    statement, cited = check("The mill was built in 1841 [2] and the bridge was opened in 1902 [1].")
    assert cited.text == "The mill was built in 1841 [1] and the bridge was opened in 1902 [2]."
    assert statement.reason == "Source 2 does not hold this, but source 1 does."
    assert [one.filename for one in cited.citations] == ["a.pdf", "b.md"]


def test_a_statement_is_cut_where_a_clause_stands_on_both_sides() -> None:
    assert cut_clauses("Anna Reis and Jon Hale built the mill and the bridge") == [
        "Anna Reis and Jon Hale built the mill and the bridge"
    ]
    assert cut_clauses("Reis built the mill, and in 1902") == ["Reis built the mill, and in 1902"]
    assert cut_clauses("The mill stands still; the bridge is open, but no ship comes") == [
        "The mill stands still",
        "the bridge is open",
        "no ship comes",
    ]
    named = "Anna Reis was born in 1850 and Jon Hale in 1860"
    assert cut_clauses(named) == [named]
    assert cut_clauses("Anna Reis and Jon Hale built it by hand", eagerly=True) == [
        "Anna Reis and Jon Hale built it by hand"
    ]
    assert cut_clauses(named, eagerly=True) == ["Anna Reis was born in 1850", "Jon Hale in 1860"]
    assert cut_clauses("The mill turns, the bridge stands", [14]) == ["The mill turns", "the bridge stands"]


def test_a_label_that_names_something_else_is_no_answer_to_the_question() -> None:
    asked = "When was the mill built?"
    assert check("The bridge: 1902 [2]", asked)[0].verdict == "supported"
    assert check("Year: 1902 [2]", asked)[0].verdict == "unsupported"


def test_the_names_of_a_tables_columns_are_no_statement() -> None:
    table = "| Thing | Year |\n| :-- | --: |\n| The mill | 1841 [1] |\n| The bridge | 1902 [2] |\n"
    for text in (table, table.replace("| Thing | Year |", "Thing | Year").replace("| :-- | --: |", "--- | ---")):
        assert [one.verdict for one in cite(text, SOURCES, QUESTION).statements] == ["supported", "supported"]


@pytest.mark.parametrize(
    "text",
    [
        "Yes.",
        "Sure!",
        "Great question!",
        "Of course! I hope that helps.",
        "Natürlich! Gerne helfe ich Ihnen weiter.",
        "Bitte beachten Sie:",
        "¡Claro! Espero que esto ayude.",
        "There are two options:",
        "For more details, see the documentation.",
        "The owner is not mentioned.",
        "It is unclear who owns the mill.",
        "Dazu finde ich in den Dokumenten nichts.",
        "References\n- [1] a.pdf\n- [2] b.md",
        "**The Mill**\n\n**Years:**\n",
    ],
)
def test_what_leads_to_the_answer_or_lists_its_sources_is_not_unsupported(text: str) -> None:
    assert {one.verdict for one in cite(text, SOURCES, QUESTION).statements} <= {"uncited"}


@pytest.mark.parametrize("text", ["**Jon Hale**\n", "Sure! Jon Hale.", "Yes, in 1902.", "The year of the mill: 1902"])
def test_a_short_answer_is_checked_all_the_same(text: str) -> None:
    assert cite(text, SOURCES, "When was the mill built?").statements[-1].verdict == "unsupported"
