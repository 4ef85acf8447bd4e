"""Whether the sources hold a statement, by its words."""

from __future__ import annotations

import pytest

from ragq.rag.citing.check import Evidence
from ragq.rag.citing.cite import cite
from ragq.rag.citing.verdict import Verdict
from ragq.rag.citing.wording import Kind, read_words
from ragq.tasks import run_through
from tests.unit.test_answer import make_result

QUESTION = "How tall is the lighthouse of Quorra, and when was it built?"
SOURCES = [
    make_result(
        "The lighthouse of Quorra is 61 metres tall. It was built in 1871 by Ilse Brandt on the northern pier. "
        "The harbour master did not allow ships above 1,234 tons. The ferry to Sarn leaves at noon on 22 January 2026."
    ),
    make_result(
        "Marrow is a village of 4,500 people. The mill of Marrow was restored by Jon Hale in 1994.",
        file_id="f2",
        filename="marrow.md",
    ),
]


def judge(text: str, named: int = 0, question: str = QUESTION) -> Verdict:
    evidence = Evidence(question, SOURCES)
    run_through(evidence.read())
    return evidence.judge(text, [named])


def judge_of(text: str, source: str, question: str = "") -> Verdict:
    evidence = Evidence(question, [make_result(source)])
    run_through(evidence.read())
    return evidence.judge(text, [])


@pytest.mark.parametrize(
    "text",
    [
        "The lighthouse of Quorra is 61 metres tall.",
        "It is 61 m high.",
        "61 metres.",
        "Ilse Brandt built it in 1871.",
        "Based on the provided sources, the lighthouse went up in 1871.",
        "The lighthouse, which was built in 1871, stands on the northern pier.",
        "Ships of more than 1234 tons were not allowed.",
        "The ferry to Sarn leaves on 2026-01-22.",
        "The ferry to Sarn leaves at noon on January 22, 2026.",
    ],
)
def test_a_statement_in_the_sources_words_or_in_others_is_supported(text: str) -> None:
    assert judge(text).kind == "supported"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("The lighthouse of Quorra is 62 metres tall.", "'62' is neither in the sources nor in the question."),
        ("Karl Brandt built it in 1871.", "'Karl' is neither in the sources nor in the question."),
        ("It was built in 1994 by Ilse Brandt.", "no sentence of them holds this together"),
        ("The lighthouse of Quorra is not 61 metres tall.", "The answer says 'not'"),
        ("The harbour master did allow ships above 1,234 tons.", "The source says 'not'"),
        ("It was built in 1871 by Ilse Brandt on the southern pier.", "southern"),
        ("The ferry to Sarn leaves on 2026-01-20.", "'2026-01-20' is neither"),
        ("The harbour master did not allow ships above 1,235 tons.", "'1,235' is neither"),
    ],
)
def test_what_no_source_says_is_unsupported_and_says_why(text: str, reason: str) -> None:
    verdict = judge(text)
    assert verdict.kind == "unsupported"
    assert reason in verdict.reason


BRIDGE = [
    make_result(
        "The bridge of Tolm was designed by Ada Kern, and Paul Reiter paid for it. It has 14 arches and was opened in 1907. "
        "A fire destroyed the toll house in 1933. Around 9,000 people cross the bridge of Tolm each day."
    )
]


@pytest.mark.parametrize(
    ("question", "right", "wrong"),
    [
        ("When was the bridge of Tolm opened?", "1907", "9,000"),
        ("How many people cross the bridge of Tolm each day?", "9,000", "Ada Kern"),
        ("Who designed the bridge of Tolm?", "Ada Kern", "1907"),
        ("Who paid for the bridge of Tolm?", "Paul Reiter", "14"),
    ],
)
def test_an_answer_of_a_kind_that_was_not_asked_for_is_unsupported(question: str, right: str, wrong: str) -> None:
    label = question.removesuffix("?")
    for text in (right, f"{label}: {right}"):
        assert _judge_bridge(question, text).kind == "supported"
    verdict = _judge_bridge(question, f"{label}: {wrong}")
    assert verdict.kind == "unsupported"
    assert verdict.reason == "Another sentence of the sources answers the question better."


