"""What the four classes do, in one process and private memory."""

from __future__ import annotations

import array
import asyncio
import contextlib
import copy
import ctypes
import functools
import gc
import itertools
import math
import pickle
import re
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st

import agent
from samples import samples

if TYPE_CHECKING:
    from agent.metrics import GaugeMode


@pytest.fixture
def registry() -> agent.Registry:
    return agent.Registry(app="test")


def value(registry: agent.Registry, name: str, **labels: str) -> float:
    """The value of one sample of the rendered page."""
    return samples(registry.render("openmetrics"))[name, frozenset(labels.items())]


# --- counters
# ---------------------------------------------------------------------------------------


def test_a_counter_adds_whole_and_broken_amounts(registry: agent.Registry) -> None:
    """1 by default; ints, floats and anything with __float__."""
    steps = agent.Counter("steps", "Steps.", registry=registry)
    steps.inc()
    steps.inc(41)
    steps.inc(amount=0.25)
    steps.inc(np.float32(0.5))
    steps.inc(True)
    assert value(registry, "steps_total") == 43.75


def test_whole_increments_are_exact_past_2_to_53(registry: agent.Registry) -> None:
    """Whole amounts are counted as integers, not as floats."""
    steps = agent.Counter("steps", "Steps.", registry=registry)
    steps.inc(2**60)
    steps.inc()
    assert f"steps_total {2**60 + 1}\n".encode() in registry.render()


@pytest.mark.parametrize("amount", [-1, -0.5, math.nan, math.inf, -math.inf, -(10**30)])
def test_a_counter_refuses_to_go_down(registry: agent.Registry, amount: float) -> None:
    """Negative, NaN and infinite amounts raise AmountError, a ValueError, and change nothing."""
    steps = agent.Counter("steps", "Steps.", registry=registry)
    for call in (steps.inc, lambda amount: steps.inc_many([1, amount])):
        with pytest.raises(agent.AmountError, match="steps"):
            call(amount)
    assert value(registry, "steps_total") == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda metric: metric.inc("1"), "must be real number, not str"),
        (lambda metric: metric.inc(None), "must be real number"),
        (lambda metric: metric.inc(1, 2), "'amount'"),
        (lambda metric: metric.inc(value=1), "'amount'"),
        (lambda metric: metric.inc(1, amount=2), "'amount'"),
    ],
)
def test_wrong_calls_are_type_errors(
    registry: agent.Registry, call: Callable[[agent.Counter], None], message: str
) -> None:
    """Arguments are read without a parser; its errors are still there."""
    with pytest.raises(TypeError, match=message):
        call(agent.Counter("steps", "Steps.", registry=registry))
    assert value(registry, "steps_total") == 0


def test_exceptions_are_counted_and_pass(registry: agent.Registry) -> None:
    """Only those of the given classes, and a decorated function keeps its name."""
    faults = agent.Counter("faults", "Faults.", registry=registry)

    @faults.count_exceptions((KeyError, IndexError))
    def fail(error: Exception) -> None:
        raise error

    for error in (KeyError("a"), IndexError("b"), TypeError("c")):
        with pytest.raises(type(error)):
            fail(error)
    with pytest.raises(OSError, match="d"), faults.count_exceptions():
        raise OSError("d")
    assert fail.__name__ == "fail"
    assert value(registry, "faults_total") == 3


# --- gauges
# -----------------------------------------------------------------------------------------


def test_a_gauge_goes_up_and_down(registry: agent.Registry) -> None:
    """set, inc, dec; NaN is a value of a gauge."""
    level = agent.Gauge("level", "Level.", registry=registry)
    level.set(5)
    level.inc()
    level.inc(2.5)
    level.dec()
    level.dec(amount=0.5)
    assert value(registry, "level") == 7
    level.set(math.nan)
    assert math.isnan(value(registry, "level"))
    with pytest.raises(TypeError, match="needs a value"):
        level.set()  # type: ignore[call-arg]


def test_a_gauge_knows_the_time(registry: agent.Registry) -> None:
    """set_to_current_time() is now, in seconds since 1970."""
    level = agent.Gauge("level", "Level.", registry=registry)
    before = time.time()
    level.set_to_current_time()
    assert before - 0.01 <= value(registry, "level") <= time.time() + 0.01


def test_work_in_progress_is_tracked(registry: agent.Registry) -> None:
    """Up during the block, also when it is entered again, and down when it fails."""
    level = agent.Gauge("level", "Level.", registry=registry)
    block = level.track_inprogress()
    with block, block:
        assert value(registry, "level") == 2
    with contextlib.suppress(KeyError), block:
        raise KeyError
    assert value(registry, "level") == 0


