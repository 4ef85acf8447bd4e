"""Read the API's lists to their end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ragq.api_client import ApiClient

PAGE = 100


async def list_objects(
    client: ApiClient,
    path: str,
    params: Mapping[str, Any] | None = None,
    *,
    most: int | None = None,
    keep: Callable[[dict[str, Any]], bool] = lambda _: True,
    searched: int | None = None,
) -> dict[str, Any]:
    """List objects, page after page, as one list of the API's form.

    Args:
        most: How many at most; None for all.
        keep: Tells which ones are wanted.
        searched: After how many, wanted or not, no other page is read; None for no end.
    """
    found: list[dict[str, Any]] = []
    seen = 0
    wanted_params = dict(params or {}) | {"limit": PAGE}
    while True:
        page = await client.call("GET", path, params=wanted_params)
        wanted = [one for one in page["data"] if keep(one)]
        space = len(wanted) if most is None else most - len(found)
        found += wanted[:space]
        seen += len(page["data"])
        cursor = _cursor_after(page)
        if len(found) == most or cursor is None or (searched is not None and seen >= searched):
            return {"object": "list", "data": found, "has_more": cursor is not None or len(wanted) > space}
        wanted_params["after"] = cursor


def _cursor_after(page: dict[str, Any]) -> str | None:
    """Where the next page begins; None after the last one. Lists of jobs have a cursor of their own."""
    if "next" in page:
        return page["next"]  # type: ignore[no-any-return]
    return page["last_id"] if page["has_more"] else None
