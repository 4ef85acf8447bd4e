"""`ragq eval` without a service: its measures against values worked out by hand, its formats, and its comparisons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from ragq.errors import ConfigurationError
from ragq.evaluation.asking import Result
from ragq.evaluation.chart import draw
from ragq.evaluation.comparison import compare, format_comparison
from ragq.evaluation.dataset import Dataset, Question, check_files
from ragq.evaluation.draft import draft_from
from ragq.evaluation.formats import read_dataset
from ragq.evaluation.measures import (
    SeenAnswer,
    Summary,
    holds_one,
    measure_answer,
    measure_retrieval,
    percentiles,
    summarize,
)
from ragq.evaluation.report import Report, format_report, make_report, read_report, write_report
from ragq.evaluation.significance import mcnemar, p_value, permutation
from ragq.models import ParsedDocument


def report_of(*measured: dict[str, float], answers: str = "") -> Report:
    """A report of a question for each of the measured; `answers` marks another wording of the questions."""
    results = [Result(f"q{number}", f"Question {number}?{answers}", one) for number, one in enumerate(measured)]
    return make_report("some", results, answers_by="extractive", documents=1, faults=[])


def write(path: Path, *lines: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_a_ranking_with_its_only_right_file_third() -> None:
    measured = measure_retrieval(["a", "b", "right", "c"], {"right": 1})
    assert measured == {
        "recall_at_1": 0,
        "recall_at_5": 1,
        "recall_at_10": 1,
        "mrr_at_10": pytest.approx(1 / 3),
        "ndcg_at_10": pytest.approx(0.5),  # 1 / log2(4)
    }


def test_a_ranking_with_graded_files() -> None:
    measured = measure_retrieval(["fair", "x", "best"], {"best": 2, "fair": 1, "missed": 1})
    assert measured["recall_at_1"] == pytest.approx(1 / 3)
    assert measured["recall_at_5"] == pytest.approx(2 / 3)
    assert measured["mrr_at_10"] == 1
    gained, ideal = 1 / 1 + 2 / 2, 2 / 1 + 1 / 1.58496 + 1 / 2  # each grade by log2(rank + 1)
    assert measured["ndcg_at_10"] == pytest.approx(gained / ideal, abs=1e-5)


def test_what_stands_below_the_tenth_place_does_not_count() -> None:
    measured = measure_retrieval([*"abcdefghij", "right"], {"right": 1})
    assert set(measured.values()) == {0.0}


def test_an_answer_with_a_wrong_citation_beside_the_right_one() -> None:
    answer = SeenAnswer("It is 61 metres tall.", cited=["a", "b"], quotes_verbatim=[True, False], supported=0.5)
    measured = measure_answer(answer, files={"a": 1, "c": 1}, contains=["61 metres"], is_unanswerable=False)
    assert measured == {
        "refused_answerable": 0,
        "contains_gold": 1,
        "citation_recall": 0.5,
        "citation_precision": 0.5,
        "quotes_verbatim": 0.5,
        "statements_supported": 0.5,
    }


def test_a_refusal_is_wrong_where_there_is_an_answer_and_right_where_there_is_none() -> None:
    refusal = SeenAnswer("The documents do not answer this question.")
    assert measure_answer(refusal, files={"a": 1}, contains=["61"], is_unanswerable=False) == {
        "refused_answerable": 1,
        "contains_gold": 0,
        "citation_recall": 0,
    }
    assert measure_answer(refusal, files={}, contains=[], is_unanswerable=True) == {"refused_unanswerable": 1}
    invented = SeenAnswer("It is 61 metres.", cited=["a"])
    assert measure_answer(invented, files={}, contains=[], is_unanswerable=True) == {"refused_unanswerable": 0}


def test_passages_that_are_not_certain_are_right_where_nothing_answers_and_no_bare_refusal_elsewhere() -> None:
    passages = SeenAnswer("Nearest passages: it is tall.", ["a"], is_certain=False)
    assert measure_answer(passages, files={}, contains=[], is_unanswerable=True) == {"refused_unanswerable": 1}
    assert measure_answer(passages, files={}, contains=["61"], is_unanswerable=False)["refused_answerable"] == 0


def test_a_failed_answer_is_no_refusal() -> None:
    failed = SeenAnswer("", failed=True)
    assert measure_answer(failed, files={}, contains=[], is_unanswerable=True) == {"refused_unanswerable": 0}


@pytest.mark.parametrize(
    ("text", "words", "holds"),
    [
        ("It is **61** Metres\ntall.", "61 metres", True),
        ("It is 161 metres tall.", "61 metres", False),
        ("Café, ½ full", "café", True),
        ("東京は日本の首都です。", "日本", True),
        ("It costs 9 crowns (single).", "9 crowns", True),
        ("Nothing.", " ", False),
    ],
)
def test_gold_words_are_found_whole(text: str, words: str, holds: bool) -> None:
    assert holds_one(text, [words]) is holds


def test_a_mean_is_over_the_questions_that_have_the_measure() -> None:
    assert summarize([{"mrr_at_10": 1.0}, {"mrr_at_10": 0.5, "failed": 0.0}]) == {
        "mrr_at_10": Summary(0.75, 2),
        "failed": Summary(0.0, 1),
    }


def test_percentiles_are_values_that_were_measured() -> None:
    assert percentiles([*range(1, 101)]) == {"p50": 50, "p95": 95, "p99": 99}
    assert percentiles([7]) == {"p50": 7, "p95": 7, "p99": 7}
    assert percentiles([]) == {}


@pytest.mark.parametrize(
    ("worse", "better", "p"), [(0, 0, 1), (5, 5, 1), (0, 5, 2 / 32), (0, 6, 2 / 64), (8, 1, 20 / 512)]
)
def test_mcnemars_exact_test(worse: int, better: int, p: float) -> None:
    assert mcnemar(worse=worse, better=better) == pytest.approx(p)


def test_the_permutation_test_of_few_differences_is_exact() -> None:
    assert permutation([]) == 1
    assert permutation([0.5, 0.5, 0.5]) == 2 / 8  # only all + and all - are as far from 0
    assert permutation([0.5, 0.25, -0.25]) == 6 / 8  # sums of ±1, 0, ±½: six of eight signs give at least ½


def test_the_permutation_test_of_many_differences_is_the_same_each_time() -> None:
    few, many = permutation([0.2] * 20 + [-0.1] * 20), permutation([0.1] * 20 + [-0.1] * 20)
    assert few == permutation([0.2] * 20 + [-0.1] * 20)
    beyond = 0.057  # of the normal distribution beyond 1.9: the sums are 0.2 apart, and their deviation is 1
    assert few == pytest.approx(beyond, abs=0.005)
    assert many == 1


def test_yes_and_no_are_tested_exactly_and_fractions_by_permutation() -> None:
    assert p_value([1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]) == mcnemar(worse=3, better=0)
    assert p_value([1, 1, 0.5], [0, 0, 0]) == permutation([-1, -1, -0.5])


def test_a_loss_is_told_from_chance_and_less_can_be_better() -> None:
    before = report_of(*[{"contains_gold": 1.0, "refused_answerable": 1.0, "recall_at_1": 1.0}] * 8)
    after = report_of(
        *[{"contains_gold": 0.0, "refused_answerable": 0.0, "recall_at_1": 0.0}] * 3,
        *[{"contains_gold": 0.0, "refused_answerable": 0.0, "recall_at_1": 1.0}] * 5,
    )
    verdicts = {one.measure.title: (one.verdict, one.better, one.worse) for one in compare(before, after)}
    assert verdicts == {
        "answers that contain gold": ("loss", 0, 8),
        "refused though answerable": ("gain", 8, 0),
        "R@1": ("", 0, 3),
    }
    assert "loss" in format_comparison(compare(before, after))


def test_runs_are_compared_by_the_questions_that_both_have() -> None:
    before, after = report_of({"failed": 0.0}, {"failed": 0.0}), report_of({"failed": 1.0})
    assert [one.n for one in compare(before, after)] == [1]
    with pytest.raises(ConfigurationError, match="no question in common"):
        compare(before, report_of({"failed": 0.0}, answers=" Changed."))


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    report = report_of({"recall_at_1": 1.0, "failed": 0.0})
    write_report(report, tmp_path / "report.json")
    assert read_report(tmp_path / "report.json") == report
    assert "R@1" in format_report(report)
    with pytest.raises(ConfigurationError, match=r"other\.json is not a file that"):
        read_report(write(tmp_path / "other.json", {"a": 1}))
    with pytest.raises(ConfigurationError, match=r"none\.json cannot be read"):
        read_report(tmp_path / "none.json")


def test_the_picture_has_a_bar_for_each_measure_of_each_run() -> None:
    report = report_of({"recall_at_1": 1.0, "failed": 0.0})
    bars = [len(ET.fromstring(one).findall("{*}rect")) - 1 for one in (draw(report), draw(report, report))]
    assert bars == [2, 4]


def test_json_lines(tmp_path: Path) -> None:
    write(tmp_path / "docs" / "sub" / "a.md", "Words.")
    write(tmp_path / "docs" / ".hidden", "Words.")
    turn = {"role": "user", "content": "Hello."}
    path = write(
        tmp_path / "q.jsonl",
        {"question": "One?", "files": ["sub/a.md"], "contains": ["x"], "answers": ["y"], "history": [turn]},
        "",
        {"id": "two", "question": "Two?", "unanswerable": True},
    )
    dataset = read_dataset(path, tmp_path / "docs")
    assert [document.name for document in dataset.documents] == ["sub/a.md"]
    one, two = dataset.questions
    assert (one.files, one.contains, one.history, one.place) == (
        {"sub/a.md": 1},
        ("x", "y"),
        (turn,),
        "q.jsonl, line 1",
    )
    assert (two.id, two.is_unanswerable, two.place) == ("two", True, "q.jsonl, line 3")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"question": 3}', "q.jsonl, line 2: Expected `str`, got `int` - at `$.question`."),
        ('{"question": "A?", "fiels": ["a"]}', "q.jsonl, line 2: Object contains unknown field `fiels`."),
        ('{"question": "A?"', "q.jsonl, line 2: Input data was truncated."),
        ('{"question": " ", "files": ["a"]}', "q.jsonl, line 2: the question is empty."),
        ('{"question": "A?"}', "q.jsonl, line 2: say either what a right answer has"),
        ('{"question": "A?", "files": ["a"], "unanswerable": true}', "q.jsonl, line 2: say either"),
        ('{"question": "B?", "files": ["a"]}', "q.jsonl, line 2: the id "),
        ("\udcff", "q.jsonl, line 2: not UTF-8."),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, fault: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(f'{{"question": "B?", "files": ["a"]}}\n{line}\n'.encode(errors="surrogateescape"))
    with pytest.raises(ConfigurationError) as raised:
        read_dataset(path)
    assert str(raised.value).startswith(fault)


def test_a_gold_file_that_is_not_there_is_named() -> None:
    question = Question("1", "A?", "q.jsonl, line 7", files={"b.md": 1})
    with pytest.raises(ConfigurationError, match=r"q\.jsonl, line 7: there is no document 'b\.md'.*'a\.md'"):
        check_files([question], {"a.md"})


def squad(*questions: dict[str, Any]) -> dict[str, Any]:
    return {"version": "v2.0", "data": [{"title": "T", "paragraphs": [{"context": "Some text.", "qas": [*questions]}]}]}


def test_squads_json_with_questions_that_have_no_answer(tmp_path: Path) -> None:
    answered = {
        "id": "a",
        "question": "A?",
        "answers": [{"text": "x", "answer_start": 0}, {"text": "x", "answer_start": 0}],
    }
    impossible = {"id": "b", "question": "B?", "answers": [], "is_impossible": True}
    dataset = read_dataset(write(tmp_path / "s.json", squad(answered, impossible)))
    assert [document.read() for document in dataset.documents] == [b"Some text."]
    one, two = dataset.questions
    assert (one.files, one.contains, one.is_unanswerable) == ({"0.txt": 1}, ("x",), False)
    assert (two.files, two.contains, two.is_unanswerable) == ({}, (), True)


def test_faults_of_squads_json_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"s\.json brings its own documents"):
        read_dataset(write(tmp_path / "s.json", squad()), tmp_path)
    with pytest.raises(ConfigurationError, match=r"s\.json: .* at `\$\.data\[0\]\.paragraphs\[0\]\.qas\[0\]`"):
        read_dataset(write(tmp_path / "s.json", squad({"id": "a"})))
    with pytest.raises(ConfigurationError, match=r"s\.json, line 3: JSON is malformed"):
        read_dataset(write(tmp_path / "s.json", '{"data":', "[", "x]}"))


def beir(folder: Path, *qrels: str) -> Path:
    write(folder / "corpus.jsonl", {"_id": "d1", "title": "T", "text": "Words."}, {"_id": "d2", "text": "More."})
    write(folder / "queries.jsonl", {"_id": "q1", "text": "A?", "metadata": {}}, {"_id": "q2", "text": "Unjudged?"})
    write(folder / "qrels" / "test.tsv", *qrels)
    write(folder / "qrels" / "train.tsv", "q2\td1\t1")
    return folder


def test_a_folder_in_beirs_form(tmp_path: Path) -> None:
    dataset = read_dataset(beir(tmp_path / "set", "query-id\tcorpus-id\tscore", "q1\td1\t2", "q1\td2\t0"))
    assert dataset.name == "set"
    assert {document.name: document.content for document in dataset.documents} == {
        "d1.txt": "T\n\nWords.",
        "d2.txt": "More.",
    }
    assert [(question.text, question.files) for question in dataset.questions] == [("A?", {"d1.txt": 2})]


def test_faults_of_a_folder_in_beirs_form_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"test\.tsv, line 2: not a query's id"):
        read_dataset(beir(tmp_path / "one", "query-id\tcorpus-id\tscore", "q1 d1 1"))
    folder = beir(tmp_path / "two", "q1\td1\t1")
    (folder / "corpus.jsonl").unlink()
    with pytest.raises(ConfigurationError, match=r"There is no .*corpus\.jsonl"):
        read_dataset(folder)


def test_halves_and_limits() -> None:
    dataset = Dataset("some", [Question(str(number), "A?", "", {}) for number in range(5)])
    assert [question.id for question in dataset.select("first", None).questions] == ["0", "1", "2"]
    assert [question.id for question in dataset.select("second", None).questions] == ["3", "4"]
    assert [question.id for question in dataset.select("first", 2).questions] == ["0", "1"]
    with pytest.raises(ConfigurationError, match="No question of some"):
        Dataset("some", dataset.questions[:1]).select("second", None)


def test_questions_are_drafted_from_headings_and_from_facts() -> None:
    text = "# Lighthouse\n\nThe lighthouse of Quorra was built in 1874. It is tall.\n\nVisitors climb it on Saturdays with the keeper."
    drafted = list(draft_from("a.md", ParsedDocument(text, headings=((0, "Lighthouse"), (14, "Lighthouse › Visits")))))
    assert drafted == [
        {"question": "What is said about Lighthouse?", "files": ["a.md"]},
        {"question": "What is said about Visits in Lighthouse?", "files": ["a.md"]},
        {
            "question": "What completes this: The lighthouse of ___ was built in 1874?",
            "files": ["a.md"],
            "contains": ["Quorra"],
        },
        {
            "question": "What completes this: Visitors climb it on ___ with the keeper?",
            "files": ["a.md"],
            "contains": ["Saturdays"],
        },
    ]
