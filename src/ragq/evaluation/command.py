"""What `ragq eval` does: fill a store, ask, and report; and draft a data set."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from ragq.api_client import ApiClient
from ragq.errors import ConfigurationError
from ragq.evaluation.asking import Examiner, Part, Result
from ragq.evaluation.chart import draw
from ragq.evaluation.comparison import Difference, check_common, compare, format_comparison
from ragq.evaluation.dataset import Dataset, Half, check_files
from ragq.evaluation.draft import draft, write_lines
from ragq.evaluation.files import PICTURE, check_output
from ragq.evaluation.formats import list_documents, read_dataset
from ragq.evaluation.report import Report, format_report, make_report, read_report, write_report
from ragq.evaluation.store import Advance, EvaluatedStore, fill_store, open_existing
from ragq.settings import Settings

PARTS: tuple[Part, ...] = ("retrieval", "answers")


@dataclass(frozen=True, slots=True)
class Options:
    """The command's options, as its help describes them."""

    documents: Path | None = None
    store: str | None = None
    keep_store: bool = False
    out: Path | None = None
    compare: Path | None = None
    half: Half | None = None
    limit: int | None = None
    only: Part | None = None
    concurrency: int = 4
    as_json: bool = False


async def evaluate(client: ApiClient, path: Path, options: Options) -> bool:
    """Evaluate a data set and show the report; False if a measure is significantly worse than before.

    Raises:
        ConfigurationError: The data set, or the report to compare with, is wrong, or the results cannot be written.
    """
    if options.documents and options.store:
        raise ConfigurationError("A store has its documents: give --store or --documents, not both.")
    if options.out:
        check_output(options.out, with_picture=True)
    before = read_report(options.compare) if options.compare else None
    dataset = read_dataset(path, options.documents).select(options.half, options.limit)
    if not (dataset.documents or options.store):
        raise ConfigurationError(
            f"{path} comes without documents: name their folder by --documents, or a store by --store."
        )
    if before:
        check_common(before, dataset.questions)
    async with client, _open_store(client, dataset, options) as store:
        report = await _examine(client, dataset, store, options)
        differences = compare(before, report) if before else []
        _show(report, differences, store, options)  # first: what is shown is not lost if it cannot be written
        if options.out:
            write_report(report, options.out)
            options.out.with_suffix(PICTURE).write_text(draw(report, before), encoding="utf-8")
    return all(difference.verdict != "loss" for difference in differences)


def _show(report: Report, differences: Sequence[Difference], store: EvaluatedStore, options: Options) -> None:
    if options.as_json:
        compared = [asdict(difference) | {"verdict": difference.verdict} for difference in differences]
        click.echo(json.dumps(asdict(report) | {"store": store.id, "compared": compared}))
        return
    click.echo(format_report(report))
    if options.keep_store:
        click.echo(f"The store is {store.id}.")
    if differences:
        click.echo("\n" + format_comparison(differences))


@asynccontextmanager
async def _open_store(client: ApiClient, dataset: Dataset, options: Options) -> AsyncIterator[EvaluatedStore]:
    """Open the store; what the questions name must be in it."""
    if options.store:
        store = await open_existing(client, options.store)
        check_files(dataset.questions, store.names)
        yield store
        return
    check_files(dataset.questions, {document.name for document in dataset.documents})
    async with AsyncExitStack() as stack:
        with _progress("Ingesting", len(dataset.documents)) as advance:
            filling = fill_store(
                client, dataset, keep=options.keep_store, concurrency=options.concurrency, advance=advance
            )
            store = await stack.enter_async_context(filling)
        yield store


async def _examine(client: ApiClient, dataset: Dataset, store: EvaluatedStore, options: Options) -> Report:
    examiner = Examiner(client, store.id, (options.only,) if options.only else PARTS)
    with _progress("Asking", len(dataset.questions)) as advance:
        results: list[Result] = await examiner.examine_all(
            dataset.questions, concurrency=options.concurrency, advance=advance
        )
    answers = (await client.call("GET", "/status"))["answers"]
    return make_report(
        dataset.name,
        results,
        answers_by=answers.get("model") or answers["kind"],
        documents=len(dataset.documents),
        faults=store.faults,
    )


@contextmanager
def _progress(label: str, length: int) -> Iterator[Advance]:
    with click.progressbar(length=length, label=label, width=40, show_pos=True, file=sys.stderr) as bar:
        yield bar.update


async def make(folder: Path, out: Path, settings: Settings, *, as_json: bool = False) -> None:
    """Draft a data set from the documents of a folder."""
    check_output(out)
    lines, faults = await draft(list_documents(folder), settings)
    for fault in faults:
        click.secho(fault, fg="yellow", err=True)
    write_lines(lines, out)
    drafted = f"{len(lines)} questions drafted in {out}. Read each: change, complete or delete it."
    click.echo(json.dumps({"questions": len(lines), "faults": faults}) if as_json else drafted)
