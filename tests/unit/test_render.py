"""The page that `render()` makes."""

from __future__ import annotations

import sys
import threading
import time

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st

import agent
from collector import eventually
from samples import samples


def both() -> list[tuple[object, object, dict[str, object]]]:
    """The same metrics here and in prometheus_client, as (module, registry)."""
    ours, theirs = agent.Registry(), prometheus_client.CollectorRegistry()
    return [(agent, ours, {}), (prometheus_client, theirs, {})]


NUMBERS = st.floats(0, 1e12, allow_nan=False) | st.integers(0, 2**40)


@given(
    counts=st.lists(st.tuples(st.sampled_from("abc"), NUMBERS), max_size=20),
    level=st.floats(allow_nan=False),
    sizes=st.lists(st.floats(-1e6, 1e6), max_size=20),
)
def test_the_page_says_what_prometheus_client_would_say(
    counts: list[tuple[str, float]], level: float, sizes: list[float]
) -> None:
    """The same calls through both libraries give the same samples."""
    pages = []
    for module, registry, _ in both():
        steps = module.Counter("steps", "S.", ["a"], registry=registry)  # type: ignore[attr-defined]
        for label, amount in counts:
            steps.labels(label).inc(amount)
        module.Gauge("level", "L.", registry=registry).set(level)  # type: ignore[attr-defined]
        histogram = module.Histogram(  # type: ignore[attr-defined]
            "sizes", "S.", unit="bytes", buckets=[0, 1, 100], registry=registry
        )
        for size in sizes:
            histogram.observe(size)
        if isinstance(registry, agent.Registry):
            pages.append(samples(registry.render()))
        else:
            pages.append(samples(prometheus_client.generate_latest(registry)))  # type: ignore[arg-type]
    ours, theirs = pages
    theirs = {key: value for key, value in theirs.items() if not key[0].endswith("_created")}
    assert set(ours) == set(theirs)
    for key, value in theirs.items():
        assert ours[key] == pytest.approx(value, rel=1e-9), key


@pytest.mark.parametrize("form", ["prometheus", "openmetrics"])
def test_both_formats_are_read_by_prometheus_client(form: str) -> None:
    """Every class, labelled and not, with a unit, an overflow, odd texts."""
    registry = agent.Registry(metric_series_max=2)
    steps = agent.Counter("steps", 'A "help"\nwith \\ signs.', ["a"], registry=registry)
    for text in ("x", 'a"b\\c\nd', "é", "over the limit"):
        steps.labels(text).inc()
    agent.Gauge("level", "L.", registry=registry, multiprocess_mode="all").set(1)
    agent.Histogram("took", "T.", unit="seconds", registry=registry).observe(0.1)
    agent.Summary("sizes", "S.", registry=registry).observe(3)
    page = samples(registry.render(form))  # type: ignore[arg-type]
    assert page["steps_total", frozenset({("agent_overflow", "true")})] == 2
    assert page["took_seconds_count", frozenset()] == 1
    created = {name for name, _ in page if name.endswith("_created")}
    expected = {"steps_created", "took_seconds_created", "sizes_created"}
    assert created == (expected if form == "openmetrics" else set())


def test_an_unknown_format_is_refused() -> None:
    """With the names of the known ones."""
    with pytest.raises(ValueError, match="openmetrics"):
        agent.Registry().render("xml")  # type: ignore[arg-type]


def test_a_registry_without_metrics_renders_nothing() -> None:
    """An empty page is a page."""
    assert agent.Registry().render() == b""
    assert agent.Registry().render("openmetrics") == b"# EOF\n"


def test_rendering_does_not_hold_the_interpreter() -> None:
    """Another thread goes on while a large page is made.

    The interpreter takes turns away from nobody meanwhile: it is switched when it is given up only.
    """
    registry = agent.Registry(series_max=60_000, metric_series_max=60_000)
    steps = agent.Counter("steps", "S.", ["a"], registry=registry)
    for number in range(50_000):
        steps.labels(number)
    turns = 0
    done = threading.Event()

    def spin() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            time.sleep(0)

    def turns_meanwhile() -> int:
        before = turns
        registry.render()
        return turns - before

    thread = threading.Thread(target=spin)
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(3600)
    try:
        thread.start()
        had = eventually(turns_meanwhile, lambda count: count > 0, "the other thread had a turn")
        assert had > 0
    finally:
        done.set()
        sys.setswitchinterval(usual_s)
        thread.join()
