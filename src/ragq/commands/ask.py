"""`ragq ask`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from ragq.admin.command import json_option, url_option, with_client
from ragq.terminal import format_response

if TYPE_CHECKING:
    from ragq.api_client import ApiClient


@click.command()
@click.argument("question")
@url_option
@json_option
def ask(question: str, url: str | None, as_json: bool) -> None:
    """Ask QUESTION and print the answer with its sources."""

    async def put(client: ApiClient) -> dict[str, Any]:
        return await client.ask(question)

    response = with_client(url, put)
    click.echo(json.dumps(response, indent=2, ensure_ascii=False) if as_json else format_response(response))
    if response["status"] not in ("completed", "incomplete"):
        sys.exit(1)
