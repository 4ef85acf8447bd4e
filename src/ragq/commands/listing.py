"""Show the API's lists, and find the object that a shortened id or a name means."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ragq.admin.paging import list_objects
from ragq.errors import InvalidRequestError, NotFoundError
from ragq.terminal import format_table

if TYPE_CHECKING:
    from ragq.api_client import ApiClient

SEARCHED = 20_000  # objects that are looked at for a shortened id or a name, the newest first
SHOWN = 5  # of several that a shortened id may mean
WHOLE_ID = re.compile(r"[a-z]+[_-][0-9a-f]{32}(?:-file-[0-9a-f]{32}-\d+)?")  # the latter of a document's job
PLAIN_ID = re.compile(r"[a-z]+[_-][0-9a-f]{32}")
BEGUN_ID = re.compile(r"(?:[a-z]+[_-])?[0-9a-f]+")
SHORT_ID = re.compile(r"(?:[a-z]+[_-])?[0-9a-f]{12,}")  # long enough to be of one object alone
SHOWN_ID = re.compile(r"([a-z]+[_-][0-9a-f]{12})[0-9a-f]{20}")

limit_option = click.option(
    "--limit", type=click.IntRange(1), default=100, show_default=True, help="Most lines, the newest first."
)
all_option = click.option("--all", "all_of_them", is_flag=True, help="All of them, whatever --limit says.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object that a command is about.

    Attributes:
        noun: What messages call it.
        command: The command that lists them, for messages.
        path: The API's list of them.
        name: The field that has an object's name; empty if they have none.
        name_filter: The list's parameter that takes a part of the name, so that not all of them are looked at.
    """

    noun: str
    command: str
    path: str
    name: str = ""
    name_filter: str = ""


async def find_id(client: ApiClient, kind: Kind, given: str) -> str:
    """Find the id of the object that has a name, or whose id begins as given, with or without its prefix.

    Raises:
        NotFoundError: There is none.
        InvalidRequestError: There are several, or too many to look at.
    """
    if WHOLE_ID.fullmatch(given):
        return given
    if not given:  # each id begins so
        raise InvalidRequestError(f"The id of a {kind.noun} is empty. `ragq {kind.command}` lists them.")
    meant = await _find(client, kind, given)
    if not meant:
        or_name = " or name" if kind.name else ""
        raise NotFoundError(f"No {kind.noun} has this id{or_name}: '{given}'. `ragq {kind.command}` lists them.")
    if len(meant) > 1:
        shown = ", ".join(one["id"] for one in meant[:SHOWN]) + ", …" * (len(meant) > SHOWN)
        raise InvalidRequestError(f"'{given}' may be each of {len(meant)} {kind.noun}s: give more of the id. {shown}")
    found_id: str = meant[0]["id"]
    return found_id


async def _find(client: ApiClient, kind: Kind, given: str) -> list[dict[str, Any]]:
    """Find the objects that have a name, or else those whose ids begin as given."""

    def is_named(one: dict[str, Any]) -> bool:
        return bool(kind.name) and one[kind.name] == given

    def is_meant(one: dict[str, Any]) -> bool:
        bare = re.split("[_-]", one["id"], maxsplit=1)[-1]
        return bool(one["id"].startswith(given) or bare.startswith(given) or is_named(one))

    if kind.name_filter:
        found = await _look_at(client, kind, is_named, {kind.name_filter: given})
        if found or not BEGUN_ID.fullmatch(given):
            return found
    most = 1 if SHORT_ID.fullmatch(given) else None
    if most and kind.name and not kind.name_filter:
        most = 2  # a name may look like an id, and several may have it
    found = await _look_at(client, kind, is_meant, most=most)
    if most == 1 and found and not PLAIN_ID.fullmatch(found[0]["id"]):  # those of a store's documents begin alike
        found = await _look_at(client, kind, is_meant)
    return [one for one in found if is_named(one)] or found


async def _look_at(
    client: ApiClient,
    kind: Kind,
    is_meant: Callable[[dict[str, Any]], bool],
    params: Mapping[str, Any] | None = None,
    *,
    most: int | None = None,
) -> list[dict[str, Any]]:
    """Find those that are meant among the newest.

    Raises:
        InvalidRequestError: There are more, which may be meant, too.
    """
    found = await list_objects(client, kind.path, params, most=most, keep=is_meant, searched=SEARCHED)
    if found["has_more"] and len(found["data"]) != most:
        raise InvalidRequestError(
            f"Only the newest {SEARCHED:,} {kind.noun}s were looked at: give the whole id. `ragq {kind.command}` lists them."
        )
    return found["data"]  # type: ignore[no-any-return]


async def do_each(
    ids: Iterable[str],
    do: Callable[[str], Awaitable[dict[str, Any]]],
    tell: Callable[[dict[str, Any]], str],
    *,
    as_json: bool,
) -> None:
    """Do something to one object after another, and print what came of each, also of those before one that fails.

    Args:
        tell: Says it in words; JSON is one list.
    """
    done, is_over = list[dict[str, Any]](), False
    try:
        for one in dict.fromkeys(ids):
            done.append(await do(one))
            if not as_json:
                click.echo(tell(done[-1]))
        is_over = True
    finally:
        if as_json and (done or is_over):
            click.echo(json.dumps({"object": "list", "data": done}, indent=2))


def _shorten(object_id: str) -> str:
    shown = SHOWN_ID.fullmatch(object_id)
    return shown[1] if shown else object_id


def show_objects(found: dict[str, Any], columns: Sequence[str], *, as_json: bool) -> None:
    """Print a list as JSON or as a table, and say if there are more. In a terminal ids are shortened."""
    rows = found["data"]
    if sys.stdout.isatty():
        rows = [one | {"id": _shorten(one["id"])} for one in rows]
    click.echo(json.dumps(found, indent=2) if as_json else format_table(rows, columns))
    if found["has_more"]:
        click.secho("There are more: --limit N or --all shows them.", dim=True, err=True)