def test_a_value_after_its_label_need_not_stand_in_the_order_of_the_source() -> None:
    question = "What destroyed the toll house in 1933, and how many arches has the bridge?"
    assert _judge_bridge(question, "Destroyed the toll house in 1933: a fire").kind == "supported"
    assert _judge_bridge(question, "Arches of the bridge: 14").kind == "supported"
    assert _judge_bridge(question, "Arches of the bridge: 15").kind == "unsupported"


def _judge_bridge(question: str, text: str) -> Verdict:
    evidence = Evidence(question, BRIDGE)
    run_through(evidence.read())
    return evidence.judge(text, [])


TESLA = "Tesla lived in the cities of Prague, Budapest and Paris before 1884."
SALES = "Sales of the company increased by a tenth in 2023 because of its new shops in Lyon."
VALVE = "The safety valve of the boiler opens at a pressure of 12 bar and lets the steam out through the roof."


@pytest.mark.parametrize(
    ("question", "source", "text", "kind"),
    [
        ("In which cities did Tesla live?", TESLA, "Cities where Tesla lived: Prague and Budapest", "supported"),
        ("In which cities did Tesla live?", TESLA, "Cities where Tesla did not live: Prague", "unsupported"),
        (
            "In which cities did Tesla live?",
            TESLA,
            "Tesla never lived in these cities: Prague and Budapest.",
            "unsupported",
        ),
        (
            "Which ships are not allowed in the harbour?",
            "Ships above 1,234 tons are not allowed in the harbour.",
            "Ships allowed in the harbour: above 1,234 tons",
            "unsupported",
        ),
        (
            "How did the sales of the company change in 2023?",
            SALES,
            "Sales of the company in 2023: decreased by a tenth",
            "unsupported",
        ),
        (
            "How did the sales of the company change in 2023?",
            SALES,
            "Sales of the company in 2023: decreased by a tenth because of its new shops in Lyon.",
            "unsupported",
        ),
        (
            "When does the safety valve of the boiler open?",
            VALVE,
            "The safety valve of the boiler: it opens at a pressure of 12 bar and lets the steam out through the roof.",
            "supported",
        ),
        (
            "What does the safety valve of the boiler do?",
            VALVE,
            "The safety valve of the boiler: it closes at a pressure of 12 bar and lets the steam out through the roof.",
            "unsupported",
        ),
    ],
)
def test_what_stands_after_a_label_is_checked_like_any_statement(
    question: str, source: str, text: str, kind: str
) -> None:
    assert _judge_by(source, question, text).kind == kind


def test_the_words_of_a_label_are_not_taken_for_words_in_the_place_of_the_sources() -> None:
    source = "In the year 1966 the Kern network of Tolm was formed by three colleges as a means to help the valley's schools."
    text = "What happened to Kern: formed by three colleges as a means to help the valley's schools"
    assert _judge_by(source, "What happened to Kern?", text).kind == "supported"


def test_a_label_of_the_question_need_not_stand_in_the_passage_when_the_value_is_the_questions_too() -> None:
    source = "Ada Kern came to Tolm in 1901. Her firm installed the lamps that Kern designed."
    question = "Who designed the lamps that Kern Light & Works installed?"
    assert _judge_by(source, question, f"{question.removesuffix('?')}: Kern").kind == "supported"


TRAIN = "The train to Bern leaves at 18:30. The train to Bern leaves from platform 4 since 2019."
EMPIRE = "The empire of the west fell in 476. The empire of the west fell apart into nine by 1453."


@pytest.mark.parametrize(
    ("question", "source", "text"),
    [
        ("When does the train to Bern leave?", TRAIN, "At 18:30."),
        ("When does the train to Bern leave?", TRAIN, "The train to Bern leaves at 18:30."),
        ("When does the train to Bern leave?", TRAIN.replace("18:30", "8 pm"), "At 8 pm."),
        ("When does the train to Bern leave?", TRAIN.replace("18:30", "noon"), "At noon."),
        ("When did the empire of the west fall?", EMPIRE, "In 476."),
        ("When did the empire of the west fall?", EMPIRE.replace("476", "79 AD"), "In 79 AD."),
        ("When did the empire of the west fall?", EMPIRE, "476"),
    ],
)
def test_an_hour_or_an_early_year_answers_when(question: str, source: str, text: str) -> None:
    assert _judge_by(source, question, text).kind == "supported"


