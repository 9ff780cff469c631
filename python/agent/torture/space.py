"""Namespaces of its own for a case or a program: process ids, mounts. By `unshare` of util-linux.

Purpose: the words that a command is prefixed with, or the reason why this machine has none. Root
needs nothing else; others get a user namespace, where the kernel lets them have one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache

from .ground import CannotRunError

OPTIONS = {
    "pid": ("--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL"),
    "mount": ("--mount", "--propagation=private"),
}


@cache
def command(space: str) -> tuple[str, ...]:
    """The prefix. Raises CannotRunError where such a namespace cannot be made."""
    program = shutil.which("unshare")
    if program is None:
        raise CannotRunError("there is no `unshare` (util-linux) here")
    user = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    prefix = (program, *user, *OPTIONS[space])
    tried = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        raise CannotRunError(f"`{' '.join(prefix)}`: {tried.stderr.strip() or tried.returncode}")
    return prefix
