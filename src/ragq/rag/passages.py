"""What is shown of the passages found: the best sentences, what belongs to them, and the nearest passages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from ragq.models import SearchResult
from ragq.rag.blocks import asks_for_several, asks_how, find_blocks, find_paragraph, find_term
from ragq.rag.identifiers import find_identifiers, fold_case, holds_identifier
from ragq.rag.scoring import Sentence
from ragq.rag.sentences import find_sentences

PASSAGES = 3  # shown where no sentence answers for certain
TASK_PASSAGES = 2  # and of a question that asks what to do
TASK_SENTENCES = 3  # after them, of each other passage
TASK_SOURCES = 10  # of which something is shown then
WHOLE_CHARACTERS = 1000  # up to which a passage is shown whole
PASSAGE_CHARACTERS = 400  # of a longer one
SECOND_SHARE = 0.8  # a second sentence needs this share of the first one's score

Scored = list[tuple[float, Sentence]]
"""Sentences with their scores, the best first."""


def choose_best(scored: Scored) -> list[Sentence]:
    """Take the best sentence and the next best that says something else."""
    (best_score, best), *others = scored
    for score, second in others:
        if score < SECOND_SHARE * best_score:
            break
        if second.text not in best.text and best.text not in second.text:
            return [best, second]
    return [best]


def drop_overlaps(chosen: list[Sentence]) -> list[Sentence]:
    """Keep the longer of two quotes that overlap, as they may after both have grown."""
    first = min(chosen, key=lambda one: one.start - one.end)
    return [
        one
        for one in chosen
        if one is first or one.source is not first.source or one.end <= first.start or first.end <= one.start
    ]


def make_whole(sentence: Sentence, question: str) -> Sentence:
    """Give what a sentence is a part of: the list or piece of code, the paragraph, the definition with its term."""
    source, text = sentence.source, sentence.source.text
    if source.location.unit == "row":
        return sentence
    if asks_for_several(question) or sentence.text.endswith(":"):
        for start, end in find_blocks(text):
            if start <= sentence.start < end:
                return replace(sentence, start=start, end=max(end, sentence.end))
    if asks_how(question):
        start, end = find_paragraph(text, sentence.start, sentence.end)
        sentence = replace(sentence, start=start, end=end)
    return _add_term(sentence)


def _add_term(sentence: Sentence) -> Sentence:
    """Begin with the term that a sentence defines or describes, if it does."""
    source = sentence.source
    if source.location.unit == "row" or (term := find_term(source.text, sentence.start, sentence.end)) is None:
        return sentence
    return replace(sentence, start=term)


def find_others(
    question: str, scored: Scored, quotes: list[Sentence], following: SearchResult | None, *, is_sure: bool
) -> list[Sentence]:
    """The nearest passage that nothing is quoted of yet: what is to be done is often said in another than the best sentence's.

    If that one is not sure, then what follows the best passage, and the best sentence of each other passage, with its term.
    If the question names a code or number, all of these have it.

    Args:
        following: What stands after the best passage in its document, if anything does.
    """
    best = {id(one.source): one for one in quotes}
    quoted = set(best)
    for _, sentence in scored:
        best.setdefault(id(sentence.source), sentence)
    named = find_identifiers(question)
    others = [one for source, one in best.items() if source not in quoted and _holds_all(one.source.text, named)]
    others.sort(key=lambda one: -one.source.score)
    nearest = list(map(_take_whole, others[:1]))
    if is_sure:
        return list(_drop_repeats(nearest, quotes))
    top = _find_top(scored)
    goes_on = _go_on(top, following) if following and _holds_all(following.text, named) else []
    beginning = [*goes_on, *nearest] if id(top) in quoted else [*nearest, *goes_on]
    return list(_drop_repeats([*beginning, *map(_add_term, others[1:])], quotes))


def find_nearest(scored: Scored, following: SearchResult | None, *, is_task: bool) -> list[Sentence]:
    """The nearest passages, whole; for what to do, then the best sentences of each other one, with their terms.

    Args:
        following: As in `find_others`.
    """
    found: dict[int, list[Sentence]] = {}
    for _, sentence in scored:
        found.setdefault(id(sentence.source), []).append(sentence)
    first, *others = found.values()
    passages, most = (TASK_PASSAGES, TASK_SOURCES) if is_task else (PASSAGES, PASSAGES)
    if is_task:
        others.sort(key=lambda one: -one[0].source.score)  # the search's order is more often right for tasks
    top = _find_top(scored)
    chosen: list[Sentence] = []
    shown = 0
    for best in [first, *others]:
        parts = [_take_whole(best[0])] if shown < passages else _take_best(best[:TASK_SENTENCES])
        if following and best[0].source is top:
            parts += _go_on(top, following)
        if new := list(_drop_repeats(parts, chosen)):
            chosen += new
            shown += 1
        if shown == most:
            break
    return chosen


def _holds_all(text: str, identifiers: Iterable[str]) -> bool:
    folded = fold_case(text)
    return all(holds_identifier(folded, one) for one in identifiers)


def _drop_repeats(sentences: Iterable[Sentence], known: Iterable[Sentence]) -> Iterator[Sentence]:
    """Leave out what another one has in it."""
    kept = [one.text for one in known]
    for sentence in sentences:
        if not any(sentence.text in text for text in kept):
            kept.append(sentence.text)
            yield sentence


def _find_top(scored: Scored) -> SearchResult:
    """The best passage by the search."""
    return max((sentence.source for _, sentence in scored), key=lambda source: source.score)


def _go_on(passage: SearchResult, following: SearchResult) -> list[Sentence]:
    """What follows a passage, without what it repeats of that one's end."""
    text = following.text
    start = max(0, passage.end - following.start)
    start += len(text[start:]) - len(text[start:].lstrip())
    end = len(text.rstrip())
    return [Sentence(following, start, end, set(), set())] if start < end else []


def _take_best(sentences: list[Sentence]) -> list[Sentence]:
    """Give sentences of a passage with their terms, in their order; those that touch are one."""
    taken: list[Sentence] = []
    for sentence in sorted(map(_add_term, sentences), key=lambda one: one.start):
        last = taken[-1] if taken else None
        if last and not last.source.text[last.end : sentence.start].strip():
            taken[-1] = replace(last, end=max(last.end, sentence.end))
        else:
            taken.append(sentence)
    return taken


def _take_whole(sentence: Sentence) -> Sentence:
    text = sentence.source.text
    if len(text) > WHOLE_CHARACTERS or sentence.source.location.unit == "row":
        return _widen(sentence)
    return replace(sentence, start=len(text) - len(text.lstrip()), end=len(text.rstrip()))


def _widen(sentence: Sentence) -> Sentence:
    if sentence.source.location.unit == "row":
        return sentence
    for start, end in find_blocks(sentence.source.text):
        if start <= sentence.start < end:
            return replace(sentence, start=start, end=max(end, sentence.end))
    sentence = _add_term(sentence)
    ends = [end for _, end in find_sentences(sentence.source.text)]
    within = [end for end in ends if sentence.end < end <= sentence.start + PASSAGE_CHARACTERS]
    return replace(sentence, end=max([sentence.end, *within]))