@pytest.mark.parametrize(
    "mode",
    [mode for kind in ("all", "sum", "min", "max", "mostrecent") for mode in (kind, f"live{kind}")],
)
def test_every_mode_of_a_gauge_shows_one_process_as_it_is(
    registry: agent.Registry, mode: str
) -> None:
    """The modes of prometheus_client by their names."""
    agent.Gauge("level", "Level.", registry=registry, multiprocess_mode=mode).set(3)  # type: ignore[arg-type]
    found = [v for (name, _), v in samples(registry.render()).items() if name == "level"]
    assert found == [3]


def test_an_unknown_mode_names_the_known_ones(registry: agent.Registry) -> None:
    """A typing error is found where it is made."""
    with pytest.raises(agent.InvalidNameError, match="livesum"):
        agent.Gauge("level", "L.", registry=registry, multiprocess_mode="average")  # type: ignore[arg-type]


# --- histograms and summaries
# -----------------------------------------------------------------------


def test_explicit_buckets_are_cumulative(registry: agent.Registry) -> None:
    """A value equal to a bound is inside; +Inf is implied and may be given."""
    sizes = agent.Histogram("sizes", "S.", registry=registry, buckets=[1, 2, math.inf])
    for size in (0.5, 1, 1.5, 99):
        sizes.observe(size)
    assert value(registry, "sizes_bucket", le="1.0") == 2
    assert value(registry, "sizes_bucket", le="2.0") == 3
    assert value(registry, "sizes_bucket", le="+Inf") == 4
    assert value(registry, "sizes_count") == 4
    assert value(registry, "sizes_sum") == 102


def bounds(registry: agent.Registry, **labels: str) -> list[tuple[float, float]]:
    """(`le`, cumulative count) of the series of histogram `sizes` with these labels, ascending."""
    found = []
    for (name, all_labels), count in samples(registry.render()).items():
        shown = dict(all_labels)
        if name == "sizes_bucket" and labels.items() <= shown.items():
            found.append((float(shown["le"]), count))
    return sorted(found)


def test_the_default_buckets_are_those_of_prometheus_client(registry: agent.Registry) -> None:
    """So that dashboards with `le="0.5"` go on to find it."""
    agent.Histogram("sizes", "S.", registry=registry)
    shown = [bound for bound, _ in bounds(registry)]
    assert tuple(shown) == prometheus_client.Histogram.DEFAULT_BUCKETS


@pytest.mark.parametrize("options", [{}, {"native": True}, {"schema": 0}, {"buckets": [1, 3]}])
def test_all_series_of_a_histogram_have_the_same_bounds_from_birth(
    registry: agent.Registry, options: dict[str, object]
) -> None:
    """Whatever was observed, so that sums by `le` are cumulative and no increment is lost."""
    sizes = agent.Histogram("sizes", "S.", ["path"], registry=registry, **options)  # type: ignore[arg-type]
    sizes.labels("new")
    born = [bound for bound, _ in bounds(registry, path="new")]
    slow, fast = (0.006, 0.007, 3e10), (0.003, 0.0035, -1)
    sizes.labels("slow").observe_many(slow)
    sizes.labels("fast").observe_many(fast)
    total = [0.0] * len(born)
    for path in ("new", "slow", "fast"):
        shown = bounds(registry, path=path)
        assert [bound for bound, _ in shown] == born
        total = [before + count for before, (_, count) in zip(total, shown, strict=True)]
    assert total == [sum(value <= bound for value in slow + fast) for bound in born]


@given(st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=50), st.integers(0, 6))
def test_a_native_histogram_shows_a_ladder_in_text(values: list[float], schema: int) -> None:
    """Powers of two from 2^-20 to 2^30, exact there; count and sum are right."""
    registry = agent.Registry()
    sizes = agent.Histogram("sizes", "S.", registry=registry, native=True, schema=schema)
    sizes.observe_many(values)
    shown = bounds(registry)
    assert [bound for bound, _ in shown] == [*(2.0**power for power in range(-20, 31)), math.inf]
    for bound, count in shown:
        assert count == sum(value <= bound for value in values)
    page = samples(registry.render())
    assert page["sizes_count", frozenset()] == len(values)
    error = 1e-12 * sum(map(abs, values))  # of a sum of floats in another order
    assert page["sizes_sum", frozenset()] == pytest.approx(sum(values), abs=error)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"buckets": []}, "finite"),
        ({"buckets": [math.inf]}, "finite"),
        ({"buckets": [2, 1]}, "ascend"),
        ({"buckets": [1, 1]}, "ascend"),
        ({"buckets": [math.nan]}, "finite"),
        ({"buckets": list(range(513))}, "512"),
        ({"schema": 7}, "schema"),
    ],
)
def test_unusable_buckets_are_refused(
    registry: agent.Registry, options: dict[str, object], message: str
) -> None:
    """The message says what is wrong with them."""
    with pytest.raises(ValueError, match=message):
        agent.Histogram("sizes", "S.", registry=registry, **options)  # type: ignore[arg-type]
    for native in ({"schema": 3}, {"native": True}):
        with pytest.raises(TypeError, match="exclude"):
            agent.Histogram("sizes", "S.", registry=registry, buckets=[1], **native)  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [agent.Histogram, agent.Summary])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_observations_are_finite(
    registry: agent.Registry, make: type[agent.Histogram | agent.Summary], bad: float
) -> None:
    """One NaN would make the sum NaN for ever; observe_many takes all or none."""
    sizes = make("sizes", "S.", registry=registry)
    with pytest.raises(agent.AmountError, match="sizes"):
        sizes.observe(bad)
    with pytest.raises(agent.AmountError, match="sizes"):
        sizes.observe_many([1.0] * 2000 + [bad])
    assert value(registry, "sizes_count") == 0


