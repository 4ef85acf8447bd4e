"""The words that texts and questions are matched by, and the identifiers among them."""

from __future__ import annotations

import struct

import pytest

from ragq.models import Chunk, Location, PlaceKind
from ragq.rag.identifiers import find_identifiers, fold_case, holds_identifier
from ragq.rag.sentences import find_terms
from ragq.rag.words import Word, index_words, question_words
from ragq.storage.search.word_vector import POSITIONS, TITLE_REPEATS, index_chunk, pack_words


@pytest.mark.parametrize(
    ("text", "language", "words"),
    [
        ("The workers were running.", "en", ["the", "worker", "were", "run"]),
        ("Die Häuser der Städte", "de", ["die", "haus", "der", "stadt"]),
        ("las canciones españolas", "es", ["las", "cancion", "espanol"]),
        ("Harvard's don't", "en", ["harvard", "don"]),
        ("l'élève", "fr", ["l", "elev"]),
        ("e-mail", "en", ["e", "mail", "email"]),
        ("state-of-the-art", "en", ["state", "of", "the", "art", "stateoftheart"]),
        ("東京の人口", "ja", ["東京", "京の", "の人", "人口"]),
        ("ภาษา", "th", ["ภา", "าษ", "ษา"]),
        ("서울은", "ko", ["서울", "울은"]),
        ("भारत की राजधानी", "", ["भारत", "की", "राजधानी"]),
        ("... -- !", "en", []),
    ],
)
def test_words_are_cut_to_stems_by_the_rules_of_their_language(text: str, language: str, words: list[str]) -> None:
    assert list(index_words(text, language)) == words


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Müller", "Mu\u0308ller"),
        ("Córdoba", "Cordoba"),
        ("ﬁnance", "finance"),
        ("infor\u00admation", "information"),
        ("zero\u200bwidth", "zerowidth"),
        ("ＲＡＧＱ２０２６", "ragq2026"),
        ("ｶﾀｶﾅ", "カタカナ"),
        ("Straße", "STRASSE"),
        ("كتابٌ", "كتاب"),
        ("1,234,567", "1234567"),
        ("E-Mail", "email"),
    ],
)
def test_a_word_is_found_however_it_is_written(one: str, other: str) -> None:
    assert set(index_words(one, "en")) & {form for word in question_words(other, ["en"]) for form in word.forms}
    assert set(index_words(other, "en")) & {form for word in question_words(one, ["en"]) for form in word.forms}


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("PPR-9087", ["PPR-9087", "ppr9087", "9087", "ppr", "-9087", "#9087"]),
        ("AB-1234/5", ["AB-1234/5", "AB-1234", "1234/5", "1234", "ab"]),
        ("2.9.14", ["2.9.14", "2.9", "9.14", "v2.9.14"]),
        ("INC-2024-00417", ["INC-2024-00417", "2024-00417", "INC-2024", "00417"]),
        ("ann.lee@example.org", ["ann.lee@example.org", "example.org", "lee"]),
        ("https://example.org/a-b/c?d=1", ["https://example.org/a-b/c", "example.org"]),
        ("RAGQ_LLM_MODEL", ["RAGQ_LLM_MODEL", "ragq_llm", "model"]),
        ("getUserName", ["getUserName", "user"]),
        ("CVE-2026-12345", ["cve-2026-12345", "12345"]),
        ("+49 (0)30/123-456", ["123-456", "123", "49"]),
    ],
)
def test_an_identifier_is_found_whole_and_by_its_parts(written: str, asked: list[str]) -> None:
    indexed = set(index_words(written, "en"))
    for question in asked:
        assert any(indexed & set(word.forms) for word in question_words(question, ["en"])), question


@pytest.mark.parametrize(
    ("written", "asked"),
    [("20260120", "20260122"), ("PPR-9087", "PPR-9078"), ("2.9.14", "2.9.1"), ("RAGQ_LLM_MODEL", "RAGQ_LLM_MODELS")],
)
def test_an_identifier_is_not_found_whole_by_one_that_is_like_it(written: str, asked: str) -> None:
    whole = next(word for word in question_words(asked, ["en"]) if word.is_identifier)
    assert not set(index_words(written, "en")) & set(whole.forms)
    assert asked.lower() not in find_terms(written)
    assert not holds_identifier(fold_case(f"of {written}."), asked.lower())


def test_a_question_has_each_word_once_in_the_forms_of_every_language() -> None:
    assert question_words("Häuser? häuser!", ["de", "en"]) == [Word(("haus", "hauser"))]
    assert question_words("running", []) == [Word(("running",))]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Where is PPR-9087, and who paid invoice 20260122?", {"ppr-9087", "20260122"}),
        ("Is CVE-2026-12345 fixed in v2.9.14 of COVID-19's F-16?", {"cve-2026-12345", "v2.9.14", "covid-19", "f-16"}),
        ("Write to ann@example.org about RAGQ_PORT", {"ann@example.org", "ragq_port"}),
        ("In the mid-1990s, on 2024-05-01 at 12:30, the 19th of 1,200 cost 3.50 or 5km in 1939-1945", set()),
        ("a 20-year-old, 24/7, 50 of 100", set()),
    ],
)
def test_what_names_one_thing_only_is_an_identifier(text: str, found: set[str]) -> None:
    assert find_identifiers(text) == found


@pytest.mark.parametrize(
    ("text", "identifier", "is_held"),
    [
        ("Part PPR 9087 is out.", "ppr-9087", True),
        ("(ppr9087)", "ppr-9087", True),
        ("AB-1234/5", "ab-1234", True),
        ("invoice 202601220", "20260122", False),
        ("invoice 120260122", "20260122", False),
        ("APPR-9087", "ppr-9087", False),
    ],
)
def test_an_identifier_is_held_with_other_separators_but_not_as_a_part(
    text: str, identifier: str, is_held: bool
) -> None:
    assert holds_identifier(fold_case(text), identifier) is is_held


def test_terms_of_a_sentence_are_the_same_with_and_without_accents() -> None:
    assert find_terms("Mu\u0308ller señala") == find_terms("Muller senala")


def test_words_are_packed_as_postgresql_reads_them() -> None:
    assert pack_words(["a", "b", "a"]) == struct.pack(">i2sHHH2sHH", 2, b"a\0", 2, 1, 3, b"b\0", 1, 2)
    many = pack_words(["a"] * (POSITIONS + 1))
    assert len(many) == 4 + 2 + 2 + 2 * POSITIONS
    assert pack_words([]) == bytes(4)


def test_a_chunk_is_found_by_its_heading_and_its_context_too() -> None:
    chunk = Chunk("text", 0, 4, None, "Heading", 1, context="report 2024")
    assert index_chunk(chunk, "en") == pack_words(["report", "2024", "head", "text", *["head"] * TITLE_REPEATS])


def test_the_titles_of_a_chunks_own_sections_count_more_than_their_parents_titles() -> None:
    location = Location(PlaceKind.SECTION, name="Parent › Child", sections=((2, "Parent › Other"),))
    chunk = Chunk("text", 0, 4, None, "Parent › Child", 1, location)
    assert index_chunk(chunk, "en") == pack_words(["parent", "child", "text", *["child", "other"] * TITLE_REPEATS])