def test_another_form_of_a_word_has_its_place_in_the_passage() -> None:
    source = (
        "The people of Smiljan lived by farming and sold their wool in Zagreb. "
        "The people of Smiljan speak a dialect of their own."
    )
    verdict = _judge_by(source, "What did the people of Smiljan do?", "The people of Smiljan were farmers.")
    assert verdict.kind == "supported"


HALL = (
    "The old town hall of Springfield stands on the Main Square beside a Roman gate. "
    "It was built in 1712 by Hans Meier. The roof was renewed by Karl Vogt."
)


def test_the_first_sentence_of_a_passage_is_no_better_answer_than_the_passage() -> None:
    question = "Who built the old town hall of Springfield on the Main Square?"
    assert _judge_by(HALL, question, "The old town hall of Springfield was built by Hans Meier in 1712.").kind == (
        "supported"
    )


def test_what_goes_on_with_something_else_does_not_answer_in_the_place_of_the_first_sentence() -> None:
    source = "The bridge of Tolm was designed by Ada Kern. It was paid for by Paul Reiter."
    assert _judge_by(source, "Who designed the bridge of Tolm?", "Who designed the bridge of Tolm: Ada Kern").kind == (
        "supported"
    )
    assert _judge_by(source, "Who designed the bridge of Tolm?", "Paul Reiter").kind == "unsupported"


def _judge_by(source: str, question: str, text: str) -> Verdict:
    evidence = Evidence(question, [make_result(source)])
    run_through(evidence.read())
    return evidence.judge(text.rstrip("."), [])


@pytest.mark.parametrize(
    "text",
    [
        "Hello!",
        "Here is what I found:",
        "Let me know if you need more.",
        "The sources do not say who keeps it.",
        "Die Quellen enthalten keine Angaben zum Leuchtturm.",
        "Las fuentes no mencionan al farero.",
        "I could not find an answer.",
    ],
)
def test_what_says_nothing_of_the_matter_is_uncited(text: str) -> None:
    assert judge(text).kind == "uncited"


@pytest.mark.parametrize("named", ["the US", "the U.S.", "the USA", "the United States", "America"])
def test_the_us_is_a_name_and_no_pronoun(named: str) -> None:
    source = "The law of the mills was passed in the United States in 1965, and then in Canada."
    said = "The law of the mills was passed in {} in 1965"
    assert judge_of(said.format(named), source).kind == "supported"
    assert judge_of(said.format("the UK"), source).kind == "unsupported"
    assert judge_of(said.format("Canada"), source).kind == "unsupported"
    assert [word.kind for word in read_words("They told us, GIVE US TIME, AND GIVE US WATER") if word.text == "us"] == [
        Kind.STOP
    ]


def test_a_common_word_of_another_language_in_capitals_is_a_name() -> None:
    source = "In September 1980 the Tolmic army invaded the valley, and the war began. The UN was asked for help."
    said = "In September 1980 the {} invaded the valley, and the war began"
    assert judge_of(said.format("Tolmic army"), source).kind == "supported"
    assert judge_of(said.format("UN"), source).kind == judge_of(said.format("WHO"), source).kind == "unsupported"
    assert judge_of(said.format("United Nations"), source).kind == "unsupported"
    assert [word.kind for word in read_words("Un gato y una casa") if word.text == "Un"] == [Kind.STOP]
    assert {word.kind for word in read_words("WHO SAID THAT IT IS TRUE?") if word.text in ("WHO", "IT")} == {Kind.STOP}


def test_a_word_of_the_question_in_the_place_of_what_was_asked_is_unsupported() -> None:
    source = "The growth rings of these trees are referred to as annual rings in all of our books."
    asked = "What are the growth rings of trees called?"
    said = "The growth rings of these trees are referred to as {} in all of our books"
    assert judge_of(said.format("annual rings"), source, asked).kind == "supported"
    assert judge_of(said.format("trees"), source, asked).kind == "unsupported"


def test_a_name_of_the_question_may_stand_for_what_the_source_calls_otherwise() -> None:
    source = "The company was founded by two brothers from the north in 1901, and moved to Tolm."
    for begin, named in (("The company", "Brandt"), ("This firm", "Brandt"), ("It", "Brandt")):
        verdict = judge_of(
            f"{named} was founded by two brothers from the north in 1901, and moved to Tolm",
            source.replace("The company", begin),
            "When was Brandt founded?",
        )
        assert verdict.kind == "supported"