def test_a_summary_has_exact_quantiles_of_the_last_minute(registry: agent.Registry) -> None:
    """Nearest rank over the values in the ring."""
    sizes = agent.Summary("sizes", "S.", registry=registry, quantiles=[0, 0.5, 0.99, 1])
    sizes.observe_many(list(range(100, 0, -1)))
    found = {q: value(registry, "sizes", quantile=q) for q in ("0.0", "0.5", "0.99", "1.0")}
    assert found == {"0.0": 1, "0.5": 50, "0.99": 99, "1.0": 100}
    assert value(registry, "sizes_sum") == 5050


def test_a_histogram_leaves_the_quantiles_of_a_summary_alone(registry: agent.Registry) -> None:
    """However its values come: singly, in batches or from a timer, in whatever number."""
    sizes = agent.Summary("sizes", "S.", registry=registry, quantiles=[0, 1])
    took = agent.Histogram("took", "T.", registry=registry)
    sizes.observe_many([1, 2])
    sizes.observe(3)
    took.observe_many([0.5] * 5000)
    block = took.time()
    for _ in range(3000):
        took.observe(0.5)
        with block:
            pass
    assert value(registry, "took_count") == 11_000
    assert [value(registry, "sizes", quantile=q) for q in ("0.0", "1.0")] == [1, 3]


def test_a_busy_summary_leaves_the_quantiles_of_others_alone(registry: agent.Registry) -> None:
    """Of another metric, and of another series of the same metric."""
    busy = agent.Summary("busy", "B.", registry=registry)
    slow = agent.Summary("slow", "S.", ["who"], registry=registry, quantiles=[0, 0.5, 1])
    for number in range(10):
        slow.labels("one").observe(number)
        for _ in range(500):
            busy.observe(0.5)
        busy.observe_many([0.5] * 20_000)
        slow.labels("two").observe_many([0.5] * 5000)
    found = [value(registry, "slow", who="one", quantile=q) for q in ("0.0", "0.5", "1.0")]
    assert found == [0, 4, 9]


@given(st.lists(st.lists(st.floats(-1e9, 1e9), max_size=40), max_size=4))
def test_many_values_do_what_single_ones_do(batches: list[list[float]]) -> None:
    """Cells and quantiles are the same, of histograms and summaries."""
    pages = []
    for many in (True, False):
        registry = agent.Registry()
        sizes = agent.Summary("sizes", "S.", registry=registry)
        spread = agent.Histogram("spread", "S.", registry=registry)
        for metric, batch in ((metric, batch) for batch in batches for metric in (sizes, spread)):
            if many:
                metric.observe_many(batch)
            for size in [] if many else batch:
                metric.observe(size)
        pages.append(samples(registry.render()))
    assert set(pages[0]) == set(pages[1])
    for key, expected in pages[1].items():
        assert pages[0][key] == pytest.approx(expected, rel=1e-9, abs=1e-3), key


def test_a_summary_without_values_has_no_quantiles(registry: agent.Registry) -> None:
    """No value is shown rather than a made-up one."""
    agent.Summary("sizes", "S.", registry=registry)
    assert ("sizes", frozenset({("quantile", "0.5")})) not in samples(registry.render())
    with pytest.raises(ValueError, match="ascend"):
        agent.Summary("other", "S.", registry=registry, quantiles=[0.9, 0.5])


