"""`torture`: the promises of the product, held against kills and worse on this machine.

Purpose: flags to a plan, a report to the screen and to files. What happens is in `agent.torture`.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
from typing import Any

import click

from agent.torture.sabotage import KINDS as SABOTAGE

from .duration import duration
from .exits import EXIT_CANNOT_CREATE, EXIT_FAIL, EXIT_INTERRUPTED, EXIT_UNAVAILABLE


@click.command(
    name="torture",
    epilog="Exit codes: 0 everything that ran held, 1 something did not hold, 69 a kind or case"
    " that was named (or every kind) could not run here, 64 wrong usage, 130 interrupted. A case"
    " that could not run says why and never counts as held. All processes and folders are removed"
    " at the end.",
)
@click.argument("kinds", nargs=-1, metavar="[KIND]...")
@click.option(
    "--time",
    "seconds",
    type=duration,
    default="60s",
    show_default=True,
    help="For all cases together; starting them comes on top.",
)
@click.option("--seed", type=click.IntRange(0), metavar="N", help="Repeats that run's schedule.")
@click.option(
    "--dir",
    "folder",
    type=click.Path(exists=True, file_okay=False, writable=True),
    metavar="FOLDER",
    help="Where segments are made. Default: beside the folder that apps have theirs in.",
)
@click.option("--json", "is_json", is_flag=True, help="The report as JSON on standard output.")
@click.option("--html", "page", metavar="FILE", help="Write the report as a page, too.")
@click.option("--list", "is_list", is_flag=True, help="List the kinds and their cases, and leave.")
@click.option(
    "--sabotage",
    type=click.Choice(list(SABOTAGE)),
    help="Makes what is tortured wrong, to see that it is found: it "
    + ", ".join(f"{does} ({name})" for name, does in SABOTAGE.items())
    + ".",
)
def command(
    kinds: tuple[str, ...],
    seconds: float,
    seed: int | None,
    folder: str | None,
    is_json: bool,
    page: str | None,
    is_list: bool,
    sabotage: str | None,
) -> int:
    """Kill, stop, fill up, damage and restart apps; check that nothing acknowledged is lost.

    KIND is one of steps, kills, slow, full, damage, restarts, or one case of it, as in kills/fork.
    Without KIND all of them.
    """
    from agent.torture.cases import KINDS, unknown

    if wrong := unknown(kinds):
        raise click.UsageError(
            f"{wrong[0]!r} is neither a kind ({', '.join(KINDS)}) nor a case, see --list"
        )
    if is_list:
        click.echo(_list(kinds), nl=False)
        return 0
    if page and not os.access(os.path.dirname(os.path.abspath(page)), os.W_OK):
        raise click.UsageError(f"{page}: its folder is none that can be written to")
    from agent.torture.progress import Progress
    from agent.torture.session import Plan, Session

    plan = Plan(
        kinds=list(dict.fromkeys(kinds)),
        seconds=seconds,
        seed=secrets.randbelow(1 << 32) if seed is None else seed,
        folder=os.path.abspath(folder) if folder else None,
        sabotage=sabotage,
    )
    # Whoever started it in the background cannot send Ctrl-C; the end of a terminal is one, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    progress = Progress(sys.stderr, seconds)
    try:
        report = Session(plan, progress).run()
    except OSError as error:
        click.echo(f"Error: no folder for segments: {error}", err=True)
        return EXIT_CANNOT_CREATE
    progress.end()
    return _show(report, is_json=is_json, page=page)


def _show(report: Any, *, is_json: bool, page: str | None) -> int:
    import msgspec

    from agent.torture.html import html
    from agent.torture.text import text

    if is_json:
        click.echo(msgspec.json.format(msgspec.json.encode(report)).decode())
    else:
        click.echo(text(report, colour=sys.stdout.isatty()), nl=False)
    if page:
        try:
            with open(page, "w", encoding="utf-8") as out:
                out.write(html(report))
        except OSError as error:
            click.echo(f"Error: {page}: {error.strerror}", err=True)
            return EXIT_CANNOT_CREATE
    if report.verdict == "not held":
        return EXIT_FAIL
    if report.status == "interrupted":
        return EXIT_INTERRUPTED
    is_missing = report.verdict == "not run" or (report.is_named and report.unrun_kinds)
    return EXIT_UNAVAILABLE if is_missing else 0


def _list(kinds: tuple[str, ...]) -> str:
    from agent.torture.cases import KINDS, select

    lines: list[str] = []
    cases = select(kinds)
    for kind in dict.fromkeys(case.kind for case in cases):
        lines.append(f"{kind}: {KINDS[kind]}")
        lines += [f"  {kind}/{case.name:14} {case.about}" for case in cases if case.kind == kind]
    return "".join(f"{line}\n" for line in lines)
