"""`report`: what a run of the load laboratory found, on the screen or as a page.

Purpose: a file in, a view out; what is shown is in `agent.report`.
"""

from __future__ import annotations

import sys

import click

from .exits import EXIT_CANNOT_CREATE, EXIT_DATA, EXIT_NO_INPUT


@click.command(name="report")
@click.argument("file", metavar="FILE")
@click.option("--html", "page", metavar="OUT", help="Write a page, one file that needs no other.")
def command(file: str, page: str | None) -> int:
    """Show the result in FILE, written by `load --json`; - is standard input."""
    from agent.report import model
    from agent.report.html import html
    from agent.report.text import text

    try:
        result = model.read(_read(file, model.BYTES_MAX))
    except OSError as error:
        click.echo(f"Error: {file}: {error.strerror}", err=True)
        return EXIT_NO_INPUT
    except model.ReportError as error:
        click.echo(f"Error: {file}: {error}", err=True)
        return EXIT_DATA
    if page is None:
        click.echo(text(result, colour=sys.stdout.isatty()), nl=False)
        return 0
    try:
        with open(page, "w", encoding="utf-8") as out:
            out.write(html(result))
    except OSError as error:
        click.echo(f"Error: {page}: {error.strerror}", err=True)
        return EXIT_CANNOT_CREATE
    click.echo(f"{page}: written", err=True)
    return 0


def _read(path: str, bytes_max: int) -> bytes:
    """The content; one byte more than allowed where there is more, so that it is refused."""
    if path == "-":
        return sys.stdin.buffer.read(bytes_max + 1)
    with open(path, "rb") as file:
        return file.read(bytes_max + 1)