# --- time
# -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [agent.Histogram, agent.Summary])
def test_a_block_is_timed(
    registry: agent.Registry, make: type[agent.Histogram | agent.Summary]
) -> None:
    """As a context manager and as a decorator; also when the block fails."""
    took = make("took", "T.", registry=registry, unit="seconds")

    @took.time()
    def work(depth: int) -> int:
        return work(depth - 1) + 1 if depth else 0

    assert work(3) == 3
    with pytest.raises(KeyError), took.time():
        raise KeyError
    assert value(registry, "took_seconds_count") == 5
    assert 0 <= value(registry, "took_seconds_sum") < 60


def test_a_block_can_be_entered_again(registry: agent.Registry) -> None:
    """Nested uses of one block each measure their own time."""
    took = agent.Histogram("took", "T.", registry=registry)
    block = took.time()
    with block, block:
        pass
    assert value(registry, "took_count") == 2


def test_an_async_function_is_timed_to_its_end(registry: agent.Registry) -> None:
    """The decorator waits for the coroutine, not for its making."""
    took = agent.Histogram("took", "T.", registry=registry)
    level = agent.Gauge("level", "L.", registry=registry)

    @took.time()
    @level.time()
    async def work() -> str:
        assert value(registry, "took_count") == 0
        return "done"

    assert asyncio.run(work()) == "done"
    assert value(registry, "took_count") == 1
    assert value(registry, "level") > 0


def test_a_decorated_object_or_partial_is_looked_through(registry: agent.Registry) -> None:
    """Where the call gives a coroutine, its end is what counts."""
    took = agent.Histogram("took", "T.", registry=registry)

    async def work(answer: str) -> str:
        assert value(registry, "took_count") == seen
        return answer

    class Work:
        async def __call__(self) -> str:
            return await work("object")

    seen = 0
    assert asyncio.run(took.time()(functools.partial(work, "partial"))()) == "partial"
    seen = 1
    assert asyncio.run(took.time()(Work())()) == "object"
    assert value(registry, "took_count") == 2


def test_a_generator_is_timed_from_its_first_item_to_its_end(registry: agent.Registry) -> None:
    """Whoever asks for the items, in whatever thread; values go in and out as before."""
    took = agent.Histogram("took", "T.", registry=registry)
    open_now = agent.Gauge("open", "O.", registry=registry)
    failed = agent.Counter("failed", "F.", registry=registry)

    @failed.count_exceptions()
    @took.time()
    @open_now.track_inprogress()
    def echo() -> Generator[str, str, str]:
        said = yield "first"
        assert said != "fail"
        yield said
        return "last"

    items = echo()
    assert value(registry, "open") == 0
    assert (next(items), items.send("second")) == ("first", "second")
    assert (value(registry, "open"), value(registry, "took_count")) == (1, 0)
    ends: list[str] = []

    def end() -> None:
        try:
            next(items)
        except StopIteration as stop:
            ends.append(stop.value)

    thread = threading.Thread(target=end)
    thread.start()
    thread.join()
    assert ends == ["last"]
    assert (value(registry, "open"), value(registry, "took_count")) == (0, 1)
    items = echo()
    next(items)
    with pytest.raises(AssertionError):
        items.send("fail")
    assert (value(registry, "took_count"), value(registry, "failed_total")) == (2, 1)


def test_an_asynchronous_generator_is_refused(registry: agent.Registry) -> None:
    """When it is decorated, not when it is too late."""

    async def items() -> AsyncGenerator[int, None]:
        yield 1

    with pytest.raises(TypeError, match=r"items is an asynchronous generator.*`with`"):
        agent.Histogram("took", "T.", registry=registry).time()(items)


# --- at the end of the range
# ------------------------------------------------------------------------


def test_no_finite_numbers_make_an_infinite_one(registry: agent.Registry) -> None:
    """What could is refused by name: observations past 2^900, steps of a gauge to infinity."""
    sizes = agent.Histogram("sizes", "S.", registry=registry, buckets=[0])
    total = agent.Summary("total", "T.", registry=registry, quantiles=[])
    for metric, name in ((sizes, "sizes"), (total, "total")):
        for amount in (2.0**900, -(2.0**900)):
            metric.observe(amount)
            metric.observe_many([amount] * 100)
        for amount in (1.7e308, -1.7e308, math.nextafter(2.0**900, math.inf)):
            with pytest.raises(agent.AmountError, match=f"{name} cannot observe .*2\\^900"):
                metric.observe(amount)
            with pytest.raises(agent.AmountError, match=f"{name} cannot observe"):
                metric.observe_many([1.0, amount])
        assert value(registry, f"{name}_count") == 202
        assert value(registry, f"{name}_sum") == 0
    modes: tuple[GaugeMode, ...] = ("mostrecent", "sum", "max", "all", "livesum", "livemostrecent")
    for mode in modes:
        level = agent.Gauge(f"level_{mode}", "L.", registry=registry, multiprocess_mode=mode)
        level.set(1e308)
        with pytest.raises(agent.AmountError, match=f"level_{mode} cannot go so far"):
            level.inc(1e308)
        level.dec(1e308)
    assert b"Inf" not in re.sub(rb'le="\+Inf"', b"", registry.render())
    assert b"NaN" not in registry.render() + registry.render("openmetrics")


