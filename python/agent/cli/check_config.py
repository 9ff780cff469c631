"""`check-config`: every mistake in the settings at once."""

from __future__ import annotations

import click

from agent.config_source import ConfigError

from .settings import complain, read_settings, setting_options


@click.command(name="check-config")
@setting_options
def command(config_file: str | None, **given: str | None) -> int:
    """Check the settings without starting anything. Exits 78 when they are wrong."""
    try:
        loaded = read_settings(config_file, given)
    except ConfigError as error:
        return complain(error)
    for warning in loaded.warnings:
        click.echo(f"Warning: {warning}", err=True)
    click.echo(f"{config_file or 'settings'}: ok")
    return 0
