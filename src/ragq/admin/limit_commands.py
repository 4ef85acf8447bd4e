"""`ragq tenants limit`, `ragq keys limit` and `ragq usage`."""

from __future__ import annotations

import csv
import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from ragq.admin.command import call, json_option, keys, tenant_option, tenants, url_option
from ragq.admin.limit_options import KEY_LIMITS, LIMITS, limit_options, read_limits
from ragq.terminal import format_table

BY = {"day": ("1d", ()), "key": ("all", ("key",)), "model": ("all", ("model",)), "tenant": ("all", ("tenant",))}
COLUMNS = ("requests", "input_tokens", "output_tokens", "estimated_tokens", "documents", "pages", "cost")


def _show(found: dict[str, Any], *, as_json: bool, whose: str) -> None:
    limits = [
        f"{found[name]:,} {text}".replace(".0 ", " ") for name, text in LIMITS.items() if found.get(name) is not None
    ]
    click.echo(json.dumps(found, indent=2) if as_json else f"{whose}: {', '.join(limits) or 'no limits'}.")


@tenants.command(name="limit")
@click.argument("name")
@limit_options(*LIMITS)
@url_option
@json_option
def limit_tenant(name: str, url: str | None, as_json: bool, **limits: Any) -> None:
    """Set limits and budgets of a tenant, for all of its keys together; without options, show them."""
    body = read_limits(limits)
    found = (
        call(url, "POST", f"/v1/admin/tenants/{name}/limits", json=body)
        if body
        else call(url, "GET", "/v1/admin/limits", params={"tenant": name})
    )
    _show(found, as_json=as_json, whose=f"Tenant {name}")


@keys.command(name="limit")
@click.argument("key_id")
@limit_options(*KEY_LIMITS)
@tenant_option
@url_option
@json_option
def limit_key(key_id: str, tenant: str | None, url: str | None, as_json: bool, **limits: Any) -> None:
    """Set limits of a key, beside those of its tenant."""
    params = {"tenant": tenant} if tenant else {}
    found = call(url, "POST", f"/v1/admin/keys/{key_id}/limits", params=params, json=read_limits(limits))
    _show(found, as_json=as_json, whose=f"Key {key_id}")


@click.command()
@click.option("--tenant", help="Of this tenant, for the operator; default: all of them, or the key's own.")
@click.option("--since", type=click.DateTime(["%Y-%m-%d"]), help="First day, in UTC; default: 29 days before the last.")
@click.option("--until", type=click.DateTime(["%Y-%m-%d"]), help="Last day; default: today.")
@click.option("--by", type=click.Choice(list(BY)), default="day", show_default=True, help="What to add up by.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@url_option
@json_option
def usage(
    tenant: str | None,
    since: datetime | None,
    until: datetime | None,
    by: str,
    as_csv: bool,
    url: str | None,
    as_json: bool,
) -> None:
    """Show what was used: requests, tokens, documents and cost."""
    width, groups = BY[by]
    params: list[tuple[str, str]] = [("bucket_width", width), *(("group_by", group) for group in groups)]
    params += [("tenant", tenant)] if tenant else []
    params += [("start_time", _seconds(since))] if since else []
    params += [("end_time", _seconds(until + timedelta(days=1)))] if until else []
    found = call(url, "GET", "/v1/admin/usage", params=params)
    rows = [_row(bucket, one, by) for bucket in found["data"] for one in bucket["results"]]
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif as_csv:
        writer = csv.DictWriter(sys.stdout, (by, *COLUMNS), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    else:
        click.echo(format_table(rows, (by, *COLUMNS)))


def _seconds(day: datetime) -> str:
    return str(int(day.replace(tzinfo=UTC).timestamp()))


def _row(bucket: dict[str, Any], one: dict[str, Any], by: str) -> dict[str, Any]:
    named = {
        "day": f"{datetime.fromtimestamp(bucket['start_time'], UTC):%Y-%m-%d}",
        "key": one["api_key_id"] or "RAGQ_API_KEY",
        "model": one["model"],
        "tenant": one["project_id"],
    }
    return {**one, "requests": one["num_model_requests"], by: named[by], "cost": f"{one['cost']:.4f}"}
