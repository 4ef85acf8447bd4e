"""`ragq bench`: a load test of one's own service."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from ragq.admin.command import json_option, show, with_client
from ragq.evaluation.files import PICTURE, check_output, read_text
from ragq.settings import is_loopback, read_settings

if TYPE_CHECKING:
    from ragq.api_client import ApiClient
    from ragq.commands.load import Bounds, LoadReport, Measured

QUESTION = "What do these documents say?"


@click.command()
@click.argument("url", required=False)
@click.option("--requests", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Most questions.")
@click.option(
    "--seconds", type=click.FloatRange(1, 3600), default=60, show_default=True, help="Ask none after this time."
)
@click.option("--concurrency", type=click.IntRange(1, 100), default=8, show_default=True, help="Questions at once.")
@click.option(
    "--questions",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help=f"File with a question a line, which are asked in turns; default: {QUESTION}",
)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write JSON here, and a picture beside it."
)
@click.option("--yes", is_flag=True, help="Press a service that is not on this machine.")
@json_option
def bench(
    url: str | None,
    *,
    requests: int,
    seconds: float,
    concurrency: int,
    questions: Path | None,
    out: Path | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Ask the service at URL many questions at once, and show rate, latency and errors.

    The questions go through the whole service, so an LLM that costs money is paid for each of them. Nothing is stored.
    """
    from ragq.commands.load import Bounds, format_report

    url = url or read_settings().url
    if not (yes or is_loopback(urlsplit(url).hostname or "")):
        raise click.UsageError(f"{url} is not on this machine. If you may press it, say --yes.")
    asked = [line.strip() for line in read_text(questions).split("\n") if line.strip()] if questions else [QUESTION]
    if not asked:
        raise click.UsageError(f"{questions} has no question.")
    if out:
        check_output(out, with_picture=True)
    report, measured = _press(url, asked, Bounds(requests, seconds, concurrency))
    show(asdict(report), format_report(report), as_json=as_json)  # first: it is not lost if it cannot be written
    if out:
        _write(report, measured, out)
    if report.answered < report.requests:
        sys.exit(1)


def _write(report: LoadReport, measured: list[Measured], out: Path) -> None:
    from ragq.commands.load_chart import draw

    written = asdict(report) | {"questions": [asdict(one) for one in measured]}
    out.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    out.with_suffix(PICTURE).write_text(draw(report, measured), encoding="utf-8")


def _press(url: str, questions: list[str], bounds: Bounds) -> tuple[LoadReport, list[Measured]]:
    from ragq.commands.load import make_report, press

    async def run(client: ApiClient) -> tuple[LoadReport, list[Measured]]:
        status = await client.call("GET", "/status")
        with click.progressbar(
            length=bounds.requests, label="Asking", width=40, show_pos=True, file=sys.stderr
        ) as progress:
            measured, seconds, unfinished = await press(client, questions, bounds, progress.update)
        return make_report(url, status, bounds, measured, seconds=seconds, unfinished=unfinished), measured

    return with_client(url, run)
