"""`config show` and `config init`: the settings as they are, and a file to start from."""

from __future__ import annotations

import sys

import click

from agent.config_source import ConfigError

from .exits import EXIT_CANNOT_CREATE
from .settings import complain, read_settings, setting_options


@click.group(name="config")
def command() -> None:
    """Show the effective settings, or write a sample file."""


@command.command(name="show")
@setting_options
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def show(config_file: str | None, as_json: bool, **given: str | None) -> int:
    """Show every effective value and where it comes from; * marks what is no default."""
    try:
        loaded = read_settings(config_file, given)
    except ConfigError as error:
        return complain(error)
    from agent import config_sample

    if as_json:
        import orjson

        rows = orjson.dumps(config_sample.show(loaded), option=orjson.OPT_INDENT_2)
        click.echo(rows.decode())
    else:
        click.echo(config_sample.show_text(loaded), nl=False)
    return 0


@command.command(name="init")
@click.argument("file", required=False)
@click.option("--force", is_flag=True, help="Replace FILE where it exists.")
def init(file: str | None, force: bool) -> int:
    """Write a commented sample of all settings to FILE, or to standard output."""
    from agent.config_sample import sample

    if file is None:
        sys.stdout.write(sample())
        return 0
    try:
        with open(file, "w" if force else "x", encoding="utf-8") as out:
            out.write(sample())
    except FileExistsError:
        click.echo(f"Error: {file} exists; --force replaces it", err=True)
        return EXIT_CANNOT_CREATE
    except OSError as error:
        click.echo(f"Error: {file}: {error.strerror}", err=True)
        return EXIT_CANNOT_CREATE
    click.echo(f"{file}: written", err=True)
    return 0
