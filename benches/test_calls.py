"""Nanoseconds of one call: every metric type, every library, one thread.

A round is CALLS calls; pytest-benchmark's figures are for a round, `calls` in the extra information
divides them. `make bench` runs the suite several times over, so that the libraries take turns.
"""

from __future__ import annotations

import array

import pytest

from subjects import SUBJECTS, Loop, empty_loop

CALLS = 2_000
ROUNDS = 25
BATCH = 10_000
KINDS = ("inc", "child_inc", "labels_inc", "gauge_set", "observe")


def measure(benchmark, loop: Loop, calls: int = CALLS) -> None:
    benchmark.extra_info["calls"] = calls
    benchmark.pedantic(loop, args=(calls,), rounds=ROUNDS, warmup_rounds=3)


@pytest.mark.benchmark(group="loop")
def test_empty_loop(benchmark) -> None:
    """What the `for` loop around every other figure costs."""
    benchmark.extra_info["subject"] = "Python loop"
    measure(benchmark, empty_loop, CALLS * 10)


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize("kind", KINDS)
def test_call(benchmark, kind: str, subject: str) -> None:
    """One call of that kind."""
    made = SUBJECTS[subject]()
    loop = getattr(made, kind)
    if loop is None:
        pytest.skip(f"{subject} has no such call")
    benchmark.group = kind
    benchmark.extra_info["subject"] = subject
    measure(benchmark, loop)


@pytest.mark.parametrize("shape", ["array", "numpy"])
@pytest.mark.benchmark(group="observe_many")
def test_observe_many(benchmark, shape: str) -> None:
    """One value of a batch handed over as a buffer of doubles."""
    import agent

    values = array.array("d", [0.001 * (1 + i % 500) for i in range(BATCH)])
    if shape == "numpy":
        import numpy as np

        values = np.array(values)
    histogram = agent.Histogram(f"batch_{shape}", "A histogram.")
    # The better of the two shapes is the figure: they differ by what is found in the cache.
    benchmark.extra_info["subject"] = "agent"
    benchmark.extra_info["calls"] = BATCH
    benchmark.pedantic(histogram.observe_many, args=(values,), rounds=50, warmup_rounds=3)
