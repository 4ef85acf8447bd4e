"""Compare a source with the store: what is new or changed, what is as it was, what has vanished."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

from ragq.errors import ConfigurationError
from ragq.ingest.sources import Item, Source

SOURCE, BYTES, MODIFIED = "source", "source_bytes", "source_modified"
"""Attributes of a file in the store: where it comes from, and its size and time there."""
MAX_SOURCE = 512  # characters of an attribute
MAX_NAME = 255  # characters of a file's name
KEPT_NAME = 200


@dataclass(slots=True)
class Plan:
    """What to do for a source.

    Attributes:
        to_put: New, changed, or not completed before.
        unchanged: Names of what is in the store as it is in the source.
        vanished: Files of the store that came from the source and are not there any more.
    """

    to_put: list[Item] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    vanished: list[dict[str, Any]] = field(default_factory=list)


def refuse_overlap(sources: Sequence[Source]) -> None:
    """Refuse sources whose documents would be taken for each other's.

    Raises:
        ConfigurationError: The names of two sources begin alike.
    """
    for one, other in permutations(sources, 2):
        if one.prefix and other.prefix.startswith(one.prefix):
            raise ConfigurationError(
                f"Two of the places hold documents whose names begin with {one.prefix}. Ingest their common parent, "
                "or rename one of them."
            )


def refuse_same_names(items: Iterable[Item]) -> None:
    """Refuse two documents of which one would replace the other.

    Raises:
        ConfigurationError: The message names both.
    """
    keys: dict[str, str] = {}
    for item in items:
        name = name_in_store(item)
        if name in keys:
            raise ConfigurationError(
                f"{keys[name]} and {item.key} would both be named {name}, and one would replace the other. "
                "Ingest the folder above them."
            )
        keys[name] = item.key


def make_plan(source: Source, items: Iterable[Item], stored: Iterable[dict[str, Any]]) -> Plan:
    """Compare the items of a source with the files of the store.

    Args:
        stored: OpenAI's vector store file objects, newest first.
    """
    plan = Plan()
    known: dict[str, dict[str, Any]] = {}
    for file in stored:
        known.setdefault(str(file["attributes"].get(SOURCE, "")), file)
    names = set()
    for item in items:
        names.add(item.name[:MAX_SOURCE])
        if _is_unchanged(item, known.get(item.name[:MAX_SOURCE])):
            plan.unchanged.append(item.name)
        else:
            plan.to_put.append(item)
    for name, file in known.items():
        if name not in names and file["attributes"].get(MODIFIED) and _is_of(source, name):
            plan.vanished.append(file)
    return plan


def _is_of(source: Source, name: str) -> bool:
    """Whether the source would have listed a document of this name; False if that cannot be told."""
    is_whole = len(name) < MAX_SOURCE
    begins_so = bool(source.prefix) and name.startswith(source.prefix)
    return source.is_complete and is_whole and begins_so and source.takes(name)


def name_in_store(item: Item) -> str:
    """The item's name; of one that is too long its end, and a hash that tells it from others that end so."""
    if len(item.name) <= MAX_NAME:
        return item.name
    digest = hashlib.sha256(item.name.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return f"{digest}…{item.name[-KEPT_NAME:]}"


def attributes_of(item: Item) -> dict[str, str | int]:
    """The attributes by which a later run tells whether an item has changed."""
    return {SOURCE: item.name[:MAX_SOURCE], BYTES: item.bytes or 0, MODIFIED: item.modified or 0}


def _is_unchanged(item: Item, file: dict[str, Any] | None) -> bool:
    if file is None or file["status"] != "completed" or not item.modified:
        return False
    attributes = file["attributes"]
    same_size = item.bytes is None or attributes.get(BYTES) == item.bytes
    return bool(same_size and attributes.get(MODIFIED) == item.modified)
