"""The `ragq` command. Each command imports only what it needs, so that none waits for the others' libraries."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import sys
from collections.abc import Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ragq import __version__
from ragq.admin.audit_command import audit_log
from ragq.admin.command import AS_JSON, json_option, keys, sessions, tenants, url_option
from ragq.admin.limit_commands import usage
from ragq.commands.ask import ask
from ragq.commands.bench import bench
from ragq.commands.completion import completion
from ragq.commands.documents import documents
from ragq.commands.evaluate import eval_command
from ragq.commands.feedback import feedback
from ragq.commands.jobs import jobs
from ragq.commands.logs import logs
from ragq.commands.status import status
from ragq.commands.stores import stores
from ragq.errors import RagqError
from ragq.evaluation.files import explain
from ragq.logs import configure_logging, log_to
from ragq.models import QueueName
from ragq.settings import Settings, read_settings, split_list
from ragq.tasks import importing

if TYPE_CHECKING:
    from ragq.api_client import ApiClient

T = TypeVar("T")


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an error of ours, or of a file, prints its message, as JSON after `--json`, and exits with its code."""
        try:
            return super().invoke(ctx)
        except (RagqError, OSError, UnicodeDecodeError) as error:
            fault = error if isinstance(error, RagqError) else explain(error)
            if fault is None:
                raise
            if ctx.meta.get(AS_JSON):
                click.echo(json.dumps({"error": {"code": fault.code, "message": str(fault)}}), err=True)
            else:
                click.secho(f"ragq: {fault}", fg="red", err=True)
            ctx.exit(fault.exit_code)
        except KeyboardInterrupt:
            ctx.exit(128 + signal.SIGINT)


COLOUR = False if os.environ.get("NO_COLOR") else None  # None: in a terminal alone


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "color": COLOUR})
@click.version_option(__version__, prog_name="ragq")
def main() -> None:
    """Answer questions from your documents, through a durable queue."""


for command in (
    ask,
    eval_command,
    documents,
    stores,
    jobs,
    feedback,
    status,
    logs,
    bench,
    keys,
    sessions,
    tenants,
    usage,
    audit_log,
    completion,
):
    main.add_command(command)


def _settings(**overrides: Any) -> Settings:
    """Read the settings; values from the command line take precedence."""
    given = {name: value for name, value in overrides.items() if value is not None}
    settings = Settings.model_validate({**read_settings().model_dump(), **given})
    configure_logging(settings)
    return settings


