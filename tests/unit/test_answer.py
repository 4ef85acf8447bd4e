"""The extractive answerer, and the sentences it chooses from."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from ragq.models import CERTAIN, Location, PlaceKind, SearchResult
from ragq.rag.answer import NO_ANSWER, NO_DOCUMENTS, NOT_CERTAIN, SURE, answer_extractively
from ragq.rag.passages import TASK_PASSAGES
from ragq.rag.sentences import MAX_SENTENCE_CHARACTERS, find_sentences, find_terms

PLANTS = (
    "The Amazon rainforest covers much of the basin. It was formed in the Eocene era. "
    "Dr. Reis counted 390 billion trees of 16,000 species there in 2013. Tourists like it."
)


def make_result(text: str, *, start: int = 0, page: int | None = None, **fields: object) -> SearchResult:
    values: dict[str, object] = {"file_id": "f1", "filename": "a.pdf", "heading": None, "score": 1.0, "similarity": 0.6}
    if page:
        values["location"] = Location(PlaceKind.PAGE, page)
    return SearchResult(
        text=text,
        start=start,
        end=start + len(text),
        page=page,
        token_count=len(text) // 4,
        **(values | fields),  # type: ignore[arg-type]
    )


def sentences_of(text: str) -> list[str]:
    return [text[start:end] for start, end in find_sentences(text)]


def test_the_answer_is_the_sentence_that_fits_verbatim_with_its_place() -> None:
    answer = answer_extractively("How many trees did Reis count?", [make_result(PLANTS, start=1000, page=217)])
    assert "390 billion trees" in answer.text
    assert answer.kind == "extractive"
    citation = next(one for one in answer.citations if "390" in one.quote)
    assert citation.page == 217
    assert citation.quote == PLANTS[citation.start - 1000 : citation.end - 1000]
    assert answer.text[: citation.index].endswith(citation.quote)


def test_every_citation_stands_in_the_answer_just_before_its_index() -> None:
    other = make_result("Trees in Siberia are few. Reis went there too.", file_id="f2", score=0.9, similarity=0.5)
    answer = answer_extractively("How many trees did Reis count?", [make_result(PLANTS), other])
    assert 1 <= len(answer.citations) <= 2
    for citation in answer.citations:
        assert answer.text[citation.index - len(citation.quote) : citation.index] == citation.quote


def test_without_documents_it_says_so() -> None:
    answer = answer_extractively("Anything?", [])
    assert (answer.text, answer.citations) == (NO_DOCUMENTS, [])


@pytest.mark.parametrize("question", ["Who painted the Mona Lisa in Florence?", "?", "", "the of and", "\x00" * 50])
@pytest.mark.parametrize("similarity", [0.05, None])
def test_a_question_that_the_documents_do_not_answer_is_refused(question: str, similarity: float | None) -> None:
    answer = answer_extractively(question, [make_result(PLANTS, similarity=similarity)])
    assert (answer.text, answer.citations) == (NO_ANSWER, [])


def test_similarities_of_another_model_are_not_trusted() -> None:
    result = make_result(PLANTS, similarity=0.9)
    assert answer_extractively("Who sang at the wedding?", [result], trust_similarity=False).text == NO_ANSWER


def test_a_question_in_the_document_is_no_answer_but_points_to_it() -> None:
    text = "Can I pay by card?\nNo, in cash.\n\nHow do I reset my password?\nPress the blue key twice.\n\nBye."
    answer = answer_extractively("How can I reset the password?", [make_result(text)])
    assert "Press the blue key twice." in answer.text
    assert "?" not in answer.text


def test_a_heading_helps_the_sentence_under_it() -> None:
    text = "Press the blue key twice and wait."
    answer = answer_extractively("password reset", [make_result(text, heading="Password reset")])
    assert answer.text == text


def test_overlapping_chunks_give_a_sentence_once() -> None:
    results = [make_result(PLANTS), make_result(PLANTS[48:], start=48, score=0.9)]
    answer = answer_extractively("How many trees did Reis count?", results)
    assert answer.text.count("390 billion") == 1


def test_text_without_sentences_is_refused_not_crashed_on() -> None:
    assert answer_extractively("trees?", [make_result("# Trees\n---\n"), make_result("")]).text == NO_ANSWER


def test_hostile_text_takes_no_long_time() -> None:
    hostile = ["a." * 20_000, "(" * 20_000, "[1]" * 10_000, "\n" * 20_000, "| " * 20_000, "…!?" * 10_000, ". " * 20_000]
    started = time.process_time()
    for text in hostile:
        answer_extractively("What is a trees?", [make_result(text)])
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    "sentences",
    [
        ["Dr. Smith paid 3.5 million in the U.S. in 1990.", "It was J. R. R. Tolkien's.", "Yes!"],
        ['"Really?" he said.', "Costs rose, e.g. by 5 %.[12]", "Then they fell."],
        ["Am 3. Oktober kam z. B. die Einheit.", "Dann nicht."],
        ["यह एक वाक्य है।", "दूसरा वाक्य है।"],
        ["هل هذا صحيح؟", "نعم، صحيح.", "یہ ایک کتاب ہے۔", "ہاں۔"],
        ["Սա գիրք է։", "Այո։", "ይህ መጽሐፍ ነው።", "አዎ።", "ဒါစာအုပ်ပါ။", "ဟုတ်တယ်။", "នេះជាសៀវភៅ។", "បាទ។"],
        ["A line that is\nbroken in the middle.", "Another one\nas well."],
        ["more **bold text.**", "Then _this_."],
    ],
)
def test_sentences_end_where_a_reader_would_say(sentences: list[str]) -> None:
    assert sentences_of(" ".join(sentences)) == sentences


def test_items_rows_and_code_lines_stand_alone_without_their_markers() -> None:
    text = "# Title\n- one\n  goes on\n* [x] two\n3. three\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```py\nx = 1\ny = 2\n```\nEnd"
    assert sentences_of(text) == ["one\n  goes on", "two", "three", "| a | b |", "| 1 | 2 |", "x = 1", "y = 2", "End"]


def test_japanese_sentences_need_no_spaces() -> None:
    assert sentences_of("東京は首都。人口は多い！") == ["東京は首都。", "人口は多い！"]
    assert find_terms("東京の人口") >= {"東京", "人口"}


def test_a_sentence_without_end_is_cut() -> None:
    parts = sentences_of("word " * 1000)
    assert max(map(len, parts)) <= MAX_SENTENCE_CHARACTERS
    assert " ".join(parts) == ("word " * 1000).strip()


def test_terms_ignore_endings_case_and_words_without_meaning() -> None:
    assert find_terms("The Organisations") == find_terms("organisation of an")
    assert find_terms("भारत की राजधानी क्या है?") == find_terms("भारत राजधानी")


FORM = (
    "Insured name Gabriel Diaz Year 2022\n\nClaim SF-1008 Make Jeep\n\nPolicy POL-2022-555 Model Grand Cherokee\n\n"
    "Phone (425) 111-1111 Trim Limited\n\nEmail gabriel@example.com VIN 1C4RJFBG2NC123456\n\nColor White\n"
)


def test_a_line_of_a_form_is_quoted_with_the_lines_near_it_that_the_question_names() -> None:
    answer = answer_extractively("What is the VIN of the car of Gabriel Diaz?", [make_result(FORM)])
    assert "Gabriel Diaz" in answer.text
    assert "1C4RJFBG2NC123456" in answer.text
    (citation,) = answer.citations
    assert FORM[citation.start : citation.end] == citation.quote == answer.text


def test_lines_that_add_nothing_or_are_far_away_are_left_out() -> None:
    alone = answer_extractively("For which year is Gabriel Diaz insured?", [make_result(FORM)])
    assert alone.text == "Insured name Gabriel Diaz Year 2022"
    far = FORM.replace("Phone", "A line without meaning.\n" * 15 + "Phone")
    answer = answer_extractively("What is the VIN of the car of Gabriel Diaz?", [make_result(far)])
    assert answer.citations
    assert all(len(citation.quote) <= 300 for citation in answer.citations)


def test_prose_is_not_quoted_beyond_its_sentences() -> None:
    text = "Gabriel Diaz drives a Jeep. It was built in Toledo. The VIN of the car is 1C4RJFBG2NC123456."
    answer = answer_extractively("What is the VIN of the car of Gabriel Diaz?", [make_result(text)])
    assert answer.citations
    assert all(". " not in citation.quote for citation in answer.citations)


def test_a_row_of_a_table_is_understood_with_the_name_of_its_file() -> None:
    row = "State: Pennsylvania; Permit: 24,136; Handgun: 62,752"
    asked = "How many handgun background checks did Pennsylvania have in November 2015?"
    result = make_result(row, similarity=0.5, location=Location(PlaceKind.PAGE, 1, unit="row", numbers=(42,)))
    named = replace(result, filename="background-checks-2015-11.pdf")
    assert answer_extractively(asked, [named]).text == row
    assert answer_extractively(asked, [result]).text == f"{NOT_CERTAIN}\n\n{row}"


def test_a_row_is_quoted_alone() -> None:
    rows = "Item: anchor; Price: 12\nItem: buoy; Price: 30\nItem: rope; Price: 7"
    location = Location(PlaceKind.SHEET, 1, "Prices", unit="row", numbers=(2, 3, 4))
    answer = answer_extractively("What is the price of the buoy?", [make_result(rows, location=location)])
    assert answer.text == "Item: buoy; Price: 30"
    assert answer.citations[0].location == "sheet Prices, row 3"


def test_what_decides_on_a_refusal_is_the_best_sentence_wherever_it_stands() -> None:
    """Two sentences are quoted in the order of their document, so the best one may be the second."""
    weak = "The harbour of Quorra has a lighthouse."
    best = "The lighthouse of Quorra harbour is 61 metres tall since 1904."
    asked = "How many metres tall is the lighthouse of Quorra harbour since 1904?"
    for text in (f"{weak} {best}", f"{best} {weak}"):
        assert best in answer_extractively(asked, [make_result(text, similarity=0.3)]).text


STEPS = "Start more workers when the queue grows:\n\n1. Open a terminal.\n2. Run `ragq worker`.\n3. Look at `ragq status`.\n\nDone."


@pytest.mark.parametrize("question", ["How do I start more workers?", "Start more workers when the queue grows"])
def test_steps_are_given_whole_with_the_line_that_introduces_them(question: str) -> None:
    answer = answer_extractively(question, [make_result(STEPS, score=0.6)])
    assert answer.citations[0].quote == STEPS.removesuffix("\n\nDone.")
    assert answer.text.startswith(answer.citations[0].quote)


def test_code_is_given_whole() -> None:
    text = "To start a worker on another machine:\n\n```sh\nexport RAGQ_VALKEY_URL=redis://host\nragq worker\n```\n\nThat is all."
    answer = answer_extractively("How do I start a worker on another machine?", [make_result(text, score=0.6)])
    assert answer.citations[0].quote == text.removesuffix("\n\nThat is all.")


def test_the_best_sentence_comes_first_even_if_it_stands_later() -> None:
    text = "Reis went there. Trees are counted by few. In 2013 Reis counted 390 billion trees in the Amazon."
    answer = answer_extractively("How many trees did Reis count in the Amazon?", [make_result(text, score=0.6)])
    assert answer.citations[0].quote == "In 2013 Reis counted 390 billion trees in the Amazon."


def test_a_heading_alone_is_no_answer() -> None:
    text = "Start more workers\n\nThe command `ragq worker` starts one in a second terminal."
    answer = answer_extractively(
        "start more workers", [make_result(text, heading="Scale › Start more workers", score=0.5)]
    )
    assert [citation.quote for citation in answer.citations] == [
        "The command `ragq worker` starts one in a second terminal."
    ]


def test_what_is_not_certain_is_shown_as_the_nearest_passages_with_the_reason() -> None:
    results = [
        make_result("Trees grow in the north. Few people live there.", score=0.4, similarity=0.5),
        make_result("Reis likes birds.", file_id="f2", score=0.25, similarity=0.3),
    ]
    answer = answer_extractively("How many trees did Reis count in Siberia?", results)
    assert answer.text == f"{NOT_CERTAIN}\n\nTrees grow in the north. Few people live there.\n\nReis likes birds."
    assert [citation.file_id for citation in answer.citations] == ["f1", "f2"]
    for citation in answer.citations:
        assert answer.text[citation.index - len(citation.quote) : citation.index] == citation.quote
    assert answer.confidence is not None
    assert 0.1 <= answer.confidence < 0.5
    assert "'Siberia'" in answer.reason


INVOICES = "\n".join(f"Invoice 202601{number} was paid on day {number} of the year." for number in range(10, 30))


def test_of_numbers_that_begin_alike_the_one_asked_for_is_quoted() -> None:
    answer = answer_extractively("When was invoice 20260122 paid?", [make_result(INVOICES, score=0.6)])
    assert answer.citations[0].quote == "Invoice 20260122 was paid on day 22 of the year."


@pytest.mark.parametrize("identifier", ["20260199", "2026012", "PPR-9087"])
def test_a_number_that_is_nowhere_is_refused(identifier: str) -> None:
    answer = answer_extractively(f"Who paid invoice {identifier}?", [make_result(INVOICES, score=0.6)])
    assert (answer.text, answer.citations, answer.confidence) == (NO_ANSWER, [], 0.0)
    assert answer.reason == f"'{identifier.lower()}' stands in none of the passages found."


MANUAL = """OPTIONS
       --backup-dir=DIR
              This implies the --backup option, and stores all backups in the spec\u2010
              ified folder."""


def test_an_option_of_a_manual_is_named_in_the_answer() -> None:
    answer = answer_extractively("How do I store backups in another folder?", [make_result(MANUAL)])
    assert "--backup-dir=DIR" in answer.text
    assert "ified folder." in answer.text
    assert answer.citations
    assert all(one.quote == MANUAL[one.start : one.end] for one in answer.citations)


def test_a_comment_does_not_part_code_from_its_lead() -> None:
    text = "Intro.\n\nGive the worker the addresses:\n\n<!-- not run -->\n```sh\nexport ADDRESS=1\n```\n\nDone."
    assert "export ADDRESS=1" in answer_extractively("how to give a worker its addresses", [make_result(text)]).text


def test_a_sentence_that_repeats_the_question_is_no_answer() -> None:
    asked = "What happens to a document that kills its worker?"
    text = f'Type ask "{asked}" here now.\n\nA document that kills its worker is quarantined.'
    assert (
        answer_extractively(asked, [make_result(text)]).citations[0].quote
        == "A document that kills its worker is quarantined."
    )


PANES = [
    f"Bars are numbered. A pane is small. A pane can be split by hand. Command {name} breaks a pane out."
    for name in "abcdefghijk"
]


def test_a_task_that_no_sentence_answers_for_certain_is_shown_with_whole_passages_and_sentences_of_others() -> None:
    results = [make_result(text, score=0.3 - place / 100) for place, text in enumerate(PANES)]
    task = answer_extractively("move a pane with a command", results)
    others = [text.removeprefix("Bars are numbered. ") for text in PANES[TASK_PASSAGES:10]]
    assert task.text == "\n\n".join([NOT_CERTAIN, *PANES[:TASK_PASSAGES], *others])


MANUAL_START = 1000
FOLLOWING = "Command k breaks a pane out. Then close the window. Press Enter."


def follow(passage: SearchResult, repeats: str = "") -> SearchResult:
    start = passage.end - len(repeats)
    return make_result(repeats + FOLLOWING, start=start, score=0.0)


@pytest.mark.parametrize("repeats", ["", "a pane out."])
def test_a_task_goes_on_with_what_follows_the_best_passage(repeats: str) -> None:
    results = [make_result(text, start=MANUAL_START, score=0.3 - n / 100) for n, text in enumerate(PANES[:3])]
    task = answer_extractively("move a pane with a command", results, following=follow(results[0], repeats))
    assert task.text.startswith("\n\n".join([NOT_CERTAIN, PANES[0], FOLLOWING, PANES[1]]))
    assert (task.citations[1].quote, task.citations[1].start) == (FOLLOWING, results[0].end)


def test_what_follows_comes_after_its_passage_also_where_the_best_sentence_is_of_another() -> None:
    text = "Move a pane with a command: press Enter."
    results = [make_result(PANES[0], score=0.31), make_result(text, score=0.3), make_result(PANES[1], score=0.29)]
    task = answer_extractively("move a pane with a command, how", results, following=follow(results[0]))
    quotes = [one.quote for one in task.citations]
    assert quotes[quotes.index(PANES[0]) + 1] == FOLLOWING


def test_an_answer_to_a_task_that_is_certain_goes_on_too() -> None:
    text = "The pump is cleaned with a brush. It is made of steel."
    results = [make_result(text, score=0.5, similarity=0.5), make_result("Filters are blue.", score=0.1)]
    answer = answer_extractively("How do I clean the pump?", results, following=follow(results[0]))
    assert answer.confidence is not None
    assert CERTAIN <= answer.confidence < SURE
    quotes = [one.quote for one in answer.citations]
    assert quotes == [text, FOLLOWING, "Filters are blue."]


def test_passages_beside_an_answer_have_the_code_that_the_question_names() -> None:
    results = [
        make_result("The -4 option forces IPv4 addresses. Names are resolved.", score=0.6),
        make_result("-6, --ipv6\n    Tells it to use IPv6 only.", score=0.5),
        make_result("Timeouts are forced by a flag of their own.", score=0.4),
    ]
    following = follow(results[0])
    answer = answer_extractively("How can I force IPv6?", results, following=following)
    assert "--ipv6" in answer.text
    assert "Timeouts" not in answer.text
    assert FOLLOWING not in answer.text


def test_nothing_is_shown_twice_beside_an_answer() -> None:
    results = [
        make_result("The pump is cleaned with a brush.", score=0.5),
        *(make_result("Filters are blue. The pump hums.", score=0.1, start=start) for start in (100, 200)),
    ]
    assert answer_extractively("How do I clean the pump?", results).text.count("The pump hums.") == 1


LISTED = """- --raw-input/-R:

           Don't parse the input as JSON. Each line of text is a string.

       - --raw-output / -r:

           Strings are written without quotes."""


@pytest.mark.parametrize("sign", ["\u25cb  ", "*  ", "\u2022 ", "- ", ""])
def test_a_listed_option_with_a_colon_is_named_in_the_answer(sign: str) -> None:
    text = LISTED.replace("- --", f"{sign}--")
    others = [make_result(f"The input is parsed {name}.", score=0.3) for name in ("here", "there", "as JSON")]
    answer = answer_extractively("parse the input as text", [*others, make_result(text, score=0.1)])
    assert "--raw-input/-R:\n\n           Don't parse the input as JSON." in answer.text
    assert not answer.text.rstrip().endswith("--raw-output / -r:")


def test_a_list_of_links_is_no_answer() -> None:
    links = "| How to | [deploy on Kubernetes](a.md), [deploy with Compose](b.md), [use an LLM](c.md) |"
    text = f"{links}\n\nA chart installs it on Kubernetes."
    answer = answer_extractively("deploy on Kubernetes", [make_result(text)])
    assert answer.citations[0].quote == "A chart installs it on Kubernetes."


def test_sentences_of_another_passage_that_stand_apart_are_shown_apart() -> None:
    results = [make_result(f"Move the circle of panes by {name}.", score=0.3) for name in "abc"]
    other = "Panes can be turned. Menus are closed. Keys are bound. A circle is drawn far out."
    task = answer_extractively("move the circle of panes far", [*results, make_result(other, score=0.1)])
    assert task.text.endswith("\n\nPanes can be turned.\n\nKeys are bound. A circle is drawn far out.")


def test_a_sentence_of_another_passage_is_shown_with_its_term() -> None:
    results = [make_result(f"Panes are moved by {name}.", score=0.3) for name in "abcd"]
    option = "-m, --more\n    More panes are shown."
    task = answer_extractively("move panes in a circle", [*results, make_result(option, score=0.1)])
    assert task.text.endswith(f"\n\n{option}")


def test_a_question_that_is_not_answered_for_certain_is_shown_whole_passages() -> None:
    statuses = "EXIT STATUS\n\n" + "\n".join(f"    {number}   Error of kind {number}." for number in range(1, 25))
    answer = answer_extractively("What does the exit status 8 of a mirror mean?", [make_result(statuses, score=0.35)])
    assert answer.text.startswith(NOT_CERTAIN)
    assert "8   Error of kind 8." in answer.text


def _confidence(question: str, text: str, *, score: float, similarity: float | None = 0.6) -> float:
    answer = answer_extractively(question, [make_result(text, score=score, similarity=similarity)])
    assert answer.confidence is not None
    return answer.confidence


def test_a_passage_without_the_name_that_is_asked_about_answers_less_surely() -> None:
    asked = "When did the team of Quorra win the cup?"
    other = "The team of the {} won the cup in 1986. Its fans were glad."
    named, unnamed = (_confidence(asked, other.format(name), score=0.4) for name in ("Quorra", "north"))
    assert unnamed < 0.5 <= named
    assert unnamed < _confidence(asked.lower(), other.format("north"), score=0.4)


def test_words_that_many_sentences_have_are_less_evidence_than_rare_ones() -> None:
    asked = "Where are the lanterns lit?"
    rare = "Lanterns are lit on the pier. " + "Ships come and go there each day of the week. " * 8
    common = "Lanterns are lit on the pier. " + "Lanterns hang there each day, lit or not, in the week. " * 8
    assert _confidence(asked, common, score=0.4) < _confidence(asked, rare, score=0.4)


def test_a_file_that_comes_with_a_question_is_trusted_less_than_what_a_search_found() -> None:
    asked = "Who led the harbour guild through the great storm?"
    text = "Anna Reis led the guild. Its members were few."
    assert _confidence(asked, text, score=1.0, similarity=None) < _confidence(asked, text, score=1.0, similarity=0.5)


def test_a_task_that_is_answered_for_certain_is_given_the_nearest_other_passage_too() -> None:
    best = "To rename an archive, name it and its new name."
    results = [
        make_result(best, score=0.9),
        make_result("Call archive-rename OLD NEW.", score=0.4),
        make_result("Cats.", score=0.1),
    ]
    task = answer_extractively("How do I rename an archive?", results)
    assert (task.confidence or 0) >= CERTAIN
    assert [one.quote for one in task.citations] == [best, "Call archive-rename OLD NEW."]
    fact = answer_extractively("Who must rename an archive?", results)
    assert [one.quote for one in fact.citations] == [best]


def test_a_code_alone_is_no_task_that_another_passage_could_answer() -> None:
    row = "Part PPR-9087 costs 20 euros."
    results = [make_result(row, score=0.9), make_result("Part PPR-9078 costs 30 euros.", score=0.4)]
    assert [one.quote for one in answer_extractively("PPR-9087", results).citations] == [row]
