"""`ragq audit-log`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from ragq.admin.command import call_list, json_option, show_list, tenant_option, url_option

COLUMNS = ("effective_at", "type", "outcome", "code", "count", "tenant", "actor", "address", "resource_id")


@click.command(name="audit-log")
@click.option(
    "--since",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    metavar="TIME",
    help="Only from this time on, in UTC: 2026-01-31 or 2026-01-31T12:00:00.",
)
@click.option("--action", multiple=True, help="Only entries of this type, such as key.created; may be repeated.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Most entries.")
@tenant_option
@url_option
@json_option
def audit_log(
    since: datetime | None, action: tuple[str, ...], limit: int, tenant: str | None, url: str | None, as_json: bool
) -> None:
    """Show who changed what, the newest first: keys, tenants, documents, webhooks, and what was refused."""
    wanted: dict[str, Any] = {"tenant": tenant} if tenant else {}
    if action:
        wanted["event_types"] = list(action)
    if since:
        wanted["effective_at[gte]"] = int(since.replace(tzinfo=UTC).timestamp())
    found = call_list(url, "/v1/admin/audit_log", wanted, most=limit)
    if not as_json:
        found["data"] = [_flatten(entry) for entry in found["data"]]
    show_list(found, as_json=as_json, columns=COLUMNS)


def _flatten(entry: dict[str, Any]) -> dict[str, Any]:
    actor = entry["actor"]
    return entry | {"actor": actor["name"] or actor["type"], "address": actor["ip_address"]}