def test_a_counter_neither_wraps_nor_loses_what_is_small(registry: agent.Registry) -> None:
    """Halves count beside 2^53; what would pass 2^63 - 1 is refused and changes nothing."""
    counter = agent.Counter("huge", "H.", registry=registry)
    counter.inc(2.0**53)
    for _ in range(1000):
        counter.inc(0.5)
    assert b"huge_total 9007199254741492\n" in registry.render()
    counter.inc(2**63 - 1 - 9007199254741492)
    for amount in (1, 5, 0.5 + 2**40, 2.0**63, 1.7e308, 2**63 - 1, 10**400):
        with pytest.raises((agent.AmountError, OverflowError)):
            counter.inc(amount)
        assert b"huge_total 9223372036854775807\n" in registry.render()
    with pytest.raises(agent.AmountError):
        counter.inc_many([1, 2, 3])
    assert b"huge_total 9223372036854775807\n" in registry.render()


# --- many values
# ------------------------------------------------------------------------------------

BUFFERS = {
    "list": list,
    "tuple": tuple,
    "f64": lambda v: array.array("d", v),
    "f32": lambda v: np.array(v, dtype=np.float32),
    "i64": lambda v: np.array(v, dtype=np.int64),
    "i32": lambda v: array.array("i", v),
    "memoryview": lambda v: memoryview(array.array("d", v)),
    "strided": lambda v: np.repeat(np.array(v, dtype=float), 3)[::3],
    "backwards": lambda v: np.array(v[::-1], dtype=float)[::-1],
    "matrix": lambda v: np.array([v, [0] * len(v)], dtype=float).T,
    "unaligned": lambda v: np.frombuffer(b"x" + np.array(v, dtype=float).tobytes(), "f8", -1, 1),
}


@pytest.mark.parametrize("kind", BUFFERS)
def test_many_values_come_in_any_buffer(registry: agent.Registry, kind: str) -> None:
    """inc_many and observe_many are the same as a loop."""
    values = list(range(1500))
    steps = agent.Counter("steps", "S.", registry=registry)
    sizes = agent.Histogram("sizes", "S.", registry=registry, buckets=[0, 99, 1e9])
    steps.inc_many(BUFFERS[kind](values))
    sizes.observe_many(BUFFERS[kind](values))
    count = 3000 if kind == "matrix" else 1500
    assert value(registry, "steps_total") == sum(values)
    assert value(registry, "sizes_sum") == sum(values)
    assert value(registry, "sizes_count") == count
    assert value(registry, "sizes_bucket", le="99.0") == 100 + count - 1500


def test_fractions_of_many_add_up(registry: agent.Registry) -> None:
    """Whole parts are counted as integers, the rest as floats."""
    steps = agent.Counter("steps", "S.", registry=registry)
    steps.inc_many([0.5, 0.5, 1.25, 2**53])
    assert value(registry, "steps_total") == 2**53 + 2.25


@pytest.mark.parametrize(
    "values",
    [np.array([1], dtype=np.int16), np.array([1], dtype=">f8"), b"abc", 5, "text", {1: 2}, [None]],
)
def test_values_of_another_kind_are_refused(registry: agent.Registry, values: object) -> None:
    """A TypeError that says what is taken."""
    sizes = agent.Histogram("sizes", "S.", registry=registry)
    with pytest.raises(TypeError, match=r"buffer|number"):
        sizes.observe_many(values)  # type: ignore[arg-type]
    assert value(registry, "sizes_count") == 0


def test_no_values_are_no_change(registry: agent.Registry) -> None:
    """Empty buffers of any shape."""
    sizes = agent.Histogram("sizes", "S.", registry=registry)
    for values in ([], np.array([]), np.zeros((3, 0)), array.array("i")):
        sizes.observe_many(values)  # type: ignore[arg-type]
    assert value(registry, "sizes_count") == 0


# --- definitions
# ------------------------------------------------------------------------------------


def test_names_are_put_together(registry: agent.Registry) -> None:
    """namespace_subsystem_name_unit; `_total` comes with the exposition, units are not doubled."""
    full = agent.Counter("waits_total", "W.", (), "shop", "cart", "seconds", registry)
    assert full.name == "shop_cart_waits_seconds"
    assert (full.documentation, full.unit, full.labelnames) == ("W.", "seconds", ())
    assert agent.Gauge("heap_bytes", "H.", unit="bytes", registry=registry).name == "heap_bytes"
    full.inc()
    assert value(registry, "shop_cart_waits_seconds_total") == 1
    assert b"# UNIT shop_cart_waits_seconds seconds\n" in registry.render("openmetrics")


