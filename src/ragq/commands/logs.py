"""`ragq logs`: what the processes of `ragq up` have logged."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import click
import structlog

from ragq.admin.command import json_option
from ragq.commands.log_files import LEVELS, Entry, LogFolder
from ragq.errors import ConfigurationError
from ragq.settings import read_settings

POLL_SECONDS = 0.25


@click.command()
@click.argument("processes", nargs=-1, metavar="[PROCESS]...")
@click.option("--follow", "-f", is_flag=True, help="Go on until Ctrl-C, and show what comes.")
@click.option(
    "--level",
    type=click.Choice(LEVELS, case_sensitive=False),
    default="info",
    show_default=True,
    help="Least severe level.",
)
@click.option("--lines", "-n", type=click.IntRange(0), default=100, show_default=True, help="Most lines of before.")
@click.option(
    "--data-dir", type=click.Path(path_type=Path, file_okay=False), help="Data folder of `ragq up` (RAGQ_DATA_DIR)."
)
@json_option
def logs(
    processes: tuple[str, ...], follow: bool, level: str, lines: int, data_dir: Path | None, as_json: bool
) -> None:
    """Show what the processes of `ragq up` in this data folder have logged.

    PROCESS is the name of one, or the beginning of its name: up, api, queries, documents, postgresql or valkey.
    """
    folder = (data_dir or read_settings().data_dir) / "logs"
    renderer = None if as_json else structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())

    def keep(entry: Entry) -> bool:
        return str(entry["level"]) in LEVELS[LEVELS.index(level) :]

    with LogFolder(folder, processes) as found:
        if not (follow or found.find()):
            raise ConfigurationError(_describe_missing(folder, processes, found.processes))
        _print(found.read_last(lines, keep), renderer)
        while follow:
            time.sleep(POLL_SECONDS)
            _print(found.read_new(keep), renderer)


def _print(entries: list[Entry], renderer: structlog.dev.ConsoleRenderer | None) -> None:
    for entry in entries:
        if renderer:
            fields = dict(entry)
            process = click.style(f"{fields.pop('process'):18}", fg="cyan")
            click.echo(f"{process} {renderer(None, '', fields)}")
        else:
            click.echo(json.dumps(entry, ensure_ascii=False))


def _describe_missing(folder: Path, processes: tuple[str, ...], there: list[str]) -> str:
    if there:
        return f"No process of {folder.parent} is called {' or '.join(processes)}. There are: {', '.join(there)}."
    return f"There are no logs in {folder}. `ragq up` writes them; name its folder by --data-dir or RAGQ_DATA_DIR."
