"""Read the words of a question: which others mean the same and, if it asks what to do, which of them say little."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache

from ragq.rag.blocks import asks_what_to_do
from ragq.rag.sentences import STOP_WORDS
from ragq.rag.synonyms.table import Synonyms
from ragq.rag.words import Word, question_words, stem

# What a task is told with in many ways; in a short document such a word may be rare, and still says nothing.
FILLERS = frozenset(
    "want wants wanted need needs like able possible way ways please try make makes made making use uses used using"
    " get gets got getting put give gives let lets see seen look go goes going take takes come happen happens certain"
    " particular given specific some someone somebody something somewhere any anyone anybody anything anywhere every"
    " everyone everybody everything everywhere all each other others another same such several various just only really"
    " actually simply easily always never again still already now later here there too very so well good best"
    " without instead while before after when once one ones new thing things lot rather more most no"
    " out up off down over back away through during between"
    " möchte will brauche muss soll bestimmte bestimmten bestimmter andere anderen anderer anderes etwas jemand alle alles"
    " jede jeder jedes nur ohne statt wieder noch schon neue neuen neuer neues machen gibt geht"
    " quiero necesito debo puedo hacer usar cierto cierta otro otra otros otras algo alguien todo toda todos todas cada"
    " solo sin vez nuevo nueva mismo misma".split()
)
LITTLE_EMPHASIS = 0.4  # by what the weight of these is multiplied


@cache
def _little_forms(languages: tuple[str, ...]) -> frozenset[str]:
    return frozenset(form for word in question_words(" ".join(sorted(FILLERS)), languages) for form in word.forms)


def asked_words(text: str, languages: Iterable[str], synonyms: Synonyms) -> list[Word]:
    """The words of a question, as `question_words` gives them, with the forms of those that mean the same."""
    known, is_task = tuple(languages), asks_what_to_do(text)
    words = question_words(text, known)
    asked = {form for word in words for form in word.forms}
    little = _little_forms(known) if is_task else frozenset[str]()
    near: dict[Word, tuple[str, ...]] = {}
    besides: list[Word] = []
    for meant in synonyms.find(text, is_task=is_task):
        read = [one for word in meant.words for one in question_words(word, known)]
        telling = [one for one in read if not set(one.forms) <= little]
        forms = dict.fromkeys(stem(other.replace("-", ""), language) for other in meant.others for language in known)
        others = tuple(form for form in forms if form not in asked | little)
        if all(word.casefold() in STOP_WORDS for word in meant.words):
            besides.append(Word(others, says_little=True))
        elif first := next(iter(telling or read), None):
            near[first] = tuple(dict.fromkeys([*near.get(first, ()), *others]))
    return [
        *(replace(word, near=near.get(word, ()), says_little=set(word.forms) <= little) for word in words),
        *(word for word in besides if word.forms),
    ]
