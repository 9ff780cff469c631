"""The bare epoll pair of floor/epoll_pair.c: how fast this machine opens, drives and closes
connections when both ends do nothing but the system calls. The limit that our figures stand beside.

    python benches/pair.py [--connections N] [--ack] [--hold S] [--message-seconds S] ...

builds it, runs it with these options, in a network namespace of its own where that is allowed, and
prints its JSON. `measure` is the same for other scripts; it does not change the namespace.

Limits: 512 processes an end. A run is cut after DEADLINE_S, and then the figures say so (ETIME).
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from typing import Any

import namespace
from build import floor_tool

DEADLINE_S = 600


def command(*options: str) -> list[str]:
    return [floor_tool("epoll_pair"), "--deadline", str(DEADLINE_S), *options]


def measure(
    connections: int, *more: str, ack: bool, hold_s: float = 1.0, message_s: float = 5.0
) -> dict[str, Any]:
    """One run, both ends unless `more` says `--only`, flat out; the object that it prints."""
    options = ["--connections", str(connections), "--hold", str(hold_s)]
    options += ["--message-seconds", str(message_s), *(["--ack"] if ack else [])]
    options += more
    done = subprocess.run(command(*options), stdout=subprocess.PIPE, check=True)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def main(options: list[str]) -> int:
    tool = command(*options)
    with contextlib.suppress(OSError):
        namespace.enter()
    return subprocess.run(tool, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