def _follow_parent(_context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        from ragq.embedded.processes import end_with_parent
        from ragq.tasks import share_one_heap

        share_one_heap()  # here, because the next line starts the first thread
        end_with_parent()


def _log_to(_context: click.Context, _parameter: click.Parameter, path: Path | None) -> None:
    if path:
        log_to(path)


data_dir_option = click.option(
    "--data-dir", type=click.Path(path_type=Path, file_okay=False), help="Data folder of the embedded services."
)
host_option = click.option("--host", help="Address to listen on; beyond loopback, RAGQ_API_KEY is required.")
with_parent_option = click.option(
    "--with-parent",
    is_flag=True,
    hidden=True,
    expose_value=False,
    is_eager=True,
    callback=_follow_parent,
    help="Stop when the process at the other end of standard input ends.",
)
log_file_option = click.option(
    "--log-file",
    type=click.Path(path_type=Path),
    hidden=True,
    expose_value=False,
    is_eager=True,
    callback=_log_to,
)
port_option = click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 picks a free one.")


@main.command()
@host_option
@port_option
@data_dir_option
@click.option("--query-workers", type=click.IntRange(0, 64), default=1, show_default=True, help="Query workers.")
@click.option("--document-workers", type=click.IntRange(0, 64), default=1, show_default=True, help="Document workers.")
@json_option
def up(
    host: str | None,
    port: int | None,
    data_dir: Path | None,
    query_workers: int,
    document_workers: int,
    as_json: bool,
) -> None:
    """Start Valkey and PostgreSQL, unless configured ones are used, the API and workers."""
    from ragq.up import Fleet

    settings = _settings(host=host, port=port, data_dir=data_dir)
    with Fleet(settings, query_workers=query_workers, document_workers=document_workers) as fleet:
        fleet.start()
        is_up = f"ragq is up: {fleet.url}  (Ctrl-C stops it)"
        click.echo(json.dumps({"url": fleet.url}) if as_json else is_up)
        fleet.watch()


@main.command(name="serve")
@host_option
@port_option
@data_dir_option
@click.option("--fd", type=int, hidden=True, help="Descriptor of a listening socket to inherit.")
@with_parent_option
@log_file_option
def serve_command(host: str | None, port: int | None, data_dir: Path | None, fd: int | None) -> None:
    """Serve only the API."""
    from ragq.environment import join_services

    with importing():
        from ragq.main import serve
    serve(join_services(_settings(host=host, port=port, data_dir=data_dir)), fd=fd)


@main.command()
@click.argument("queues", nargs=-1, type=click.Choice([str(queue) for queue in QueueName]))
@data_dir_option
@click.option("--burst", is_flag=True, help="Stop when no job is left.")
@with_parent_option
@log_file_option
def worker(queues: tuple[str, ...], data_dir: Path | None, burst: bool) -> None:
    """Run a worker for QUEUES (default: all), like `rq worker` after `ragq env`."""
    from ragq.environment import join_services, worker_variables

    with importing():
        from ragq.prepare import wait_for_database, wait_for_valkey
    settings = join_services(_settings(data_dir=data_dir))
    os.environ |= worker_variables(settings)
    read_settings.cache_clear()
    # RQ reads the environment when it is imported. The worker always starts through RQ's own command.
    with importing():
        from rq.cli.cli import main as rq

        from ragq.client.valkey_client import UNAVAILABLE
        from ragq.queues import async_worker  # noqa: F401  (RQ imports it by its name)

    while True:
        asyncio.run(wait_for_valkey(settings))
        asyncio.run(wait_for_database(settings))
        try:
            rq(["worker", *(["--burst"] if burst else []), *(queues or QueueName)], prog_name="rq")
        except SystemExit as end:
            if not isinstance(end.__context__, UNAVAILABLE):  # RQ exits if Valkey is down; we wait
                raise


@main.command()
@data_dir_option
@json_option
def env(data_dir: Path | None, as_json: bool) -> None:
    """Print the environment for a bare `rq worker` or `rq info`: eval "$(ragq env)"."""
    from ragq.environment import join_services, worker_variables

    variables = worker_variables(join_services(_settings(data_dir=data_dir)))
    exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items())
    click.echo(json.dumps(variables, indent=2) if as_json else exports)


@main.command(name="migrate")
@data_dir_option
def migrate_command(data_dir: Path | None) -> None:
    """Run the database migrations; `up` and `serve` do it too."""
    from ragq.environment import join_services
    from ragq.prepare import migrate

    asyncio.run(migrate(join_services(_settings(data_dir=data_dir))))


@main.command(name="backup")
@click.argument("target", required=False)
@data_dir_option
@click.option("--verify", metavar="SOURCE", help="Only read this backup, and compare its checksums.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each step.")
def backup_command(target: str | None, data_dir: Path | None, verify: str | None, as_json: bool) -> None:
    """Write documents, answers and pending jobs into one archive, while ragq runs.

    TARGET is a new file, a folder, or a URL of a bucket (s3://, gs://, az://). A folder, or a URL that ends with a slash, gets a file that
    is named by the time. RAGQ_BACKUP_KEY encrypts it.
    """
    from ragq.backup import command

    if (target is None) == (verify is None):
        raise click.UsageError("Name a TARGET, or a backup with --verify.")
    settings = _settings(data_dir=data_dir)
    if verify:
        command.run_verify(settings, verify, as_json=as_json)
    elif target:
        command.run_backup(settings, target, as_json=as_json)


@main.command(name="restore")
@click.argument("source")
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each step.")
def restore_command(source: str, data_dir: Path | None, as_json: bool) -> None:
    """Restore a backup into an empty system: a new data folder, or empty servers that no ragq uses.

    SOURCE is a file or a URL, as for `ragq backup`. It is verified before anything is written.
    """
    from ragq.backup import command

    command.run_restore(_settings(data_dir=data_dir), source, as_json=as_json)


