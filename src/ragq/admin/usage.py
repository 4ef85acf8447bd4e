"""What tenants used, in the shape of OpenAI's `GET /organization/usage/completions`."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.responses import JSONResponse
from typing_extensions import TypedDict

from ragq.accounts.roles import Role
from ragq.admin.audit_log import Second
from ragq.admin.keys import choose_tenant
from ragq.errors import InvalidRequestError
from ragq.http.input import CheckedRoute
from ragq.http.openapi import shows
from ragq.routes.context import Admin, ContextDependency
from ragq.storage.tenancy.usage import Group, UsageSum

router = APIRouter(prefix="/v1/admin/usage", route_class=CheckedRoute)

DEFAULT_DAYS, MOST_DAYS = 30, 366
DAY = timedelta(days=1)
CSV = "text/csv"
GroupBy = Literal["tenant", "project_id", "key", "api_key_id", "model"]
GROUPS: dict[str, Group] = {
    "tenant": "tenant",
    "project_id": "tenant",
    "key": "key",
    "api_key_id": "key",
    "model": "model",
}


class UsageResult(TypedDict):
    """What was used; `project_id` is the tenant. Of what it is not grouped by, there is null."""

    object: Literal["organization.usage.completions.result"]
    project_id: str | None
    api_key_id: str | None
    model: str | None
    num_model_requests: int
    input_tokens: int
    output_tokens: int
    input_cached_tokens: int
    estimated_tokens: int
    waited_seconds: float
    retrieve_seconds: float
    answer_seconds: float
    documents: int
    pages: int
    cost: float


class UsageBucket(TypedDict):
    """A day of UTC, or all days together."""

    object: Literal["bucket"]
    start_time: int
    end_time: int
    results: list[UsageResult]


class UsagePage(TypedDict):
    """What was used, by time."""

    object: Literal["page"]
    data: list[UsageBucket]
    has_more: Literal[False]
    next_page: None


async def _days(start_time: Second = None, end_time: Second = None) -> tuple[date, date]:
    """The first and the last day of UTC between two times, the later one exclusive.

    Raises:
        InvalidRequestError: They are in the wrong order, or too far apart.
    """
    now = datetime.now(UTC)
    last = (now if end_time is None else datetime.fromtimestamp(end_time, UTC) - timedelta(seconds=1)).date()
    default = last - (DEFAULT_DAYS - 1) * DAY
    first = datetime.fromtimestamp(start_time, UTC).date() if start_time is not None else default
    if not 0 <= (last - first).days < MOST_DAYS:
        raise InvalidRequestError(
            f"The range must begin before it ends, and have at most {MOST_DAYS} days.", param="start_time"
        )
    return first, last


async def _groups(
    bucket_width: Literal["1d", "all"] = "1d",
    group_by: Annotated[list[GroupBy] | None, Query()] = None,
    group_by_list: Annotated[list[GroupBy] | None, Query(alias="group_by[]")] = None,
) -> list[Group]:
    groups = [GROUPS[name] for name in [*(group_by or []), *(group_by_list or [])]]
    return [*groups, "day"] if bucket_width == "1d" else groups


async def _is_csv(
    form: Annotated[Literal["json", "csv"] | None, Query(alias="format")] = None,
    accept: Annotated[str, Header()] = "",
) -> bool:
    return form == "csv" or (form is None and CSV in accept)


@router.get("", response_model=None, responses=shows(UsagePage))
async def get_usage(
    context: ContextDependency,
    caller: Admin,
    days: Annotated[tuple[date, date], Depends(_days)],
    groups: Annotated[list[Group], Depends(_groups)],
    is_csv: Annotated[bool, Depends(_is_csv)],
    tenant: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """Show what a tenant used, as JSON or CSV; the operator sees all tenants unless it names one."""
    of = choose_tenant(caller, tenant) if tenant or caller.role is not Role.OPERATOR else None
    first, last = days
    sums = await context.usage.report(of, first=first, last=last, by=groups)
    if is_csv:
        headers = {"Content-Disposition": "attachment; filename=usage.csv"}
        return Response(_write_csv(sums), media_type=CSV, headers=headers)
    page: UsagePage = {"object": "page", "data": _buckets(sums, first, last), "has_more": False, "next_page": None}
    return JSONResponse(page)


def _buckets(sums: Sequence[UsageSum], first: date, last: date) -> list[UsageBucket]:
    return [
        {
            "object": "bucket",
            "start_time": _seconds(day or first),
            "end_time": _seconds((day or last) + DAY),
            "results": [_render(one) for one in group],
        }
        for day, group in groupby(sums, key=lambda one: one.day)
    ]


def _seconds(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


def _render(one: UsageSum) -> UsageResult:
    return {
        "object": "organization.usage.completions.result",
        "project_id": one.tenant,
        "api_key_id": one.key,
        "model": one.model,
        "num_model_requests": one.requests,
        "input_tokens": one.input_tokens,
        "output_tokens": one.output_tokens,
        "input_cached_tokens": one.cached_tokens,
        "estimated_tokens": one.estimated_tokens,
        "waited_seconds": one.waited_ms / 1000,
        "retrieve_seconds": one.retrieve_ms / 1000,
        "answer_seconds": one.answer_ms / 1000,
        "documents": one.documents,
        "pages": one.pages,
        "cost": float(one.cost),
    }


def _write_csv(sums: Sequence[UsageSum]) -> str:
    """A line for each sum, with only the columns that it is grouped by."""
    rows: list[dict[str, Any]] = [
        {name: value for name, value in asdict(one).items() if value is not None} | {"cost": f"{one.cost:f}"}
        for one in sums
    ]
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\r\n")
    if rows:
        writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
