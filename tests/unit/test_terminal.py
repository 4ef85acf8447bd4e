"""What `ragq ask` prints of an answer that is copied from a PDF."""

from __future__ import annotations

from typing import Any

import pytest

from ragq.terminal import format_response, join_lines

LINES = "The lighthouse of Quorra was built in\n1840 and is 61 metres tall.\n\nThe ferry leaves at noon."
JOINED = "The lighthouse of Quorra was built in 1840 and is 61 metres tall.\n\nThe ferry leaves at noon."


def respond(filename: str, *, kind: str = "extractive") -> dict[str, Any]:
    citation = {"filename": filename, "location": "page 2", "quote": LINES, "index": len(LINES)}
    content = {"text": LINES, "annotations": [citation]}
    return {
        "status": "completed",
        "error": None,
        "output": [{"kind": kind, "content": [content]}],
        "timing": {"total_ms": 5},
    }


def test_the_lines_of_a_page_are_joined_and_those_of_other_documents_are_not() -> None:
    assert format_response(respond("harbour.PDF")).startswith(JOINED)
    assert format_response(respond("harbour.txt")).startswith(LINES)
    assert format_response(respond("harbour.pdf", kind="generated")).startswith(LINES)


def test_a_quote_that_begins_at_the_end_of_a_line_goes_on_in_the_next() -> None:
    assert join_lines("A file that\ncrashes the parser\nstays.") == "A file that crashes the parser\nstays."
    assert join_lines("It ends.\n\nA file that\ncrashes the parser") == "It ends.\n\nA file that crashes the parser"
    assert join_lines("Berth 12\nÜber den Hafen") == "Berth 12\nÜber den Hafen"


@pytest.mark.parametrize(
    "text",
    [
        "To leave the harbour in time for the tide:\n1. Call the pilot and say where you lie.\n2. Cast off.",
        "Ships that may enter the inner harbour are\n• ferries\n• boats of the pilots",
        "Name: Anna Brandt\nBerth: 12",
        "Name: Amaranth; Cargo: saffron; Berth: 12\nName: Brandt; Cargo: salt; Berth: 7",
        "The settings of a harbour master's service:\n  host = quorra\n  port = 61",
        "# A heading that is as long as a line of text\nThe ferry leaves at noon.",
        "```\nprint('a line of code that is long enough')\nprint(2)\n```",
    ],
)
def test_lines_that_end_on_purpose_stay(text: str) -> None:
    assert join_lines(text) == text
