"""What `ragq ingest` does: a run with progress and a summary, and again whenever a watched folder changes."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from ragq.api_client import ApiClient
from ragq.errors import ConfigurationError, RagqError
from ragq.ingest.buckets import SCHEMES, BucketSource
from ragq.ingest.folders import FolderSource
from ragq.ingest.plan import Plan
from ragq.ingest.run import Summary, carry_out, describe_reasons, make_plans
from ragq.ingest.sources import Choice, Source
from ragq.ingest.web import WebSource

STEPS = 1000  # of the progress bar, a document
RETRY_SECONDS = 5  # after a run that could not be made, while watching
SHOWN_LINES = 20  # of failures; the rest is counted by reason


@dataclass(frozen=True, slots=True)
class Options:
    """The command's options, as its help describes them."""

    choice: Choice
    readers: tuple[str, ...] = ()
    sync: bool = False
    watch: bool = False
    max_pages: int = 1000
    allow_private: bool = False
    as_json: bool = False


async def ingest(client: ApiClient, places: Sequence[str], options: Options) -> Summary:
    """Ingest documents from paths and URLs; returns what came of it.

    Raises:
        ConfigurationError: A place does not exist, there are no documents, or nothing that can be watched.
    """
    async with client, AsyncExitStack() as stack:
        sources = [await _open(place, options, stack) for place in places]
        folders = [source.path for source in sources if isinstance(source, FolderSource)]
        if options.watch and not folders:
            raise ConfigurationError("Only folders and files of this machine can be watched.")
        plans = await make_plans(client, sources)
        if not any(plan.to_put or plan.unchanged for _, plan in plans):
            raise ConfigurationError("No documents found there.")
        summary = await _run(client, plans, options)
        if options.watch:
            await _watch(client, sources, folders, options)
        return summary


async def _open(place: str, options: Options, stack: AsyncExitStack) -> Source:
    if place.startswith(("http://", "https://")):
        web = WebSource(place, options.choice, max_pages=options.max_pages, allow_private=options.allow_private)
        return await stack.enter_async_context(web)
    if place.startswith(SCHEMES):
        return BucketSource(place, options.choice)
    return FolderSource(Path(place), options.choice)


async def _run(client: ApiClient, plans: Sequence[tuple[Source, Plan]], options: Options) -> Summary:
    count = sum(len(plan.to_put) for _, plan in plans)
    begun, done = time.monotonic(), 0.0
    with click.progressbar(
        length=STEPS * count,
        label="Ingesting",
        width=40,
        item_show_func=lambda shown: shown,
        file=sys.stderr if options.as_json else None,
    ) as bar:

        def advance(share: float) -> None:
            nonlocal done
            steps, done = int(done * STEPS), done + share
            rate = done / max(0.1, time.monotonic() - begun)
            bar.update(int(done * STEPS) - steps, f"{int(done + 0.001)} of {count} documents, {rate:.1f}/s")

        summary = await carry_out(client, plans, sync=options.sync, readers=options.readers, advance=advance)
    if options.as_json:
        click.echo(json.dumps(asdict(summary)))
    else:
        _show(summary)
    return summary


def _show(summary: Summary) -> None:
    total = summary.done + summary.unchanged + len(summary.failures)
    beside = [
        f"{summary.unchanged} unchanged" * bool(summary.unchanged),
        f"{summary.removed} removed" * bool(summary.removed),
        f"{summary.kept} kept that have vanished, as not all could be sent" * bool(summary.kept),
        f"{len(summary.skipped)} skipped, as they are no documents" * bool(summary.skipped),
    ]
    shown = "; ".join(filter(None, beside))
    searchable = summary.done + summary.unchanged
    click.echo(f"{searchable} of {total} files are searchable" + (f" ({shown})." if shown else "."))
    for name, warning in summary.warnings[:SHOWN_LINES]:
        click.secho(f"{name}: {warning}", fg="yellow", err=True)
    for name, reason in summary.skipped[:SHOWN_LINES]:
        click.secho(f"skipped {name}: {reason}", dim=True, err=True)
    for name, reason in summary.failures[:SHOWN_LINES]:
        click.secho(f"{name}: {reason}", fg="red", err=True)
    if len(summary.failures) > SHOWN_LINES:
        click.secho(f"{len(summary.failures)} failed:", fg="red", err=True)
        for line in describe_reasons(summary.failures):
            click.secho(f"  {line}", fg="red", err=True)


async def _watch(client: ApiClient, sources: Sequence[Source], folders: Sequence[Path], options: Options) -> None:
    """Run again whenever a folder changes, until the command is interrupted."""
    from watchfiles import awatch  # noqa: PLC0415  (only this needs it)

    click.echo("Watching for changes; Ctrl-C ends it.", err=options.as_json)
    changes = awatch(*folders, raise_interrupt=False)
    while True:
        changed = asyncio.ensure_future(anext(changes, None))
        await asyncio.sleep(0)  # from here on it watches, so that no change falls between two runs
        while not await _run_again(client, sources, options) and not changed.done():
            await asyncio.wait({changed}, timeout=RETRY_SECONDS)
        if await changed is None:
            return


async def _run_again(client: ApiClient, sources: Sequence[Source], options: Options) -> bool:
    """Ingest what has changed; False, with the reason shown, if that cannot be told now."""
    try:
        plans = await make_plans(client, sources)
        if any(plan.to_put or (options.sync and plan.vanished) for _, plan in plans):
            await _run(client, plans, options)
    except RagqError as error:
        click.secho(f"ragq: {error}", fg="red", err=True)
        return False
    return True
