"""`health` for click: only so that it stands in the list of commands and in completion."""

from __future__ import annotations

import click

from .health import run


@click.command(
    name="health",
    help="Ask a running collector whether it is ready.",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> int:
    return run(list(arguments))
