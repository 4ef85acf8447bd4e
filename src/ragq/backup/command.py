"""`ragq backup` and `ragq restore`."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Iterator
from functools import partial

import click
import msgspec

from ragq.backup.backup import FILES, TABLE, Progress, back_up
from ragq.backup.format import Manifest
from ragq.backup.places import create, open_source
from ragq.backup.restore import restore, verify
from ragq.embedded.cleaner import Cleaner
from ragq.embedded.services import EmbeddedServices
from ragq.environment import join_services
from ragq.errors import ConfigurationError
from ragq.settings import Settings

TELL_SECONDS = 0.5  # between two lines of JSON, or two changes of a terminal's line, about one part
CLEAR = "\x1b[K"  # the rest of a terminal's line


def run_backup(settings: Settings, target: str, *, as_json: bool) -> None:
    """Write a backup, of a ragq that runs or of the data folder of one that does not."""
    if settings.backup_key is None:
        click.echo("The backup is not encrypted, since RAGQ_BACKUP_KEY is not set.", err=True)
    teller = _Teller(as_json=as_json)
    with _servers_of(settings) as joined, create(target) as (name, file):
        manifest = asyncio.run(back_up(joined, file, teller.tell))
    teller.end("written", name, manifest)


def run_verify(settings: Settings, source: str, *, as_json: bool) -> None:
    """Read a backup and compare its checksums."""
    teller = _Teller(as_json=as_json)
    teller.end("verified", source, verify(settings, partial(open_source, source), teller.tell))


def run_restore(settings: Settings, source: str, *, as_json: bool) -> None:
    """Restore a backup into an empty system; servers that are not configured are started for it."""
    teller = _Teller(as_json=as_json)
    opener = partial(open_source, source)
    manifest = verify(settings, opener, teller.tell)
    with _own_servers(settings) as own:
        asyncio.run(restore(own, opener, manifest, teller.tell))
    teller.end("restored", source, manifest)


@contextlib.contextmanager
def _servers_of(settings: Settings) -> Iterator[Settings]:
    """The settings with the addresses of a running ragq's servers; where none runs, they are started."""
    try:
        joined = join_services(settings)
    except ConfigurationError:
        if not (settings.data_dir / "postgresql").exists() and settings.database_url is None:
            raise
    else:
        yield joined
        return
    with _own_servers(settings) as own:
        yield own


@contextlib.contextmanager
def _own_servers(settings: Settings) -> Iterator[Settings]:
    """The settings with the addresses of servers that run for the block; the data folder is locked meanwhile."""
    valkey, postgres = settings.valkey_url is None, settings.database_url is None
    if not (valkey or postgres):
        yield settings
        return
    cleaner = Cleaner.start(settings.data_dir)  # stops the servers if this process is killed
    try:
        with EmbeddedServices(settings.data_dir, valkey=valkey, postgres=postgres):
            yield join_services(settings)
    finally:
        cleaner.stop()


class _Teller:
    """Shows the progress: lines of JSON on standard output, or a line of a terminal that changes."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._part = ""
        self._told_at = 0.0

    def tell(self, progress: Progress) -> None:
        """Show a step, but for those that follow too soon on another of the same part."""
        part = f"{progress.status} {progress.part}"
        if part == self._part and time.monotonic() < self._told_at + TELL_SECONDS:
            return
        self._part, self._told_at = part, time.monotonic()
        if self._as_json:
            click.echo(msgspec.json.encode(progress))
        elif sys.stderr.isatty():
            click.echo(f"\r{part}: {progress.count:,}, {_megabytes(progress.bytes)}{CLEAR}", err=True, nl=False)

    def end(self, status: str, name: str, manifest: Manifest) -> None:
        """Show what is there now."""
        if self._as_json:
            click.echo(msgspec.json.encode({"status": status, "backup": name, **msgspec.to_builtins(manifest)}))
            return
        if sys.stderr.isatty():
            click.echo(f"\r{CLEAR}", err=True, nl=False)
        size = _megabytes(sum(part.bytes for part in manifest.parts.values()))
        files, answers = manifest.count(FILES), manifest.count(f"{TABLE}responses")
        click.echo(
            f"{name} is {status}: {files:,} files, {answers:,} answers, {manifest.pending:,} unfinished jobs; {size}."
        )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
