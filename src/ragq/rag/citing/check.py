"""Check a statement of an answer against the sources, by its words; no model is asked.

A statement is supported when a sentence of a source, or two in a row, hold it: all of its names and numbers, most of its
other words that the question does not have, and no negation or other word in the place of one. The words of the question
may be missing from the sentence, as where it says "it". Clauses may stand in different passages.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import cached_property
from heapq import nlargest
from itertools import islice

from ragq.models import SearchResult
from ragq.rag.citing.addresses import find_new_address
from ragq.rag.citing.alignment import (
    ALIGNED_SHARE,
    Codes,
    align,
    are_alike,
    count_matched,
    fills_place,
    find_changes,
    find_contradiction,
    find_opposite,
    is_definite,
    is_denied,
    is_noun,
)
from ragq.rag.citing.amounts import find_other_unit
from ragq.rag.citing.clauses import cut_clauses
from ragq.rag.citing.fits import Fits
from ragq.rag.citing.rivals import LOST, Rivals
from ragq.rag.citing.sentence import Said, Sentence, keys_of, read_name
from ragq.rag.citing.support import read_sentences
from ragq.rag.citing.unchecked import explain_unchecked
from ragq.rag.citing.verdict import Finding, Verdict, decide
from ragq.rag.citing.wording import Kind, Word, find_stems, find_word_stems, read_words

MAX_POSTINGS = 200  # sentences with a word that are looked at
MAX_SAID = 20_000  # characters of one message
CANDIDATES = 8  # sentences that are looked at closely
MAX_NAME = 500  # characters of a source's name and heading

# Tuned on statements about the first half of XQuAD.
LEAST_SHARE = 0.26  # of a statement's own words that a passage must hold
EXACT_WEIGHT = 2  # of a name or number among the own words
LEAST_REPEATED = 2  # words of the question; a statement with fewer is taken for an answer to all of it
LEAST_COVER = 0.7  # of what the best passage holds; others are not looked at
COPIED_SHARE = 0.85  # the same, for a replaced word that no source has
VERBATIM_SHARE = 0.93  # the same, for any word
COPIED_WORDS = 7  # that a copy has at the least
COPIED_FRAME = 4  # or so many, if these are all that were not replaced
CLAUSE_COVER = 0.8  # of a clause, for clauses in different passages to support what does not name many sources
ALL_WORDS = 0.999  # of a statement's words: all of them, but for rounding
PAIR_COST = 0.1  # of a statement's words that a second sentence must add

NAMES_SOURCE = "It names a source."

Places = dict[Word, frozenset[int]]  # of each word, the sentences that have it


class Evidence:
    """The sources of one answer, read once for all of its statements.

    Args:
        question: As the user asked it, and as it was searched for.
        said: What else the LLM was given, such as the conversation and what tools returned: it may be repeated.
    """

    def __init__(self, question: str, sources: list[SearchResult], *, said: list[str] | None = None) -> None:
        self.sources = sources
        self._question = question
        self._said = said or []
        self._repeatable: set[str] = set()
        self._asked = Sentence(-1, (0, 0), question)
        self._asked_content = [word for word in self._asked.words if word.is_content]
        self._sentences: list[Sentence] = []
        self._stems: list[frozenset[str]] = []  # of each sentence
        self._places: dict[str, frozenset[int]] = {}  # of a stem that was looked for, the sentences that have it

    def read(self) -> Generator[None, None, None]:
        """Find the sentences of the sources and their stems, in steps of a millisecond or less."""
        for text in self._said:
            self._repeatable |= find_stems(text[:MAX_SAID])
            yield
        for number, source in enumerate(self.sources):
            for span, stems in read_sentences(source):
                self._stems.append(stems)
                self._sentences.append(Sentence(number, span, source.text[slice(*span)]))
            yield

    def judge(self, text: str, named: list[int], *, is_whole: bool = True, marks: Sequence[int] = ()) -> Verdict:
        """Judge a statement; its clauses may stand in different passages, and then each has to.

        Args:
            text: The statement, without markers.
            named: Positions of the sources that its markers name, from 0.
            is_whole: It may answer the whole question by itself, unlike one of many values.
            marks: Offsets of the markers.
        """
        whole = self._judge(text, named, is_whole=is_whole)
        if whole.kind == "uncited" or _is_settled(whole):
            return whole
        clauses = cut_clauses(text, marks, eagerly=len(named) > 1 or whole.kind == "unsupported")
        # A label is no clause.
        if len(clauses) < 2 or (": " not in clauses[0] and self._read_value(text, repeats=True)):
            return whole
        verdicts = [self._judge(one, named, is_whole=False) for one in clauses]
        found = [one.found for one in verdicts if one.found]
        if len({(one.source, one.span) for one in found}) < 2:
            return whole
        for clause, verdict in zip(clauses, verdicts, strict=True):
            if verdict.kind == "unsupported":
                return (
                    verdict if verdict.found else replace(verdict, reason=f"No word of '{clause}' is in the sources.")
                )
        is_held = len(named) > 1 or all(one.weight >= CLAUSE_COVER and one.is_one_sentence for one in found)
        if whole.kind == "unsupported" and is_held:
            return Verdict("supported", next((one.reason for one in verdicts if one.reason), ""), found[0], found[1:])
        return whole

    def _judge(self, text: str, named: list[int], *, is_whole: bool) -> Verdict:
        """Judge a statement, or a clause of one, by single passages."""
        statement = self._read_statement(text, is_whole=is_whole)
        findings = self._find(statement)
        verdict = decide(findings, named, len(self.sources))
        if verdict.kind == "supported" and (address := find_new_address(text, self._given)):
            return Verdict("unsupported", f"'{address}' is neither in the sources nor in the question.", verdict.found)
        if verdict.kind == "unsupported" and (excuse := self._find_excuse(text, statement, findings)):
            return Verdict("uncited", excuse, verdict.found if named and excuse != NAMES_SOURCE else None)
        return verdict

    def _read_statement(self, text: str, *, is_whole: bool) -> Said:
        words = read_words(text)
        content = [word for word in words if word.says_something]
        new = [word for word in content if not self._asked.holds(word)]
        repeated = [word for word in content if self._asked.holds(word)]
        repeats = len(repeated) >= LEAST_REPEATED
        asked = repeated if repeats else self._asked_content * is_whole
        value = self._read_value(text, repeats=repeats)
        own = new or [word for word in value or () if word.is_content] or content
        label = text.partition(": ")
        subject = [word for word in read_words(label[0]) if word in new] if label[2] else []
        return Said(words, content, own, asked, repeats, value, subject)

    def _find_excuse(self, text: str, statement: Said, findings: list[Finding]) -> str:
        """Say why a statement that no source holds need not be held; empty if it must."""
        if self._repeatable and all(find_stems(word.text) <= self._repeatable for word in statement.content):
            return "It repeats what was said or what a tool returned."
        if findings and self._is_copy(statement, findings[0]):
            return ""
        if self._only_names(text):
            return NAMES_SOURCE
        return explain_unchecked(text, statement.in_order, statement.content, statement.own)

    def _read_value(self, text: str, *, repeats: bool) -> list[Word] | None:
        """The words of an answer such as "Height of the tower: 61 metres" that stand after the label.

        Args:
            repeats: The label has enough of the question; else it has to be the whole of it.
        """
        label, _, value = text.partition(": ")
        if not value:
            return None
        words, asked = read_words(label), self._asked.words
        is_label = all(self._asked.holds(word) for word in words if word.is_content)
        is_label &= repeats or len(words) >= len(asked) > 1
        if not is_label or is_denied(words) != is_denied(asked) or find_opposite(words, asked):
            return None
        return read_words(value)

    @cached_property
    def _given(self) -> str:
        """All that addresses may be from, in lower case."""
        return "\n".join([self._question, *self._said, *(one.text for one in self.sources)]).casefold()

    def _only_names(self, text: str) -> bool:
        """Whether nothing but names of sources is said, as in a list of them."""
        rest = text
        for source in self.sources:
            rest = rest.replace(source.filename, "")
        return rest != text and not any(word.says_something for word in read_words(rest))

    def _find(self, statement: Said) -> list[Finding]:
        """The best passage of each source, best first, each with why it does not hold the statement."""
        places = {word: self._find_places(word) for word in {*statement.content, *statement.asked}}
        weights = {word: self._weigh(word, len(places[word])) for word in statement.content}
        found: dict[int, Finding] = {}
        tried = self._try_windows(statement, places, weights)
        fits = Fits(statement.asked, places, self._sentences, lambda source: self._about[source])
        rivals = Rivals(self._asked, self._sentences, statement, fits)
        for cover, window in tried:
            if cover < LEAST_COVER * tried[0][0]:
                break
            source = self._sentences[window[0]].source
            before = found.get(source)
            if before and not before.fault:
                continue
            span = (self._sentences[window[0]].span[0], self._sentences[window[-1]].span[1])
            fault, rivalry = self._find_fault(window, statement), None
            if not fault and statement.is_answer and not self._is_about_another(window, statement):
                rivalry = rivals.find(window)
                fault = LOST if rivalry.is_lost else ""
            is_nearest = bool(fault) and cover == tried[0][0]
            changed = self._find_changed(window, statement) if is_nearest else None
            if before is None or not fault:
                is_altered = any(word.is_content for word in changed or ())
                found[source] = Finding(source, span, fault, cover, len(window) == 1, rivalry, is_altered)
            if changed is not None:
                break  # it is this sentence with something changed
        findings = sorted(found.values(), key=lambda one: (bool(one.fault), -one.weight))
        if not findings or findings[0].fault or statement.is_bare:
            return findings
        copied = self._find_copied(statement, tried, findings[0])
        return [copied] if copied else findings

    def _find_copied(
        self, statement: Said, tried: list[tuple[float, tuple[int, ...]]], held: Finding
    ) -> Finding | None:
        """Find a sentence that a statement copies more of than of the passage that holds its words, with these in the place of others."""
        said = statement.in_order
        passage = self.sources[held.source].text[slice(*held.span)]
        most = count_matched(align(said, read_words(passage)))
        for cover, window in tried if most < ALIGNED_SHARE * len(said) else ():
            sentence = self._sentences[window[0]]
            if len(window) > 1 or sentence.text in passage:
                continue
            codes = align(said, sentence.words)
            if count_matched(codes) >= most and (fault := self._replaces(said, sentence.words, codes)):
                return Finding(sentence.source, sentence.span, fault, cover)
        return None

    def _try_windows(
        self, statement: Said, places: Places, weights: dict[Word, float]
    ) -> list[tuple[float, tuple[int, ...]]]:
        """Sentences, and pairs, with most of the statement's words, and how much of it they have."""
        said = [(places[word], weights[word]) for word in statement.content]
        scores: dict[int, float] = defaultdict(float)
        for where, weight in said:
            for place in where:
                scores[place] += weight
        tried: list[tuple[float, tuple[int, ...]]] = []
        total = sum(weights.values()) or 1
        # Of a value behind the question's own words, other sentences may have more of those.
        first = {place for word in statement.own * (statement.value is not None) for place in places.get(word, ())}
        for place in nlargest(CANDIDATES, scores, key=lambda one: (one in first, scores[one])):
            for window in ((place,), (place, place + 1), (place - 1, place)):
                if self._is_window(window):
                    held = sum([weight for where, weight in said if not where.isdisjoint(window)])
                    cover = held / total - PAIR_COST * (len(window) - 1)
                    tried.append((cover, window))
        return sorted(tried, key=lambda one: (-one[0], len(one[1])))

    def _weigh(self, word: Word, count: int) -> float:
        """Rare words weigh more, and those that the question does not have."""
        rarity = math.log(1 + (len(self._sentences) + 0.5) / (count + 0.5))
        return rarity * (1 if self._asked.holds(word) else 2)

    def _find_places(self, word: Word) -> frozenset[int]:
        """The sentences that have a word, or another with its stem."""
        stems = find_word_stems(word.text)
        found = frozenset.intersection(*map(self._find_stem, stems)) if stems else frozenset()
        numbers = (key[1:] for key in word.keys if key[1:].isdigit())  # however they are written
        return found.union(*map(self._find_stem, numbers))

    def _find_stem(self, stem: str) -> frozenset[int]:
        if stem not in self._places:
            places = (place for place, stems in enumerate(self._stems) if stem in stems)
            self._places[stem] = frozenset(islice(places, MAX_POSTINGS))
        return self._places[stem]

    def _is_window(self, window: tuple[int, ...]) -> bool:
        """A sentence, or one with the next that goes on from it."""
        if not (window[0] >= 0 and window[-1] < len(self._sentences)):
            return False
        first, last = self._sentences[window[0]], self._sentences[window[-1]]
        return first is last or (first.source == last.source and last.goes_on)

    def _holds(self, window: tuple[int, ...], word: Word) -> bool:
        return any(self._sentences[place].holds(word) for place in window)

    @cached_property
    def _about(self) -> list[frozenset[str]]:
        """The words of each source's name and heading."""
        return [read_name(f"{one.filename} {one.heading or ''} {one.location}"[-MAX_NAME:]) for one in self.sources]

    def _find_fault(self, window: tuple[int, ...], statement: Said) -> str:
        """Why a passage does not hold a statement; empty if it does."""
        missing = [word for word in statement.own if not self._holds(window, word)]
        exact = [word for word in missing if word.is_exact and not self._is_initials(window, word)]
        if exact:
            return self._explain_missing(exact[0])
        sentences = [self._sentences[place] for place in window]
        words = [word for sentence in sentences for word in sentence.words]
        counts = [word for word in missing if word.kind is Kind.COUNT]
        if counts and any(word.kind in (Kind.COUNT, Kind.NUMBER) and word not in statement.content for word in words):
            return self._explain_missing(counts[0])
        total, lost = (sum(EXACT_WEIGHT if word.is_exact else 1 for word in one) for one in (statement.own, missing))
        if total - lost < LEAST_SHARE * total:
            return self._explain_missing(missing[0])
        said = statement.in_order
        codes = align(said, words)
        is_bare = statement.value is not None and statement.is_bare
        # A label that repeats a question with a negation has it in the value's place.
        is_turned = statement.value is not None and is_denied(statement.words)
        fault = "" if is_turned else find_contradiction(said, words, codes)
        fault = fault or find_opposite(said, words) or find_other_unit(said, words)
        if fault or is_bare:
            return fault
        for one in sentences if len(sentences) > 1 else ():
            if fault := self._replaces(said, one.words, align(said, one.words), in_copy=True):
                return fault
        return self._replaces(said, words, codes)

    def _is_about_another(self, window: tuple[int, ...], statement: Said) -> bool:
        return bool(statement.subject) and all(self._holds(window, word) for word in statement.subject)

    def _is_copy(self, statement: Said, found: Finding) -> bool:
        """Tell whether a statement has the words of a passage, and not words about the sources or to the reader."""
        said, passage = statement.in_order, self.sources[found.source].text[slice(*found.span)]
        return len(said) >= COPIED_WORDS and count_matched(align(said, read_words(passage))) >= COPIED_SHARE * len(said)

    def _find_changed(self, window: tuple[int, ...], statement: Said) -> list[Word] | None:
        """Find the words of a passage that a copy of it has others for; None of a statement that is no copy."""
        said = statement.words
        if len(said) < COPIED_WORDS:
            return None
        words = [word for place in window for word in self._sentences[place].words]
        codes = align(said, words)
        longest = max((end - start for tag, start, end, _, _ in codes if tag != "equal"), default=0)
        if count_matched(codes) < COPIED_SHARE * (len(said) - longest):
            return None
        changes = (one for one in find_changes(codes, said) if fills_place(said, *one[:2]))
        return [word for _, _, first, last in changes for word in words[first:last]]

    def _is_initials(self, window: tuple[int, ...], word: Word) -> bool:
        if not (word.text.isupper() and 2 <= len(word.text) <= 6):
            return False
        words = (one.text[0] for place in window for one in self._sentences[place].words if one.text[0].isupper())
        return word.text in "".join(words)

    def _explain_missing(self, word: Word) -> str:
        if self._find_places(word):
            return f"The sources have '{word.short}' elsewhere: no sentence of them holds this together."
        return f"'{word.short}' is neither in the sources nor in the question."

    def _replaces(self, ours: list[Word], theirs: list[Word], codes: Codes, *, in_copy: bool = False) -> str:
        """Find a word that stands where the source has another one, in a statement that is otherwise the source's.

        Args:
            in_copy: The rest of the statement must be a copy, since the words are those of one sentence of a passage.
        """
        matched, known = count_matched(codes), keys_of(theirs)
        for start, end, first, last in find_changes(codes, ours):
            said = [word for word in ours[start:end] if word.says_something]
            meant = [word for word in theirs[first:last] if word.is_content]
            if not said or not meant or are_alike(said, meant):
                continue
            others = len(ours) - (end - start)
            is_named = is_noun(ours, start, end)
            is_long = len(ours) >= COPIED_WORDS or (is_named and matched == others >= COPIED_FRAME)
            is_verbatim = is_long and matched >= VERBATIM_SHARE * others
            is_asked = all(self._asked.holds(word) for word in said)
            if is_asked and not (
                is_verbatim and (any(map(_is_fixed, meant)) or (is_named and not is_definite(theirs, first)))
            ):
                continue  # such as the name of what the source calls "the company"
            word = max(said, key=lambda one: one.is_exact)
            is_fixed = _is_fixed(word)
            is_copy = is_long and matched >= COPIED_SHARE * others
            is_other = (is_copy and (is_fixed or is_named)) or (
                is_fixed and not self._asked.holds(word) and known.isdisjoint(word.keys)
            )
            if is_verbatim or (is_other and not in_copy):
                return f"Where the answer says '{word.short}', the source says '{meant[0].short}'."
        return ""


def _is_fixed(word: Word) -> bool:
    return word.is_exact or word.kind is Kind.COUNT


def _is_settled(whole: Verdict) -> bool:
    """Whether clauses need no look: one sentence has all of the words, or the statement is an altered copy of a passage."""
    found = whole.found
    if not found:
        return False
    return found.is_altered if whole.kind == "unsupported" else found.is_one_sentence and found.weight > ALL_WORDS
