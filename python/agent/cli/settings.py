"""The options that stand for settings, and reading the settings from all their sources.

Purpose: `serve`, `check-config` and `config show` take the same options and mean the same by them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import click

from agent.config import Config
from agent.config_source import FILE_BYTES_MAX, ConfigError, Loaded, Problem, load

from .exits import EXIT_CONFIG, EXIT_USAGE

F = TypeVar("F", bound=Callable[..., Any])

# Parameter of the command: (flag, path of the setting, value, help).
FLAGS = {
    "workers": ("--workers", "workers", "N", "Worker processes; 0 is one per core."),
    "http": ("--http", "http.address", "HOST:PORT", "Where HTTP listens: scrape, push, health."),
    "statsd": ("--statsd", "statsd.address", "HOST:PORT", "Where StatsD listens, UDP and TCP."),
    "statsd_socket": (
        "--statsd-socket",
        "statsd.socket",
        "PATH",
        "Unix datagram socket for StatsD; PATH.stream is its stream twin.",
    ),
    "directory": ("--dir", "dir", "PATH", "Folder of the segments."),
}


def setting_options(function: F) -> F:
    """Adds `--config` and one option for each of `FLAGS`."""
    for parameter, (flag, path, value, text) in reversed(FLAGS.items()):
        name = flag.removeprefix("--").replace("-", "_").upper()
        twin = f"{text}  [env: AGENT_METRICS_{name}; setting: {path}]"
        function = click.option(flag, parameter, metavar=value, help=twin)(function)
    return click.option(
        "--config",
        "config_file",
        metavar="FILE",
        envvar="AGENT_METRICS_CONFIG",
        help="Settings file (TOML).  [env: AGENT_METRICS_CONFIG]",
    )(function)


def read_settings(config_file: str | None, given: dict[str, str | None]) -> Loaded:
    """The settings from file, environment and flags. Raises ConfigError, for an unreadable file
    too.
    """
    if given.get("directory"):
        # From a command line, a relative path is meant as it is from here.
        given = given | {"directory": os.path.abspath(given["directory"] or "")}
    flags = {
        FLAGS[parameter][1]: (FLAGS[parameter][0], value)
        for parameter, value in given.items()
        if value is not None
    }
    text = read_file(config_file) if config_file else None
    try:
        loaded = load(text, config_file or "", os.environ, flags)
    except ConfigError as error:
        said = {problem.path for problem in error.problems}
        unusable = find_unusable(error.config, text or "", config_file or "", said)
        raise ConfigError([*error.problems, *unusable]) from None
    unusable = find_unusable(loaded.config, text or "", config_file or "")
    if unusable:
        raise ConfigError(unusable)
    return loaded


def find_unusable(
    config: Config, text: str, filename: str, said: Collection[str] = ()
) -> list[Problem]:
    """What only the compiled part can judge: expressions and references of mapping rules.

    Mistakes at the paths in `said` are known already.
    """
    from agent import _native
    from agent.supervisor import child_config
    from agent.toml_lines import key_lines

    lines = key_lines(text)
    problems = []
    for rule, why in _native.check_worker_config(child_config.trial(config)):
        path = "" if rule is None else f"mapping[{rule}]"
        if any(f"`{name}`" in why and f"{path}.{name}" in said for name in ("match", "name")):
            continue
        line = lines.get(path)
        problems.append(Problem(path, why, f"{filename}:{line}" if line else filename))
    return problems


def read_file(path: str) -> str:
    """The text of a settings file. Raises ConfigError with the reason."""
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        if len(data) > FILE_BYTES_MAX:
            raise ConfigError([Problem("", f"is larger than {FILE_BYTES_MAX} bytes", path)])
        return data.decode()
    except OSError as error:
        raise ConfigError([Problem("", f"cannot be read: {error.strerror}", path)]) from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem("", "is not UTF-8", f"{path}:{line}")]) from None


def complain(error: ConfigError) -> int:
    """Prints every problem; the code says whether the command line or the settings are wrong."""
    for problem in error.problems:
        click.echo(f"Error: {problem}", err=True)
    wrong_usage = all(problem.where.startswith("--") for problem in error.problems)
    return EXIT_USAGE if wrong_usage else EXIT_CONFIG
