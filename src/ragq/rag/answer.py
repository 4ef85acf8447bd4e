"""Answer without an LLM: the sentences of the documents that fit the question best, word for word."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace

from ragq.models import CERTAIN, Answer, Citation, SearchResult
from ragq.rag.blocks import MAX_TERM_CHARACTERS, asks_what_to_do, find_term, is_listed_option, lists_links
from ragq.rag.citing.cite import make_citation
from ragq.rag.citing.sentence import goes_on
from ragq.rag.citing.support import read_statements
from ragq.rag.citing.wording import is_english, read_words
from ragq.rag.confidence import UNCERTAIN, Confidence, find_absent, is_sure, judge, weigh_reading
from ragq.rag.identifiers import find_identifiers, fold_case, holds_identifier
from ragq.rag.names import name_document
from ragq.rag.passages import choose_best, drop_overlaps, find_nearest, find_others, make_whole
from ragq.rag.scoring import Sentence, cover, fit, fit_best, weigh_terms
from ragq.rag.sentences import find_terms
from ragq.rag.synonyms.near import NearTerms
from ragq.rag.synonyms.table import Synonyms, read_synonyms
from ragq.tasks import run_through

NO_DOCUMENTS = "Nothing was found to answer from. Ingest documents first, or name a store that has some."
NO_ANSWER = "The documents do not answer this question."
NOT_CERTAIN = "No sentence answers this for certain. Nearest passages:"
SURE = 0.8  # confidence from which a certain answer to a task is followed by one passage alone
HEADING_CHARACTERS = 500  # its end names what is nearest
# Tuned on the first half of XQuAD-en, with MiniLM's similarities and the store's fused scores, which are weighed against how
# a sentence fits.
SCORE_WEIGHT = 1.0
SIMILARITY_WEIGHT = 0.7
LINES_CHARACTERS = 300  # a line of a form or a list is quoted with lines near it, up to this
LINES_GAIN = 0.1  # coverage that each must add
READ_SENTENCES = 4  # at most, where the words alone would refuse
FEW_WORDS = 15  # of a sentence, which says less by itself
IDENTIFIER_BONUS = 0.5  # for a sentence that has the codes and numbers that the question names


@dataclass(slots=True)
class Draft:
    """What there is to answer a question from; a cross-encoder may have a say before it is finished.

    Attributes:
        results: The chunks found, best first.
        near: What means the same as the question's terms.
        sentences: Those of the chunks, in their order.
        weights: Of the question's terms.
        scored: The sentences with their scores, the best first.
        following: What stands after the best chunk in its document, to go on with.
        times_read: How many of the sentences were read.
        is_task: The question asks what to do.
        by_words: How sure the words alone are of the best one.
        confidence: Of the best one.
    """

    question: str
    results: list[SearchResult]
    near: NearTerms
    sentences: list[Sentence]
    weights: dict[str, float]
    scored: list[tuple[float, Sentence]]
    following: SearchResult | None = None
    times_read: int = 0
    is_task: bool = field(init=False)
    by_words: Confidence = field(init=False)
    confidence: Confidence = field(init=False)
    _unread: Sentence | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.is_task = asks_what_to_do(self.question)
        self.by_words = self.confidence = self._judge(self._take_unread())

    def find_unread(self) -> str | None:
        """The next sentence that the cross-encoder should read, with the one before if need be; None if enough is known.

        It reads the best one if the words leave it in doubt, and more, until one answers, if the words alone would refuse. It knows
        English alone, and is not asked about what to do, for which nothing is fitted.
        """
        most = READ_SENTENCES if self.by_words.value < UNCERTAIN else int(not is_sure(self.by_words))
        has_answer = bool(self.times_read) and self.confidence.value >= CERTAIN
        if has_answer or self.times_read >= min(most, len(self.scored)) or self.is_task:
            return None
        sentence = self._take_unread()
        is_readable = is_english(self.question, sentence.text)
        return _with_sentence_before(sentence) if is_readable and not _lacks_number(self.question, sentence) else None

    def note_reading(self, score: float) -> None:
        """Judge the sentence that was read anew; if it is the surest so far, it is the best.

        Args:
            score: As `CrossEncoder.read` gives it.
        """
        by_words = self._judge(self._take_unread()) if self.times_read else self.by_words
        confidence = weigh_reading(by_words, score)
        if not self.times_read or confidence.value > self.confidence.value:
            self.confidence = confidence
            self.scored.insert(0, self.scored.pop(self.times_read))
        self.times_read += 1
        self._unread = None

    def finish(self) -> Answer:
        """Quote the best sentences, show the nearest passages, or refuse."""
        question, confidence = self.question, self.confidence
        if confidence.value < UNCERTAIN:
            return _refuse(confidence)
        if confidence.value < CERTAIN:
            nearest = find_nearest(self.scored, self.following, is_task=self.is_task)
            return _quote(nearest, confidence, text=NOT_CERTAIN, gap="\n\n")
        chosen = [_add_lines(one, self.sentences, self.weights) for one in choose_best(self.scored)]
        quotes = drop_overlaps([make_whole(one, question) for one in chosen])
        if self.is_task:
            is_sure = confidence.value >= SURE
            quotes += find_others(question, self.scored, quotes, self.following, is_sure=is_sure)
        return _quote(quotes, confidence)

    def _take_unread(self) -> Sentence:
        if self._unread is None:
            self._unread = _add_lines(self.scored[self.times_read][1], self.sentences, self.weights)
        return self._unread

    def _judge(self, sentence: Sentence) -> Confidence:
        how_well = fit_best(self.question, sentence, self.sentences, self.weights, self.near)
        return judge(self.results, how_well, is_task=self.is_task)


def _with_sentence_before(sentence: Sentence) -> str:
    """The text of a sentence; with the one before if it is short, or goes on from that."""
    source = sentence.source
    if source.location.unit == "row" or not (goes_on(sentence.text) or len(sentence.text.split()) < FEW_WORDS):
        return sentence.text
    before = [first for (first, last), _ in read_statements(source) if last <= sentence.start]
    return source.text[before[-1] if before else sentence.start : sentence.end]


def _lacks_number(question: str, sentence: Sentence) -> bool:
    """Tell whether a passage lacks a number of the question: what it says of another is no answer, however it reads."""
    passage = sentence.context | find_terms(sentence.source.text)
    numbers = [find_terms(word.text) for word in read_words(question) if any(map(str.isdigit, word.text))]
    return any(terms.isdisjoint(passage) for terms in numbers if terms)


def answer_extractively(
    question: str,
    results: list[SearchResult],
    *,
    following: SearchResult | None = None,
    trust_similarity: bool = True,
    synonyms: Synonyms | None = None,
) -> Answer:
    """Quote what answers a question, the best first; if that is not certain, say so and show the nearest passages.

    Args:
        results: Best first, as the search gave them.
        following: What stands after the best one in its document; shown beside it if the question asks what to do.
        trust_similarity: The similarities are MiniLM's; those of another model do not count beside the words.
        synonyms: Words that mean the same; None for ragq's own lists.
    """
    draft = run_through(
        draft_in_steps(question, results, following, trust_similarity=trust_similarity, synonyms=synonyms)
    )
    return draft.finish() if isinstance(draft, Draft) else draft


def draft_in_steps(
    question: str,
    results: list[SearchResult],
    following: SearchResult | None = None,
    *,
    trust_similarity: bool = True,
    synonyms: Synonyms | None = None,
) -> Generator[None, None, Draft | Answer]:
    """Find what answers a question, or nothing, in steps of a few milliseconds; the arguments are those of `answer_extractively`."""
    if not results:
        return _refuse(Confidence(0.0, "No passage was found."), NO_DOCUMENTS)
    if absent := find_absent(question, results):
        return _refuse(Confidence(0.0, f"'{absent}' stands in none of the passages found."))
    sentences: list[Sentence] = []
    asked = " ".join(question.split()).casefold()
    near = NearTerms(question, synonyms or read_synonyms(None, "en"))
    for result in results:
        sentences += _read(result, asked, near)
        yield
    weights = weigh_terms(question, sentences, near)
    scored = yield from _score(question, sentences, weights, trust_similarity=trust_similarity)
    if not scored:
        return _refuse(Confidence(0.0, "The passages found have no sentence."))
    return Draft(question, results, near, sentences, weights, scored, following)


def _refuse(confidence: Confidence, text: str = NO_ANSWER) -> Answer:
    return Answer(text, [], "extractive", confidence=confidence.value, reason=confidence.reason)


def _score(
    question: str, sentences: list[Sentence], weights: dict[str, float], *, trust_similarity: bool
) -> Generator[None, None, list[tuple[float, Sentence]]]:
    """Score the sentences; the best comes first."""
    known = [one.source.similarity for one in sentences if one.source.similarity is not None and trust_similarity]
    lowest = min(known, default=0.0)
    identifiers = find_identifiers(question)
    scored: list[tuple[float, Sentence]] = []
    for sentence in sentences:
        source = sentence.source
        similarity = lowest if source.similarity is None or not known else source.similarity
        score = fit(sentence, weights) + SCORE_WEIGHT * source.score + SIMILARITY_WEIGHT * similarity
        if identifiers and all(holds_identifier(fold_case(sentence.text), one) for one in identifiers):
            score += IDENTIFIER_BONUS
        scored.append((score, sentence))
        yield
    scored.sort(key=lambda one: -one[0])
    return scored


def _read(result: SearchResult, asked: str, near: NearTerms) -> Iterator[Sentence]:
    """Read the sentences of a chunk, but for its headings and questions; these lend their terms to what follows them.

    Args:
        asked: The question; a sentence that repeats it, such as an example, does not gain by that.
    """
    statements, mark = read_statements(result), near.mark
    spans = [span for span, _ in statements]
    terms = [mark(set(known)) for _, known in statements]
    if asked.endswith("?") and result.location.unit != "row":  # a row may have a question and its answer
        repeated = [" ".join(result.text[start:end].split()).casefold() for start, end in spans]
        for place, said in enumerate(repeated):
            if asked in said:
                terms[place] = mark(find_terms(said.replace(asked, "")))
    about = (result.heading or "")[-HEADING_CHARACTERS:]
    if result.location.unit == "row":  # a row does not say what its table is about
        about += f" {name_document(result.filename, '')}"
    heading = mark(find_terms(about))
    asks = [result.text[start:end].rstrip("*_\"'”’»)").endswith(("?", "？")) for start, end in spans]
    titles = {part.strip().casefold() for part in (result.heading or "").split("›")}
    for place, (start, end) in enumerate(spans):
        if asks[place] or _only_leads_on(result.text[start:end], titles, is_last=place + 1 == len(spans)):
            continue
        own = terms[place] | (terms[place - 1] if place and asks[place - 1] else set())
        term = find_term(result.text, start, end)
        defined = mark(find_terms(result.text[term:start][:MAX_TERM_CHARACTERS])) if term is not None else set()
        context = heading.union(defined, *terms[max(0, place - 1) : place + 2])
        yield Sentence(result, start, end, own, context)


def _only_leads_on(text: str, titles: set[str], *, is_last: bool) -> bool:
    """Whether a sentence is a title, a list of links, or the name of an option that is quoted with what stands after it."""
    return text.casefold() in titles or lists_links(text) or (not is_last and is_listed_option(text))


def _add_lines(sentence: Sentence, sentences: list[Sentence], weights: dict[str, float]) -> Sentence:
    """Let a line of a form or a list grow by the lines near it that add terms of the question: a name, then its number."""
    text = sentence.source.text
    others = [one for one in sentences if one.source is sentence.source]
    while True:
        gain, grown = LINES_GAIN, None
        for other in others:
            start, end = min(sentence.start, other.start), max(sentence.end, other.end)
            added = cover(other.terms - sentence.terms, weights)
            between = text[min(sentence.end, other.end) : max(sentence.start, other.start)]
            if end - start <= LINES_CHARACTERS and added > gain and "\n" in between:
                within = (one.terms for one in others if start <= one.start and one.end <= end)
                gain, grown = added, replace(sentence, start=start, end=end, terms=set().union(*within))
        if grown is None:
            return sentence
        sentence = grown


def _quote(chosen: list[Sentence], confidence: Confidence, *, text: str = "", gap: str = " ") -> Answer:
    citations: list[Citation] = []
    for sentence in chosen:
        text += ("\n\n" if text and "\n" in sentence.text else gap if text else "") + sentence.text
        citations.append(make_citation(sentence.source, sentence.start, sentence.end, index=len(text)))
    return Answer(text, citations, "extractive", confidence=confidence.value, reason=confidence.reason)
