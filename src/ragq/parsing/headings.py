"""The path of headings above a place in a text."""

from __future__ import annotations

from ragq.parsing.writer import TITLE_CHARACTERS, shorten_path


class HeadingPath:
    """The headings that are open, the highest first."""

    def __init__(self) -> None:
        self._open: list[tuple[int, str]] = []

    def add(self, level: int, title: str) -> str:
        """Open a heading, which ends those of its level and below; returns it with its parents ("A › B")."""
        self._open = [entry for entry in self._open if entry[0] < level] + [(level, title[:TITLE_CHARACTERS])]
        return shorten_path(" › ".join(entry[1] for entry in self._open))
