"""Questions with their right answers, and the documents that they are asked about."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ragq.errors import ConfigurationError

Half = Literal["first", "second"]


@dataclass(frozen=True, slots=True)
class Document:
    """A document: its name, by which questions name it, and its text or where its bytes are."""

    name: str
    content: str | Path

    def read(self) -> bytes:
        return self.content.encode() if isinstance(self.content, str) else self.content.read_bytes()


@dataclass(frozen=True, slots=True)
class Question:
    """A question and what is known of its answer.

    Attributes:
        files: The grade of each file that answers it, by name; 1 unless the data set grades.
        contains: Words of which a right answer holds one.
        history: The messages before it, oldest first, as OpenAI has them.
        place: The file and line that it was read from.
    """

    id: str
    text: str
    place: str
    files: Mapping[str, int]
    contains: tuple[str, ...] = ()
    history: tuple[dict[str, str], ...] = ()
    is_unanswerable: bool = False


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set; without documents, its questions are asked of a store that has them."""

    name: str
    questions: Sequence[Question]
    documents: Sequence[Document] = ()

    def select(self, half: Half | None, limit: int | None) -> Dataset:
        """Keep a half of the questions, or the first of them; the documents stay."""
        middle = (len(self.questions) + 1) // 2
        chosen = {None: self.questions, "first": self.questions[:middle], "second": self.questions[middle:]}[half]
        if not chosen[:limit]:
            raise ConfigurationError(f"No question of {self.name} is left to ask.")
        return replace(self, questions=chosen[:limit])


def check_ids(questions: Sequence[Question]) -> None:
    """Refuse two questions of one id, which a comparison could not tell apart.

    Raises:
        ConfigurationError: The message names the places of both.
    """
    places: dict[str, str] = {}
    for question in questions:
        if question.id in places:
            raise ConfigurationError(
                f"{question.place}: the id {question.id!r} is also that of {places[question.id]}. Give each its own."
            )
        places[question.id] = question.place


def check_files(questions: Sequence[Question], names: Collection[str]) -> None:
    """Refuse a question whose files are not among the documents.

    Raises:
        ConfigurationError: The message names the place and the file.
    """
    for question in questions:
        for name in question.files:
            if name not in names:
                raise ConfigurationError(
                    f"{question.place}: there is no document {name!r}. Documents are named by their paths in the folder, "
                    f"such as {min(names, default='a.md')!r}."
                )
