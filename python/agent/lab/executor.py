"""One executor: a forked process, the pipe of its orders, the pipe of its reports.

Purpose: start, tell, hear, and know whether it lives. What the lines mean is in
`rust/agent-load/src/order.rs` and `report.rs`.

An executor leaves when the pipe of its orders ends, so it cannot outlive the controller. It is
forked, not spawned: 1 MB of private memory instead of 12, which matters where there are 56.

Towards a loopback target it runs with a niceness: elsewhere the collector would have a machine of
its own, and what a busy generator takes from it here would be told as the collector's latency. The
price is lateness of the generator, which is measured and bounded.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from collections.abc import Iterable

import msgspec

from agent import _native

from .plan import Share

READ_BYTES = 256 * 1024
# Of an executor that shares the machine with its target.
LOOPBACK_NICENESS = 10
EXIT_SOFTWARE = 70
# A loop that is well sees the end of its orders within a turn.
LEAVE_TIMEOUT_S = 5.0


class Delta(msgspec.Struct):
    """What was recorded of one duration."""

    buckets: list[tuple[int, int]]
    sum_ns: int
    max_ns: int


class Line(msgspec.Struct):
    """One line of a report: figures, or an event."""

    second: int = 0
    counts: dict[str, int] = {}
    failures: dict[str, int] = {}
    latency: dict[str, Delta] = {}
    open: int = 0
    opening: int = 0
    awaiting: int = 0
    waiting: int = 0
    cpu_s: float = 0.0
    event: str = ""
    detail: str = ""


_decoder = msgspec.json.Decoder(Line)


class Executor:
    """A running executor. `close` must be called in the end."""

    def __init__(
        self, number: int, share: Share, others: Iterable[Executor], *, is_nice: bool
    ) -> None:
        self.number = number
        self.connections = share.connections
        # Why it is gone, if it is gone and should not be.
        self.death = ""
        self.is_done = False
        self._held = b""
        control, self.control = os.pipe()
        self.report, report = os.pipe()
        plan = msgspec.structs.replace(share, control_fd=control, report_fd=report)
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            # Ends of pipes that stay open here would hide the end of those who should notice.
            theirs = [fd for other in others for fd in (other.control, other.report)]
            _be_executor(plan, [*theirs, self.control, self.report], is_nice=is_nice)
        os.close(control)
        os.close(report)
        os.set_blocking(self.report, False)

    def order(self, line: str) -> None:
        """Tells it something; that it is gone shows in its report."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self.control, line.encode() + b"\n")

    def hear(self) -> list[Line]:
        """The lines that have come. At the end of its report, `is_done` or `death` is set."""
        try:
            got = os.read(self.report, READ_BYTES)
        except BlockingIOError:
            return []
        if not got:
            if not self.is_done and not self.death:
                self.death = self._reap()
            return []
        *whole, self._held = (self._held + got).split(b"\n")
        lines = [_decoder.decode(line) for line in whole]
        for line in lines:
            if line.event == "done":
                self.is_done = True
            elif line.event == "failed":
                self.death = line.detail
        return lines

    def _reap(self) -> str:
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        if os.WIFSIGNALED(status):
            return f"was killed by signal {os.WTERMSIG(status)}"
        return f"left with code {os.WEXITSTATUS(status)}"

    def close(self) -> None:
        """Closes its pipes, which ends it, and waits for it; kills what does not listen."""
        os.close(self.control)
        os.close(self.report)
        if not self.pid:
            return
        handle = os.pidfd_open(self.pid)
        try:
            if not select.select([handle], [], [], LEAVE_TIMEOUT_S)[0]:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        finally:
            os.close(handle)
        self.pid = 0


def _be_executor(plan: Share, not_mine: list[int], *, is_nice: bool) -> None:
    """The life of the child; never returns."""
    code = EXIT_SOFTWARE
    try:
        # Ctrl-C goes to the whole group; the controller decides what it means.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if is_nice:
            os.nice(LOOPBACK_NICENESS)
        for fd in not_mine:
            os.close(fd)
        code = _native.run_load_executor(msgspec.json.encode(plan))
    finally:
        os._exit(code)
