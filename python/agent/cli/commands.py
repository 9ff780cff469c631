"""The commands by name, each in a module of its own that is imported when it is called.

Purpose: the table of commands, the exit codes of wrong usage, and nothing else.
"""

from __future__ import annotations

import importlib
import sys

import click

from .exits import EXIT_INTERRUPTED, EXIT_USAGE

# Name: (module, help). The help stands here so that `--help` imports no command.
COMMANDS = {
    "serve": ("serve", "Run the collector."),
    "check-config": ("check_config", "Check the settings; exits 78 when they are wrong."),
    "config": ("config", "Show the effective settings, or write a sample file."),
    "health": ("health_command", "Ask a running collector whether it is ready."),
    "doctor": ("doctor", "Say how many connections this machine can hold."),
    "load": ("load", "Open and drive many connections; say how that went."),
    "report": ("report", "Show the result of a load run, or make a page of it."),
    "torture": ("torture", "Kill, stop, fill up and damage apps; check that nothing is lost."),
    "apps": ("apps", "List the apps of this host; show, clear or remove one."),
    "inspect": ("inspect", "Show what is in a segment, without changing it."),
}


class Lazy(click.Group):
    """A group whose commands are modules."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"agent.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        import difflib

        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise click.UsageError(f"No such command '{args[0]}'.{hint}", ctx)
        return super().resolve_command(ctx, args)


def _version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        from agent import __version__

        click.echo(f"agent-metrics {__version__}")
        ctx.exit()


@click.command(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version and exit.",
)
def group() -> None:
    """Metrics in shared memory, and the collector that serves them."""


def run(arguments: list[str]) -> int:
    """The exit code of a command line."""
    try:
        result = group.main(arguments, prog_name="agent-metrics", standalone_mode=False)
    except click.UsageError as error:
        error.show()
        return EXIT_USAGE
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # `inspect | head`: the reader has seen enough. Nothing must be flushed into the closed pipe
        # at exit.
        sys.stdout = None
        return 0
    return result if isinstance(result, int) else 0