@pytest.mark.parametrize("name", ["", "1a", "a-b", "a b", "é", "a\n", "a{", "x" * 201])
def test_bad_names_are_refused(registry: agent.Registry, name: str) -> None:
    """InvalidNameError, a ValueError."""
    with pytest.raises(agent.InvalidNameError):
        agent.Counter(name, "D.", registry=registry)


def test_the_same_definition_is_the_same_metric(registry: agent.Registry) -> None:
    """A module that is loaded twice does not fail."""
    for _ in range(2):
        agent.Counter("steps", "Steps.", ["a"], registry=registry).labels("x").inc()
    assert value(registry, "steps_total", a="x") == 2


@pytest.mark.parametrize(
    "again",
    [
        lambda r: agent.Gauge("steps", "S.", registry=r),
        lambda r: agent.Counter("steps", "S.", ["a"], registry=r),
        lambda r: agent.Gauge("steps_total", "S.", registry=r),
        lambda r: agent.Histogram("sizes", "S.", registry=r),
        lambda r: agent.Histogram("sizes", "S.", registry=r, buckets=[1, 3]),
        lambda r: agent.Counter("sizes_count", "S.", registry=r),
        lambda r: agent.Gauge("sizes_bucket", "S.", registry=r),
    ],
)
def test_another_definition_of_a_name_is_a_conflict(
    registry: agent.Registry, again: Callable[[agent.Registry], object]
) -> None:
    """Also when only the samples would have the same name."""
    agent.Counter("steps", "Steps.", registry=registry)
    agent.Histogram("sizes", "S.", registry=registry, buckets=[1, 2])
    with pytest.raises(agent.ConflictError, match=r"steps|sizes"):
        again(registry)


def test_clear_begins_anew_and_says_so(registry: agent.Registry) -> None:
    """Values go to 0 with a newer `_created`, and handles stay good."""
    steps = agent.Counter("steps", "S.", registry=registry)
    steps.inc(5)
    born = value(registry, "steps_created")
    while time.time() < born + 0.02:
        pass
    steps.clear()
    assert value(registry, "steps_total") == 0
    assert value(registry, "steps_created") > born
    steps.inc()
    assert registry.clear() >= 1
    steps.inc(3)
    assert value(registry, "steps_total") == 3


def test_threads_lose_nothing(registry: agent.Registry) -> None:
    """8 threads add at once; the total is exact."""
    steps = agent.Counter("steps", "S.", ["thread"], registry=registry)
    sizes = agent.Histogram("sizes", "S.", registry=registry)

    def work(number: int) -> None:
        for _ in range(5000):
            steps.labels(number % 2).inc()
            sizes.observe(number + 1)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value(registry, "steps_total", thread="0") == 20_000
    assert value(registry, "steps_total", thread="1") == 20_000
    assert value(registry, "sizes_sum") == 5000 * 36


def test_a_collection_of_garbage_may_count(registry: agent.Registry) -> None:
    """A finalizer that runs in the middle of any call can increment the same metric."""
    steps = agent.Counter("steps", "S.", ["a"], registry=registry)

    class Finalized:
        def __del__(self) -> None:
            steps.labels("gone").inc()

    for number in range(300):
        cycle = Finalized()
        cycle.__dict__["me"] = cycle
        steps.labels(number).inc()
        del cycle
    gc.collect()
    assert value(registry, "steps_total", a="gone") == 300


def test_metrics_of_private_memory_are_not_pickled(registry: agent.Registry) -> None:
    """Another process could not find them."""
    with pytest.raises(agent.SegmentError, match="private"):
        pickle.dumps(agent.Counter("steps", "S.", registry=registry))


def test_metrics_of_a_file_are_pickled(segments: str) -> None:
    """The copy adds to the same series."""
    registry = agent.Registry(f"{segments}/x.v3.seg", "x")
    sizes = agent.Histogram("sizes", "S.", ["a"], registry=registry, buckets=[1, 2])
    sent = pickle.loads(pickle.dumps(sizes.labels("b")))
    sent.observe(1)
    sizes.labels("b").observe(1)
    assert value(registry, "sizes_count", a="b") == 2


def test_a_counter_whose_name_ends_twice_in_total_is_pickled(segments: str) -> None:
    registry = agent.Registry(f"{segments}/x.v3.seg", "x")
    steps = agent.Counter("steps_total_total", "S.", registry=registry)
    sent = pickle.loads(pickle.dumps(steps))
    sent.inc()
    assert (sent.name, steps.name) == ("steps_total", "steps_total")
    assert value(registry, "steps_total_total") == 1


