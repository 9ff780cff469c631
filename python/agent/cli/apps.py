"""`apps`: which apps there are on this host, and what to do about those that are not wanted.

Purpose: list, show, clear, remove, prune; `apps_found.py` reads, `apps_table.py` writes.

Not promised by `remove --force`: that nothing is counted into the removed file; living processes
go on with it until they notice.
"""

from __future__ import annotations

import time
from typing import Any, Literal

import click

from agent.app import other_layout

from .apps_found import Found, UnknownAppError, find, find_all, folder_of, forget, forget_marks
from .duration import duration
from .exits import EXIT_CONFIG, EXIT_DATA, EXIT_NO_INPUT, EXIT_UNAVAILABLE

DIRECTORY = click.option(
    "--dir", "directory", metavar="PATH", help="Folder of the segments.  [env: AGENT_METRICS_DIR]"
)


@click.group(name="apps", epilog="docs/APPS.md says how an app gets its name.")
def command() -> None:
    """List the apps of your user on this host; show, clear or remove one."""


class Failure(click.ClickException):
    """A message with its exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click reads it here


def _folder(directory: str | None) -> str:
    try:
        return folder_of(directory)
    except OSError as error:
        raise Failure(str(error), EXIT_CONFIG) from None


def _find(name: str, directory: str | None) -> Found:
    try:
        found = find(name, _folder(directory))
    except UnknownAppError as error:
        raise Failure(str(error), EXIT_NO_INPUT) from None
    return found


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="As JSON; times are unix milliseconds.")
@DIRECTORY
def list_apps(as_json: bool, directory: str | None) -> int:
    """List the apps: processes, series, memory, when one was last alive, age, and where it is."""
    from .apps_table import table

    folder = _folder(directory)
    found = find_all(folder)
    if as_json:
        click.echo(_json(found))
    elif found:
        click.echo(table(found, _now_ms()), nl=False)
    else:
        click.echo(f"no apps in {folder}", err=True)
    if others := other_layout.told(other_layout.find(folder)):
        click.echo(others, err=True)
    return 0


@command.command(name="show")
@click.argument("app")
@click.option("--openmetrics", is_flag=True, help="In this format, not as Prometheus text.")
@DIRECTORY
def show(app: str, openmetrics: bool, directory: str | None) -> int:
    """Show the page of APP, as its own processes would render it."""
    from agent import SegmentError
    from agent._native import render_segment

    one = _find(app, directory)
    form: Literal["openmetrics", "prometheus"] = "openmetrics" if openmetrics else "prometheus"
    try:
        page = render_segment(one.path, form)
    except SegmentError as error:
        raise Failure(f"{one.app}: {error}", EXIT_DATA) from None
    click.echo(page, nl=False)
    return 0


@command.command(name="clear")
@click.argument("app")
@DIRECTORY
def clear(app: str, directory: str | None) -> int:
    """Remove every series of APP: its counters begin anew, in living processes too."""
    from agent import Registry, SegmentError

    one = _find(app, directory)
    try:
        if one.error:
            raise SegmentError(one.error)
        count = Registry(one.path, one.app).clear()
    except SegmentError as error:
        raise Failure(f"{one.app}: {error}", EXIT_DATA) from None
    click.echo(f"{one.app}: {count} series cleared ({one.path})")
    return 0


@command.command(name="remove")
@click.argument("app")
@click.option("--force", is_flag=True, help="Even while its processes live; they begin anew.")
@DIRECTORY
def remove(app: str, force: bool, directory: str | None) -> int:
    """Remove APP with all its numbers; refused while its processes live."""
    one = _find(app, directory)
    if one.is_alive and not force:
        pids = ", ".join(map(str, one.pids)) or "of another version"
        raise Failure(
            f"{one.app} ({one.path}) has living processes: {pids}; end them, or --force",
            EXIT_UNAVAILABLE,
        )
    _forget(one)
    click.echo(f"{one.app}: removed ({one.path})")
    return 0


@command.command(name="prune")
@click.option(
    "--older-than",
    "older_s",
    type=duration,
    default="24h",
    show_default=True,
    metavar="DURATION",
    help="Without a living process for so long.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@DIRECTORY
def prune(older_s: float, dry_run: bool, directory: str | None) -> int:
    """Remove all apps that have had no living process for a time."""
    folder = _folder(directory)
    newest_ms = _now_ms() - older_s * 1000
    gone = [
        one
        for one in find_all(folder)
        if one.is_known and not one.is_alive and one.last_alive_ms <= newest_ms
    ]
    for one in gone:
        if not dry_run:
            _forget(one)
        click.echo(f"{one.app}: {'would be ' if dry_run else ''}removed ({one.path})")
    if not dry_run:
        forget_marks(folder, newest_ms)
    if not gone:
        click.echo("nothing to remove", err=True)
    return 0


def _forget(one: Found) -> None:
    try:
        forget(one)
    except OSError as error:
        raise Failure(f"{one.app}: {error.filename}: {error.strerror}", EXIT_UNAVAILABLE) from None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _json(found: list[Found]) -> str:
    import msgspec
    import orjson

    rows: list[dict[str, Any]] = [msgspec.structs.asdict(one) for one in found]
    return orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode()
