"""Histograms of the executors, merged.

Purpose: the other half of `rust/agent-load/src/latency.rs`, which has the layout: durations in
nanoseconds, one bucket each below 128, above that 128 buckets an octave. Merging adds counts, so
it is exact; a quantile is the upper bound of its bucket, never below the true one and at most 0.8 %
above it.
"""

from __future__ import annotations

from collections.abc import Iterable

SUB = 128
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}


def upper_ns(bucket: int) -> int:
    """The longest duration of a bucket."""
    if bucket < SUB:
        return bucket
    octave = bucket // SUB - 1
    return ((SUB + bucket % SUB + 1) << octave) - 1


class Histogram:
    """Counts by bucket. Grows with the spread of what is recorded, not with its number."""

    __slots__ = ("buckets", "count", "max_ns", "sum_ns")

    def __init__(self) -> None:
        self.buckets: dict[int, int] = {}
        self.count = 0
        self.sum_ns = 0
        self.max_ns = 0

    def add(self, buckets: Iterable[tuple[int, int]], sum_ns: int, max_ns: int) -> None:
        """Adds what an executor recorded."""
        mine = self.buckets
        for bucket, count in buckets:
            mine[bucket] = mine.get(bucket, 0) + count
            self.count += count
        self.sum_ns += sum_ns
        self.max_ns = max(self.max_ns, max_ns)

    def quantile_s(self, q: float) -> float | None:
        """In seconds; None when nothing was recorded."""
        if not self.count:
            return None
        # The smallest bucket that at least this many are in or below.
        wanted = max(1, -int(-q * self.count // 1))
        seen = 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= wanted:
                return min(upper_ns(bucket), self.max_ns) / 1e9
        return self.max_ns / 1e9

    def summary(self) -> dict[str, object]:
        """What a result shows of it."""
        told: dict[str, object] = {"count": self.count}
        told |= {name: self.quantile_s(q) for name, q in QUANTILES.items()}
        told["max"] = self.max_ns / 1e9 if self.count else None
        told["mean"] = self.sum_ns / self.count / 1e9 if self.count else None
        told["buckets"] = [
            [upper_ns(bucket) / 1e9, self.buckets[bucket]] for bucket in sorted(self.buckets)
        ]
        return told
