"""`ragq keys`, `ragq sessions` and `ragq tenants`."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ragq.admin.limit_options import KEY_LIMITS, limit_options, read_limits
from ragq.admin.paging import list_objects
from ragq.errors import PermanentError
from ragq.settings import split_list
from ragq.terminal import format_table

if TYPE_CHECKING:
    from ragq.api_client import ApiClient

T = TypeVar("T")
POLL_SECONDS = 1.0
AS_JSON = "ragq.as_json"  # in a command's context: whether an error is JSON, too


def _remember(context: click.Context, _parameter: click.Parameter, value: bool) -> bool:
    context.meta[AS_JSON] = value
    return value


url_option = click.option("--url", help="Where the API listens (RAGQ_URL).")
json_option = click.option("--json", "as_json", is_flag=True, callback=_remember, help="Print JSON.")
tenant_option = click.option("--tenant", help="Of this tenant, for the operator; default: the key's own.")


def show_list(found: dict[str, Any], *, as_json: bool, columns: tuple[str, ...]) -> None:
    """Print a list as JSON or as a table."""
    click.echo(json.dumps(found, indent=2) if as_json else format_table(found["data"], columns))


def show(found: dict[str, Any], text: str, *, as_json: bool) -> None:
    """Print what the API answered as JSON, or a text that says it."""
    click.echo(json.dumps(found, indent=2) if as_json else text)


def with_client(url: str | None, work: Callable[[ApiClient], Awaitable[T]]) -> T:
    """Do something with a client of the API, which has the settings' key."""
    from ragq.api_client import open_client
    from ragq.logs import configure_logging
    from ragq.settings import read_settings

    configure_logging(read_settings())

    async def run() -> T:
        async with open_client(url) as client:
            return await work(client)

    return asyncio.run(run())


def call(url: str | None, method: str, path: str, **options: Any) -> dict[str, Any]:
    """Send one request to the API, with the settings' key."""
    return with_client(url, lambda client: client.call(method, path, **options))


def call_list(
    url: str | None, path: str, params: Mapping[str, Any] | None = None, *, most: int | None = None
) -> dict[str, Any]:
    """Read a list of the API to its end, with the settings' key."""
    return with_client(url, lambda client: list_objects(client, path, params, most=most))


@click.group()
def keys() -> None:
    """Make, list and revoke API keys."""


def _show_new_key(key: dict[str, Any], *, as_json: bool) -> None:
    show(key, key["value"], as_json=as_json)
    if not as_json:
        click.echo(
            f"This is shown once. Its id is {key['id']}; its role in the tenant {key['tenant']}: {key['role']}.",
            err=True,
        )


@keys.command(name="create")
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(["reader", "user", "admin"]),
    metavar="ROLE",
    default="user",
    show_default=True,
    help="reader, user or admin.",
)
@click.option("--expires-in-days", type=click.IntRange(1, 3650), help="After so many days it opens nothing.")
@limit_options(*KEY_LIMITS)
@click.option("--stores", help="Limit it to these vector stores: ids, with commas between them.")
@click.option("--groups", help="Groups, with commas between them, by which it may read documents that have readers.")
@tenant_option
@url_option
@json_option
def create_key(
    name: str,
    role: str,
    expires_in_days: int | None,
    stores: str | None,
    groups: str | None,
    tenant: str | None,
    url: str | None,
    as_json: bool,
    **limits: Any,
) -> None:
    """Make a key, and call it NAME."""
    body: dict[str, Any] = {"name": name, "role": role} | _reach(stores, groups)
    if tenant:
        body["tenant"] = tenant
    if expires_in_days:
        body["expires_in_seconds"] = expires_in_days * 86400
    if given := read_limits(limits):
        body["limits"] = given
    _show_new_key(call(url, "POST", "/v1/admin/keys", json=body), as_json=as_json)


