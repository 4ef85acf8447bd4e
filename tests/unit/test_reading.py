"""Answers without an LLM that the words leave in doubt, and the model that reads them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ragq.client.minilm.cross_encoder import QUESTION_TOKENS, TEXT_TOKENS, CrossEncoder
from ragq.models import CERTAIN, Answer, SearchResult, Statement
from ragq.queues import worker
from ragq.queues.reading import MOST_READ, read_doubts
from ragq.rag.answer import NO_ANSWER, READ_SENTENCES, Draft, draft_in_steps
from ragq.rag.citing.cite import Cited, cite
from ragq.rag.citing.rivals import LOST, MOST_CLAIM, Marked, Rivalry
from ragq.rag.confidence import SURE_BY_WORDS, UNCERTAIN, Confidence, Reading, weigh_reading
from ragq.settings import LOCAL_EMBEDDING_MODEL
from ragq.tasks import run_through

ASKED = "When do I get my money back?"
SUPPORT = "Our support is there from 9:00 to 17:00. You get a mail from us when the parcel leaves."
REFUND = "Refunds are issued within 14 days of the return. Shipping costs are not refunded."
YES, NO = Reading(4.0, 5.0), Reading(-6.0, -6.0)


@pytest.fixture
async def encoder() -> AsyncIterator[CrossEncoder]:
    encoder = CrossEncoder()
    yield encoder
    await encoder.close()


def make_result(text: str, *, score: float = 0.1, similarity: float | None = 0.3) -> SearchResult:
    return SearchResult(
        file_id=text[:8],
        filename="a.txt",
        text=text,
        start=0,
        end=len(text),
        page=None,
        heading=None,
        token_count=len(text) // 4,
        score=score,
        similarity=similarity,
    )


def draft(question: str, *results: SearchResult) -> Draft:
    made = run_through(draft_in_steps(question, list(results)))
    assert isinstance(made, Draft)
    return made


@pytest.mark.parametrize(
    ("question", "right", "wrong"),
    [
        (ASKED, "Refunds are issued within 14 days of the return.", "You get a mail from us when the parcel leaves."),
        ("What is your phone number?", "Support can be reached at +49 30 123456.", "The office is closed on Sundays."),
        ("Who built the mill?", "The mill was built by John Reis.", "The mill was built in 1841."),
        ("When was the mill built?", "The mill was built in 1841.", "The mill was built by John Reis."),
        ("How much is a ticket?", "Admission is 12 euros.", "The museum is closed on Mondays."),
    ],
)
async def test_the_sentence_that_answers_reads_better(
    encoder: CrossEncoder, question: str, right: str, wrong: str
) -> None:
    assert (await encoder.read(question, right)).score > (await encoder.read(question, wrong)).score + 1


async def test_of_one_sentence_the_words_that_answer_are_told_from_others(encoder: CrossEncoder) -> None:
    sentence = "The mill of Tolm was built in 1841 by Jon Hale, the miller."

    async def claim(question: str, answer: str) -> float:
        start = sentence.index(answer)
        return (await encoder.read(question, sentence, [(start, start + len(answer))])).claim

    assert await claim("Who built the mill?", "Jon Hale") > await claim("Who built the mill?", "1841") + 2
    assert await claim("When was the mill built?", "1841") > await claim("When was the mill built?", "Jon Hale") + 2


async def test_a_long_question_and_sentence_are_read_by_their_beginnings(encoder: CrossEncoder) -> None:
    long = await encoder.read("who " * 10_000, "said " * 10_000)
    assert long == await encoder.read("who " * QUESTION_TOKENS, "said " * TEXT_TOKENS)
    assert (await encoder.read("", "")).score < 0


async def test_what_was_read_does_not_depend_on_what_was_read_before(encoder: CrossEncoder) -> None:
    first = await encoder.read(ASKED, REFUND)
    await encoder.read("Who?", "She.")
    assert await encoder.read(ASKED, REFUND) == first


async def _answer(read: Any, question: str, *results: SearchResult) -> Answer:
    async def run(steps: Any) -> Any:
        return run_through(steps)

    context: Any = SimpleNamespace(
        turns=SimpleNamespace(run=run),
        cross_encoder=SimpleNamespace(read=read),
        settings=SimpleNamespace(embedding_name=LOCAL_EMBEDDING_MODEL),
        chunks=SimpleNamespace(synonyms=None),
    )
    return await worker._answer_extractively(context, question, list(results))


async def test_a_sentence_without_the_questions_words_answers_if_it_reads_so(encoder: CrossEncoder) -> None:
    results = [make_result(SUPPORT), make_result(REFUND)]
    by_words = draft(ASKED, *results).finish()
    assert by_words.text == NO_ANSWER
    answer = await _answer(encoder.read, ASKED, *results)
    assert answer.citations[0].quote.startswith("Refunds are issued within 14 days")
    assert (answer.confidence or 0) > (by_words.confidence or 0)


async def test_a_sentence_with_the_questions_words_is_no_answer_if_it_does_not_read_so(encoder: CrossEncoder) -> None:
    asked = "Who won the cup of the north?"
    said = make_result("The cup of the north has been made of silver since 1986.", score=0.4, similarity=0.6)
    assert draft(asked, said).confidence.value >= CERTAIN
    assert ((await _answer(encoder.read, asked, said)).confidence or 0) < CERTAIN


BUILT = "The mill was built by John Reis. A picture of the mill hangs in the house of Ada Stone."


def check(text: str, question: str = "Who built the mill?") -> Cited:
    """An LLM's answer, checked by its words."""
    return cite(text, [make_result(BUILT)], question)