def test_in_a_short_copy_one_other_word_is_seen() -> None:
    source = "Columbine founded Epos Records in 1953. Its head was Mr Conkling."
    assert judge_of("Columbine founded Epos Records in 1953", source).kind == "supported"
    assert judge_of("Conkling founded Epos Records in 1953", source).kind == "unsupported"


@pytest.mark.parametrize(
    "text",
    [
        "Each packet is not labelled with a destination address, a source address and the port numbers",
        "The president of the mill, Energy, described his hope that it would become a great mill",
    ],
)
def test_an_altered_copy_is_no_talk_about_sources_or_to_the_reader(text: str) -> None:
    source = (
        "Each packet is labelled with a destination address, a source address and the port numbers. "
        "The president of the mill, Jon Hale, described his hope that it would become a great mill."
    )
    assert judge_of(text, source).kind == "unsupported"


def test_a_label_that_is_the_question_may_speak_to_the_reader() -> None:
    source = "The vessels of the willow are seen with a lens. The laws of the session are printed in a book."
    asked = "What would you need to see the vessels of the willow?"
    assert judge_of(f"{asked[:-1]}: a lens", source, asked).kind == "supported"
    assert judge_of(f"{asked[:-1]}: a telescope", source, asked).kind == "unsupported"


def test_a_copy_with_words_of_the_next_sentence_in_the_place_of_others_is_unsupported() -> None:
    source = (
        "The old mill of Tolm was bought by the town council in 1906. It was sold to the Brewer family in the spring."
    )
    assert judge_of("The old mill of Tolm was bought by the town council in 1906", source).kind == "supported"
    verdict = judge_of("The old mill of Tolm was bought by the Brewer family in 1906", source)
    assert (verdict.kind, verdict.reason) == ("unsupported", "Where the answer says 'Brewer', the source says 'town'.")


@pytest.mark.parametrize(
    ("source", "text", "reason"),
    [
        (  # the rest is shorter than what was put in, which stands together elsewhere
            "Parcels are sent by road to the old harbour of Tolm. Letters come from the sorting office behind the town hall.",
            "Parcels are sent by road to the sorting office behind the town hall",
            "Where the answer says 'sorting', the source says 'old'.",
        ),
        (  # its second half stands elsewhere, word for word, and is no fact of its own here
            "Ilse Brandt ran the mill of Tolm, and was followed by Jonas Weber. The bank was followed by Ada Moss.",
            "Ilse Brandt ran the mill of Tolm, and was followed by Ada Moss",
            "The sources have 'Ada' elsewhere: no sentence of them holds this together.",
        ),
    ],
)
def test_a_copy_with_other_words_in_the_place_of_some_is_unsupported(source: str, text: str, reason: str) -> None:
    verdict = judge_of(text, source)
    assert (verdict.kind, verdict.reason) == ("unsupported", reason)


def test_days_answer_when_and_so_do_those_of_another_sentence() -> None:
    source = "Refunds are paid within 14 days. The parcel leaves within 2 days."
    right, wrong = (
        judge_of(f"When do refunds arrive: {one} days", source, "When do refunds arrive?") for one in (14, 2)
    )
    assert right.kind == "supported"
    assert right.doubt is None
    assert wrong.doubt is not None
    assert [one.text for one in wrong.doubt.sentences] == [
        "The parcel leaves within 2 days.",
        "Refunds are paid within 14 days.",
    ]


def test_what_the_user_or_a_tool_said_may_be_repeated() -> None:
    evidence = Evidence(QUESTION, SOURCES, said=["It is 21 degrees warm in Paris."])
    run_through(evidence.read())
    assert evidence.judge("In Paris it is 21 degrees warm.", []).kind == "uncited"
    assert evidence.judge("In Rome it is 21 degrees warm.", []).kind == "unsupported"


def test_a_marker_of_the_wrong_source_is_moved_and_says_so() -> None:
    text, (citation,), (statement,), _ = cite("The mill was restored by Jon Hale in 1994 [1].", SOURCES, QUESTION)
    assert text == "The mill was restored by Jon Hale in 1994 [2]."
    assert (citation.filename, citation.verdict) == ("marrow.md", "supported")
    assert citation.reason == statement.reason == "Source 1 does not hold this, but source 2 does."


