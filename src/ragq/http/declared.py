"""What a route declares by its dependencies, such as the least role for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from fastapi.dependencies.models import Dependant
from starlette.routing import BaseRoute

DeclaredT = TypeVar("DeclaredT")


def find_declared(route: BaseRoute | None, meanings: Mapping[Callable[..., Any], DeclaredT]) -> list[DeclaredT]:
    """What the dependencies of a route mean; those without a meaning are left out."""
    dependant = getattr(route, "dependant", None)
    return [meanings[call] for call in _calls(dependant) if call in meanings] if dependant else []


def _calls(dependant: Dependant) -> Iterator[Callable[..., Any]]:
    for one in dependant.dependencies:
        if one.call:
            yield one.call
        yield from _calls(one)
