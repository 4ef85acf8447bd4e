"""Ask for the titles of sections in a folder of HTML documentation, and count how often its file is first.

The questions are up to 500 headings of the second level and below. Each stands in one file only, be it as that page's own title and
whatever its case and punctuation, and not in one that is mainly a list of links.
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


NUMBER = re.compile(r"^(?:\d+(?:\.\d+)*\.?|[A-Z](?:\.\d+)+\.?) (?=\w)")
CONTENT = "[role=main], main, article"
MOST_LINKS = 0.5  # share of a page's text, from which it is a list of links


def read_titles(tree: LexborHTMLParser, headings: str) -> set[str]:
    """Read the headings of a page, without numbers before them and marks after them."""
    titles = (" ".join(node.text(separator="").split()) for node in tree.css(headings))
    return {NUMBER.sub("", title.rstrip("¶#")).strip() for title in titles}


def lists_links(tree: LexborHTMLParser) -> bool:
    """Whether a page is mainly a list of links, such as a table of contents or an index."""
    content = tree.css_first(CONTENT) or tree.body
    if content is None:
        return True
    linked = sum(len(node.text()) for node in content.css("a"))
    return linked > MOST_LINKS * len(" ".join(content.text().split()))


def name_title(title: str) -> str:
    """What two titles have in common that differ in case and punctuation alone."""
    return " ".join(re.findall(r"\w+", title.casefold()))


def make_dataset(folder: Path, seed: int) -> Dataset:
    """Choose titles, and take each page of the folder as a document."""
    pages = sorted(path for path in folder.rglob("*.html") if path.is_file() and not path.is_symlink())
    where: dict[str, set[str]] = defaultdict(set)
    said: dict[str, str] = {}
    for path in pages:
        tree = LexborHTMLParser(path.read_bytes())
        for title in read_titles(tree, "h1, h2, h3, h4"):
            where[name_title(title)].add(path.relative_to(folder).as_posix())
        if not lists_links(tree):
            said |= {name_title(title): title for title in read_titles(tree, "h2, h3, h4")}
    telling = sorted(
        key
        for key in said
        if len(where[key]) == 1 and len(re.findall(r"\w{2,}", key)) >= FEWEST_WORDS and not FURNITURE.fullmatch(key)
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
