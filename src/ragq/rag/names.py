"""What documents are called, in words: their names are searched with each of their chunks."""

from __future__ import annotations

import re

NAME_CHARACTERS = 100  # of a file's name, and of a title; what is longer says no more

_NAME_WORDS = re.compile(r"[^\W_]+(?:[-.][^\W_]+)*")
_SAYS_SOMETHING = re.compile(r"[^\W\d_]|\d{4}")  # a name such as "17" does not, and would match numbers in questions


def name_document(filename: str, title: str) -> str:
    """What a document is called, in words: its file's name without folders and extension, and its title if that says more."""
    stem = filename.rpartition("/")[2].rpartition(".")[0] or filename
    name = " ".join(_NAME_WORDS.findall(stem))[:NAME_CHARACTERS] if _SAYS_SOMETHING.search(stem) else ""
    return name if not title or title.lower() in name.lower() else f"{name} {title[:NAME_CHARACTERS]}".strip()
