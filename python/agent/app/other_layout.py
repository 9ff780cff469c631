"""Segments of another version of the layout, beside ours after an upgrade and read by nobody here.

Purpose: name them, so that numbers are not missing on a page in silence, and say whether a process
still lives in one.

Not promised: what is in them.
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
from typing import NamedTuple

from agent._native import LAYOUT_VERSION

_NAME = re.compile(r"(?P<stem>[^.].*)\.v(?P<version>\d+)\.seg")
_FLOCK = "hhqqi"


class Other(NamedTuple):
    """One file. `stem` keeps the version, as in `shop.v1`."""

    stem: str
    path: str
    version: int


def find(folder: str) -> list[Other]:
    """The files of other layouts in the folder, by name; none when it cannot be read."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    found = []
    for name in names:
        match = _NAME.fullmatch(name)
        if match and int(match["version"]) != LAYOUT_VERSION:
            path = os.path.join(folder, name)
            found.append(Other(name.removesuffix(".seg"), path, int(match["version"])))
    return found


def has_writers(path: str) -> bool:
    """Whether a process lives in it: each holds a lock of some byte. True when nobody can tell."""
    lock = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return True
    try:
        kind: int = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, lock))[0]
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return kind != fcntl.F_UNLCK


def told(others: list[Other]) -> str:
    """One sentence about them, and what to do; empty when there are none."""
    if not others:
        return ""
    versions = ", ".join(map(str, sorted({other.version for other in others})))
    count = "1 segment" if len(others) == 1 else f"{len(others)} segments"
    verb = "is" if len(others) == 1 else "are"
    return (
        f"{count} of layout {versions} {verb} not read by this version (layout {LAYOUT_VERSION}): "
        "start those programs with it, then `python -m agent apps prune`"
    )
