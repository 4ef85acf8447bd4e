"""Lists of tables by age, page by page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ragq.errors import InvalidRequestError
from ragq.storage.tenancy.access import Access, Record


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list. With only `before`, the page that ends just before that object."""

    limit: int = 20
    descending: bool = True
    after: str | None = None
    before: str | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """How to list a table, in our own SQL.

    Attributes:
        query: `SELECT … WHERE …`, to which conditions are appended.
        scope: Condition for the rows that a cursor may name.
        key: Column of the ids.
        alias: The table's name in the query.
        group: SQL after the conditions.
    """

    table: str
    query: str
    scope: str
    key: str = "id"
    alias: str = ""
    group: str = ""


async def read_page(
    access: Access, record: type[Record], listed: Listed, page: Page, *, condition: str = "", **values: Any
) -> list[Record]:
    """Read a page, with one row more than the page holds if there are more.

    Args:
        condition: More SQL conditions, beginning with AND.
        values: Parameters of the SQL.

    Raises:
        InvalidRequestError: The object named by `after` or `before` does not exist.
    """
    backwards = page.before is not None and page.after is None
    order = "DESC" if page.descending != backwards else "ASC"
    alias = listed.alias or listed.table
    query = listed.query + condition
    for name in _cursors(page):
        comparison = "<" if page.descending == (name == "after") else ">"
        query += f" AND ({alias}.created_at, {alias}.{listed.key}) {comparison} {_place(listed, name)}"
    query += f"{listed.group} ORDER BY {alias}.created_at {order}, {alias}.{listed.key} {order} LIMIT %(limit)s"
    values |= {name: getattr(page, name).replace("\0", "") for name in _cursors(page)}
    records = await access.records(record, query, limit=page.limit + 1, **values)
    if not records:
        await _check_cursors(access, listed, page, values)
    return [*reversed(records[: page.limit]), *records[page.limit :]] if backwards else records


async def _check_cursors(access: Access, listed: Listed, page: Page, values: dict[str, Any]) -> None:
    for name in _cursors(page):
        row = await access.row(f"SELECT NOT EXISTS {_place(listed, name)} AS gone", **values)
        if row and row["gone"]:
            raise InvalidRequestError(
                f"No object has the id given in '{name}'. Leave it out to list from the start.", param=name
            )


def _cursors(page: Page) -> list[str]:
    return [name for name in ("after", "before") if getattr(page, name) is not None]


def _place(listed: Listed, name: str) -> str:
    """SQL for the position of a cursor's object in the list."""
    key = listed.key
    return f"(SELECT created_at, {key} FROM {listed.table} WHERE {key} = %({name})s AND {listed.scope})"  # noqa: S608  (SQL of our own)
