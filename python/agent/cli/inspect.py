"""`inspect`: header, usage, slots with their rings, and series of a segment, read-only.

Purpose: look into shared memory from outside, while its processes run or after they are gone.

Limits: at most `--series` series are shown (1000 as text); the rest is counted.
"""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime
from typing import Any

import click

from agent import SegmentError
from agent._native import inspect as read_segment

from .apps_found import UnknownAppError, find, folder_of, segments
from .exits import EXIT_CONFIG, EXIT_DATA, EXIT_NO_INPUT


@click.command(name="inspect")
@click.argument("segment", required=False, metavar="[APP|PATH]")
@click.option("--json", "as_json", is_flag=True, help="Everything as JSON.")
@click.option("--series", "series_max", type=click.IntRange(0), help="Most series to show.")
@click.option(
    "--dir", "directory", metavar="PATH", help="Folder of the segments.  [env: AGENT_METRICS_DIR]"
)
def command(
    segment: str | None, as_json: bool, series_max: int | None, directory: str | None
) -> int:
    """Show what is in a segment: of an app by its name, or a file by its path.

    Without an argument, list the segments.
    """
    try:
        folder = folder_of(directory)
        if segment is None:
            return _list(folder, as_json)
        path = _find(segment, folder)
    except OSError as error:
        click.echo(f"Error: {error}", err=True)
        return EXIT_CONFIG
    if path is None:
        known = ", ".join(sorted(segments(folder))) or "none"
        click.echo(f"Error: no segment {segment!r} in {folder} (there: {known})", err=True)
        return EXIT_NO_INPUT
    shown = series_max if series_max is not None else (10_000_000 if as_json else 1000)
    try:
        told = read_segment(path, series_shown_max=shown)
    except SegmentError as error:
        click.echo(f"Error: {error}", err=True)
        return EXIT_DATA
    click.echo(_json(told) if as_json else text(told), nl=as_json)
    return 0


def _find(segment: str, folder: str) -> str | None:
    if os.sep in segment or segment.endswith(".seg"):
        return segment if os.path.exists(segment) else None
    path = segments(folder).get(segment)
    if path is None:
        with contextlib.suppress(UnknownAppError):
            path = find(segment, folder).path
    return path


def _list(folder: str, as_json: bool) -> int:
    rows: list[dict[str, Any]] = []
    for name, path in sorted(segments(folder).items()):
        try:
            told = read_segment(path, series_shown_max=0)
        except SegmentError as error:
            rows.append({"app": name, "path": path, "error": str(error)})
            continue
        alive = sum(slot["alive"] for slot in told["slots"])
        rows.append({"app": name, "path": path, "writers": alive, **told["usage"]})
    if as_json:
        click.echo(_json(rows))
        return 0
    for row in rows:
        if "error" in row:
            click.echo(f"{row['app']}: {row['error']}")
        else:
            size = row["bytes_committed"] / 1024
            click.echo(
                f"{row['app']}: {row['series']} series of {row['metrics']} metrics,"
                f" {row['writers']} writers, {size:.0f} KiB"
            )
    if not rows:
        click.echo(f"no segments in {folder}", err=True)
    return 0


def _json(value: Any) -> str:
    import orjson

    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def text(told: dict[str, Any]) -> str:
    """A segment for people."""
    header, usage = told["header"], told["usage"]
    made = f"layout {header['layout_version']}, made {_when(header['created_unix_ms'])}"
    most = f"{header['series_max']} ({header['metric_series_max']} per metric)"
    losses = f"{usage['overflows']} to overflow series, {usage['refused']} refused"
    lines = [
        told["path"],
        f"  app       {header['app']}, {made}",
        f"  series    {usage['series']} of at most {most}, {usage['metrics']} metrics",
        f"  memory    {usage['bytes_committed']} bytes of at most {usage['bytes_max']}",
        f"  losses    {losses}, {usage['damage']} damaged regions",
        "  slots",
    ]
    for slot in told["slots"]:
        life = "alive" if slot["alive"] else "dead"
        ring = f"  ring {slot['ring_written']} written" if slot["ring_written"] else ""
        if slot["ring_refused"]:
            ring += f"  {slot['ring_refused']} records refused"
        lines.append(
            f"    {slot['index']:>5}  {life:<5}  pid {slot['pid']:<8}"
            f" since {_when(slot['started_unix_ms'])}{ring}"
        )
    for family in told["families"]:
        unit = f", {family['unit']}" if family["unit"] else ""
        lines.append(f"  {family['name']} ({family['type']}{unit}): {len(family['series'])} series")
        lines += [f"    {{{one['labels']}}} {_value(one)}" for one in family["series"]]
    left_out = usage["series"] - sum(len(family["series"]) for family in told["families"])
    if left_out > 0:
        lines.append(f"  ... and {left_out} more series (--series N, --json)")
    return "\n".join(lines) + "\n"


def _value(series: dict[str, Any]) -> str:
    if "value" in series:
        return f"{series['value']:.15g}"
    if "per_process" in series:
        return ", ".join(f"pid {pid}: {value:g}" for pid, value in series["per_process"])
    return f"count {series['count']} sum {series['sum']:g}"


def _when(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
