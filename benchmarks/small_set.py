"""Ask plain questions about small sets of documents, without an LLM, in words that are often others than theirs.

`benchmarks/data/small` has eight folders of three or four short pages: what a shop, a club or a museum tells its people. The first four
were used to tune, the others were not. Each is a store of its own, with fifteen questions that it answers and six that it does not.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.answer_set import Seen, ask
from benchmarks.evaluate import measure_with_service
from ragq.api_client import ApiClient
from ragq.evaluation.dataset import Dataset, Document, Question
from ragq.evaluation.formats import read_dataset
from ragq.evaluation.measures import holds_one
from ragq.evaluation.store import fill_store
from ragq.models import CERTAIN

FOLDER = Path(__file__).parent / "data" / "small"
HALVES = {"tuned": ("api", "club", "handbook", "shop"), "held_out": ("dentist", "helpdesk", "house", "museum")}
AT_ONCE = 4


async def evaluate(client: ApiClient) -> dict[str, Any]:
    """Ask each set's questions."""
    figures = {}
    for half, names in HALVES.items():
        asked = [pair for name in names for pair in await _ask_all(client, name)]
        figures[half] = _count(asked)
    return figures


async def _ask_all(client: ApiClient, name: str) -> list[tuple[Question, Seen]]:
    questions = read_dataset(FOLDER / name / "questions.jsonl").questions
    documents = [Document(path.name, path) for path in sorted((FOLDER / name / "documents").iterdir())]
    dataset = Dataset(name, questions, documents)
    async with fill_store(client, dataset, keep=False, concurrency=AT_ONCE, advance=lambda _: None) as store:
        slots = asyncio.Semaphore(AT_ONCE)

        async def take(question: Question) -> Seen:
            async with slots:
                return await ask(client, store.id, question.text)

        answers = await asyncio.gather(*map(take, questions))
    return list(zip(questions, answers, strict=True))


def _count(asked: Sequence[tuple[Question, Seen]]) -> dict[str, int]:
    answerable = [(holds_one(seen.text, one.contains), seen, one) for one, seen in asked if not one.is_unanswerable]
    others = [seen for one, seen in asked if one.is_unanswerable]
    certain = [is_right for is_right, seen, _ in answerable if seen.confidence >= CERTAIN]
    return {
        "answerable": len(answerable),
        "useful": sum(is_right for is_right, _, _ in answerable),
        "first_quote_right": sum(holds_one(seen.first, one.contains) for _, seen, one in answerable),
        "refused_answerable": sum(seen.refuses for _, seen, _ in answerable),
        "certain": len(certain),
        "right_of_certain": sum(certain),
        "unanswerable": len(others),
        "refused_or_not_certain_unanswerable": sum(seen.confidence < CERTAIN for seen in others),
        "refused_unanswerable": sum(seen.refuses for seen in others),
    }


def main() -> None:
    """Measure with a service in a temporary folder."""
    argparse.ArgumentParser(prog="python -m benchmarks.small_set", description=__doc__).parse_args()
    measure_with_service(evaluate)


if __name__ == "__main__":
    main()
