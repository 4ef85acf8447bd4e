"""What is quoted whole: paragraphs, and definitions with their terms."""

from __future__ import annotations

import pytest

from ragq.rag.blocks import asks_how, find_paragraph, find_term

MANUAL = """OPTIONS
       --backup-dir=DIR
              This implies the --backup option, and stores all backups in the spec\u2010
              ified folder.

              A relative path begins at the destination.

       --sparse, -S
              Holes stay holes."""
REFERENCE = """### GET /readyz

Show whether the service is ready.

Errors: 503.

### Lights

The lamp is green."""

FROM_HTML = """-q

--quiet

Say nothing.

-n <count>

--dry-run

Remove nothing. Show what would be done."""


def quote(passage: str, sentence: str, *, term: bool = True) -> str:
    start = passage.index(sentence)
    end = start + len(sentence)
    if term:
        found = find_term(passage, start, end)
        return passage[start if found is None else found : end]
    first, last = find_paragraph(passage, start, end)
    return passage[first:last]


@pytest.mark.parametrize(
    ("passage", "sentence", "begins"),
    [
        (MANUAL, "Holes stay holes.", "--sparse, -S\n"),
        (MANUAL, "A relative path begins at the destination.", "--backup-dir=DIR\n"),
        (MANUAL, "--sparse, -S", "--sparse"),
        (REFERENCE, "Show whether the service is ready.", "### GET /readyz\n"),
        (REFERENCE, "The lamp is green.", "The lamp"),
        ("Do this:\n    rm -r build", "rm -r build", "rm"),
        ("It is late.\n  We go home.", "We go home.", "We go"),
        (f"  --far\n      Begin. {'More words. ' * 100}Last.", "Last.", "Last."),
        ("One line alone.", "One line alone.", "One"),
        (FROM_HTML, "Show what would be done.", "-n <count>\n"),
        (FROM_HTML, "Say nothing.", "-q\n"),
        ("--checksum, -c\n     Compare sums.", "Compare sums.", "--checksum"),
        ("- Wait.\n\nWe go home.", "We go home.", "We go"),
    ],
    ids=[
        "option",
        "its second paragraph",
        "the term",
        "code heading",
        "plain heading",
        "lead",
        "sentence",
        "far",
        "alone",
        "options of HTML",
        "first options",
        "cut indent",
        "list",
    ],
)
def test_a_definition_begins_with_its_term(passage: str, sentence: str, begins: str) -> None:
    assert quote(passage, sentence).startswith(begins)


@pytest.mark.parametrize(
    ("passage", "sentence", "paragraph"),
    [
        (
            "Valkey holds jobs. Back up all three.\n\nNext.",
            "Back up all three.",
            "Valkey holds jobs. Back up all three.",
        ),
        ("First.\n \nSecond one. Third.", "Third.", "Second one. Third."),
        ("How do I reset it?\nPress the key. Wait.", "Wait.", "Press the key. Wait."),
        (f"{'Many words here. ' * 40}End.", "End.", "End."),
        ("| a | b |\n| c | d |", "c", "c"),
    ],
    ids=["whole", "blank line with a space", "not its question", "too long", "table"],
)
def test_a_paragraph_is_given_whole_if_it_is_short(passage: str, sentence: str, paragraph: str) -> None:
    assert quote(passage, sentence, term=False) == paragraph


@pytest.mark.parametrize(
    ("question", "is_how"),
    [
        ("How do I start more workers?", True),
        ("how to run a worker on another machine", True),
        ("Wie kann ich mehr starten?", True),
        ("¿Cómo se hace una copia?", True),
        ("How many sacks did he have?", False),
        ("What does exit value 23 mean?", False),
    ],
)
def test_a_question_for_what_to_do_is_known(question: str, *, is_how: bool) -> None:
    assert asks_how(question) == is_how
