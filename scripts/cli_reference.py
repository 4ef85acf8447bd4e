"""Write docs/reference/cli.md from the commands' own help and scripts/cli_notes.md; `--check` only compares.

Below a heading `## ragq COMMAND` of the notes are put the command's usage, its help and its options. Every command needs one.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator

import click
from generated_files import ROOT, write_or_check

from ragq.cli import main as ragq

NOTES = ROOT / "scripts" / "cli_notes.md"
PAGE = ROOT / "docs" / "reference" / "cli.md"
HEADING = re.compile(r"## ragq (.+)")


def describe(name: str, command: click.Command) -> str:
    """Write a command's usage, help and options."""
    context = click.Context(command, info_name=f"ragq {name}")
    usage = " ".join([f"ragq {name}", *command.collect_usage_pieces(context)])
    parts = ["```text", usage, "```", "", inspect.cleandoc(command.help or ""), ""]
    options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    if options:
        parts += ["| option | meaning |", "|---|---|", *(describe_option(one, context) for one in options), ""]
    return "\n".join(parts)


def describe_option(option: click.Option, context: click.Context) -> str:
    metavar = "" if option.is_flag else f" {option.make_metavar(context)}"
    default = f" Default: {option.default}." if option.show_default else ""
    return f"| `{option.opts[0]}{metavar}` | {option.help}{default} |".replace("<", "").replace(">", "")


def find_commands(group: click.Group, of: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield the commands of a group, and those of the groups in it, by what follows `ragq`."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from find_commands(command, f"{of}{name} ")
        else:
            yield of + name, command


def write_page(notes: str) -> str:
    """Write the page.

    Raises:
        SystemExit: A command has no heading, or a heading no command.
    """
    assert isinstance(ragq, click.Group)
    noted, commands = set(HEADING.findall(notes)), dict(find_commands(ragq))
    if noted != commands.keys():
        sys.exit(f"cli_reference: commands and headings differ: {', '.join(sorted(noted ^ commands.keys()))}.")
    page = HEADING.sub(lambda found: f"{found[0]}\n\n{describe(found[1], commands[found[1]])}", notes)
    return re.sub(r"\n{3,}", "\n\n", page).rstrip() + "\n"


if __name__ == "__main__":
    sys.exit(write_or_check({PAGE: write_page(NOTES.read_text())}, source="the commands", target="reference"))