def test_statements_without_a_marker_are_checked_too() -> None:
    text = "Ilse Brandt built it in 1871 [1]. It is 61 metres tall. It was sold in 1950."
    shown, citations, statements, _ = cite(text, SOURCES, QUESTION)
    assert shown == text
    assert [one.verdict for one in statements] == ["supported", "supported", "unsupported"]
    assert [shown[one.start : one.end] for one in statements] == [
        "Ilse Brandt built it in 1871 [1].",
        "It is 61 metres tall.",
        "It was sold in 1950.",
    ]
    assert [one.citations for one in statements] == [[0], [1], []]
    assert citations[1].quote == "The lighthouse of Quorra is 61 metres tall."


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("It is 61 metres tall [1, 2].", "It is 61 metres tall [1][2]."),
        ("It is 61 metres tall [1-2].", "It is 61 metres tall [1][2]."),
        ("It is 61 metres tall [source 1].", "It is 61 metres tall [1]."),
        ("It is 61 metres tall [Sources 1 and 2].", "It is 61 metres tall [1][2]."),
        ("It is 61 metres tall [^1].", "It is 61 metres tall [1]."),
        ("It is 61 metres tall［1］.", "It is 61 metres tall[1]."),
        ("It is 61 metres tall [ID:1].", "It is 61 metres tall [1]."),
        ("It is 61 metres tall【4:1†source】.", "It is 61 metres tall[1]."),
        ("It is 61 metres tall.[citation needed] [1]", "It is 61 metres tall.[citation needed] [1]"),
        ("It is 61 metres tall [1, p. 3].", "It is 61 metres tall [1]."),
        ("It is 61 metres tall [Quelle 1, S. 3-4].", "It is 61 metres tall [1]."),
        ("It is 61 metres tall ([1, 2]).", "It is 61 metres tall ([1][2])."),
        ("It is 61 metres tall (see [1]).", "It is 61 metres tall (see [1])."),
        ("It is **61 metres** tall **[1]**.", "It is **61 metres** tall **[1]**."),
        ("It is tall: **61 metres** [1].", "It is tall: **61 metres** [1]."),
        ("It is tall: <b>61 metres</b>[1].", "It is tall: <b>61 metres</b>[1]."),
        ("It is 61 metres tall [[1]].", "It is 61 metres tall [[1]]."),
    ],
)
def test_markers_of_many_forms_are_read(written: str, shown: str) -> None:
    text, citations, statements, _ = cite(written, SOURCES, QUESTION)
    assert text == shown
    assert citations[0].quote == "The lighthouse of Quorra is 61 metres tall."
    assert statements[0].verdict == "supported"


def test_what_is_no_binary_operator_makes_no_value_of_a_marker() -> None:
    assert len(cite("It is written in C++ [1], not in C# [2].", SOURCES).citations) == 2


@pytest.mark.parametrize(
    "text",
    [
        "The interval [0, 100] is closed.",
        "The vector [1, 2] is long.",
        "It returns [1, 2, 3] here.",
        "Take args[0] and args[1], please.",
        "Take grid[i][1], please.",
        'Send {"pages": [1, 2]} to it.',
        "x = [1]",
        "Tall.\n\n[^1]: A footnote.",
        "```\nrows[1]\n```",
        "It is 61 metres tall (1).",
        "The matrix [[1, 2], [1, 2]] is square.",
        "A vector: [1, 2] here.",
        "The point ([1, 2]) is far.",
        "Call f([1]) or g([1, 2]).",
        "Take 2*[1] or 2 * [1], or a > [1].",
    ],
)
def test_brackets_of_other_kinds_stay_as_they_are(text: str) -> None:
    cited = cite(text, SOURCES, QUESTION)
    assert cited.text == text
    assert not any(text[one.index - 1] in "])" for one in cited.citations)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("1,234", {"#1234", "#1.234"}),
        ("1.234.567", {"#1234567"}),
        ("1.5 million", {"#1.5", "#1500000", "millio"}),
        ("2.9.14", {"#2.9.14"}),
        ("20260122", {"#20260122"}),
        ("22.01.2026", {"#22", "month 1", "#2026"}),
        ("zwölf", {"#12"}),
        ("१९९४", {"#1994"}),
        ("the 1700s", {"#1700", "#18"}),
    ],
)
def test_numbers_and_dates_are_read_by_their_value(text: str, keys: set[str]) -> None:
    assert {key for word in read_words(text) for key in word.keys} - {"the"} == keys
