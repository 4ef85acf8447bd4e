"""Tell questions that compare documents: by words such as "compare", or by the names of two documents."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from ragq.rag.names import name_document
from ragq.rag.sentences import STOP_WORDS
from ragq.rag.words import find_tokens, normalize

CODE_CHARACTERS = 4  # of a code that names a document; v2 does not

# Of what is said in English, German, Spanish and Hindi. What is left out says something else more often: "between",
# "gegenüber", "frente a"; "comparte" (shares), "अंतरिक्ष" (space) and "अंतरराष्ट्रीय" (international) only look alike.
_COMPARES = re.compile(
    r"\b(?:compar(?:e[sd]?|ing|isons?)|versus|vs|differences?|differs?|contrasts?|distinguish(?:es)?"
    r"|different(?=\s+(?:from|between|than)\b|\W*$)"
    r"|vergleich\w*|verglich\w*|unterschied\w*|unterscheid\w*|gegensatz"
    r"|compara\w*|comparen?|comparemos|diferencian?|diferencias|difieren?|distinguen?|contraste)\b"
    r"|(?:तुलना|बनाम|मुकाबले|फ\u093c?र्क|भिन्न|अंतर)(?![\w\u0900-\u0963])"
)


def compares(question: str) -> bool:
    """Whether a question says that it compares."""
    return _COMPARES.search(normalize(question).casefold()) is not None


def find_named(question: str, filenames: Iterable[str]) -> set[str]:
    """The files that a question names: with all words of their name, or with a code in it."""
    asked = {word.casefold() for token in find_tokens(question) for word in (token.text, *token.pieces)}
    return {name for name in filenames if _is_named(_read_name(name), asked)}


def _is_named(name: tuple[frozenset[str], frozenset[str]], asked: set[str]) -> bool:
    words, codes = name
    return (bool(words) and words <= asked) or not codes.isdisjoint(asked)


@lru_cache(maxsize=4096)
def _read_name(filename: str) -> tuple[frozenset[str], frozenset[str]]:
    """The words of a file's name, and those of them that are codes, such as PPR-9087."""
    tokens = list(find_tokens(name_document(filename, "")))
    words = {piece.casefold() for token in tokens for piece in token.pieces}
    codes = {token.text.casefold() for token in tokens if len(token.text) >= CODE_CHARACTERS and len(token.runs) > 1}
    return frozenset(words - STOP_WORDS), frozenset(codes)