def test_a_copy_of_a_metric_is_the_metric(registry: agent.Registry) -> None:
    steps = agent.Counter("steps", "S.", registry=registry)
    assert copy.copy(steps) is steps
    assert copy.deepcopy({"steps": steps})["steps"] is steps


def test_clear_of_a_child_removes_its_own_series_alone(registry: agent.Registry) -> None:
    """It begins anew at 0."""
    steps = agent.Counter("steps", "S.", ["a"], registry=registry)
    steps.labels("x").inc(3)
    steps.labels("y").inc(4)
    steps.labels("x").clear()
    assert (value(registry, "steps_total", a="x"), value(registry, "steps_total", a="y")) == (0, 4)
    steps.labels("x").inc()
    assert value(registry, "steps_total", a="x") == 1


def test_clear_of_a_registry_begins_unlabelled_metrics_at_0(registry: agent.Registry) -> None:
    steps = agent.Counter("steps", "S.", registry=registry)
    other = agent.Counter("other", "O.", ["a"], registry=registry)
    steps.inc(3)
    other.labels("x").inc()
    assert registry.clear() == 2
    assert value(registry, "steps_total") == 0
    assert b'a="x"' not in registry.render()


@pytest.mark.parametrize("how", ["keywords", "dict", "both"])
def test_labels_by_keyword_leave_nothing_behind(registry: agent.Registry, how: str) -> None:
    """Of calls with new names each time, too."""
    steps = agent.Counter("steps", "S.", ["a", "b"], registry=registry)
    calls = {
        "keywords": lambda: steps.labels(a="v", b="w").inc(),
        "dict": lambda: steps.labels(a="v", b="w").inc(),
        "both": lambda: (
            steps.labels(b="w", a="v").inc(),
            steps.labels(b="w", a="v").inc(),
            steps.labels(a="v", b="w").inc(),
        ),
    }
    call = calls[how]
    for _ in range(100):
        call()
    before = sys.getallocatedblocks()
    for _ in range(10_000):
        call()
    assert sys.getallocatedblocks() - before < 1000


def test_code_that_runs_inside_labels_may_call_labels(registry: agent.Registry) -> None:
    """A collection of garbage runs wherever an object is made; here with finalizers that do so."""
    names = ["a", "b", "c", "d"]
    steps = agent.Counter("steps", "S.", names, registry=registry)
    orders = itertools.cycle(itertools.permutations(names))

    class Finalized:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            steps.labels(**dict.fromkeys(next(orders), "gone")).inc()

    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for number in range(3000):
            Finalized()
            steps.labels(a="A", b="B", c="C", d=str(number % 7)).inc()
    finally:
        gc.set_threshold(*before)
    gc.collect()
    total = sum(value(registry, "steps_total", a="A", b="B", c="C", d=str(n)) for n in range(7))
    assert total == 3000
    assert value(registry, "steps_total", **dict.fromkeys(names, "gone")) == 3000


@pytest.mark.parametrize("block", ["count_exceptions", "track_inprogress", "time"])
def test_a_block_of_a_metric_with_labels_is_refused_where_it_is_written(
    registry: agent.Registry, block: str
) -> None:
    """Not at its end, where it would cover what the program raises."""
    classes = {
        "count_exceptions": agent.Counter,
        "track_inprogress": agent.Gauge,
        "time": agent.Histogram,
    }
    metric = classes[block]("steps", "S.", ["a"], registry=registry)
    with pytest.raises(agent.LabelError, match="has labels"):
        getattr(metric, block)()
    getattr(metric.labels("x"), block)()


@pytest.mark.parametrize(
    "amounts",
    [
        [2**53 + 1, 1],
        (2**53 + 1, 1),
        array.array("q", [2**53 + 1, 1]),
        np.array([[2**53 + 1], [1]], dtype=np.int64)[::1],
    ],
)
def test_whole_amounts_are_added_exactly(registry: agent.Registry, amounts: Any) -> None:
    steps = agent.Counter("steps", "S.", registry=registry)
    steps.inc_many(amounts)
    line = next(x for x in registry.render().decode().splitlines() if x.startswith("steps_total "))
    # The page's numbers are floats; what is left tells what was added.
    steps.inc_many([2**63 - 1 - (2**53 + 2)])
    with pytest.raises(agent.AmountError):
        steps.inc()
    assert line.startswith("steps_total 9007199254740994")


def test_arrays_of_ctypes_are_buffers(registry: agent.Registry) -> None:
    sizes = agent.Histogram("sizes", "S.", registry=registry)
    sizes.observe_many((ctypes.c_double * 3)(1, 2, 3))
    assert value(registry, "sizes_sum") == 6


