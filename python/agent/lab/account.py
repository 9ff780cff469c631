"""The account of a run: what the executors reported, added up, in total and by second. Pure.

Purpose: one place that adds. Counts and histograms of executors are deltas, so their sum is exact,
whatever the order they come in.

Limits: one entry a second of the run, each with the histogram of that second's messages.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from .executor import Line
from .histogram import Histogram


class Second:
    """What happened within one second, all executors together."""

    __slots__ = ("client_cpu_s", "counts", "failed", "message", "opening", "server_cpu_s")

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.failed = 0
        self.message = Histogram()
        self.client_cpu_s = 0.0
        self.server_cpu_s: float | None = None
        self.opening = 0


class Account:
    """Totals, and the seconds they are made of."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.latency: dict[str, Histogram] = {}
        self.seconds: dict[int, Second] = {}
        # The newest line of each executor.
        self.newest: dict[int, Line] = {}
        # Open connections by second and executor.
        self._open: dict[int, dict[int, int]] = {}

    def add(self, executor: int, line: Line) -> None:
        """Takes a line of figures."""
        second = self.seconds.setdefault(line.second, Second())
        self.counts.update(line.counts)
        second.counts.update(line.counts)
        self.failures.update(line.failures)
        second.failed += sum(line.failures.values())
        for name, delta in line.latency.items():
            whole = self.latency.setdefault(name, Histogram())
            whole.add(delta.buckets, delta.sum_ns, delta.max_ns)
            if name == "message":
                second.message.add(delta.buckets, delta.sum_ns, delta.max_ns)
        before = self.newest.get(executor)
        second.client_cpu_s += line.cpu_s - (before.cpu_s if before else 0.0)
        second.opening += line.opening
        self._open.setdefault(line.second, {})[executor] = line.open
        self.newest[executor] = line

    def server_cpu(self, second: int, cpu_s: float) -> None:
        """CPU time that the target used in a second."""
        self.seconds.setdefault(second, Second()).server_cpu_s = cpu_s

    def now(self, field: str) -> int:
        """The sum of what the executors last said of `open`, `opening`, `awaiting` or `waiting`."""
        return sum(getattr(line, field) for line in self.newest.values())

    @property
    def client_cpu_s(self) -> float:
        return sum(line.cpu_s for line in self.newest.values())

    def timeline(self) -> list[dict[str, Any]]:
        """One entry a second, from the first to the last; a second without news is quiet."""
        entries = []
        is_open: dict[int, int] = {}
        for number in range(max(self.seconds, default=-1) + 1):
            second = self.seconds.get(number, Second())
            is_open.update(self._open.get(number, {}))
            counts = second.counts
            entries.append(
                {
                    "t": number + 1,
                    "open": sum(is_open.values()),
                    "opening": second.opening,
                    "opened_per_s": counts["opened"],
                    "sent_per_s": counts["messages_sent"],
                    "acked_per_s": counts["messages_acked"],
                    "failed_per_s": second.failed,
                    "lost_per_s": lost(counts),
                    "p50_s": second.message.quantile_s(0.5),
                    "p99_s": second.message.quantile_s(0.99),
                    "client_cpu": round(second.client_cpu_s, 4),
                    "server_cpu": second.server_cpu_s,
                }
            )
        return entries


def lost(counts: Counter[str]) -> int:
    """Connections that were open and then were not, without being asked."""
    reasons = ("closed_by_peer", "broken", "ack_timed_out", "answer_bad")
    return sum(counts[reason] for reason in reasons)
