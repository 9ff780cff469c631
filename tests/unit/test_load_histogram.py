"""Merged histograms: quantiles within the error that is promised."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from agent.lab.histogram import Histogram, upper_ns


def bucket_of(ns: int) -> int:
    """As `rust/agent-load/src/latency.rs` has it."""
    if ns < 128:
        return ns
    octave = ns.bit_length() - 8
    return (octave + 1) * 128 + (ns >> octave) - 128


@given(st.lists(st.lists(st.integers(0, 10**12), min_size=1, max_size=60), min_size=1, max_size=4))
def test_a_merged_quantile_is_never_low_and_at_most_a_128th_high(parts: list[list[int]]) -> None:
    """However the values are spread over executors."""
    merged = Histogram()
    for part in parts:
        buckets: dict[int, int] = {}
        for ns in part:
            buckets[bucket_of(ns)] = buckets.get(bucket_of(ns), 0) + 1
        merged.add(buckets.items(), sum(part), max(part))
    values = sorted(value for part in parts for value in part)
    assert merged.count == len(values)
    for q in (0.5, 0.9, 0.99, 1.0):
        true = values[max(1, math.ceil(q * len(values))) - 1]
        told = merged.quantile_s(q)
        assert told is not None
        assert true <= round(told * 1e9) <= true + true // 128
    assert merged.quantile_s(1.0) == max(values) / 1e9


def test_nothing_recorded_has_no_quantile() -> None:
    """None, not zero: a zero would look like a fast answer."""
    told = Histogram().summary()
    assert told["count"] == 0
    assert told["p99"] is None
    assert told["max"] is None
    assert told["buckets"] == []


def test_the_layout_is_that_of_the_executors() -> None:
    """The bounds that the Rust side has tests for as well."""
    assert [upper_ns(i) for i in (0, 127, 128, 255, 256, 4863)] == [
        0,
        127,
        128,
        255,
        257,
        2**44 - 1,
    ]
