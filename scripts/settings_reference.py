"""Write docs/reference/settings.md and .env.example from the settings; `--check` only compares."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from generated_files import ROOT, write_or_check
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from ragq.settings import Settings

PAGE = ROOT / "docs" / "reference" / "settings.md"
EXAMPLE = ROOT / ".env.example"
PREFIX = "RAGQ_"
TYPE_WORDS: dict[Any, str] = {str: "text", int: "integer", float: "number", bool: "true or false", Path: "path"}

PAGE_HEAD = """# Settings

Written by `make reference` from `ragq.settings.Settings`. Change that class, not this page.

A setting is an environment variable, or a line of `.env` in the working directory. The environment wins over `.env`.
Options of a command win over both. Every process reads its settings once, when it starts. All processes of one
service must have the same settings.
"""
EXAMPLE_HEAD = """# Settings of ragq with their defaults, as in docs/reference/settings.md. Written by `make reference`.
# Copy this file to .env and take the "# " away from the lines that you change. No value: no default.
"""


def find_groups() -> dict[str, list[str]]:
    """Group the fields' names by the comment lines between them in the class."""
    groups: dict[str, list[str]] = {}
    title = "Settings"
    for line in inspect.getsource(Settings).splitlines():
        if comment := re.fullmatch(r"    # (.+)", line):
            title = comment[1]
        elif (field := re.match(r"    (\w+):", line)) and field[1] in Settings.model_fields:
            groups.setdefault(title, []).append(field[1])
    missing = Settings.model_fields.keys() - {name for names in groups.values() for name in names}
    if missing:
        sys.exit(f"settings_reference: not found in the source of Settings: {', '.join(sorted(missing))}.")
    return groups


def describe_type(annotation: Any) -> str:
    """Say in words what a setting takes."""
    arguments = [argument for argument in get_args(annotation) if argument is not NoneType]
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if arguments:
        return " or ".join(describe_type(argument) for argument in arguments)
    return "secret text" if annotation is SecretStr else TYPE_WORDS[annotation]


def describe_range(field: FieldInfo) -> str:
    """Say which values are allowed, where not all are."""
    signs = {"gt": "> {}", "ge": "≥ {}", "lt": "< {}", "le": "≤ {}"}
    parts = [
        text.format(write_number(limit))
        for name, text in signs.items()
        for part in field.metadata
        if (limit := getattr(part, name, None)) is not None
    ]
    parts += [f"matches `{pattern}`" for part in field.metadata if (pattern := getattr(part, "pattern", None))]
    return ", ".join(parts)


def write_number(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def write_default(value: object) -> str:
    """Write a default as it stands in the environment; empty for none, and for every secret."""
    if value is None or isinstance(value, SecretStr):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return write_number(value) if isinstance(value, float) else str(value)


def write_page() -> str:
    """Write the reference page."""
    parts = [PAGE_HEAD]
    for title, names in find_groups().items():
        parts.append(f"\n## {title}\n\n| variable | takes | default | allowed | meaning |\n|---|---|---|---|---|\n")
        for name in names:
            field = Settings.model_fields[name]
            default = write_default(field.default)
            cells = (
                f"`{PREFIX}{name.upper()}`",
                describe_type(field.annotation),
                f"`{default}`" if default else "none",
                describe_range(field) or "any",
                field.description or "",
            )
            parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return "".join(parts)


def write_example() -> str:
    """Write the example file; every line is a comment, so that a copy changes nothing."""
    parts = [EXAMPLE_HEAD]
    for title, names in find_groups().items():
        parts.append(f"\n# {title}\n")
        for name in names:
            field = Settings.model_fields[name]
            allowed = describe_range(field)
            parts.append(f"# {field.description}" + (f" Allowed: {allowed}." if allowed else "") + "\n")
            parts.append(f"# {PREFIX}{name.upper()}={write_default(field.default)}\n")
    return "".join(parts).replace("`", "")


if __name__ == "__main__":
    sys.exit(write_or_check({PAGE: write_page(), EXAMPLE: write_example()}, source="ragq.settings", target="reference"))
