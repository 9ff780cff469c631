"""Processes that a case started: who they are, how they are killed, and that none is left.

Purpose: a case adopts what its programs leave behind (child subreaper), so that everything it
started is found below it, and nothing else is ever signalled: a process is sent a signal through a
descriptor of it (pidfd) after its line of parents was followed up to the case.

Limits: Linux 5.3. In another PID namespace processes are found by what /proc shows of them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
POLL_S = 0.002
GONE_S = 30.0


def adopt_orphans() -> None:
    """From now on descendants whose parent dies become children of this process."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """This process is killed when the one that started it ends. For a child after fork."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def children(pid: int) -> list[int]:
    """Of all its threads; none when it is gone."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children") as file:
                found += map(int, file.read().split())
    return found


def descendants(pid: int) -> list[int]:
    found, todo = [], children(pid)
    while todo:
        one = todo.pop()
        found.append(one)
        todo += children(one)
    return found


def status(pid: int) -> dict[str, str]:
    """The lines of /proc/PID/status; empty when it is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status") as file:
        return {name: rest.strip() for name, _, rest in (line.partition(":") for line in file)}
    return {}


def is_ours(pid: int) -> bool:
    """Its line of parents ends here."""
    mine, seen = os.getpid(), 0
    while pid > 0 and seen < 64:
        if pid == mine:
            return True
        pid = int(status(pid).get("PPid", "0"))
        seen += 1
    return False


def is_alive(pid: int) -> bool:
    """It runs, waits or is stopped; a zombie does not live."""
    return status(pid).get("State", "Z")[0] not in "ZX"


def send(pid: int, how: signal.Signals) -> bool:
    """Signals a process of ours. False: there is none such any more."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if not is_ours(pid):
            return False
        signal.pidfd_send_signal(descriptor, how)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def reap() -> None:
    """Waits for children that have ended, our own and adopted ones."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def end_all() -> None:
    """Kills everything below this process and waits until nothing is left."""
    deadline = time.monotonic() + GONE_S
    while left := descendants(os.getpid()):
        for pid in left:
            # A stopped or frozen one dies as well once it is thawed; its owner has done that.
            send(pid, signal.SIGKILL)
        reap()
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {left} do not end though they were killed")
        time.sleep(POLL_S)