def test_a_list_that_lies_about_its_length_is_read_as_it_is(registry: agent.Registry) -> None:
    class Long(list[float]):
        def __len__(self) -> int:
            return 10**15

    sizes = agent.Histogram("sizes", "S.", registry=registry)
    sizes.observe_many(Long([1.0, 2.0]))
    assert value(registry, "sizes_count") == 2


def test_a_registry_may_have_a_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.chdir(tmp_path)
    registry = agent.Registry("x.v3.seg", "x")
    agent.Counter("steps", "S.", registry=registry).inc()
    assert (tmp_path / "x.v3.seg").exists()


def test_errors_leave_nothing_behind(registry: agent.Registry) -> None:
    steps = agent.Counter("steps", "S.", ["a"], registry=registry)
    level = agent.Gauge("level", "L.", registry=registry)

    calls: list[Callable[[], object]] = [
        lambda: level.set("x"),  # type: ignore[arg-type]
        steps.inc,
        steps.labels,
        lambda: steps.labels("x").inc(-1),
    ]

    def refused() -> None:
        for call in calls:
            try:
                call()
            except (TypeError, ValueError):
                continue
            raise AssertionError("it was not refused")

    for _ in range(100):
        refused()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(1000):
        refused()
    gc.collect()
    assert sys.getallocatedblocks() - before < 500


@pytest.mark.parametrize(
    "amounts",
    [
        [9.1e18] * 3,
        array.array("q", [2**62] * 5),
        [float(2**62), float(2**62)],
        [2.0**62, 2.0**62 - 1024, 1023.5, 0.5],
        [2.0**63],
    ],
)
def test_amounts_that_pass_the_end_together_are_refused(
    registry: agent.Registry, amounts: Any
) -> None:
    steps = agent.Counter("steps", "S.", registry=registry)
    steps.inc()
    with pytest.raises(agent.AmountError):
        steps.inc_many(amounts)
    assert value(registry, "steps_total") == 1


def test_amounts_that_pass_the_end_with_what_is_there_are_refused(
    registry: agent.Registry,
) -> None:
    """The fraction too."""
    steps = agent.Counter("steps", "S.", registry=registry)
    steps.inc(2**63 - 2)
    steps.inc(0.75)
    with pytest.raises(agent.AmountError):
        steps.inc_many([0.5, 1.0])
    steps.inc_many([0.125, 0.0625])
    steps.inc_many([0.0625])
    with pytest.raises(agent.AmountError):
        steps.inc_many([0.5, 0.5])


@pytest.mark.parametrize("exception", ["ValueError", [ValueError], int, (ValueError, int), 3])
def test_only_exceptions_are_counted(registry: agent.Registry, exception: Any) -> None:
    """Said where it is written, not in the midst of an exception of the program."""
    with pytest.raises(TypeError, match="takes a class of exceptions"):
        agent.Counter("faults", "F.", registry=registry).count_exceptions(exception)


@pytest.mark.parametrize(
    "name",
    [
        "agent_private_metrics",
        "agent_private_metrics_total",
        "agent_superseded_metrics",
        "agent_damaged_series",
    ],
)
def test_what_every_page_says_of_itself_is_no_name_of_a_program(
    registry: agent.Registry, name: str
) -> None:
    for metric in (agent.Counter, agent.Gauge, agent.Histogram):
        with pytest.raises(agent.InvalidNameError, match="reserved"):
            metric(name, "X.", registry=registry)


def test_an_amount_is_shown_as_people_write_it(registry: agent.Registry) -> None:
    steps = agent.Counter("steps", "S.", registry=registry)
    with pytest.raises(agent.AmountError, match=r"\(-1e-300\)"):
        steps.inc(-1e-300)
    with pytest.raises(agent.AmountError, match=r"\(-1\.5\)"):
        steps.inc(-1.5)


def test_a_path_that_cannot_be_used_raises(segments: str) -> None:
    """Who asks for a certain file is told why it cannot be had."""
    with open(f"{segments}/x.v3.seg", "w") as file:
        file.write("not a segment" * 1000)
    with pytest.raises(agent.SegmentError, match=r"x\.v3\.seg"):
        agent.Registry(f"{segments}/x.v3.seg", "x")


def test_classes_show_themselves(registry: agent.Registry) -> None:
    """repr() for people."""
    steps = agent.Counter("steps", "S.", ["a"], registry=registry)
    assert repr(steps) == "<agent.Counter steps>"
    assert repr(steps.labels("x")) == '<agent.Counter steps{a="x"}>'
    assert repr(registry) == "<agent.Registry test in private memory>"
