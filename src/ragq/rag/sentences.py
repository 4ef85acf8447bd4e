"""Find the sentences of a passage and the terms of a sentence, in prose, PDF lines, Markdown, tables and code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from ragq.rag.words import code_forms, cut_tokens, fold, is_unspaced, pairs, read_token

Span = tuple[int, int]  # (start, end) in the passage

MAX_SENTENCE_CHARACTERS = 600

_ROW = re.compile(r"[^\n]*\S[^\n]*")

# Where a sentence may end: a full stop before white space, or a mark that needs none: danda, CJK, Arabic, Armenian,
# Ethiopic, Burmese, Khmer.
_MARKS = "।॥。！？｡؟۔։።፧။។"
STOP = re.compile(
    r"(?:(?<![.!?…])[.!?…]+[\"'”’»)\]*_]*(?:\[\d+\])*(?=\s)"
    rf"|(?<![{_MARKS}])[{_MARKS}]+[\"'”’»」』）]*)\s*"
)
_WORD_BEFORE = re.compile(r"[^\s(\[\"“‘«]*$")
_ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof st mt sr sra jr vs e.g i.e z.b d.h u.a p.ej fig figs no nos nr vol pp ed eds inc ltd co corp gen"
    " col lt sgt rev hon gov sen rep approx ca cf al bzw usw abs art bd hrsg str tel min max dept univ jan feb mar apr"
    " jun jul aug sep sept oct nov dec".split()
)
_FENCE = re.compile(r"[ \t]*(?:```|~~~)")
_HEADING = re.compile(r"[ \t]{0,3}#{1,6}(?:\s|$)")
_RULE = re.compile(r"[\s|:=*_-]+$")  # blank lines, table rules, thematic breaks, setext underlines
_BULLET = re.compile(r"[ \t]*(?:>[ \t]*)*(?:[-*+•▪‣◦–][ \t]+|\(?(?:\d{1,3}|[a-zA-Z])[.)][ \t]+)?(?:\[[ xX]\][ \t]+)?")
_LINE = re.compile(r"\n+|[^\n]+\n?")

_STEM_CHARACTERS = 6
_KNOWN_CHARACTERS = 40  # of a token whose terms are remembered
STOP_WORDS = frozenset(
    "a an the of in on at to for from by with as is are was were be been being do does did has have had it its this that"
    " these those and or not what which who whom whose when where why how many much can could will would should may"
    " i you he she they we there their his her your our my me us them if than then into about also"
    " der die das den dem des ein eine einer eines einem einen und oder ist sind war waren wird wurde wurden hat haben"
    " von in im zu zum zur mit auf für bei aus als was wer wie wo wann warum welche welcher welches welchen wieviele"
    " el la los las un una unos unas de del y o en es son fue fueron era ser con por para a al se su sus que qué cuál"
    " cuáles quién quiénes cuándo dónde cómo cuánto cuántos cuántas lo como"
    " का के की को में से पर ने है हैं था थे थी और या क्या कौन कब कहाँ कैसे कितने कितनी कितना किस किसने किसके कौनसा यह वह एक इस उस"
    " गया गई किया लिए भी ही कि जो हुआ हुई द्वारा तक थीं जाता करने करता कर".split()
)


def find_sentences(passage: str) -> list[Span]:
    """Find each sentence, list item, table row and line of code, without white space or markers around it."""
    spans: list[Span] = []
    for start, end in _find_blocks(passage):
        for first, last in _cut_block(passage, start, end):
            spans += _trim(passage, first, last)
    return spans


def find_terms(text: str) -> set[str]:
    """Find the terms that carry meaning, without accents: words cut to their stems, codes and numbers whole and in parts.

    Where words are not spaced, pairs of characters are terms.
    """
    terms: set[str] = set()
    for raw in cut_tokens(text):
        terms.update(_terms_of(raw) if len(raw) <= _KNOWN_CHARACTERS else _read_terms(raw))
    return terms


def _read_terms(raw: str) -> frozenset[str]:
    token = read_token(raw)
    if token is None:
        return frozenset()
    terms: set[str] = set()
    if token.is_code:
        terms.update(form for word in code_forms(token) for form in word.forms)
    for piece in token.runs if token.is_code else token.pieces:
        if is_unspaced(piece):
            terms.update(pairs(piece))
        elif (word := piece.casefold()).isdigit():
            terms.add(word)
        elif word not in STOP_WORDS:
            word = fold(word)
            terms.add(word[:_STEM_CHARACTERS].rstrip("s") or word)
    return frozenset(terms)


_terms_of = lru_cache(maxsize=20_000)(_read_terms)  # texts repeat their words: a third of the time, and 9 MB at most


def find_rows(passage: str) -> list[Span]:
    """The spans of the rows of a table, each a line."""
    return [match.span() for match in _ROW.finditer(passage)]


def _find_blocks(passage: str) -> Iterator[Span]:
    """Join lines that run on; list items, table rows and lines of code stand alone, headings are left out."""
    longest = max(map(len, passage.split("\n")))
    block: Span | None = None
    lines = 0  # in the block
    in_code = False
    for match in _LINE.finditer(passage):
        line = match.group()
        fence = _FENCE.match(line)
        marker = _BULLET.match(line)
        stands_alone = in_code or line.lstrip().startswith("|")
        if fence or _HEADING.match(line) or _RULE.fullmatch(line):
            in_code ^= fence is not None
            if block:
                yield block
            block = None
        elif block and not stands_alone and not (marker and marker.group().strip(" \t>")):
            if lines == 1 and _is_title(passage[slice(*block)], line, longest):
                yield block
                block, lines = match.span(), 0
            block, lines = (block[0], match.end()), lines + 1
        else:
            if block:
                yield block
            block, lines = (match.start() + (marker.end() if marker else 0), match.end()), 1
            if stands_alone:
                yield match.span()
                block = None
    if block:
        yield block


def _is_title(first: str, second: str, longest: int) -> bool:
    """Tell whether the first of two lines is a title: short, unpunctuated, and a sentence starts after it."""
    title = first.strip()
    return len(title) < longest * 0.6 and title[-1:].isalnum() and second.lstrip()[:1].isupper()


def _cut_block(passage: str, start: int, end: int) -> Iterator[Span]:
    first = start
    for match in STOP.finditer(passage, start, end):
        if match.end() < end and ends_sentence(passage, first, match):
            yield first, match.end()
            first = match.end()
    yield first, end


def ends_sentence(passage: str, first: int, stop: re.Match[str]) -> bool:
    """Tell whether a sentence that begins at `first` ends at a match of `STOP`, by up to three characters after it."""
    if passage[stop.end() : stop.end() + 3].lstrip("\"'“‘«([*_")[:1].islower():
        return False
    if passage[stop.start()] not in ".…":
        return True
    word = _WORD_BEFORE.search(passage[max(first, stop.start() - 20) : stop.start()])
    before = word.group().lower() if word else ""
    initial = (len(before) == 1 and before.isalpha()) or re.fullmatch(r"(?:\w\.)+\w", before)
    ordinal = before.isdigit() and len(before) <= 2
    return not (initial or ordinal or before in _ABBREVIATIONS)


def _trim(passage: str, start: int, end: int) -> Iterator[Span]:
    """Strip white space, and cut what is too long at white space."""
    while start < end:
        limit = min(end, start + MAX_SENTENCE_CHARACTERS)
        if limit < end:
            space = max(passage.rfind(" ", start, limit), passage.rfind("\n", start, limit))
            limit = space if space > start else limit
        text = passage[start:limit]
        if text.strip():
            yield start + len(text) - len(text.lstrip()), limit - (len(text) - len(text.rstrip()))
        start = limit
