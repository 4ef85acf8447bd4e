"""Read data sets: JSON lines of one's own, SQuAD's JSON, and folders in BEIR's form."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from ragq.errors import ConfigurationError
from ragq.evaluation.dataset import Dataset, Document, Question, check_ids
from ragq.evaluation.files import read_text

T = TypeVar("T")
NEWLINE = b"\n"


class _Turn(msgspec.Struct, forbid_unknown_fields=True):
    role: Literal["user", "assistant"]
    content: str


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    question: str
    id: str = ""
    history: list[_Turn] = []
    files: list[str] = []
    contains: list[str] = []
    answers: list[str] = []
    unanswerable: bool = False
    answer: str = ""  # with `comment`, from `ragq feedback export`, for people
    comment: str = ""


class _SquadAnswer(msgspec.Struct):
    text: str


class _SquadQuestion(msgspec.Struct):
    id: str
    question: str
    answers: list[_SquadAnswer] = []
    is_impossible: bool = False


class _SquadParagraph(msgspec.Struct):
    context: str
    qas: list[_SquadQuestion]


class _SquadArticle(msgspec.Struct):
    paragraphs: list[_SquadParagraph]


class _Squad(msgspec.Struct):
    data: list[_SquadArticle]


class _BeirText(msgspec.Struct):
    id: str = msgspec.field(name="_id")
    text: str
    title: str = ""


def read_dataset(path: Path, documents: Path | None = None) -> Dataset:
    """Read a data set: a folder is BEIR's, a file `.json` SQuAD's, any other JSON lines.

    Args:
        documents: The folder of the documents that JSON lines are about.

    Raises:
        ConfigurationError: Something is missing or wrong; the message names the file and, if it has one, the line.
    """
    if not path.exists():
        raise ConfigurationError(f"There is no {path}.")
    if documents and (path.is_dir() or path.suffix == ".json"):
        raise ConfigurationError(f"{path} brings its own documents: leave out --documents.")
    if path.is_dir():
        dataset = _read_beir(path)
    elif path.suffix == ".json":
        dataset = _read_squad(path)
    else:
        dataset = Dataset(path.name, list(_read_questions(path)), list_documents(documents) if documents else [])
    if not dataset.questions:
        raise ConfigurationError(f"{path} has no question.")
    check_ids(dataset.questions)
    return dataset


def list_documents(folder: Path) -> list[Document]:
    """List the files in a folder and below it, but for hidden and empty ones.

    Raises:
        ConfigurationError: There are none.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and path.stat().st_size and not any(part.startswith(".") for part in name.parts):
            found.append(Document(name.as_posix(), path))
    if not found:
        raise ConfigurationError(f"There are no documents in {folder}.")
    return found


def _read_questions(path: Path) -> Iterator[Question]:
    for place, line in _read_lines(path, _Line):
        if not line.question.strip():
            raise ConfigurationError(f"{place}: the question is empty.")
        contains = (*line.contains, *line.answers)
        if line.unanswerable == bool(contains or line.files):
            raise ConfigurationError(
                f"{place}: say either what a right answer has, by files or contains, or that it is unanswerable."
            )
        said = "\n".join([*(turn.content for turn in line.history), line.question])
        yield Question(
            id=line.id or hashlib.sha256(said.encode()).hexdigest()[:12],
            text=line.question,
            place=place,
            files=dict.fromkeys(line.files, 1),
            contains=contains,
            history=tuple({"role": turn.role, "content": turn.content} for turn in line.history),
            is_unanswerable=line.unanswerable,
        )


def _read_squad(path: Path) -> Dataset:
    """Read SQuAD 1 or 2: each paragraph is a document, named by its number, so that names help no search."""
    articles = _decode(path.read_bytes(), _Squad, path.name, has_lines=True).data
    paragraphs = [paragraph for article in articles for paragraph in article.paragraphs]
    questions = [
        Question(
            id=qa.id,
            text=qa.question,
            place=f"{path.name}, question {qa.id}",
            files={} if qa.is_impossible else {f"{number}.txt": 1},
            contains=() if qa.is_impossible else tuple(dict.fromkeys(answer.text for answer in qa.answers)),
            is_unanswerable=qa.is_impossible,
        )
        for number, paragraph in enumerate(paragraphs)
        for qa in paragraph.qas
    ]
    documents = [Document(f"{number}.txt", paragraph.context) for number, paragraph in enumerate(paragraphs)]
    return Dataset(path.name, questions, documents)


def _read_beir(folder: Path) -> Dataset:
    """Read corpus.jsonl, queries.jsonl, and the judgements of qrels/test.tsv or of the only other file there."""
    grades = _read_qrels(_find_qrels(folder))
    documents = [
        Document(f"{one.id}.txt", f"{one.title}\n\n{one.text}".strip())
        for _, one in _read_lines(folder / "corpus.jsonl", _BeirText)
    ]
    questions = [
        Question(id=query.id, text=query.text, place=place, files=grades[query.id])
        for place, query in _read_lines(folder / "queries.jsonl", _BeirText)
        if query.id in grades
    ]
    return Dataset(folder.resolve().name, questions, documents)


def _find_qrels(folder: Path) -> Path:
    found = sorted((folder / "qrels").glob("*.tsv"))
    chosen = [path for path in found if path.stem == "test"] or found
    if len(chosen) != 1:
        raise ConfigurationError(f"{folder / 'qrels'} needs a test.tsv, or one .tsv alone; it has {len(found)}.")
    return chosen[0]


def _read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Read the grade of each document by query; a grade of 0 says that the document does not answer it."""
    grades: dict[str, dict[str, int]] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        fields = line.split("\t")
        if number == 1 and fields[0] == "query-id":
            continue
        try:
            query, document, grade = fields
            if int(grade) > 0:
                grades.setdefault(query, {})[f"{document}.txt"] = int(grade)
        except ValueError:
            raise ConfigurationError(
                f"{path}, line {number}: not a query's id, a document's id and a whole number, with tabs between them."
            ) from None
    return grades


def _read_lines(path: Path, kind: type[T]) -> Iterator[tuple[str, T]]:
    """Decode each line that is not blank; yields it with its place."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            place = f"{path.name}, line {number}"
            yield place, _decode(line.encode(), kind, place)


def _decode(content: bytes, kind: type[T], place: str, *, has_lines: bool = False) -> T:
    """Decode JSON; in a file that has lines, a fault of its syntax is named by its line."""
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{place}: {error}.") from error
    except msgspec.DecodeError as error:
        byte = re.search(r"\(byte (\d+)\)", str(error))
        line = f", line {1 + content.count(NEWLINE, 0, int(byte[1]))}" if byte and has_lines else ""
        raise ConfigurationError(f"{place}{line}: {error}.") from error
