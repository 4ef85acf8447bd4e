"""Which language a document is taken to be in."""

from __future__ import annotations

import pytest

from ragq.parsing.languages import detect_language

TABLES = {
    "en": (
        "Item: {}; Colour: {}; Price: {}.50; Stock: {}",
        "Screws silver Anchors grey Hammers black Pliers red Drills yellow Nails blank",
    ),
    "de": (
        "Artikel: {}; Farbe: {}; Preis: {},50; Lager: {}",
        "Schrauben silber Dübel grau Hammer schwarz Zangen rot Bohrer gelb Nägel blank",
    ),
}


@pytest.mark.parametrize("language", TABLES)
def test_a_table_of_few_words_that_repeat_has_the_language_of_those_words(language: str) -> None:
    row, words = TABLES[language][0], TABLES[language][1].split()
    rows = [
        row.format(item, colour, price, 3 * price)
        for price, (item, colour) in enumerate(zip(words[::2], words[1::2], strict=True))
    ]
    assert detect_language("\n".join(rows * 4)) == language


def test_numbers_names_and_hashes_have_none() -> None:
    assert detect_language("\n".join(f"a: {number}; b: {7 * number}" for number in range(200))) == ""
    assert (
        detect_language("\n".join(f"sha256:{number * 0x9E3779B97F4A7C15 % 2**64:016x}" for number in range(1, 200)))
        == ""
    )


def test_text_has_the_language_of_most_of_it() -> None:
    english = "The committee met on Thursday and approved the budget for the coming year. "
    german = "Der Ausschuss trat am Donnerstag zusammen und genehmigte den Haushalt für das kommende Jahr. "
    assert detect_language(english + german * 60) == "de"
