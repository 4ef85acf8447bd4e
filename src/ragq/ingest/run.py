"""Bring a store up to its sources: upload what is new, follow it until it can be searched, remove what has vanished."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ragq.api_client import ApiClient
from ragq.errors import RagqError
from ragq.ingest.plan import SOURCE, Plan, attributes_of, make_plan, name_in_store, refuse_overlap, refuse_same_names
from ragq.ingest.sources import Item, Source
from ragq.ingest.web import DISALLOWED

STORE = "/v1/vector_stores/default/files"
UPLOADS_AT_ONCE = 4
IN_FLIGHT = 32  # uploaded and followed at once, so that a long document holds up none behind it
PAGE = 100

Advance = Callable[[float], None]
"""Called with the share of the work that was done since the last call; in the end all calls add up to the number of items."""


@dataclass(slots=True)
class Summary:
    """What came of a run.

    Attributes:
        unsent: What did not arrive in the store; one of them may be the new name of what has vanished.
        kept: How many have vanished and are kept, as not all was sent.
        failures: (name, reason) of what cannot be searched.
        skipped: (name, reason) of what is no document.
        warnings: (name, warning) of what can be searched in part.
    """

    done: int = 0
    unchanged: int = 0
    removed: int = 0
    unsent: int = 0
    kept: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[tuple[str, str]] = field(default_factory=list)


async def make_plans(client: ApiClient, sources: Sequence[Source]) -> list[tuple[Source, Plan]]:
    """List the sources and the store, and compare them.

    Raises:
        PermanentError: A source cannot be listed.
        ConfigurationError: Two sources, or two of their documents, would have the same names.
    """
    refuse_overlap(sources)
    stored = await _list_stored(client)
    listed = [(source, [item async for item in source.list_items()]) for source in sources]
    refuse_same_names(item for _, items in listed for item in items)
    # A source that lists nothing is more likely to be away than to be emptied.
    return [(source, make_plan(source, items, stored if items else [])) for source, items in listed]


async def carry_out(
    client: ApiClient,
    plans: Sequence[tuple[Source, Plan]],
    *,
    sync: bool,
    readers: Sequence[str] = (),
    advance: Advance = lambda _: None,
) -> Summary:
    """Do what the plans say; with `sync` also remove what has vanished, once all else is there.

    Args:
        readers: Groups that may read what is put in.
    """
    summary = Summary(unchanged=sum(len(plan.unchanged) for _, plan in plans))
    uploads, in_flight = asyncio.Semaphore(UPLOADS_AT_ONCE), asyncio.Semaphore(IN_FLIGHT)

    async def put(source: Source, item: Item) -> None:
        async with in_flight:
            await _put(client, source, item, readers, uploads, advance, summary)

    await asyncio.gather(*(put(source, item) for source, plan in plans for item in plan.to_put))
    vanished = [file for _, plan in plans for file in plan.vanished] if sync else []
    if summary.unsent:
        summary.kept = len(vanished)
    else:
        await _remove(client, vanished, summary)
    return summary


async def _remove(client: ApiClient, files: Sequence[dict[str, Any]], summary: Summary) -> None:
    for file in files:
        try:
            await client.call("DELETE", f"/v1/files/{file['id']}")
            summary.removed += 1
        except RagqError as error:
            summary.failures.append((file["attributes"][SOURCE], f"It cannot be removed: {error.message}"))


async def _put(
    client: ApiClient,
    source: Source,
    item: Item,
    readers: Sequence[str],
    uploads: asyncio.Semaphore,
    advance: Advance,
    summary: Summary,
) -> None:
    told = 0.0

    def tell(share: float) -> None:
        nonlocal told
        advance(share - told)
        told = share

    try:
        item.name.encode()  # a name of this machine that is not UTF-8 cannot be sent
        async with uploads, source.open(item) as file:
            state = await client.put(file, name_in_store(item), attributes_of(item), readers)
        state = await client.follow(state, on_progress=tell)
        _judge(item.name, state, summary)
    except RagqError as error:
        kind = summary.skipped if error.code == "unsupported_file" else summary.failures
        kind.append((item.name, error.message))
        summary.unsent += error.code not in ("unsupported_file", DISALLOWED)
    except (OSError, UnicodeError) as error:
        shown = item.name.encode("utf-8", "backslashreplace").decode()
        summary.failures.append((shown, f"It cannot be read: {error}."))
        summary.unsent += 1
    tell(1.0)


def _judge(name: str, state: dict[str, Any], summary: Summary) -> None:
    error = state["last_error"]
    if state["status"] == "completed":
        summary.done += 1
        summary.warnings += [(name, warning) for warning in state["warnings"]]
    elif error and error["code"] == "unsupported_file":
        summary.skipped.append((name, error["message"]))
    else:
        summary.failures.append((name, error["message"] if error else state["status"]))


async def _list_stored(client: ApiClient) -> list[dict[str, Any]]:
    stored: list[dict[str, Any]] = []
    query: dict[str, str | int] = {"limit": PAGE}
    while True:
        page = await client.call("GET", STORE, params=query)
        stored += page["data"]
        if not page["has_more"]:
            return stored
        query["after"] = page["last_id"]


def describe_reasons(reasons: Sequence[tuple[str, str]]) -> list[str]:
    """Count the reasons, most frequent first, for a summary of many."""
    counts = Counter(reason for _, reason in reasons)
    return [f"{count} × {reason}" for reason, count in counts.most_common()]
