"""Compare the words of a statement with those of a passage in their order: what was negated, opposed or replaced."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Literal

from ragq.rag.citing.lexicon import AFTER_NOUNS, BEFORE_NOUNS, DEFINITE, DENIALS, NONE, OPPOSITES, WEAK
from ragq.rag.citing.wording import Kind, Word

ALIGNED_SHARE = 0.6  # of a statement's words that stand in the passage in the same order, for a replaced one to count
FRAME_WORDS = 4  # that a statement has from the passage around what was replaced, if more was than that leaves
SCOPE_WORDS = 4  # on either side of a negation, in which it is looked for in the other text

# Of difflib: what to do, where in the statement, where in the passage.
Codes = list[tuple[Literal["replace", "delete", "insert", "equal"], int, int, int, int]]
Change = tuple[int, int, int, int]  # where in the statement, where in the passage


def align(said: list[Word], meant: list[Word]) -> Codes:
    """Match the words of two texts in their order."""
    return SequenceMatcher(
        None, [word.keys[0] for word in said], [word.keys[0] for word in meant], autojunk=False
    ).get_opcodes()


def count_matched(codes: Codes) -> int:
    """How many of a statement's words stand in the passage in the same order."""
    return sum(end - start for tag, start, end, _, _ in codes if tag == "equal")


def find_changes(codes: Codes, said: list[Word]) -> list[Change]:
    """Find what a statement has in the place of other words, if it follows the passage for the most part, or word for word around it."""
    matched = count_matched(codes)
    plain = [
        (start, end, first, last)
        for tag, start, end, first, last in codes
        if tag == "replace" and matched >= ALIGNED_SHARE * len(said)
    ]
    framed = [one for one in _join_changes(codes, said) if _is_framed(one, codes, said)]
    return list(dict.fromkeys([*plain, *framed]))


def _join_changes(codes: Codes, said: list[Word]) -> Iterator[Change]:
    """Yield what was replaced; a small word between two changes is a part of both."""
    start = end = first = last = 0
    for tag, *places in [*codes, ("equal", len(said), len(said) + 2, 0, 0)]:
        if tag != "equal":
            end, last = places[1], places[3]
        elif places[1] - places[0] > 1 or said[places[0]].is_content or not end:
            if start < end and first < last:
                yield start, end, first, last
            start = end = places[1]
            first = last = places[3]


def _is_framed(change: Change, codes: Codes, said: list[Word]) -> bool:
    """Tell whether all other words of a statement stand in the passage as they are, in its order, around it."""
    start, end, first, last = change
    others = len(said) - (end - start)
    kept = [places for tag, *places in codes if tag == "equal"]
    if others < max(FRAME_WORDS, last - first) or count_matched(codes) < others:
        return False
    is_whole = kept[-1][3] - kept[0][2] <= others + (last - first)
    return is_whole and fills_place(said, start, end)


def fills_place(words: list[Word], start: int, end: int) -> bool:
    """Tell whether `words[start:end]` stand where something must: between other words, or after a preposition or an article."""
    return start > 0 and (end < len(words) or words[start - 1].text.casefold() in BEFORE_NOUNS)


def are_alike(said: list[Word], meant: list[Word]) -> bool:
    """Tell whether two texts share a word, or a form of one."""
    return any(
        not set(one.keys).isdisjoint(other.keys) or (one.loose and one.loose == other.loose)
        for one in said
        for other in meant
    )


def is_form(word: Word, other: Word) -> bool:
    """Tell whether another word is the same, or a form of it; of a name or number there is none."""
    return not set(word.keys).isdisjoint(other.keys) or bool(
        word.loose and not word.is_exact and word.loose == other.loose
    )


def is_definite(words: list[Word], start: int) -> bool:
    """Tell whether a noun that begins at `words[start]`, or behind it, stands for what was named before, as "the company" does."""
    around = [word.text.casefold() for word in words[max(0, start - 1) : start + 1]]
    return not DEFINITE.isdisjoint(around)


def is_denied(words: list[Word]) -> bool:
    """Tell whether a text has a negation."""
    return any(word.kind is Kind.NEGATION for word in words)


def find_contradiction(said: list[Word], meant: list[Word], codes: Codes) -> str:
    """Find a negation that only one of two texts has."""
    denied = [word for word in said if word.kind is Kind.NEGATION and word.text.casefold() not in WEAK]
    is_turned = is_denied(meant) or any(map(_denies, meant))
    word = _find_negation(said, meant, codes) or (denied[0] if denied and not is_turned else None)
    if word and not (word.text.casefold() in NONE and _compares(said)):
        return f"The answer says '{word.text}', and the source does not."
    turned = [(tag, first, last, start, end) for tag, start, end, first, last in codes]
    if word := _find_negation(meant, said, turned):
        return f"The source says '{word.text}', and the answer does not."
    return ""


def _find_negation(said: list[Word], meant: list[Word], codes: Codes) -> Word | None:
    """Find a negation in the first text whose neighbours stand in the second one without any."""
    places = {
        start + step: first + step
        for tag, start, end, first, _ in codes
        if tag == "equal"
        for step in range(end - start)
    }
    are_denied = is_denied(meant)
    for place, word in enumerate(said):
        if word.kind is not Kind.NEGATION or place in places or word.text.casefold() in WEAK:
            continue
        before = [one for one in range(max(0, place - SCOPE_WORDS), place) if one in places]
        after = [one for one in range(place + 1, min(len(said), place + 1 + SCOPE_WORDS)) if one in places]
        near = [one for one in (*before, *after) if said[one].is_content]
        if not after or not near:
            continue
        first, last = places[before[-1]] if before else places[after[0]] - 1, places[after[0]]
        if not before and len(near) < 2:
            continue
        between = meant[max(0, first - 1) : last + 2]
        is_added = last - first == 1 and before[-1:] == [place - 1] and after[0] == place + 1
        if are_denied and not is_added:
            continue
        if last - first <= SCOPE_WORDS and not any(
            one.kind is Kind.NEGATION or (_denies(one) and not is_added) for one in between
        ):
            return word
    return None


def _denies(word: Word) -> bool:
    lower = word.text.casefold()
    return lower in DENIALS or (
        lower.startswith("un") and len(lower) > 6 and not lower.startswith(("under", "uni", "until"))
    )


def _compares(words: list[Word]) -> bool:
    """Such as "no city is larger": said otherwise, it has no negation."""
    return any(word.text.casefold() in ("than", "als") for word in words)


def find_opposite(words: list[Word], meant: list[Word]) -> str:
    """Find a word that the source contradicts by its opposite."""
    said = {word.text.casefold(): word for word in words}
    theirs = {word.text.casefold() for word in meant}
    for lower, word in said.items():
        opposite = OPPOSITES.get(lower)
        if opposite in theirs and lower not in theirs and opposite not in said:
            return f"The answer says '{word.short}', and the source says '{opposite}'."
    return ""


def is_noun(words: list[Word], start: int, end: int) -> bool:
    """Guess whether `words[start:end]` begin with a noun or a name: verbs are put in other words more often."""
    before = words[start - 1].text.casefold() if start else ""
    after = words[end].text.casefold() if end < len(words) else ""
    if any(word.text[0].isupper() or word.text[0] >= "\u0900" for word in words[max(1, start) : end]):
        return True
    return not before or before in BEFORE_NOUNS or words[start].text.casefold() in BEFORE_NOUNS or after in AFTER_NOUNS
