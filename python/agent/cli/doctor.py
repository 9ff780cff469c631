"""`doctor`: what limits the number of connections on this machine, and what to change.

Purpose: facts, goal and view put together; the knowledge is in `agent.doctor`.
"""

from __future__ import annotations

import sys
from typing import Literal

import click
import msgspec

from .duration import duration


@click.command(name="doctor", epilog="Exit codes: 0, or 1 when it cannot hold --connections.")
@click.option(
    "--connections", type=click.IntRange(1), metavar="N", help="Can it hold so many? Exit 0 or 1."
)
@click.option("--both-ends", is_flag=True, help="The clients are on this machine too.")
@click.option(
    "--message-interval",
    "message_interval_s",
    type=duration,
    default="60s",
    show_default=True,
    metavar="DURATION",
    help="Between two messages of a connection.",
)
@click.option("--json", "as_json", is_flag=True, help="Facts and findings as JSON.")
def command(
    connections: int | None, both_ends: bool, message_interval_s: float, as_json: bool
) -> int:
    """Say how many connections this machine can hold, what stops there, and how to raise it."""
    from agent import doctor
    from agent.doctor.text import text

    facts = doctor.read()
    ends: Literal["both", "server"] = "both" if both_ends else "server"
    goal = doctor.Goal(connections=connections, ends=ends, message_interval_s=message_interval_s)
    diagnosis = doctor.examine(facts, goal)
    if as_json:
        told = {"facts": facts, **msgspec.structs.asdict(diagnosis)}
        click.echo(msgspec.json.format(msgspec.json.encode(told)).decode())
    else:
        click.echo(text(diagnosis, colour=sys.stdout.isatty()), nl=False)
    return 1 if diagnosis.refusals else 0
