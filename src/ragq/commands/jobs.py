"""`ragq jobs`: questions and ingests in the queue, and those that have ended."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from ragq.admin.command import json_option, url_option, with_client
from ragq.admin.paging import list_objects
from ragq.commands.listing import Kind, all_option, do_each, find_id, limit_option, show_objects, yes_option
from ragq.errors import NotFoundError, PermanentError
from ragq.terminal import format_fields, format_response, format_table

if TYPE_CHECKING:
    from ragq.api_client import ApiClient

JOBS = Kind("job", "jobs list", "/v1/admin/jobs")
STATES = ("queued", "scheduled", "started", "finished", "failed", "canceled")
COLUMNS = ("id", "tenant", "queue", "kind", "state", "created_at", "ran_ms", "error_code", "excerpt")
FIELDS = ("id", "tenant", "api_key_id", "queue", "kind", "state", "created_at", "attempts", "model", "error_code")
TEXTS = ("question", "answer", "error")  # of a timeline


@click.group()
def jobs() -> None:
    """List, show, retry, cancel and delete jobs, as an admin or the operator."""


@jobs.command(name="list")
@click.option("--state", type=click.Choice(STATES), help="Only these.")
@click.option("--queue", type=click.Choice(["queries", "documents"]), help="Only of this queue.")
@click.option("--tenant", metavar="ID", help="Only of this tenant, for the operator.")
@click.option("--key", metavar="ID", help="Only those that were made with this API key.")
@click.option("--worker", metavar="NAME", help="Only those that this worker ran.")
@click.option("--text", metavar="WORDS", help="Only those with these words.")
@click.option("--error", "error_code", metavar="CODE", help="Only those that failed with this code.")
@click.option(
    "--since",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    metavar="TIME",
    help="Only from this time on, in UTC: 2026-01-31 or 2026-01-31T12:00:00.",
)
@limit_option
@all_option
@url_option
@json_option
def list_jobs(
    since: datetime | None, limit: int, all_of_them: bool, url: str | None, as_json: bool, **wanted: str | None
) -> None:
    """List jobs: those that have not ended, then the others, the newest first."""
    params: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
    if since:
        params["since"] = int(since.replace(tzinfo=UTC).timestamp())
    most = None if all_of_them else limit
    found = with_client(url, lambda client: list_objects(client, JOBS.path, params, most=most))
    show_objects(found, COLUMNS, as_json=as_json)


@jobs.command(name="show")
@click.argument("job")
@url_option
@json_option
def show_job(job: str, url: str | None, as_json: bool) -> None:
    """Show a job, with its steps and their times. JOB is its id or the beginning of its id.

    Without an admin's key a response is shown to the key that asked for it.
    """

    async def read(client: ApiClient) -> dict[str, Any]:
        try:
            return await client.call("GET", f"{JOBS.path}/{await find_id(client, JOBS, job)}")
        except PermanentError as error:
            may_be_own = isinstance(error, NotFoundError) or error.code == "insufficient_role"
            if not (may_be_own and job.startswith("resp_")):
                raise
            return await client.call("GET", f"/v1/responses/{job}")

    found = with_client(url, read)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif "timeline" in found:
        click.echo(_format_job(found))
    else:
        click.echo(format_response(found))


def _format_job(job: dict[str, Any]) -> str:
    """Format what is known of a job, its steps in seconds from the first, and its texts."""
    timeline = job["timeline"]
    steps = [step | {"seconds": f"+{step['at'] - job['created_at']:.2f}"} for step in timeline["steps"]]
    parts = [
        format_fields({name: job[name] for name in FIELDS}),
        format_table(steps, ("seconds", "what", "attempt", "detail")),
        "  ".join(f"{one['stage']} {one['ms']} ms" for one in timeline["stages"]),
        *(f"{click.style(name, bold=True)}: {timeline[name]}" for name in TEXTS if timeline[name]),
    ]
    if timeline["sources"]:
        parts.append(format_table(timeline["sources"], ("filename", "page", "score", "citations")))
    return "\n\n".join(filter(None, parts))


@jobs.command(name="retry")
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
@url_option
@json_option
def retry_jobs(jobs: tuple[str, ...], url: str | None, as_json: bool) -> None:
    """Run jobs that failed or were cancelled once more."""
    _change(jobs, "POST", "/retry", "waits again", url=url, as_json=as_json)


@jobs.command(name="cancel")
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
@url_option
@json_option
def cancel_jobs(jobs: tuple[str, ...], url: str | None, as_json: bool) -> None:
    """Cancel jobs that have not ended."""
    _change(jobs, "POST", "/cancel", "is cancelled", url=url, as_json=as_json)


@jobs.command(name="rm")
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
@yes_option
@url_option
@json_option
def remove_jobs(jobs: tuple[str, ...], yes: bool, url: str | None, as_json: bool) -> None:
    """Delete jobs, and the answers of questions. One that has not ended is cancelled."""
    if not yes:
        click.confirm(f"Delete {len(jobs)} jobs?", abort=True, err=True)
    _change(jobs, "DELETE", "", "is deleted", url=url, as_json=as_json)


def _change(jobs: tuple[str, ...], method: str, step: str, done: str, *, url: str | None, as_json: bool) -> None:
    async def send(client: ApiClient) -> None:
        ids = [await find_id(client, JOBS, job) for job in jobs]
        await do_each(
            ids,
            lambda one: client.call(method, f"{JOBS.path}/{one}{step}"),
            lambda changed: f"{changed['id']} {done}.",
            as_json=as_json,
        )

    with_client(url, send)
