"""`load`: runs against a collector, or against anything that speaks its protocols.

Purpose: flags to a plan, a result to the screen and to files. What happens is in `agent.lab`.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sys
from typing import Any

import click

from .duration import duration
from .exits import EXIT_CANNOT_CREATE, EXIT_FAIL, EXIT_INTERRUPTED, EXIT_INVALID, EXIT_UNAVAILABLE

TARGETS = {"statsd": "127.0.0.1:8125", "http": "127.0.0.1:9464"}


@click.group(name="load")
def command() -> None:
    """Put load on a collector and say how that went."""


@command.command(
    name="connections",
    epilog="Exit codes: 0 pass, 1 the target failed, 99 the run says nothing (the generator was"
    " late, or died), 69 cannot be run here, 64 wrong usage, 130 interrupted.",
)
@click.option("--connections", type=click.IntRange(1), required=True, metavar="N", help="How many.")
@click.option(
    "--open-rate",
    type=click.FloatRange(0),
    default=40_000.0,
    metavar="N",
    show_default=True,
    help="Opened a second; 0 is all at once.",
)
@click.option("--hold", type=duration, default="60s", show_default=True, help="Time held open.")
@click.option(
    "--message-interval",
    type=duration,
    default="60s",
    show_default=True,
    help="Between two messages of a connection; 0 sends none.",
)
@click.option(
    "--ack-every",
    type=click.IntRange(1),
    default=1,
    metavar="N",
    show_default=True,
    help="Ask for an answer with each N-th message of a connection; it stands for those before.",
)
@click.option(
    "--protocol", type=click.Choice(["statsd", "http"]), default="statsd", show_default=True
)
@click.option("--target", metavar="HOST:PORT", help="Default: the collector's address here.")
@click.option(
    "--sources",
    default="0",
    metavar="N|IP,IP",
    help="Loopback source addresses (0: as many as needed), or a list of addresses of this host.",
)
@click.option(
    "--executors", type=click.IntRange(0), default=0, metavar="N", help="Processes; 0 chooses."
)
@click.option("--reconnect", is_flag=True, help="Lost connections come back, after a pause.")
@click.option("--ack-timeout", type=duration, default="10s", show_default=True)
@click.option("--connect-timeout", type=duration, default="10s", show_default=True)
@click.option(
    "--late-max",
    type=duration,
    default="100ms",
    show_default=True,
    help="Own lateness (99 % of messages) above which the run says nothing about the target.",
)
@click.option(
    "--storm",
    type=click.Choice(["none", "vanish", "return"]),
    default="none",
    show_default=True,
    help="After the hold: all connections end at once; and return at once.",
)
@click.option("--json", "json_file", metavar="FILE", help="Write the result; '-' is the screen.")
@click.option("--html", "page", metavar="FILE", help="Write the result as a page.")
@click.option("--allow-remote", is_flag=True, help="The target may be another host.")
@click.option(
    "--collector",
    metavar="URL",
    help="Asked for its totals before and after; 'none' asks nobody. Default: that of the target.",
)
@click.option("--collector-pid", type=click.IntRange(1), metavar="PID", help="Its supervisor.")
@click.option("--yes", is_flag=True, help="Run even where `doctor` says that it cannot work.")
@click.option("--quiet", is_flag=True, help="No progress, no summary.")
def connections(**given: Any) -> int:
    """Open many connections, hold them, send on them, and check every answer."""
    from agent.lab import connections as lab
    from agent.lab.plan import PlanError
    from agent.lab.progress import Progress
    from agent.lab.target import TargetError
    from agent.report.model import from_data
    from agent.report.text import text

    try:
        _check_folders(given["json_file"], given["page"])
        plan = _plan(given)
        refusals = [] if given["yes"] else _refusals(plan)
        if refusals:
            _refuse(plan, refusals)
            return EXIT_UNAVAILABLE
        progress = Progress(sys.stderr, plan.connections)
        controller = lab.Controller(
            plan,
            watch=None if given["quiet"] else progress,
            collector=_collector(given, plan),
            collector_pid=_process(given["collector_pid"]),
        )
    except PlanError as error:
        raise click.UsageError(str(error)) from None
    # Whoever started it in the background cannot send Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # The end of a terminal session loses no result either, and under nohup does nothing.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    try:
        told = lab.run(controller, given["storm"])
    except TargetError as error:
        click.echo(f"Error: {error}", err=True)
        return EXIT_UNAVAILABLE
    progress.end()
    if not given["quiet"]:
        is_err = given["json_file"] == "-"
        colour = (sys.stderr if is_err else sys.stdout).isatty()
        click.echo(text(from_data(told), colour=colour), nl=False, err=is_err)
    try:
        _write(told, given["json_file"], given["page"])
    except OSError as error:
        click.echo(f"Error: {error.filename}: {error.strerror}", err=True)
        return EXIT_CANNOT_CREATE
    if told["status"] == "interrupted":
        return EXIT_INTERRUPTED
    return {"pass": 0, "fail": EXIT_FAIL, "invalid": EXIT_INVALID}[told["verdict"]["outcome"]]


def _plan(given: dict[str, Any]) -> Any:
    """The plan that the flags mean. Raises PlanError or a usage error."""
    from agent.lab.plan import Plan, PlanError, check

    sources: int | tuple[str, ...]
    text = given["sources"]
    sources = int(text) if text.isdigit() else tuple(ip.strip() for ip in text.split(","))
    plan = Plan(
        connections=given["connections"],
        target=_resolve(given["target"] or TARGETS[given["protocol"]]),
        protocol=given["protocol"],
        open_rate=given["open_rate"],
        hold_s=given["hold"],
        message_interval_s=given["message_interval"],
        ack_every=given["ack_every"],
        executors=given["executors"],
        sources=sources,
        reconnect=given["reconnect"],
        connect_timeout_s=given["connect_timeout"],
        ack_timeout_s=given["ack_timeout"],
        late_max_s=given["late_max"],
        run=secrets.token_hex(4),
    )
    check(plan)
    if not plan.is_loopback and not given["allow_remote"]:
        raise PlanError(
            f"the target {plan.target} is another host: this load can take it down."
            " --allow-remote says that it may"
        )
    return plan


def _refusals(plan: Any) -> list[str]:
    """Why this machine cannot hold as many connections as the plan has."""
    from agent import doctor

    listed = len(plan.sources) if isinstance(plan.sources, tuple) else plan.sources
    goal = doctor.Goal(
        connections=plan.connections,
        ends="both" if plan.is_loopback else "client",
        # Of a remote target, without a list: the one address that the kernel chooses.
        sources=listed or (0 if plan.is_loopback else 1),
        message_interval_s=plan.message_interval_s,
    )
    return doctor.examine(doctor.read(), goal).refusals


def _refuse(plan: Any, refusals: list[str]) -> None:
    click.echo(f"Error: {plan.connections:,} connections cannot be held here:", err=True)
    for refusal in refusals:
        click.echo(f"  - {refusal}", err=True)
    click.echo("`doctor` shows more; --yes runs in any case.", err=True)


def _resolve(target: str) -> str:
    """Address and port of a target, the name looked up."""
    host, colon, port = target.rpartition(":")
    if not colon or not port.isdigit():
        raise click.BadParameter(f"{target!r} is not HOST:PORT", param_hint="--target")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise click.BadParameter(f"{host!r}: {why}", param_hint="--target") from None
    ip = found[0][4][0]
    return f"[{ip}]:{port}" if ":" in str(ip) else f"{ip}:{port}"


def _collector(given: dict[str, Any], plan: Any) -> Any:
    """Who is asked for totals: who was named, else who is likely there."""
    from agent.lab.target import Collector, TargetError

    named = given["collector"]
    if named == "none":
        return None
    if named:
        return Collector(named)
    if given["target"] and given["protocol"] != "http":
        return None
    likely = Collector(f"http://{plan.target if plan.protocol == 'http' else TARGETS['http']}")
    try:
        likely.page()
    except TargetError:
        return None
    return likely


def _process(pid: int | None) -> int | None:
    """The supervisor that was named. Raises a usage error when there is no such process."""
    if pid is not None and not os.path.exists(f"/proc/{pid}"):
        raise click.BadParameter(f"there is no process {pid}", param_hint="--collector-pid")
    return pid


def _check_folders(*files: str | None) -> None:
    """Before the run: a result that cannot be written after it would be lost."""
    for file in files:
        folder = os.path.dirname(os.path.abspath(file or ""))
        if file and file != "-" and not os.access(folder, os.W_OK):
            raise click.UsageError(f"{file}: {folder} is not a folder that can be written to")
        if file and os.path.isdir(file):
            raise click.UsageError(f"{file} is a folder; the name of a file is needed")


def _write(told: dict[str, Any], json_file: str | None, page: str | None) -> None:
    import orjson

    if json_file:
        data = orjson.dumps(told, option=orjson.OPT_INDENT_2)
        with click.open_file(json_file, "wb") as file:
            file.write(data + b"\n")
    if page:
        from agent.report.html import html
        from agent.report.model import from_data

        with open(page, "w", encoding="utf-8") as out:
            out.write(html(from_data(told)))
