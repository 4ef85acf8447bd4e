"""`ragq status`."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from ragq.admin.command import json_option, url_option, with_client
from ragq.errors import TransientError
from ragq.terminal import format_status

if TYPE_CHECKING:
    from ragq.api_client import ApiClient

HOME, TO_END_OF_LINE, TO_END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


@click.command()
@click.option("--watch", is_flag=True, help="Show it again and again until Ctrl-C; with --json a line each time.")
@click.option(
    "--interval",
    type=click.FloatRange(0.5, 3600),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Of --watch.",
)
@url_option
@json_option
def status(watch: bool, interval: float, url: str | None, as_json: bool) -> None:
    """Show queues and workers."""

    async def follow(client: ApiClient) -> None:
        if watch and _is_terminal(as_json=as_json):
            click.clear()
        while True:
            _show(await _read(client) if watch else await client.call("GET", "/status"), watch=watch, as_json=as_json)
            if not watch:
                return
            await asyncio.sleep(interval)

    with_client(url, follow)


async def _read(client: ApiClient) -> dict[str, Any]:
    """Read the status; while the service is away, say so instead, since it may come back."""
    try:
        return await client.call("GET", "/status")
    except TransientError as error:
        return {"error": {"code": error.code, "message": str(error)}}


def _show(found: dict[str, Any], *, watch: bool, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found, indent=None if watch else 2))
        return
    text = click.style(found["error"]["message"], fg="red") if "error" in found else format_status(found)
    if watch and _is_terminal(as_json=as_json):
        lines = "".join(f"{line}{TO_END_OF_LINE}\n" for line in text.splitlines())
        click.echo(f"{HOME}{lines}{TO_END_OF_SCREEN}", nl=False)
    else:
        click.echo(text)


def _is_terminal(*, as_json: bool) -> bool:
    return not as_json and sys.stdout.isatty()
