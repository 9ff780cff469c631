"""`serve`: the collector in the foreground."""

from __future__ import annotations

import fcntl
import os

import click

from agent.config_source import ConfigError

from .settings import complain, read_settings, setting_options


@click.command(
    name="serve",
    epilog="SIGTERM drains and leaves, twice leaves at once. SIGHUP reads the settings again. "
    "SIGUSR2 replaces all workers, one after the other, while the others serve.",
)
@setting_options
@click.option(
    "--ready-fd",
    type=int,
    metavar="N",
    envvar="AGENT_METRICS_READY_FD",
    help="Write a line to this descriptor when ready.  [env: AGENT_METRICS_READY_FD]",
)
def command(config_file: str | None, ready_fd: int | None, **given: str | None) -> int:
    """Run the collector: takes StatsD, JSON and Prometheus text, serves /metrics."""
    try:
        loaded = read_settings(config_file, given)
    except ConfigError as error:
        return complain(error)
    if ready_fd is not None:
        check_ready_fd(ready_fd)
    from agent.log import Log
    from agent.supervisor.collector import serve

    logging = loaded.config.logging
    log = Log(form=logging.format, level=logging.level)
    return serve(loaded, lambda: read_settings(config_file, given), log, ready_fd)


def check_ready_fd(fd: int) -> None:
    """Refuses a descriptor that could never say that the collector is ready."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
        mode = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
    except (OSError, OverflowError, ValueError):
        raise click.BadParameter(
            f"{fd} is not an open descriptor", param_hint="--ready-fd"
        ) from None
    if mode == os.O_RDONLY:
        raise click.BadParameter(
            f"{fd} is open for reading only: give the writing end of the pipe",
            param_hint="--ready-fd",
        )
