"""Turn text into the words that it is searched by: normalized, cut to stems, identifiers whole and in their parts.

Documents and questions go through the same steps, so a word of a question is found however it is written: with or without
accents, composed or not, full or half width, with soft hyphens in it. Positions are those of words, not of characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache

import Stemmer

# The languages whose words are cut to stems, by ISO 639-1 code: those of Snowball. Others are matched as they are.
STEMMED = {
    "ar": "arabic",
    "ca": "catalan",
    "cs": "czech",
    "da": "danish",
    "de": "german",
    "el": "greek",
    "en": "english",
    "es": "spanish",
    "et": "estonian",
    "eu": "basque",
    "fa": "persian",
    "fi": "finnish",
    "fr": "french",
    "ga": "irish",
    "hi": "hindi",
    "hu": "hungarian",
    "hy": "armenian",
    "id": "indonesian",
    "it": "italian",
    "lt": "lithuanian",
    "ne": "nepali",
    "nl": "dutch",
    "no": "norwegian",
    "pl": "polish",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sr": "serbian",
    "sv": "swedish",
    "ta": "tamil",
    "tr": "turkish",
    "yi": "yiddish",
}
WORD_CHARACTERS = 100  # of a longer word, the beginning is indexed
TOKEN_PARTS = 12  # of an identifier with more parts, only the parts are indexed
LONG_NUMBER = 5  # digits of a number that names one thing, as years and amounts do not

# Soft hyphen, zero-width and direction marks, tatweel, vowel points of Arabic and Hebrew: nobody types them in a question.
_UNSEEN = re.compile(
    "[\u00ad\u0591-\u05c7\u0640\u064b-\u065f\u0670\u200b-\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]"
)
_DIVIDED = re.compile(r"[\u2010\u00ad]\n[ \t]*")  # a word goes on in the next line, as in manual pages
# Combining marks are no \w, yet belong to the words of Indic scripts; the danda does not.
_MARKS = r"\u0300-\u036f\u0900-\u0963\u0966-\u0fff\u102b-\u103e\u17b4-\u17d3"
_TOKEN = re.compile(rf"[\w{_MARKS}]+(?:(?:[-./:@+&'’#]|(?<=\d),(?=\d)|://)[\w{_MARKS}]+)*")
_PIECE = re.compile(rf"(?:[^\W_]|[{_MARKS}])+")
_RUN = re.compile(rf"\d+|(?:[^\W\d_]|[{_MARKS}])+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_CODE_SIGN = re.compile(r"[\d_@]|://")
_THOUSANDS = re.compile(r"\d{1,3}(?:[.,’']\d{3})+")
# Scripts whose words are not spaced, and Korean, whose particles are not: searched by pairs of characters.
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    r"\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]+"
)


@dataclass(frozen=True, slots=True)
class Token:
    """What stands between spaces, without the punctuation around it, and its pieces between separators."""

    text: str
    pieces: tuple[str, ...]

    @property
    def is_code(self) -> bool:
        """Whether it is written exactly so: it has a digit, a sign of addresses or names in code, or two cases."""
        return _CODE_SIGN.search(self.text) is not None or (
            len(self.pieces) == 1
            and self.text.isascii()
            and not self.text[1:].islower()
            and _CAMEL.search(self.text) is not None
        )

    @property
    def runs(self) -> list[str]:
        """Its words and its numbers: PPR9087 and getName have two each. An amount is one number."""
        if _THOUSANDS.fullmatch(self.text):
            return []
        return [run for piece in self.pieces for part in _CAMEL.split(piece) for run in _RUN.findall(part)]


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a question.

    Attributes:
        forms: How documents may write it, by their languages: a document has the word if it has one of these.
        is_identifier: It is a code, a number of several parts, a version, an address or the like.
        near: Forms of words that mean the same.
        says_little: Its rarity counts less.
    """

    forms: tuple[str, ...]
    is_identifier: bool = False
    near: tuple[str, ...] = ()
    says_little: bool = False


