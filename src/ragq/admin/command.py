"""`ragq keys` and `ragq tenants`."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import click

from ragq.errors import PermanentError
from ragq.terminal import format_table

POLL_SECONDS = 1.0

url_option = click.option("--url", help="Where the API listens (RAGQ_URL).")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
tenant_option = click.option("--tenant", help="Of this tenant, for the operator; default: the key's own.")


def _show_list(found: dict[str, Any], *, as_json: bool, columns: tuple[str, ...]) -> None:
    click.echo(json.dumps(found, indent=2) if as_json else format_table(found["data"], columns))


def _call(url: str | None, method: str, path: str, **options: Any) -> dict[str, Any]:
    from ragq.api_client import open_client

    async def run() -> dict[str, Any]:
        async with open_client(url) as client:
            return await client.call(method, path, **options)

    return asyncio.run(run())


@click.group()
def keys() -> None:
    """Make, list and revoke API keys."""


def _show_new_key(key: dict[str, Any], *, as_json: bool) -> None:
    click.echo(json.dumps(key, indent=2) if as_json else key["value"])
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
@tenant_option
@url_option
@json_option
def create_key(
    name: str, role: str, expires_in_days: int | None, tenant: str | None, url: str | None, as_json: bool
) -> None:
    """Make a key, and call it NAME."""
    body: dict[str, Any] = {"name": name, "role": role}
    if tenant:
        body["tenant"] = tenant
    if expires_in_days:
        body["expires_in_seconds"] = expires_in_days * 86400
    _show_new_key(_call(url, "POST", "/v1/admin/keys", json=body), as_json=as_json)


@keys.command(name="list")
@tenant_option
@url_option
@json_option
def list_keys(tenant: str | None, url: str | None, as_json: bool) -> None:
    """List keys, the newest first."""
    found = _call(url, "GET", "/v1/admin/keys", params=_about(tenant) | {"limit": "100"})
    columns = ("id", "name", "role", "redacted_value", "created_at", "expires_at", "last_used_at")
    _show_list(found, as_json=as_json, columns=columns)


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
    _show_new_key(_call(url, "POST", path, params=_about(tenant), json=grace), as_json=as_json)


@keys.command(name="revoke")
@click.argument("key_id")
@tenant_option
@url_option
def revoke_key(key_id: str, tenant: str | None, url: str | None) -> None:
    """Revoke a key: after five seconds it opens nothing."""
    _call(url, "DELETE", f"/v1/admin/keys/{key_id}", params=_about(tenant))
    click.echo(f"{key_id} is revoked.")


def _about(tenant: str | None) -> dict[str, str]:
    return {"tenant": tenant} if tenant else {}


@click.group()
def tenants() -> None:
    """Make, list and suspend tenants, as their operator."""


@tenants.command(name="create")
@click.argument("name")
@url_option
def create_tenant(name: str, url: str | None) -> None:
    """Make a tenant; NAME is its id: lower-case letters, digits and hyphens."""
    _call(url, "POST", "/v1/admin/tenants", json={"id": name})
    click.echo(f"Tenant {name} is there. `ragq keys create NAME --role admin --tenant {name}` makes its first key.")


@tenants.command(name="list")
@url_option
@json_option
def list_tenants(url: str | None, as_json: bool) -> None:
    """List tenants, the newest first."""
    found = _call(url, "GET", "/v1/admin/tenants", params={"limit": "100"})
    _show_list(found, as_json=as_json, columns=("id", "status", "created_at"))


@tenants.command(name="suspend")
@click.argument("name")
@url_option
def suspend_tenant(name: str, url: str | None) -> None:
    """Suspend a tenant: its keys open nothing, its data stays."""
    _call(url, "POST", f"/v1/admin/tenants/{name}/suspend")
    click.echo(f"Tenant {name} is suspended.")


@tenants.command(name="resume")
@click.argument("name")
@url_option
def resume_tenant(name: str, url: str | None) -> None:
    """Let a suspended tenant go on."""
    _call(url, "POST", f"/v1/admin/tenants/{name}/resume")
    click.echo(f"Tenant {name} goes on.")


@tenants.command(name="delete")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@url_option
def delete_tenant(name: str, yes: bool, url: str | None) -> None:
    """Delete a tenant with its documents, answers and keys, and wait until they are gone."""
    if not yes:
        click.confirm(f"Delete the tenant {name} and everything it has?", abort=True)
    _call(url, "DELETE", f"/v1/admin/tenants/{name}")
    while _is_there(url, name):
        click.echo(".", nl=False, err=True)
        time.sleep(POLL_SECONDS)
    click.echo(err=True)
    click.echo(f"Nothing is left of {name}.")


def _is_there(url: str | None, tenant: str) -> bool:
    try:
        _call(url, "GET", f"/v1/admin/tenants/{tenant}")
    except PermanentError as error:
        if error.code != "not_found":
            raise
        return False
    return True
