"""A section whose title is asked for comes first."""

from __future__ import annotations

from ragq.models import Location, SearchResult
from ragq.rag.titles import prefer_titles


def make_result(name: str, score: float, heading: str | None, *sections: str) -> SearchResult:
    location = Location(sections=tuple((10 * place, path) for place, path in enumerate(sections)))
    return SearchResult(
        file_id=name,
        filename=name,
        text="Text.",
        start=0,
        end=5,
        page=None,
        heading=heading,
        token_count=2,
        score=score,
        location=location,
    )


def rank(question: str, *found: SearchResult) -> list[str]:
    return [result.filename for result in prefer_titles(question, list(found))]


CONTENTS = make_result("contents", 0.75, "Manual › Contents")


def test_the_very_title_comes_first_whatever_its_case_and_number() -> None:
    section = make_result("section", 0.6, "Manual › 4.2. Output Formatting")
    assert rank("output formatting", CONTENTS, section) == ["section", "contents"]


def test_a_question_in_other_forms_of_the_title_s_words_is_nearly_the_title() -> None:
    section = make_result("section", 0.7, "Manual › Move windows")
    assert rank("How do I move a window?", CONTENTS, section) == ["section", "contents"]


def test_a_title_within_a_passage_counts() -> None:
    passage = make_result("passage", 0.6, "Manual", "Manual › Input", "Manual › Output Formatting")
    assert rank("Output formatting", CONTENTS, passage) == ["passage", "contents"]


def test_a_title_that_shares_some_words_or_only_one_does_not_count() -> None:
    some = make_result("some", 0.7, "Output Formatting and Error Reports")
    single = make_result("single", 0.6, "Output")
    assert prefer_titles("Where does the output go?", [CONTENTS, some, single]) == [CONTENTS, some, single]


def test_the_title_of_a_parent_does_not_count() -> None:
    child = make_result("child", 0.7, "Output Formatting › Notes")
    assert rank("output formatting", CONTENTS, child) == ["contents", "child"]


def test_scores_stay_below_one_and_keep_their_order_under_one_title() -> None:
    parts = [make_result(name, score, "Output Formatting") for name, score in (("first", 0.95), ("second", 0.5))]
    first, second = prefer_titles("Output formatting", parts)
    assert 1 > first.score > second.score > 0.5


def test_a_passage_without_a_heading_keeps_its_score() -> None:
    passage = make_result("passage", 0.6, None)
    assert prefer_titles("?", [passage])[0].score == 0.6


def test_a_title_with_another_number_or_word_is_another_title() -> None:
    for question, title in (
        ("2024 results", "2023 results"),
        ("configure sign on with azure", "Configure sign on with Google"),
    ):
        assert rank(question, CONTENTS, make_result("section", 0.7, f"Manual › {title}")) == ["contents", "section"]
