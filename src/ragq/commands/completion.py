"""`ragq completion`: click completes the commands that it knows, so that no other library is needed."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what completes ragq's commands and options in a shell: eval "$(ragq completion bash)"."""
    made = get_completion_class(shell)
    assert made
    click.echo(made(context.find_root().command, {}, "ragq", "_RAGQ_COMPLETE").source())
