"""Words that mean the same: the lists, the operator's file, and what a task is searched and answered with."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragq.errors import ConfigurationError
from ragq.rag.answer import answer_extractively
from ragq.rag.synonyms.near import NEAR, NearTerms
from ragq.rag.synonyms.table import LANGUAGES, MOST_GROUP, Synonyms, read_synonyms
from ragq.rag.synonyms.task import asked_words
from ragq.rag.words import question_words
from ragq.settings import Settings
from ragq.up import Fleet
from tests.unit.test_answer import make_result

OWN = read_synonyms(None, "en")


def others_of(question: str, synonyms: Synonyms = OWN) -> set[str]:
    return {other for meant in synonyms.find(question, is_task=True) for other in meant.others}


@pytest.mark.parametrize(
    ("question", "other"),
    [
        ("How do I delete a branch?", "remove"),
        ("deleting branches", "remove"),
        ("the owner of a file", "ownership"),
        ("get rid of a session", "delete"),
        ("turn off the pager", "disable"),
        ("Wie lösche ich einen Ordner?", "verzeichnis"),
        ("¿Cómo puedo borrar una carpeta?", "directorio"),
    ],
)
def test_words_of_a_question_are_known_by_others_that_mean_the_same(question: str, other: str) -> None:
    assert other in others_of(question)


def test_the_longest_of_several_words_is_meant() -> None:
    (meant,) = (
        Synonyms().add([("turn off", "disable"), ("turn", "rotate")], ["en"]).find("turn off the light", is_task=False)
    )
    assert meant.words == ("turn", "off")
    assert meant.others == ("disable",)


def test_names_in_code_and_stop_words_mean_nothing_else() -> None:
    assert others_of("delete_file from") == set()


def test_each_own_list_is_well_formed() -> None:
    for language in LANGUAGES:
        path = Path(__file__).parents[2] / "src/ragq/rag/synonyms" / f"{language}.txt"
        assert isinstance(read_synonyms(path, language), Synonyms)


def test_a_file_adds_groups_to_the_own_lists(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("# ours\n\nPTO, vacation  # paid time off\nwidget,  Frobnicator , gizmo\n", encoding="utf-8-sig")
    known = read_synonyms(path, "fr")
    assert others_of("How do I order two widgets?", known) >= {"frobnicator", "gizmo"}
    assert "vacation" in others_of("ask for PTO", known)
    assert "remove" in others_of("delete a branch", known)
    assert "frobnicator" not in others_of("order widgets")


@pytest.fixture
def of_the_house(tmp_path: Path) -> Synonyms:
    path = tmp_path / "words.txt"
    path.write_text("PTO, vacation\n")
    return read_synonyms(path, "en")


def test_the_own_lists_are_for_tasks_and_a_file_is_for_all_questions(of_the_house: Synonyms) -> None:
    for question in ("How do I delete my PTO?", "Who may delete my PTO?"):
        words = {word.forms[0]: word for word in asked_words(question, ("en",), of_the_house)}
        assert words["pto"].near == ("vacat",)
        assert ("remov" in words["delet"].near) == question.startswith("How")
    assert asked_words("Who may delete my PTO?", ("en",), OWN) == question_words("Who may delete my PTO?", ("en",))


def test_a_question_for_a_fact_is_answered_with_words_of_the_file(of_the_house: Synonyms) -> None:
    rules = ["Lunch takes 30 minutes.", "Everybody has 25 days of vacation.", "The office has 80 desks."]
    results = [make_result(rule, score=0.4, file_id=rule) for rule in rules]
    question = "How many days of PTO does everybody have?"
    answer = answer_extractively(question, results, synonyms=of_the_house)
    assert answer.citations[0].quote == rules[1]
    assert "'PTO'" not in answer.reason
    assert "'PTO'" in answer_extractively(question, results).reason


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("alone", "it has one word"),
        ("delete,, remove", "a word is missing"),
        ("delete, !", "a word is missing"),
        ("delete, Delete", "it has one word"),
        ("one two three four five, six", "'one two three four five' is too long"),
        (",".join(f"w{number}" for number in range(MOST_GROUP + 1)), f"it has {MOST_GROUP + 1} words"),
    ],
)
def test_a_wrong_line_of_a_file_is_named(tmp_path: Path, line: str, fault: str) -> None:
    path = tmp_path / "words.txt"
    path.write_text(f"# ours\na, b\n{line}\n")
    with pytest.raises(ConfigurationError, match=f"RAGQ_SYNONYMS: {path}, line 3: {fault}"):
        read_synonyms(path, "en")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"RAGQ_SYNONYMS: .*absent\.txt cannot be read: No such file"):
        read_synonyms(tmp_path / "absent.txt", "en")
    path = tmp_path / "words.txt"
    path.write_bytes(b"a, b\nc, \xff\n")
    with pytest.raises(ConfigurationError, match=r"words\.txt, line 2: not UTF-8"):
        read_synonyms(path, "en")


def test_nothing_is_started_with_a_wrong_file(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("alone\n")
    with pytest.raises(ConfigurationError, match=r"words\.txt, line 1"):
        Fleet(Settings(_env_file=None, synonyms=path), query_workers=1, document_workers=1)


def test_a_task_is_searched_by_words_that_mean_the_same_in_each_language_of_its_stores() -> None:
    words = {word.forms[0]: word for word in asked_words("delete a certain folder", ("en", "de"), OWN)}
    assert "remov" in words["delet"].near
    assert "directori" in words["folder"].near
    assert words["certain"].says_little
    assert not words["folder"].says_little


@pytest.mark.parametrize(
    ("task", "form"),
    [("the owner of a file", "own"), ("compare two files", "differ"), ("show what would be sent", "dryrun")],
)
def test_what_means_the_same_is_searched_in_any_form(task: str, form: str) -> None:
    words = asked_words(task, ("en",), OWN)
    assert any(form in (*word.near, *word.forms) for word in words)


def test_a_word_with_a_hyphen_is_searched_as_one() -> None:
    (word,) = asked_words("preview", ("en",), OWN)
    assert "dryrun" in word.near


def test_what_a_question_has_itself_is_none_of_its_synonyms() -> None:
    near = {form for word in asked_words("delete or remove", ("en",), OWN) for form in word.near}
    assert near
    assert not near & {"delet", "remov"}


def test_passages_are_marked_where_they_have_another_word() -> None:
    near = NearTerms("delete a folder, preview", OWN)
    assert near.mark({"remove", "tree"}) == {"remove", "tree", f"{NEAR}delete"}
    assert near.mark({"delete"}) == {"delete", f"{NEAR}delete"}
    assert near.mark({"dry", "run"}) >= {f"{NEAR}previe"}
    assert near.mark({"dry"}) == {"dry"}
    assert near.spread("tree") == {"tree": 1}
    assert near.spread("delete").keys() == {"delete", f"{NEAR}delete"}


def test_a_task_is_answered_with_other_words() -> None:
    options = [
        "--follow\n    Wait for more lines at the end.",
        "--tree\n    Print the names as a tree, with lines between them.",
        "--expunge\n    Remove the directory, with all that is in it.",
    ]
    results = [make_result(option, score=0.4, file_id=option) for option in options]
    answer = answer_extractively("erase a folder", results)
    assert answer.citations[0].quote == options[2]
    assert "'erase'" not in answer.reason
    assert "'erase'" in answer_extractively("Who must erase a folder?", results).reason