def _reach(stores: str | None, groups: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if stores is not None:
        found["vector_store_ids"] = split_list(stores) or None
    if groups is not None:
        found["groups"] = split_list(groups)
    return found


@keys.command(name="change")
@click.argument("key_id")
@click.option("--stores", help="Limit it to these vector stores; an empty text takes the limit away.")
@click.option("--groups", help="Its groups, instead of those that it has.")
@tenant_option
@url_option
@json_option
def change_key(
    key_id: str, stores: str | None, groups: str | None, tenant: str | None, url: str | None, as_json: bool
) -> None:
    """Change the stores that a key is limited to, or its groups: after five seconds that holds."""
    changed = call(url, "POST", f"/v1/admin/keys/{key_id}", params=_about(tenant), json=_reach(stores, groups))
    show(changed, f"{key_id} is changed.", as_json=as_json)


@keys.command(name="list")
@tenant_option
@url_option
@json_option
def list_keys(tenant: str | None, url: str | None, as_json: bool) -> None:
    """List keys, the newest first."""
    found = call_list(url, "/v1/admin/keys", _about(tenant))
    columns = (
        "id",
        "name",
        "role",
        "vector_store_ids",
        "groups",
        "redacted_value",
        "created_at",
        "expires_at",
        "last_used_at",
    )
    show_list(found, as_json=as_json, columns=columns)


@keys.command(name="rotate")
@click.argument("key_id")
@click.option(
    "--grace-hours", type=click.IntRange(0, 720), default=24, show_default=True, help="For which the old value holds."
)
@tenant_option
@url_option
@json_option
def rotate_key(key_id: str, grace_hours: int, tenant: str | None, url: str | None, as_json: bool) -> None:
    """Give a key a new value."""
    path, grace = f"/v1/admin/keys/{key_id}/rotate", {"grace_seconds": grace_hours * 3600}
    _show_new_key(call(url, "POST", path, params=_about(tenant), json=grace), as_json=as_json)


@keys.command(name="revoke")
@click.argument("key_id")
@tenant_option
@url_option
@json_option
def revoke_key(key_id: str, tenant: str | None, url: str | None, as_json: bool) -> None:
    """Revoke a key: after five seconds it opens nothing."""
    revoked = call(url, "DELETE", f"/v1/admin/keys/{key_id}", params=_about(tenant))
    show(revoked, f"{key_id} is revoked.", as_json=as_json)


def _about(tenant: str | None) -> dict[str, str]:
    return {"tenant": tenant} if tenant else {}


@click.group()
def sessions() -> None:
    """List and end the sessions of people who signed in."""


@sessions.command(name="list")
@tenant_option
@url_option
@json_option
def list_sessions(tenant: str | None, url: str | None, as_json: bool) -> None:
    """List sessions, the newest first."""
    found = call_list(url, "/v1/admin/sessions", _about(tenant))
    show_list(found, as_json=as_json, columns=("subject", "name", "role", "created_at", "expires_at"))


@sessions.command(name="end")
@click.argument("subject")
@tenant_option
@url_option
@json_option
def end_sessions(subject: str, tenant: str | None, url: str | None, as_json: bool) -> None:
    """End all sessions of the person whom the provider calls SUBJECT: after five seconds they open nothing."""
    ended = call(url, "POST", "/v1/admin/sessions/end", params=_about(tenant), json={"subject": subject})
    show(ended, f"Sessions of {subject} that have ended: {ended['count']}.", as_json=as_json)


@click.group()
def tenants() -> None:
    """Make, list and suspend tenants, as their operator."""


@tenants.command(name="create")
@click.argument("name")
@url_option
@json_option
def create_tenant(name: str, url: str | None, as_json: bool) -> None:
    """Make a tenant; NAME is its id: lower-case letters, digits and hyphens."""
    created = call(url, "POST", "/v1/admin/tenants", json={"id": name})
    first_key = f"`ragq keys create NAME --role admin --tenant {name}` makes its first key."
    show(created, f"Tenant {name} is there. {first_key}", as_json=as_json)


@tenants.command(name="list")
@url_option
@json_option
def list_tenants(url: str | None, as_json: bool) -> None:
    """List tenants, the newest first."""
    found = call_list(url, "/v1/admin/tenants")
    show_list(found, as_json=as_json, columns=("id", "status", "weight", "max_running", "created_at"))


def _days_option(what: str, meaning: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(
        f"--keep-{what}-days", type=click.IntRange(0, 36_500), help=f"{meaning}. 0: as the settings say."
    )


@tenants.command(name="set")
@click.argument("name")
@click.option(
    "--weight",
    type=click.FloatRange(0.1, 100),
    help="Its part of the workers beside those of others: with 3 it gets three times as much as one with 1.",
)
@click.option(
    "--max-running",
    type=click.IntRange(0, 10_000),
    help="The most of its questions, and of its documents, that run at once; 0 for no limit.",
)
@_days_option("responses", "Delete archived responses after so many days")
@_days_option("files", "Delete files, with their chunks, so many days after their first upload")
@_days_option("logs", "Delete entries of the audit log after so many days")
@url_option
@json_option
def set_tenant(name: str, url: str | None, as_json: bool, **given: float | None) -> None:
    """Set a tenant's part of the workers, the most of its jobs that run at once, and how long what it has is kept."""
    body = {option: value or None for option, value in given.items() if value is not None}
    found = call(url, "POST", f"/v1/admin/tenants/{name}", json=body)
    shown = [f"{option.replace('_', ' ')} {f'{found[option]:g}' if found[option] else 'none'}" for option in body]
    show(found, f"Tenant {name}: {', '.join(shown) or 'nothing is changed'}.", as_json=as_json)


@tenants.command(name="suspend")
@click.argument("name")
@url_option
@json_option
def suspend_tenant(name: str, url: str | None, as_json: bool) -> None:
    """Suspend a tenant: its keys open nothing, its data stays."""
    suspended = call(url, "POST", f"/v1/admin/tenants/{name}/suspend")
    show(suspended, f"Tenant {name} is suspended.", as_json=as_json)


@tenants.command(name="resume")
@click.argument("name")
@url_option
@json_option
def resume_tenant(name: str, url: str | None, as_json: bool) -> None:
    """Let a suspended tenant go on."""
    show(call(url, "POST", f"/v1/admin/tenants/{name}/resume"), f"Tenant {name} goes on.", as_json=as_json)


@tenants.command(name="delete")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@url_option
@json_option
def delete_tenant(name: str, yes: bool, url: str | None, as_json: bool) -> None:
    """Delete a tenant with its documents, answers and keys, and wait until they are gone."""
    if not yes:
        click.confirm(f"Delete the tenant {name} and everything it has?", abort=True)
    deleted = call(url, "DELETE", f"/v1/admin/tenants/{name}")
    while _is_there(url, name):
        click.echo(".", nl=False, err=True)
        time.sleep(POLL_SECONDS)
    click.echo(err=True)
    show(deleted, f"Nothing is left of {name}.", as_json=as_json)


@tenants.command(name="export")
@click.argument("name")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@url_option
@json_option
def export(name: str, folder: Path, url: str | None, as_json: bool) -> None:
    """Write all that a tenant has into FOLDER; run it again to go on after a break, or to bring it up to date."""
    from ragq.admin.export_command import export_tenant

    def tell(line: str) -> None:
        click.echo(line, err=True)

    exported = with_client(url, lambda client: export_tenant(client, name, folder, tell))
    counts = exported["counts"]
    text = f"{name} is in {folder}: {counts['files']} files, {counts['responses']} answers."
    show(exported, text, as_json=as_json)


def _is_there(url: str | None, tenant: str) -> bool:
    try:
        call(url, "GET", f"/v1/admin/tenants/{tenant}")
    except PermanentError as error:
        if error.code != "not_found":
            raise
        return False
    return True
