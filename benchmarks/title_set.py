"""Ask for the titles of sections in a folder of HTML documentation, and count how often its file is first.

The questions are up to 500 headings of the second level and below that stand in one file only.
Any documentation of many pages serves: `apt-get download python3-doc` and `dpkg-deb -x`, for example.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from collections import defaultdict
from pathlib import Path

from selectolax.lexbor import LexborHTMLParser

from benchmarks.evaluate import measure_with_service
from ragq.api_client import ApiClient
from ragq.evaluation.asking import Examiner
from ragq.evaluation.dataset import Dataset, Document, Question
from ragq.evaluation.measures import summarize
from ragq.evaluation.store import fill_store

AT_ONCE = 4
QUESTIONS = 500
FEWEST_WORDS = 2  # a heading of one word, such as Examples, is of no page in particular
FURNITURE = re.compile(
    r"table of contents|(previous|next) topic|this page|navigation|quick search|see also", re.IGNORECASE
)


def read_titles(path: Path) -> set[str]:
    """Read the headings of a page, without numbers before them and marks after them."""
    tree = LexborHTMLParser(path.read_bytes())
    titles = (" ".join(node.text(separator="").split()) for node in tree.css("h2, h3, h4"))
    return {re.sub(r"^[\dA-Z]+(\.\d+)*\.? (?=\w)|[¶#]$", "", title).strip() for title in titles}


def make_dataset(folder: Path, seed: int) -> Dataset:
    """Choose titles, and take each page of the folder as a document."""
    pages = sorted(path for path in folder.rglob("*.html") if path.is_file() and not path.is_symlink())
    where: dict[str, set[str]] = defaultdict(set)
    said: dict[str, str] = {}
    for path in pages:
        for title in read_titles(path):
            where[title.casefold()].add(path.relative_to(folder).as_posix())
            said[title.casefold()] = title
    telling = sorted(
        key
        for key, files in where.items()
        if len(files) == 1 and len(re.findall(r"\w{2,}", key)) >= FEWEST_WORDS and not FURNITURE.fullmatch(key)
    )
    chosen = random.Random(seed).sample(telling, min(QUESTIONS, len(telling)))
    questions = [Question(id=key, text=said[key], place=key, files=dict.fromkeys(where[key], 1)) for key in chosen]
    return Dataset(folder.name, questions, [Document(path.relative_to(folder).as_posix(), path) for path in pages])


async def evaluate(client: ApiClient, dataset: Dataset) -> dict[str, object]:
    """Ingest the pages, search with each title, and list those whose page is not first."""
    filling = fill_store(client, dataset, keep=False, concurrency=AT_ONCE, advance=lambda _: None)
    async with filling as store:
        examiner = Examiner(client, store.id, ["retrieval"])
        results = await examiner.examine_all(dataset.questions, concurrency=AT_ONCE, advance=lambda _: None)
    missed = [one for one in results if not one.measures.get("recall_at_1")]
    return {
        "pages": len(dataset.documents),
        "faults": len(store.faults),
        "questions": len(results),
        **{name: round(found.mean, 4) for name, found in summarize(one.measures for one in results).items()},
        "missed": [f"{one.question}: {one.files[0]}, not {(one.found or ['-'])[0]}" for one in missed],
    }


def main() -> None:
    """Measure with a service in a temporary folder."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.title_set", description=__doc__)
    parser.add_argument("folder", type=Path, help="HTML documentation")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    dataset = make_dataset(arguments.folder, arguments.seed)
    if not dataset.questions:
        sys.exit(f"{arguments.folder} has no HTML pages with titles of their own.")

    measure_with_service(lambda client: evaluate(client, dataset))


if __name__ == "__main__":
    main()
