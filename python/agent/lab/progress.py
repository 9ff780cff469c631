"""A run that is followed by people: one line a second. What came of it is told by `agent.report`.

Purpose: text from snapshots, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TextIO

from agent.report.quantity import duration

from .connections import Snapshot

# Seconds between two lines where there is no terminal.
LINE_INTERVAL_S = 5


class Progress:
    """One line that is written over on a terminal, a line now and then elsewhere."""

    def __init__(self, out: TextIO, connections: int) -> None:
        self.out = out
        self.connections = connections
        self.is_terminal = out.isatty()
        self.before: Snapshot | None = None
        self.shown_s = 0.0

    def __call__(self, now: Snapshot) -> None:
        before, self.before = self.before, now
        is_new_phase = before is None or before.phase != now.phase
        is_due = now.elapsed_s - self.shown_s >= LINE_INTERVAL_S
        if not (self.is_terminal or is_new_phase or is_due):
            return
        self.shown_s = now.elapsed_s
        text = line(now, before, self.connections)
        # Over the line before, and nothing of it left.
        self.out.write(f"\r{text}\x1b[K" if self.is_terminal else f"{text}\n")
        self.out.flush()

    def end(self) -> None:
        """What comes next begins a new line."""
        if self.is_terminal and self.before:
            self.out.write("\n")


def line(now: Snapshot, before: Snapshot | None, connections: int) -> str:
    """`  12 s  open  412,345 of 1,000,000 open (+39,870/s)  16,650 msg/s ...`"""
    seconds = now.elapsed_s - (before.elapsed_s if before else 0.0)

    def rate(field: Callable[[Snapshot], int]) -> float:
        return (field(now) - (field(before) if before else 0)) / seconds if seconds else 0.0

    parts = [
        f"{now.elapsed_s:5.0f} s  {now.phase:<6}",
        f"{now.open:,} of {connections:,} open",
    ]
    if opened := rate(lambda s: s.opened):
        parts.append(f"+{opened:,.0f}/s")
    if now.sent:
        parts.append(f"{rate(lambda s: s.sent):,.0f} msg/s, {now.awaiting:,} unanswered")
    if now.p99_s is not None:
        parts.append(f"p99 {duration(now.p99_s)}")
    parts += [f"{count:,} {what}" for count, what in trouble(now) if count]
    return "  ".join(parts)


def trouble(now: Snapshot) -> list[tuple[int, str]]:
    return [(now.failed, "failed"), (now.lost, "lost")]