def normalize(text: str) -> str:
    """Bring what looks the same into one form (NFKC), without characters that nobody sees; case is kept."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFKC", _UNSEEN.sub("", _DIVIDED.sub("", text)))


def index_words(text: str, language: str) -> Iterator[str]:
    """The words that a passage is found by, in order; those of one token follow each other.

    Args:
        language: The document's, as an ISO 639-1 code; words of others than `STEMMED` are not cut.
    """
    for raw in cut_tokens(text):
        # In scripts without spaces a token may be a sentence, which no other text has.
        yield from (_index_known if raw.isascii() else _index_token)(raw, language)


def _index_token(raw: str, language: str) -> tuple[str, ...]:
    token = read_token(raw)
    words = _read_token(token, (language,)) if token else ()
    return tuple(form for word in words for form in word.forms)


_index_known = lru_cache(maxsize=10_000)(_index_token)


def question_words(text: str, languages: Iterable[str]) -> list[Word]:
    """The words of a question, each once, in the forms that documents of the given languages would have."""
    wanted = tuple(languages) or ("",)
    return list(dict.fromkeys(word for token in find_tokens(text) for word in _read_token(token, wanted)))


def fold(text: str) -> str:
    """Take accents off Latin, Greek and Cyrillic letters; the vowel signs of other scripts stay."""
    if text.isascii():
        return text
    bare = "".join(one for one in unicodedata.normalize("NFD", text) if not "\u0300" <= one <= "\u036f")
    return unicodedata.normalize("NFC", bare)


def find_tokens(text: str) -> Iterator[Token]:
    """The tokens of a text, normalized; case is kept."""
    for raw in cut_tokens(text):
        if token := read_token(raw):
            yield token


def cut_tokens(text: str) -> list[str]:
    """What stands between spaces and punctuation, normalized, to be read by `read_token`."""
    return _TOKEN.findall(normalize(text))


def read_token(raw: str) -> Token | None:
    """Read a piece of `cut_tokens`; None if it has no letter or digit."""
    text = raw.removesuffix("'s").removesuffix("’s")
    pieces = _PIECE.findall(text)
    return Token(text, tuple(pieces)) if pieces else None


def code_forms(token: Token) -> Iterator[Word]:
    """An identifier as a whole, without its separators, and by its first and its last parts."""
    whole = token.text.casefold()
    has_sign = _CODE_SIGN.search(whole) is not None  # a name in two cases, such as BSkyB, is a word among others
    if _THOUSANDS.fullmatch(whole):
        yield Word((_cut(whole), _cut("".join(token.pieces))), is_identifier=True)
    elif len(token.runs) > 1 and len(token.pieces) <= TOKEN_PARTS:
        compact = "".join(token.pieces).casefold()
        forms = [whole] if compact.isdigit() else [whole, compact]
        yield Word(tuple(dict.fromkeys(map(_cut, forms))), is_identifier=has_sign)
        yield from (Word((_cut(part),), is_identifier=has_sign) for part in _ends(whole))


def _read_token(token: Token, languages: tuple[str, ...]) -> Iterator[Word]:
    if token.is_code:
        yield from code_forms(token)
        for run in token.runs:
            if run.isdigit():
                yield Word((_cut(run),), is_identifier=len(token.runs) == 1 and len(run) >= LONG_NUMBER)
            else:
                yield from _read_piece(run, languages)
        return
    *pieces, last = token.pieces
    for place, piece in enumerate(pieces):
        if not (place and len(piece) == 1):
            yield from _read_piece(piece, languages)
    if pieces and "-" in token.text:
        yield Word(tuple(dict.fromkeys([*_forms(last, languages), *_forms("".join(token.pieces), languages)])))
    elif not (pieces and len(last) == 1):  # what an apostrophe splits off: Harvard's, don't
        yield from _read_piece(last, languages)


def _ends(whole: str) -> Iterator[str]:
    """The beginnings and ends of an identifier of three parts or more that have two parts or more: 2.9 of 2.9.14."""
    parts = [match.span() for match in _PIECE.finditer(whole)]
    for place in range(1, len(parts) - 1):
        yield from (whole[: parts[place][1]], whole[parts[place][0] :])


def _read_piece(piece: str, languages: tuple[str, ...]) -> Iterator[Word]:
    place = 0
    for run in _UNSPACED.finditer(piece):
        yield from _read_word(piece[place : run.start()], languages)
        yield from (Word((pair,)) for pair in pairs(run.group()))
        place = run.end()
    yield from _read_word(piece[place:], languages)


def _read_word(word: str, languages: tuple[str, ...]) -> Iterator[Word]:
    if word:
        yield Word(_forms(word, languages))


def is_unspaced(word: str) -> bool:
    """Whether a word is of a script whose words are searched by pairs of characters."""
    return not word.isascii() and _UNSPACED.match(word) is not None


def pairs(run: str) -> Iterator[str]:
    """The pairs of neighbouring characters of a word; a single character stands for itself."""
    yield from (run[place : place + 2] for place in range(max(1, len(run) - 1)))


def _forms(word: str, languages: tuple[str, ...]) -> tuple[str, ...]:
    folded = _cut(word.casefold())
    return tuple(dict.fromkeys(stem(folded, language) for language in languages))


def _cut(word: str) -> str:
    return word[:WORD_CHARACTERS]


@lru_cache(maxsize=20_000)
def stem(word: str, language: str) -> str:
    """Cut a folded word to its stem by the rules of a language."""
    stemmer = _stemmer(language)
    return fold(stemmer.stemWord(word) if stemmer else word)


@cache
def _stemmer(language: str) -> Stemmer.Stemmer | None:
    return Stemmer.Stemmer(STEMMED[language]) if language in STEMMED else None
