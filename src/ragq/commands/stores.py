"""`ragq stores`: vector stores, and who may read them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from ragq.admin.command import call, json_option, show, show_list, url_option, with_client
from ragq.admin.paging import list_objects
from ragq.commands.listing import Kind, all_option, find_id, limit_option, show_objects, yes_option
from ragq.terminal import format_fields

if TYPE_CHECKING:
    from ragq.api_client import ApiClient

STORES = Kind("store", "stores list", "/v1/vector_stores", "name")
COLUMNS = ("id", "name", "status", "files", "failed", "usage_bytes", "last_active_at", "expires_at", "shared")


async def find_store(client: ApiClient, given: str) -> str:
    """Find the id of a store by its id, shortened if need be, its name, or `default`."""
    return given if given == "default" else await find_id(client, STORES, given)


@click.group()
def stores() -> None:
    """Make, show and delete vector stores, and share them with other tenants."""


@stores.command(name="list")
@limit_option
@all_option
@url_option
@json_option
def list_stores(limit: int, all_of_them: bool, url: str | None, as_json: bool) -> None:
    """List vector stores, the newest first."""
    most = None if all_of_them else limit
    found = with_client(url, lambda client: list_objects(client, STORES.path, most=most))
    if not as_json:
        found["data"] = [one | _counts(one) for one in found["data"]]
    show_objects(found, COLUMNS, as_json=as_json)


def _counts(store: dict[str, Any]) -> dict[str, int]:
    return {"files": store["file_counts"]["total"], "failed": store["file_counts"]["failed"]}


@stores.command(name="create")
@click.argument("name")
@click.option("--description", metavar="TEXT", help="What is in it.")
@click.option("--expires-after-days", type=click.IntRange(1, 365), help="Delete it so many days after its last use.")
@url_option
@json_option
def create_store(
    name: str, description: str | None, expires_after_days: int | None, url: str | None, as_json: bool
) -> None:
    """Make a vector store, and print its id."""
    body: dict[str, Any] = {"name": name, "description": description}
    if expires_after_days:
        body["expires_after"] = {"anchor": "last_active_at", "days": expires_after_days}
    created = call(url, "POST", STORES.path, json=body)
    show(created, created["id"], as_json=as_json)


@stores.command(name="show")
@click.argument("store")
@url_option
@json_option
def show_store(store: str, url: str | None, as_json: bool) -> None:
    """Show a vector store. STORE is its id, the beginning of its id, its name, or `default`."""

    async def read(client: ApiClient) -> dict[str, Any]:
        return await client.call("GET", f"{STORES.path}/{await find_store(client, store)}")

    found = with_client(url, read)
    click.echo(json.dumps(found, indent=2) if as_json else format_fields(found))


@stores.command(name="rm")
@click.argument("store")
@yes_option
@url_option
@json_option
def remove_store(store: str, yes: bool, url: str | None, as_json: bool) -> None:
    """Delete a vector store with its index. The files that are in it are kept."""

    async def remove(client: ApiClient) -> dict[str, Any]:
        found = await client.call("GET", f"{STORES.path}/{await find_store(client, store)}")
        if not yes:
            files = found["file_counts"]["total"]
            click.confirm(
                f"Delete the store {found['name'] or found['id']} with {files} documents?", abort=True, err=True
            )
        return await client.call("DELETE", f"{STORES.path}/{found['id']}")

    removed = with_client(url, remove)
    show(removed, f"{removed['id']} is deleted.", as_json=as_json)


@stores.command(name="share")
@click.argument("store_id")
@click.option("--with", "other", required=True, help="Id of the tenant that may read it.")
@url_option
@json_option
def share_store(store_id: str, other: str, url: str | None, as_json: bool) -> None:
    """Let another tenant read a store of your own: search it, cite it and open its documents."""
    shared = call(url, "POST", f"/v1/admin/vector_stores/{store_id}/shares", json={"tenant": other})
    show(shared, f"{other} may read {store_id}.", as_json=as_json)


@stores.command(name="unshare")
@click.argument("store_id")
@click.option("--with", "other", required=True, help="Id of the tenant that may read it no longer.")
@url_option
@json_option
def unshare_store(store_id: str, other: str, url: str | None, as_json: bool) -> None:
    """Share a store no longer, from now on."""
    ended = call(url, "DELETE", f"/v1/admin/vector_stores/{store_id}/shares/{other}")
    show(ended, f"{other} may not read {store_id} any more.", as_json=as_json)


@stores.command(name="shares")
@click.argument("store_id")
@url_option
@json_option
def list_shares(store_id: str, url: str | None, as_json: bool) -> None:
    """List the tenants that a store is shared with."""
    found = call(url, "GET", f"/v1/admin/vector_stores/{store_id}/shares")
    show_list(found, as_json=as_json, columns=("id", "created_at"))
