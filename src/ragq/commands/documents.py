"""`ragq documents`: the files of a vector store."""

from __future__ import annotations

import fnmatch
import json
from typing import TYPE_CHECKING, Any

import click

from ragq.admin.command import json_option, url_option, with_client
from ragq.admin.paging import list_objects
from ragq.commands.listing import Kind, all_option, do_each, find_id, limit_option, show_objects, yes_option
from ragq.commands.stores import find_store
from ragq.terminal import format_fields

if TYPE_CHECKING:
    from ragq.api_client import ApiClient

COLUMNS = ("id", "filename", "status", "chunk_count", "usage_bytes", "created_at", "fault")
STATUSES = ("in_progress", "completed", "failed", "cancelled")

store_option = click.option(
    "--store", default="default", show_default=True, metavar="STORE", help="Id or name of the vector store."
)


def _files_of(store_id: str) -> Kind:
    return Kind("document", "documents list", f"/v1/vector_stores/{store_id}/files", "filename", name_filter="filename")


async def _find_path(client: ApiClient, store: str, document: str) -> str:
    """Find the path of a document in its store."""
    kind = _files_of(await find_store(client, store))
    return f"{kind.path}/{await find_id(client, kind, document)}"


@click.group()
def documents() -> None:
    """List, show, remove and repeat documents. `ragq ingest` puts them in."""


@documents.command(name="list")
@store_option
@click.option("--status", type=click.Choice(STATUSES), help="Only these.")
@click.option("--name", metavar="PATTERN", help="Only these, such as '*.pdf'.")
@limit_option
@all_option
@url_option
@json_option
def list_documents(
    store: str, status: str | None, name: str | None, limit: int, all_of_them: bool, url: str | None, as_json: bool
) -> None:
    """List the documents of a store, the newest first."""

    def keep(one: dict[str, Any]) -> bool:
        return name is None or fnmatch.fnmatch(one["filename"], name)

    async def read(client: ApiClient) -> dict[str, Any]:
        path = _files_of(await find_store(client, store)).path
        params = {"filter": status} if status else {}
        return await list_objects(client, path, params, most=None if all_of_them else limit, keep=keep)

    found = with_client(url, read)
    if not as_json:
        found["data"] = [one | {"fault": _fault_of(one)} for one in found["data"]]
    show_objects(found, COLUMNS, as_json=as_json)


def _fault_of(document: dict[str, Any]) -> str:
    """Why a document cannot be searched, or what of it was not read."""
    error = document["last_error"]
    return str(error["message"]) if error else " ".join(document["warnings"])


@documents.command(name="show")
@click.argument("document")
@click.option("--text", is_flag=True, help="Print the text that was read from it.")
@store_option
@url_option
@json_option
def show_document(document: str, text: bool, store: str, url: str | None, as_json: bool) -> None:
    """Show a document of a store. DOCUMENT is its id, the beginning of its id, or its name."""

    async def read(client: ApiClient) -> dict[str, Any]:
        return await client.call("GET", await _find_path(client, store, document) + "/content" * text)

    found = with_client(url, read)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        click.echo("\n".join(part["text"] for part in found["data"]) if text else format_fields(found))


@documents.command(name="rm")
@click.argument("documents", nargs=-1, required=True, metavar="DOCUMENT...")
@click.option("--keep-file", is_flag=True, help="Take it out of this store, and keep the file for others.")
@click.option("--purge", is_flag=True, help="Delete also the answers that cite it.")
@yes_option
@store_option
@url_option
@json_option
def remove_documents(
    documents: tuple[str, ...], keep_file: bool, purge: bool, yes: bool, store: str, url: str | None, as_json: bool
) -> None:
    """Delete documents: the files, and what was read of them in every store."""
    if keep_file and purge:
        raise click.UsageError("--purge deletes the file: leave out --keep-file.")

    async def remove(client: ApiClient) -> None:
        kind = _files_of(await find_store(client, store))
        ids = [await find_id(client, kind, document) for document in documents]
        if not yes:
            names = [str((await client.call("GET", f"{kind.path}/{one}"))["filename"]) for one in ids]
            click.confirm(f"Delete {', '.join(names)}?", abort=True, err=True)
        path = kind.path if keep_file else "/v1/files"
        params = {"purge": "true"} if purge else {}
        done = "is out of the store." if keep_file else "is deleted."
        await do_each(
            ids,
            lambda one: client.call("DELETE", f"{path}/{one}", params=params),
            lambda removed: f"{removed['id']} {done}",
            as_json=as_json,
        )

    with_client(url, remove)


@documents.command(name="retry")
@click.argument("documents", nargs=-1, metavar="[DOCUMENT]...")
@click.option("--failed", is_flag=True, help="All that failed.")
@store_option
@url_option
@json_option
def retry_documents(documents: tuple[str, ...], failed: bool, store: str, url: str | None, as_json: bool) -> None:
    """Read documents that failed once more."""
    if failed == bool(documents):
        raise click.UsageError("Name documents, or give --failed for all that failed.")

    async def retry(client: ApiClient) -> None:
        kind = _files_of(await find_store(client, store))
        if failed:
            ids = [one["id"] for one in (await list_objects(client, kind.path, {"filter": "failed"}))["data"]]
        else:
            ids = [await find_id(client, kind, document) for document in documents]
        await do_each(
            ids,
            lambda one: client.call("POST", kind.path, json={"file_id": one}),
            lambda retried: f"{retried['filename']}: {retried['status']}",
            as_json=as_json,
        )
        if not (ids or as_json):
            click.echo("None has failed.")

    with_client(url, retry)