@main.command(name="reembed")
@data_dir_option
@json_option
def reembed_command(data_dir: Path | None, as_json: bool) -> None:
    """Change the database to the settings' embedding model. Searches go on with the old one until all is embedded.

    Give this command the new RAGQ_EMBEDDING_* settings, and restart the API and the workers with them when it has ended. Run
    it again after an interruption: it goes on where it was. With the old settings it removes what an unfinished run left.
    """
    from ragq.admin.reembed import reembed, show
    from ragq.environment import join_services

    settings = join_services(_settings(data_dir=data_dir))
    _run(reembed(settings, lambda progress: show(progress, as_json=as_json)))


@main.command()
@click.argument("places", nargs=-1, required=True)
@url_option
@click.option("--include", multiple=True, metavar="PATTERN", help="Only these, such as '*.pdf'; may be repeated.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Not these, such as 'drafts'; may be repeated.")
@click.option("--readers", default="", help="Groups that may read what is put in: names with commas between them.")
@click.option("--sync", is_flag=True, help="Remove from the store what came from here and is here no longer.")
@click.option("--watch", is_flag=True, help="Go on, and ingest what changes.")
@click.option(
    "--max-pages", type=click.IntRange(min=1), default=1000, show_default=True, help="Most pages of a website."
)
@click.option("--allow-private-addresses", is_flag=True, help="Let a website have an address that is not public.")
@json_option
def ingest(  # noqa: PLR0913  (one for each option)
    places: tuple[str, ...],
    *,
    url: str | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    readers: str,
    sync: bool,
    watch: bool,
    max_pages: int,
    allow_private_addresses: bool,
    as_json: bool,
) -> None:
    """Ingest documents into the default store.

    PLACES are files, folders, s3://, gs:// or az:// URLs of buckets, http(s):// URLs of pages and of sitemaps. What is in
    the store already and has not changed is not read again, so an interrupted run goes on where it was.
    """
    from ragq.ingest.command import Options
    from ragq.ingest.command import ingest as run
    from ragq.ingest.sources import Choice

    options = Options(
        choice=Choice(include=include, exclude=exclude),
        readers=tuple(split_list(readers)),
        sync=sync,
        watch=watch,
        max_pages=max_pages,
        allow_private=allow_private_addresses,
        as_json=as_json,
    )
    if _run(run(_client(url), places, options)).failures:
        sys.exit(1)


@main.command(name="doctor")
@data_dir_option
@click.option("--audit", is_flag=True, help="Also find inconsistent jobs, files and chunks. Read-only.")
@click.option("--tenant", metavar="T", help="With --audit: find what is left of this tenant instead.")
@click.option("--forgive", metavar="SHA256", help="Allow the bytes of this SHA-256 to be read again, and nothing else.")
@json_option
def doctor_command(data_dir: Path | None, audit: bool, tenant: str | None, forgive: str | None, as_json: bool) -> None:
    """Check everything that ragq needs; exit with code 1 if something is wrong."""
    from ragq import doctor
    from ragq.environment import join_services

    if forgive:
        asyncio.run(doctor.forgive(join_services(_settings(data_dir=data_dir)), forgive))
        forgiven = "Forgiven. Put the file into its store again."
        click.echo(json.dumps({"forgiven": forgive}) if as_json else forgiven)
        return
    if tenant is not None and not audit:
        raise click.UsageError("--tenant goes with --audit.")
    diagnosis = asyncio.run(
        doctor.diagnose(lambda: join_services(_settings(data_dir=data_dir)), audit=audit, tenant_id=tenant)
    )
    click.echo(json.dumps(asdict(diagnosis), indent=2) if as_json else doctor.format_diagnosis(diagnosis))
    if not diagnosis.is_healthy:
        sys.exit(1)


@main.command(name="demo")
@port_option
@click.option("--data-dir", type=click.Path(path_type=Path), help="Data folder; default: a temporary one.")
@click.option("--exit", "exits", is_flag=True, help="Stop when the questions are answered.")
def demo_command(port: int | None, data_dir: Path | None, exits: bool) -> None:
    """Ingest ragq's handbook and ask several questions at the same time."""
    from ragq import demo

    demo.run(_settings(port=port, data_dir=data_dir), temporary=data_dir is None, exits=exits)


def _client(url: str | None) -> ApiClient:
    from ragq.api_client import open_client

    configure_logging(read_settings())
    return open_client(url)


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


if __name__ == "__main__":
    main()