async def test_of_two_sentences_the_one_that_reads_like_the_answer_holds_a_short_answer(encoder: CrossEncoder) -> None:
    doubtful = check("Ada Stone [1].")
    assert doubtful.doubts
    judged = await read_doubts(encoder, "Who built the mill?", doubtful)
    (statement,), (citation,) = judged.statements, judged.citations
    assert statement.verdict == citation.verdict == "unsupported"
    assert statement.reason == LOST
    assert judged.text == doubtful.text


@pytest.mark.parametrize("reads_better", ["John Reis", "Ada Stone"])
async def test_a_reading_changes_a_verdict_both_ways(reads_better: str) -> None:
    async def read(_: str, sentence: str, __: Any) -> Reading:
        return YES if reads_better in sentence else NO

    doubtful = check("Who built the mill: Ada Stone [1].")
    judged = await read_doubts(cast("CrossEncoder", SimpleNamespace(read=read)), "Who built the mill?", doubtful)
    assert doubtful.statements[0].verdict == "unsupported"
    assert judged.statements[0].verdict == ("supported" if reads_better == "Ada Stone" else "unsupported")


async def test_of_an_llms_answer_not_more_than_a_few_sentences_are_read() -> None:
    seen: list[str] = []

    async def read(_: str, sentence: str, __: Any) -> Reading:
        seen.append(sentence)
        return Reading(0.0, 0.5)

    doubts = {
        n: Rivalry(Marked(f"The mill number {n} is here.", ((4, 8),)), [(Marked(f"Mill {n} is there."), 0.2)])
        for n in range(MOST_READ)
    }
    statements = [Statement(n, n + 1, "supported") for n in doubts]
    cited = Cited("", [], statements, doubts)
    judged = await read_doubts(cast("CrossEncoder", SimpleNamespace(read=read)), "Who built the mill?", cited)
    assert len(seen) == len(set(seen)) == MOST_READ
    assert {one.verdict for one in judged.statements} == {"supported"}


async def test_a_sentence_is_read_once_for_each_answer_in_it() -> None:
    seen: list[tuple[str, Any]] = []

    async def read(_: str, sentence: str, answer: Any) -> Reading:
        seen.append((sentence, answer))
        return NO if answer == ((0, 3),) else YES

    text = "Ada and Jon were at the mill."
    doubts = {n: Rivalry(Marked(text, (span,)), [], is_odd=True) for n, span in enumerate([(0, 3), (8, 11), (0, 3)])}
    statements = [Statement(n, n + 1, "supported") for n in doubts]
    read_both = SimpleNamespace(read=read)
    for place, verdict in ((0, "unsupported"), (1, "supported")):
        cited = Cited("", [], statements[:1], {0: doubts[place]})
        judged = await read_doubts(cast("CrossEncoder", read_both), "Who built the mill?", cited)
        assert judged.statements[0].verdict == verdict
    assert seen == [(text, ((0, 3),)), (text, ((8, 11),))]


DOUBTED = Reading(0.0, 0.5)


@pytest.mark.parametrize(
    ("own", "rivals", "read", "is_lost"),
    [
        (YES, [YES, YES], ["own"], False),  # no rival can be so far ahead
        (NO, [NO, NO], ["own"], True),  # whatever the rivals are
        (DOUBTED, [YES, YES], ["own", "first"], True),
        (DOUBTED, [NO, YES], ["own", "first", "second"], True),
        (DOUBTED, [NO, NO], ["own", "first", "second"], False),
    ],
)
def test_no_more_is_read_than_may_change_a_verdict(
    own: Reading, rivals: list[Reading], read: list[str], is_lost: bool
) -> None:
    rivalry = Rivalry(Marked("own", ((0, 3),)), [(Marked("first"), 0.2), (Marked("second"), 0.1)])
    of = dict(zip(rivalry.sentences, [own, *rivals], strict=True))
    readings: dict[Marked, Reading] = {}
    while (sentence := rivalry.find_unread(readings)) is not None:
        readings[sentence] = of[sentence]
    assert [one.text for one in readings] == read
    assert rivalry.is_lost_as_read(readings) == is_lost


def test_what_is_sure_of_itself_is_bounded() -> None:
    rivalry = Rivalry(Marked("own", ((0, 3),)), [(Marked("first"), 0.9)])
    for sign in (1, -1):
        verdicts = [
            rivalry.is_lost_as_read({rivalry.own: Reading(0.0, sign * odds), rivalry.rivals[0][0]: DOUBTED})
            for odds in (MOST_CLAIM, 1000.0)
        ]
        assert verdicts[0] == verdicts[1] == (sign < 0)


