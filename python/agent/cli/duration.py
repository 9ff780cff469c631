"""A span of time as a person types it: `250ms`, `60s`, `5m`, `1h`, `7d`, or a number of seconds."""

from __future__ import annotations

import re

import click

UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "": 1.0}


def duration(value: str | float) -> float:
    """Its seconds. Raises click.BadParameter with an example."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|)", str(value).strip())
    if not found:
        raise click.BadParameter(f"{value!r} is not a duration such as 250ms, 60s, 5m or 1h")
    return float(found[1]) * UNITS[found[2]]
