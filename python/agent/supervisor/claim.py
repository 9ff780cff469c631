"""One collector per folder, and what a killed one leaves behind.

Purpose: two locks on one file of the folder. The *record lock* belongs to the supervisor alone:
the kernel forgets it when the process ends, children do not inherit it, and it can be asked for its
owner. The *file lock* is inherited: it ends with the last process of the collector. So there are
three cases:

| record lock | file lock | what it means |
|---|---|---|
| taken | - | another collector runs; its pid is known |
| free | taken | a supervisor was killed and its children are about to leave: they are waited for |
| free | free | the folder is ours |

The file holds the pid of the supervisor while it runs. A text left there says that the last
collector was killed, so that its sockets may be closed only now: `Claim.was_killed`.

Limits: children are waited for up to CHILDREN_LEAVE_S; they take at most 3 s unless they are
stopped or starved.

Not promised: on network file systems both locks may be one, and then nobody can start; segments do
not work there either.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Callable

from agent.log import Log

LOCK_NAME = "collector.lock"
CHILDREN_LEAVE_S = 15.0
POLL_S = 0.02
# struct flock of 64-bit Linux: type, whence, start, length, pid.
FLOCK = "hhqqi4x"


class ClaimError(Exception):
    """The folder belongs to other processes; the message names them."""


class Claim:
    """The folder is ours for as long as this or a child is alive."""

    def __init__(self, fd: int, was_killed: bool) -> None:
        self.fd = fd
        self.was_killed = was_killed

    def release(self) -> None:
        """The end of a collector that was not killed."""
        os.ftruncate(self.fd, 0)
        os.close(self.fd)


def claim(
    folder: str, log: Log, left_behind: Callable[[], str], wait_s: float = CHILDREN_LEAVE_S
) -> Claim:
    """Takes both locks. Raises ClaimError, and OSError when the file cannot be had.

    `left_behind` names the processes of a killed collector.
    """
    path = os.path.join(folder, LOCK_NAME)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _take_record_lock(fd, folder)
        _take_file_lock(fd, folder, log, left_behind, wait_s)
        was_killed = bool(os.pread(fd, 1, 0))
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    except BaseException:
        os.close(fd)
        raise
    return Claim(fd, was_killed)


def _take_record_lock(fd: int, folder: str) -> None:
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        asked = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack(FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, asked))
        # 0: it runs where we cannot see it, in another container.
        owner = f"pid {pid}" if pid and kind != fcntl.F_UNLCK else "in another container"
        raise ClaimError(f"dir: {folder} is in use by another collector ({owner})") from None


def _take_file_lock(
    fd: int, folder: str, log: Log, left_behind: Callable[[], str], wait_s: float
) -> None:
    deadline_s = time.monotonic() + wait_s
    said = False
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            pass
        if time.monotonic() >= deadline_s:
            raise ClaimError(
                f"dir: {folder} is still in use by processes of a collector that was killed, "
                f"which did not leave within {wait_s:g} s: {left_behind()}"
            )
        if not said:
            said = True
            log.warning("waiting for the processes of a killed collector", there=left_behind())
        time.sleep(POLL_S)