def test_an_answer_whose_words_are_not_found_in_its_sentence_is_left_to_the_words() -> None:
    assert Rivalry(Marked("own", ((0, 3),)), [(Marked("first"), 0.2)]).is_open
    assert not Rivalry(Marked("own"), [(Marked("first"), 0.2)]).is_open


MILL = "The old mill has a wheel of oak, and was built in the valley of Sarn."


@pytest.mark.parametrize(
    ("asked", "said", "is_read"),
    [
        ("What does the old mill have?", "a wheel of oak", False),
        ("What does the old mill have?", "the old mill", True),  # it says nothing new
        ("How many wheels does the old mill have?", "the valley of Sarn", True),  # which is no number
        ("When was the old mill built?", "the valley of Sarn", True),
        ("Where was the old mill built?", "the valley of Sarn", False),
    ],
)
async def test_an_answer_that_cannot_be_one_is_read_though_no_sentence_is_better(
    asked: str, said: str, *, is_read: bool
) -> None:
    seen: list[str] = []

    async def read(_: str, sentence: str, __: Any) -> Reading:
        seen.append(sentence)
        return NO

    cited = cite(f"{asked.rstrip('?')}: {said} [1].", [make_result(MILL)], asked)
    assert [one.verdict for one in cited.statements] == ["supported"]
    judged = await read_doubts(cast("CrossEncoder", SimpleNamespace(read=read)), asked, cited)
    assert seen == [MILL] * is_read
    assert judged.statements[0].verdict == ("unsupported" if is_read else "supported")


def test_a_long_value_behind_a_short_question_has_rivals_too() -> None:
    fire = "a slow fire of beech wood in the upper room of the mill for two days and a night"
    source = make_result(f"Malting makes sugar of starch. Grain is dried over {fire}.")
    assert cite(f"What is malting: {fire} [1].", [source], "What is malting?").doubts


@pytest.mark.parametrize(
    ("said", "reading", "is_held"),
    [
        ("14 days [1].", DOUBTED, True),
        ("2 days [1].", NO, False),
        ("The parcel leaves within 2 days [1].", NO, True),  # which is so, whatever was asked
        ("2 days [1]. The shop is in Sarn [1].", NO, True),
    ],
)
async def test_a_few_words_from_a_sentence_that_reads_like_no_answer_are_unsupported(
    said: str, reading: Reading, is_held: bool
) -> None:
    async def read(_: str, __: str, ___: Any) -> Reading:
        return reading

    source = make_result("Refunds are issued within 14 days. The parcel leaves within 2 days. The shop is in Sarn.")
    cited = cite(said, [source], ASKED)
    judged = await read_doubts(cast("CrossEncoder", SimpleNamespace(read=read)), ASKED, cited)
    assert cited.statements[0].verdict == "supported"
    assert judged.statements[0].verdict == ("supported" if is_held else "unsupported")


@pytest.mark.parametrize(
    "question", ["Wer hat die Mühle gebaut und wann?", "How to build a mill"], ids=["German", "task"]
)
async def test_doubts_that_are_not_read_keep_their_verdict(question: str) -> None:
    doubtful = check("Who built the mill: Ada Stone [1].")
    assert await read_doubts(cast("CrossEncoder", None), question, doubtful) == doubtful


async def test_sentences_are_read_until_one_answers() -> None:
    seen: list[str] = []

    async def read(_: str, sentence: str) -> Reading:
        seen.append(sentence)
        return YES if "14 days" in sentence else NO

    answer = await _answer(read, ASKED, make_result(SUPPORT), make_result(REFUND))
    assert answer.citations[0].quote == seen[-1]
    assert 1 < len(seen) <= READ_SENTENCES


async def test_not_more_than_a_few_sentences_are_read() -> None:
    seen: list[str] = []

    async def read(_: str, sentence: str) -> Reading:
        seen.append(sentence)
        return NO

    text = " ".join(f"You get number {number} back in a week." for number in range(20))
    answer = await _answer(read, ASKED, make_result(text))
    assert len(set(seen)) == len(seen) == READ_SENTENCES
    assert answer.text == NO_ANSWER


@pytest.mark.parametrize(
    ("question", "result"),
    [
        ("Wann gewann das Team von Quorra den Pokal?", make_result("Das Team aus dem Norden gewann den Pokal 1986.")),
        ("How to win the cup with the team of Quorra", make_result("The team of the north won the cup.")),
        ("When did the team of Quorra win the cup?", make_result("The team of Quorra won the cup in 1986.", score=0.9)),
        ("What is the price of part 3129?", make_result("The price of part 3192 is 49 euros.", score=0.3)),
    ],
    ids=["German", "task", "sure", "another number"],
)
def test_what_is_not_read(question: str, result: SearchResult) -> None:
    assert draft(question, result).find_unread() is None


def test_a_better_reading_never_makes_an_answer_less_sure() -> None:
    for value in (0.0, 0.01, 0.5, SURE_BY_WORDS, 1.0):
        judged = [weigh_reading(Confidence(value, "as before"), place / 2).value for place in range(-20, 21)]
        assert judged == sorted(judged)
        assert min(value, UNCERTAIN) <= judged[0] < CERTAIN
