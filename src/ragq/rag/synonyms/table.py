"""Words that mean the same: those of ragq's own lists, and those of a file of the operator's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from ragq.errors import ConfigurationError
from ragq.rag.sentences import STOP_WORDS
from ragq.rag.words import find_tokens, stem

LANGUAGES = ("en", "de", "es")  # of ragq's own lists
MOST_WORDS = 4  # of one synonym
MOST_GROUP = 50  # words of one group
MOST_CHARACTERS = 60
MOST_FOUND = 24  # of a question; a longer text is no task

Key = tuple[str, ...]  # the stems of a synonym's words


@dataclass(frozen=True, slots=True)
class Meant:
    """A word of a question, or several in a row, that others mean the same as.

    Attributes:
        words: As the question has them.
        others: Single words that mean the same, or several with hyphens between them.
    """

    words: tuple[str, ...]
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Group:
    words: dict[str, Key]
    is_for_tasks: bool


class Synonyms:
    """Groups of words that mean the same, some of them only in questions that ask what to do."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, Key], list[_Group]] = {}  # by each key of a group
        self._languages: tuple[str, ...] = ()
        self._are_for_tasks = True

    def add(
        self, groups: Iterable[Sequence[str]], languages: Iterable[str], *, are_for_tasks: bool = False
    ) -> Synonyms:
        """Add groups whose words are of any of these languages."""
        known = tuple(languages)
        self._languages = tuple(dict.fromkeys([*self._languages, *known]))
        self._are_for_tasks &= are_for_tasks
        for group in groups:
            for language in known:
                keys = {one: _key(_split(one), language) for one in group}
                for key in dict.fromkeys(keys.values()):
                    self._groups.setdefault((language, key), []).append(_Group(keys, are_for_tasks))
        return self

    def find(self, question: str, *, is_task: bool) -> list[Meant]:
        """Find the words of a question that others mean the same as; of those that overlap the longest."""
        if self._are_for_tasks and not is_task:
            return []
        pieces = [piece for token in find_tokens(question) if not token.is_code for piece in token.pieces]
        stems = [(language, _key(pieces, language)) for language in self._languages]
        found: list[Meant] = []
        place = 0
        while place < len(pieces) and len(found) < MOST_FOUND:
            for end in range(min(place + MOST_WORDS, len(pieces)), place, -1):
                is_telling = end > place + 1 or pieces[place].casefold() not in STOP_WORDS
                keys = [(one, key[place:end]) for one, key in stems]
                if is_telling and (others := self._others(keys, is_task=is_task)):
                    found.append(Meant(tuple(pieces[place:end]), others))
                    break
            else:
                end = place + 1
            place = end
        return found

    def _others(self, keys: list[tuple[str, Key]], *, is_task: bool) -> tuple[str, ...]:
        others: dict[str, None] = {}
        for language, key in keys:
            for group in self._groups.get((language, key), ()):
                if is_task or not group.is_for_tasks:
                    others |= dict.fromkeys(one for one, its in group.words.items() if its != key and _is_searched(one))
        return tuple(others)


@cache
def read_synonyms(path: Path | None, language: str) -> Synonyms:
    """Read ragq's own lists, which are for tasks, and the operator's file, if there is one, which is for all questions.

    Args:
        language: What words of the file may be in besides the languages of ragq's own lists.

    Raises:
        ConfigurationError: The file cannot be read, or has a line that is no group of synonyms.
    """
    known = Synonyms()
    for own in LANGUAGES:
        name = f"{own}.txt"
        known.add(_read_groups((files(__package__) / name).read_text("utf-8"), name), [own], are_for_tasks=True)
    return known.add(_read_file(path), dict.fromkeys([*LANGUAGES, language])) if path else known


def check_synonyms(path: Path | None) -> None:
    """Check the operator's file, if there is one.

    Raises:
        ConfigurationError: As `read_synonyms` does.
    """
    if path:
        _read_file(path)


def _read_file(path: Path) -> list[tuple[str, ...]]:
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise ConfigurationError(f"RAGQ_SYNONYMS: {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigurationError(f"RAGQ_SYNONYMS: {path}, line {line}: not UTF-8.") from error
    return list(_read_groups(text, str(path)))


def _read_groups(text: str, name: str) -> Iterator[tuple[str, ...]]:
    """Read groups: one a line, separated by commas; what follows a '#' is a comment."""
    for number, line in enumerate(text.splitlines(), 1):
        if not (said := line.partition("#")[0].strip()):
            continue
        group = tuple(dict.fromkeys(" ".join(one.split()).casefold() for one in said.split(",")))
        if fault := _find_fault(group):
            raise ConfigurationError(f"RAGQ_SYNONYMS: {name}, line {number}: {fault}")
        yield group


def _find_fault(group: tuple[str, ...]) -> str | None:
    if not all(map(_split, group)):
        return "a word is missing between two commas, or has no letter or digit."
    if len(group) < 2:
        return "it has one word. Write those that mean the same in one line, with commas between them."
    if len(group) > MOST_GROUP:
        return f"it has {len(group)} words; at most {MOST_GROUP} are allowed."
    for one in group:
        if len(_split(one)) > MOST_WORDS or len(one) > MOST_CHARACTERS:
            return (
                f"'{one[:MOST_CHARACTERS]}' is too long: at most {MOST_WORDS} words and {MOST_CHARACTERS} characters."
            )
    return None


def _is_searched(synonym: str) -> bool:
    return " " not in synonym and synonym not in STOP_WORDS


def _split(text: str) -> tuple[str, ...]:
    return tuple(piece for token in find_tokens(text) for piece in token.pieces)


def _key(words: Sequence[str], language: str) -> Key:
    return tuple(stem(word.casefold(), language) for word in words)
