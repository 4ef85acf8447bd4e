"""Pages of a table, by age and id."""

from __future__ import annotations

from typing import Any

from ragq.client.database import Database, Record
from ragq.client.store_client import Page


async def read_page(
    database: Database,
    record: type[Record],
    page: Page,
    *,
    table: str,
    columns: str,
    scope: str,
    key: str,
    **values: Any,
) -> list[Record]:
    """Read one row more than the page holds, so that the caller knows whether there are more.

    Args:
        table, columns, scope, key: SQL; the scope is the condition of every row, and `key` the id's column.
        values: What the scope names.
    """
    comparison, order = ("<", "DESC") if page.descending else (">", "ASC")
    query = f"SELECT {columns} FROM {table} WHERE {scope}"  # noqa: S608  (SQL of our own)
    if page.after is not None:
        cursor = f"SELECT created_at, {key} FROM {table} WHERE {scope} AND {key} = %(after)s"  # noqa: S608
        query += f" AND (created_at, {key}) {comparison} ({cursor})"
    query += f" ORDER BY created_at {order}, {key} {order} LIMIT %(limit)s"
    return await database.records(
        record, query, after=(page.after or "").replace("\0", ""), limit=page.limit + 1, **values
    )
