"""`ragq feedback`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ragq.admin.command import json_option, show, tenant_option, url_option, with_client
from ragq.admin.paging import list_objects
from ragq.commands.listing import all_option, limit_option, show_objects
from ragq.evaluation.files import check_output

if TYPE_CHECKING:
    from ragq.api_client import ApiClient

PATH = "/v1/admin/feedback"
RATING = click.Choice(["up", "down"])
COLUMNS = ("id", "created_at", "rating", "question", "comment")


@click.group()
def feedback() -> None:
    """Read what people say of answers, as an admin or the operator."""


@feedback.command(name="list")
@click.option("--rating", type=RATING, help="Only these.")
@limit_option
@all_option
@tenant_option
@url_option
@json_option
def list_feedback(
    rating: str | None, limit: int, all_of_them: bool, tenant: str | None, url: str | None, as_json: bool
) -> None:
    """List feedback, the newest first."""
    found = _fetch(url, rating, tenant, most=None if all_of_them else limit)
    show_objects(found, COLUMNS, as_json=as_json)


@feedback.command(name="export")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--rating", type=RATING, default="up", show_default=True, help="Only these.")
@tenant_option
@url_option
@json_option
def export_feedback(file: Path, rating: str, tenant: str | None, url: str | None, as_json: bool) -> None:
    """Write rated questions into FILE, as lines of JSON for `ragq eval`.

    An answer with "up" says which files are right, by its citations. To a question with "down" somebody must add what is right.
    """
    check_output(file)
    found = _fetch(url, rating, tenant, most=None)["data"]
    lines = [_line_of(one) for one in found if one["files"] or rating == "down"]
    file.write_text("".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in reversed(lines)), encoding="utf-8")
    counts = {"written": len(lines), "left_out": len(found) - len(lines)}
    left_out = f" Left out, without a citation: {counts['left_out']}." if counts["left_out"] else ""
    show(counts, f"Questions in {file}: {counts['written']}.{left_out}", as_json=as_json)


def _fetch(url: str | None, rating: str | None, tenant: str | None, *, most: int | None) -> dict[str, Any]:
    params = {name: value for name, value in (("rating", rating), ("tenant", tenant)) if value}

    async def fetch(client: ApiClient) -> dict[str, Any]:
        return await list_objects(client, PATH, params, most=most)

    return with_client(url, fetch)


def _line_of(one: dict[str, Any]) -> dict[str, Any]:
    """Make the line of a data set; what is empty is left out."""
    line = {
        "id": one["id"],
        "history": one["history"],
        "question": one["question"],
        "files": one["files"] if one["rating"] == "up" else [],
        "answer": one["answer"],
        "comment": one["comment"],
    }
    return {name: value for name, value in line.items() if value}
