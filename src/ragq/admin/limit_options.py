"""The options of commands that set limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

NONE = "none"
LIMITS = {
    "requests_per_minute": "requests a minute",
    "queued": "questions queued at once",
    "tokens_per_day": "tokens a day",
    "documents": "documents",
    "bytes": "bytes stored",
    "cost_per_month": "units of money a month",
    "tokens_per_month": "tokens a month",
}
KEY_LIMITS = ("requests_per_minute", "queued", "tokens_per_day")


class _Limit(click.ParamType[float | str]):
    name = "N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        """Read a number, or `none` for no limit."""
        if value == NONE:
            return NONE
        try:
            number = float(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor '{NONE}'.", param, ctx)
        return int(number) if number == int(number) else number


def limit_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add an option for each limit."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for name in reversed(names):
            help_ = f"Most {LIMITS[name]}; none: no limit."
            command = click.option(f"--{name.replace('_', '-')}", type=_Limit(), help=help_)(command)
        return command

    return add


def read_limits(given: dict[str, Any]) -> dict[str, Any]:
    """The limits that were given, `none` as None."""
    return {name: None if value == NONE else value for name, value in given.items() if value is not None}
