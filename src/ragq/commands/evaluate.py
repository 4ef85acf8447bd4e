"""`ragq eval`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import click

from ragq.admin.command import json_option, url_option
from ragq.settings import read_settings

FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)
FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(name="eval")
@click.argument("dataset", required=False, type=click.Path(path_type=Path))
@url_option
@click.option("--documents", type=FOLDER, help="The documents that a data set of JSON lines is about.")
@click.option("--store", metavar="ID", help="Ask this store, which has the documents, instead of a new one.")
@click.option("--keep-store", is_flag=True, help="Keep the new store and its files.")
@click.option("--half", type=click.Choice(["first", "second"]), metavar="WHICH", help="Only the first or second half.")
@click.option("--limit", type=click.IntRange(min=1), help="Only so many questions, the first.")
@click.option("--only", type=click.Choice(["retrieval", "answers"]), metavar="PART", help="Only retrieval or answers.")
@click.option("--concurrency", type=click.IntRange(1, 64), default=4, show_default=True, help="Questions at once.")
@click.option("--out", type=FILE, help="Write the results here, as JSON, and a picture beside it.")
@click.option("--compare", type=FILE, help="Results of an earlier run; tells which differences are real.")
@click.option("--fail-on-loss", is_flag=True, help="Exit with code 1 if a measure is significantly worse.")
@click.option("--make", type=FOLDER, help="Draft questions from the documents of this folder into --out.")
@json_option
def eval_command(dataset: Path | None, url: str | None, make: Path | None, fail_on_loss: bool, **options: Any) -> None:
    """Measure retrieval and answers with the questions of DATASET, over the API.

    DATASET is a file of JSON lines, a JSON file in SQuAD's form, or a folder in BEIR's.
    """
    from ragq.api_client import open_client
    from ragq.evaluation import command
    from ragq.logs import configure_logging

    configure_logging(read_settings())

    if make:
        if dataset or not options["out"]:
            raise click.UsageError("--make needs --out, and no DATASET.")
        asyncio.run(command.make(make, options["out"], read_settings(), as_json=options["as_json"]))
        return
    if not dataset:
        raise click.UsageError("Missing argument 'DATASET'.")
    if fail_on_loss and not options["compare"]:
        raise click.UsageError("--fail-on-loss needs --compare.")
    no_loss = asyncio.run(command.evaluate(open_client(url), dataset, command.Options(**options)))
    if fail_on_loss and not no_loss:
        sys.exit(1)
