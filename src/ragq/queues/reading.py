"""Let the cross-encoder read where words leave it in doubt which sentence answers a question."""

from __future__ import annotations

from ragq.client.minilm.cross_encoder import CrossEncoder
from ragq.models import Answer
from ragq.rag.answer import Draft
from ragq.rag.blocks import asks_what_to_do
from ragq.rag.citing.cite import Cited
from ragq.rag.citing.judge import apply_judgement
from ragq.rag.citing.rivals import Marked
from ragq.rag.citing.wording import is_english
from ragq.rag.confidence import Reading

MOST_READ = 24  # sentences for one answer of an LLM
AS_READ = (
    "Of the sentences that may answer the question, the one that has this reads like the answer.",
    "The sentence that has this does not read like the answer to the question.",
)


async def read_draft(encoder: CrossEncoder, draft: Draft) -> Answer:
    """Finish an answer without an LLM."""
    while (sentence := draft.find_unread()) is not None:
        reading = await encoder.read(draft.question, sentence)
        draft.note_reading(reading.score)
    return draft.finish()


async def read_doubts(encoder: CrossEncoder, question: str, cited: Cited) -> Cited:
    """Judge statements of an LLM's answer anew that answer the question in short, if words leave it in doubt."""
    if asks_what_to_do(question):  # for which it was not trained
        return cited
    readings: dict[Marked, Reading] = {}
    judgement: dict[int, bool] = {}
    for place, rivalry in cited.doubts.items():
        if not rivalry.rivals and len(cited.statements) > 1:
            continue  # it may be something else that is worth saying
        if len({*readings, *rivalry.sentences}) > MOST_READ or not is_english(
            question, *(one.text for one in rivalry.sentences)
        ):
            continue
        while (sentence := rivalry.find_unread(readings)) is not None:
            readings[sentence] = await encoder.read(question, sentence.text, sentence.answer)
        judgement[place] = not rivalry.is_lost_as_read(readings)
    statements, citations = apply_judgement(cited.statements, cited.citations, judgement, reasons=AS_READ)
    return cited._replace(statements=statements, citations=citations)
