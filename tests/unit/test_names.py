"""What documents are called when they are searched."""

from __future__ import annotations

import pytest

from ragq.rag.names import name_document


@pytest.mark.parametrize(
    ("filename", "title", "name"),
    [
        ("reports/annual_report-2023_v2.pdf", "", "annual report-2023 v2"),
        ("annual-report.pdf", "Annual-Report", "annual-report"),
        ("a.pdf", "The Harbour of Quorra", "a The Harbour of Quorra"),
        ("17.txt", "", ""),  # it would match numbers in questions
        ("2023.csv", "", "2023"),
        ("README", "", "README"),
        ("東京.pdf", "", "東京"),
    ],
)
def test_a_document_is_called_by_the_words_of_its_name_and_its_title(filename: str, title: str, name: str) -> None:
    assert name_document(filename, title) == name


def test_long_names_are_cut() -> None:
    assert len(name_document("word " * 100 + ".txt", "title " * 100)) <= 201
