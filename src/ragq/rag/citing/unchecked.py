"""Tell why a statement need not be supported: it says what the sources lack, leads to others, or speaks to the reader."""

from __future__ import annotations

from collections.abc import Sequence

from ragq.rag.citing.lexicon import (
    ASKING,
    I_SAY,
    KNOWING,
    POLITE,
    REFUSING,
    SAYING,
    SMALL_TALK,
    SOURCES,
    TALK,
    TOLD,
    UNTOLD,
)
from ragq.rag.citing.wording import Kind, Word


def explain_unchecked(text: str, words: Sequence[Word], content: Sequence[Word], own: Sequence[Word]) -> str:
    """Say why a statement is not checked; empty if it is.

    Args:
        words: All of it, or of what it has behind a label that is the question.
        content: Those that say something.
        own: Those of `content` that the question does not have, if there are any.
    """
    lower = [word.text.casefold() for word in words]
    if not content:
        return "It says nothing that could be checked."
    if _is_refusal(words, lower):
        return "It says what the sources do not hold."
    is_denied = any(word.kind is Kind.NEGATION for word in words)
    leads = text.rstrip("*_ ").endswith((":", "?", "：", "？"))
    exact = (word.is_exact or (word.kind is Kind.COUNT and not leads) for word in own if word.text not in POLITE)
    if any(exact):
        return ""
    if _ends_with(UNTOLD, lower) or (is_denied and _ends_with(TOLD, lower)):
        return "It says what the sources do not hold."
    if leads or not TALK.isdisjoint(lower) or SMALL_TALK.issuperset(word.text.casefold() for word in content):
        return "It speaks to the reader, or leads to what follows."
    return ""


def _is_refusal(words: Sequence[Word], lower: Sequence[str]) -> bool:
    if not any(word.kind is Kind.NEGATION for word in words) and REFUSING.isdisjoint(lower):
        return False
    speaks = not SAYING.isdisjoint(lower)
    return (speaks and not SOURCES.isdisjoint(lower)) or (not I_SAY.isdisjoint(lower) and not KNOWING.isdisjoint(lower))


def _ends_with(known: frozenset[str], lower: Sequence[str]) -> bool:
    """Tell whether one of some words is the last one, or what is asked follows it: "It is unclear who owns it"."""
    return any(
        word in known and (not after or after in ASKING) for word, after in zip(lower, [*lower[1:], ""], strict=True)
    )
