"""From markers in an LLM's words to exact quotes."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragq.models import SearchResult
from ragq.rag.citing.check import Evidence
from ragq.rag.citing.cite import Checked, CitedStream, cite
from ragq.tasks import run_through
from tests.unit.test_answer import make_result

SOURCES = [
    make_result("Cats sleep for sixteen hours. They hunt mice at dawn. Milk harms them.", start=500, page=3),
    make_result("Dogs need walks. The oldest dog was Bobi from Portugal.", file_id="f2", filename="b.md"),
]


def open_stream() -> CitedStream:
    evidence = Evidence("", SOURCES)
    run_through(evidence.read())
    return CitedStream(evidence)


def shown_of(stream: CitedStream, piece: str) -> str:
    return "".join(one for one in stream.add(piece) if isinstance(one, str))


def quotes(text: str, sources: list[SearchResult] = SOURCES) -> list[str]:
    return [citation.quote for citation in cite(text, sources).citations]


def test_each_marker_gets_the_sentence_that_supports_its_statement() -> None:
    text, citations, _, _ = cite("Cats hunt mice at dawn [1]. The oldest dog was Bobi [2].", SOURCES)
    assert text == "Cats hunt mice at dawn [1]. The oldest dog was Bobi [2]."
    assert [one.quote for one in citations] == ["They hunt mice at dawn.", "The oldest dog was Bobi from Portugal."]
    assert [(one.filename, one.page) for one in citations] == [("a.pdf", 3), ("b.md", None)]
    assert [text[: one.index][-3:] for one in citations] == ["[1]", "[2]"]
    first = citations[0]
    assert SOURCES[0].text[first.start - 500 : first.end - 500] == first.quote


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("Bobi was the oldest dog [1, 2].", "Bobi was the oldest dog [1][2]."),
        ("Bobi was the oldest dog. [1][2]", "Bobi was the oldest dog. [1][2]"),
        ("Bobi was the oldest dog【2†source】.", "Bobi was the oldest dog[2]."),
        ("Bobi was the oldest dog【2†L3-L5】.", "Bobi was the oldest dog[2]."),
        ("Bobi was the oldest dog [2; 9].", "Bobi was the oldest dog [2]."),
        ("Bobi was the oldest dog [2][2].", "Bobi was the oldest dog [2]."),
    ],
)
def test_markers_come_in_many_forms(written: str, kept: str) -> None:
    text, citations, _, _ = cite(written, SOURCES)
    assert text == kept
    assert citations[-1].quote == "The oldest dog was Bobi from Portugal."
    assert all(text[: one.index].endswith("]") for one in citations)


def test_markers_that_name_no_source_are_taken_out() -> None:
    assert cite("Moon cheese is green [7][0]. Fine [999].", SOURCES)[:2] == ("Moon cheese is green. Fine.", [])
    assert cite("No sources [1].", [])[:2] == ("No sources.", [])


@pytest.mark.parametrize(
    "text", ["Use `rows[7]` here.", "```\nrows[1] = 2\n```", "See [1](http://x).", "In [2024] it", "[]"]
)
def test_what_only_looks_like_a_marker_is_left_alone(text: str) -> None:
    assert cite(text, SOURCES)[:2] == (text, [])


def test_a_statement_that_rests_on_two_sentences_quotes_both() -> None:
    assert quotes("Cats sleep sixteen hours and hunt mice at dawn [1].") == [
        "Cats sleep for sixteen hours. They hunt mice at dawn."
    ]


def test_a_statement_in_other_words_quotes_the_whole_chunk() -> None:
    assert quotes("Katzen jagen [1].") == [SOURCES[0].text]


def test_an_answer_without_markers_is_cited_only_where_the_support_is_strong() -> None:
    text = "The oldest dog was Bobi from Portugal. Elephants never forget birthdays."
    answer, citations, _, _ = cite(text, SOURCES)
    assert answer == text
    assert [one.quote for one in citations] == ["The oldest dog was Bobi from Portugal."]
    assert text[: citations[0].index].endswith("Portugal.")


def test_a_long_answer_full_of_markers_takes_no_long_time() -> None:
    started = time.process_time()
    text, citations, _, _ = cite("Cats hunt mice [1]. " * 2000, SOURCES)
    cite("[" * 50_000 + "`" * 50_001 + "【" * 50_000, SOURCES)
    assert time.process_time() - started < 10
    assert len(citations) == 2000
    assert len(text) == 40_000


def test_no_quote_is_ever_invented() -> None:
    texts = ("", "[1]", "[2] [1]", "x [1]", "\x00[2]", "Milk harms cats【1】, dogs need walks[2][1]")
    found = [citation for text in texts for citation in cite(text, SOURCES)[1]]
    assert len(found) > len(texts) / 2
    for citation in found:
        source = next(one for one in SOURCES if one.file_id == citation.file_id)
        assert source.text[citation.start - source.start : citation.end - source.start] == citation.quote
        assert citation.quote


@pytest.mark.parametrize(
    "text",
    [
        "It is 61 metres tall [1]. The ferry leaves at noon [2][9].",
        "Tall [1, 2] and far 【1†source】, says `rows[1]` and [a link](x) and [3](y).",
        "```\nrows[1] = 2\n```\nNo marker there, one here [1]",
        "An open ` tick and a [1] marker\non another line [2].  ",
        "Ends in half a marker [1",
        "| Cats | Dogs |\n| :-- | :-- |\n| hunt mice [1] | need walks [2] |\n\n**Milk**\n\nIt harms **cats** ([1]).",
    ],
)
def test_a_stream_shows_what_the_whole_answer_will_and_takes_nothing_back(text: str) -> None:
    whole, _, statements, _ = cite(text, SOURCES)
    for size in (1, 2, 3, 7, len(text)):
        stream = open_stream()
        came = [one for start in range(0, len(text), size) for one in stream.add(text[start : start + size])]
        shown = "".join(one for one in came if isinstance(one, str))
        assert whole.startswith(shown)
        assert len(whole) - len(shown) <= 40  # what may still become a marker is held back, no more
        checked = [one.statement for one in came if isinstance(one, Checked)]
        assert checked == statements[: len(checked)]


PARTS = [
    "word ",
    "[1]",
    "[12]",
    "[",
    "]",
    "(",
    "`",
    "```",
    "\n",
    " ",
    "\t",
    ",",
    "1",
    "【2】",
    "【",
    "†s】",
    ".",
    "x" * 290,
]
PARTS += [" " * 39, "[1" + ",1" * 98, "é", "\u0661"]


@given(st.lists(st.sampled_from(PARTS)).map("".join), st.lists(st.integers(1, 400), min_size=1))
@settings(max_examples=300, derandomize=True, deadline=None, database=None)
def test_a_stream_in_any_pieces_shows_the_beginning_of_the_whole_answer(text: str, sizes: list[int]) -> None:
    whole = cite(text, SOURCES).text
    stream, shown, start = open_stream(), "", 0
    for size in [*sizes, len(text)]:
        shown += shown_of(stream, text[start : start + size])
        start += size
        assert whole.startswith(shown)
        so_far = cite(text[:start], SOURCES)[0]
        assert len(so_far) - len(shown) <= 310  # what may still become code or a marker is held back, no more
    assert shown == shown_of(open_stream(), text)  # however it was cut
    more = shown + shown_of(stream, "\nx")
    assert more == shown_of(open_stream(), text + "\nx") == cite(text + "\nx", SOURCES).text
