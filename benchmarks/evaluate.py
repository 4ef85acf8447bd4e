"""Measure retrieval over the HTTP API: XQuAD's paragraphs as files, its questions as searches; prints JSON."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from ragq.api_client import ApiClient
from ragq.evaluation.asking import Examiner
from ragq.evaluation.formats import read_dataset
from ragq.evaluation.measures import summarize
from ragq.evaluation.store import fill_store
from ragq.settings import read_settings
from ragq.up import Fleet

AT_ONCE = 6


async def evaluate(client: ApiClient, path: Path) -> dict[str, float]:
    """Ingest every paragraph, search with every question, and compare the found paragraphs with the right one."""
    dataset, started = read_dataset(path), time.monotonic()
    filling = fill_store(client, dataset, keep=False, concurrency=AT_ONCE, advance=lambda _: None)
    async with filling as store:
        ingested = time.monotonic()
        examiner = Examiner(client, store.id, ["retrieval"])
        results = await examiner.examine_all(dataset.questions, concurrency=AT_ONCE, advance=lambda _: None)
        ended = time.monotonic()
    return {
        "paragraphs": len(dataset.documents),
        "questions": len(dataset.questions),
        **{name: round(found.mean, 4) for name, found in summarize(one.measures for one in results).items()},
        "ingest_seconds": round(ingested - started, 1),
        "search_seconds": round(ended - ingested, 1),
    }


def run_with_service(
    description: str | None, name: str, target: str, evaluate: Callable[[ApiClient, Path], Awaitable[dict[str, Any]]]
) -> None:
    """Start a service in a temporary folder, print the figures of an evaluation, and stop it.

    Args:
        name: Of the file in the folder that the command line names.
        target: Of make, for the hint when the file is not there.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("data", nargs="?", type=Path, default=Path(), help=f"the folder of {name}")
    path = parser.parse_args().data / name
    if not path.is_file():
        sys.exit(f"{path} is not there: name its folder, as in `make {target} DATA=FOLDER`.")

    measure_with_service(lambda client: evaluate(client, path))


def measure_with_service(measure: Callable[[ApiClient], Awaitable[dict[str, Any]]], **settings: object) -> None:
    """Start a service in a temporary folder, print the figures of a measurement, and stop it."""

    async def run(url: str) -> None:
        async with ApiClient(url) as client:
            print(json.dumps(await measure(client), indent=2, ensure_ascii=False))

    with tempfile.TemporaryDirectory(prefix="ragq-evaluate-") as folder:
        changed = read_settings().model_copy(update={"data_dir": Path(folder), "port": 0, **settings})
        with Fleet(changed, query_workers=1, document_workers=1) as fleet:
            fleet.start()
            asyncio.run(run(fleet.url))


if __name__ == "__main__":
    run_with_service(__doc__, "xquad.en.json", "evaluate", evaluate)
