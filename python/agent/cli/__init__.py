"""The command line: `agent-metrics` and `python -m agent`.

Purpose: thin commands over `config`, `supervisor` and `_core`. Data goes to standard output, talk
to standard error. Each command is a module that is imported when it is called; `health` runs
without click, because a container probe starts it every few seconds.

Exit codes are those of sysexits: 0 good, 64 wrong usage, 65 damaged data, 66 no such input, 69
unavailable (a port in use), 70 a bug, 78 wrong settings; 130 interrupted.
"""

from __future__ import annotations

import sys
from typing import NoReturn


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs a command and leaves with its code."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["health"]:
        from .health import run
    else:
        from .commands import run
    sys.exit(run(given[1:] if given[:1] == ["health"] else given))
