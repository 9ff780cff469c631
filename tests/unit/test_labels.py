"""From label values to series: lookups, errors, limits, removal."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agent
from samples import samples


@pytest.fixture
def registry() -> agent.Registry:
    return agent.Registry(app="test")


def values(registry: agent.Registry, name: str) -> dict[frozenset[tuple[str, str]], float]:
    """Value by label set of the samples of that name."""
    page = samples(registry.render())
    return {labels: value for (found, labels), value in page.items() if found == name}


@pytest.mark.parametrize("make", [agent.Counter, agent.Gauge, agent.Histogram, agent.Summary])
def test_the_same_values_are_the_same_child(
    registry: agent.Registry, make: type[agent.Counter]
) -> None:
    """By position, by keyword in any order, and by anything with the same text."""
    metric = make("m", "M.", ["a", "b"], registry=registry)
    child = metric.labels("x", "1")
    assert type(child) is make
    assert child.labelvalues == ("x", "1")
    assert metric.labels("x", 1) is child
    assert metric.labels(a="x", b="1") is child
    assert metric.labels(b=1, a="x") is child
    assert metric.labels(b="1", a="x") is child
    assert metric.labels("1", "x") is not child


def test_numbers_that_are_equal_keep_their_texts(registry: agent.Registry) -> None:
    """1, 1.0 and True are one key of a dict, but three label values."""
    metric = agent.Counter("m", "M.", ["a"], registry=registry)
    texts = [metric.labels(value).labelvalues[0] for value in (1, 1.0, True, None)]
    assert texts == ["1", "1.0", "True", "None"]


def test_subclasses_of_str_count_by_their_text(registry: agent.Registry) -> None:
    """Their own __eq__ and __hash__ are never asked."""

    class Text(str):
        __slots__ = ()

        def __hash__(self) -> int:
            raise AssertionError("asked")

        def __eq__(self, other: object) -> bool:
            raise AssertionError("asked")

    metric = agent.Counter("m", "M.", ["a"], registry=registry)
    assert metric.labels(Text("x")) is metric.labels("x")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.labels(), "2 labels"),
        (lambda m: m.labels("x"), "got 1"),
        (lambda m: m.labels("x", "y", "z"), "got 3"),
        (lambda m: m.labels(a="x"), "got"),
        (lambda m: m.labels(a="x", c="y"), "a, c"),
        (lambda m: m.labels("x", b="y"), "not both"),
        (lambda m: m.labels("x", "y").labels("z"), "already"),
        (lambda m: m.inc(), r"labels\(a, b\)"),
        (lambda m: m.inc(2), r"labels\(a, b\)"),
        (lambda m: m.inc_many([1]), r"labels\(a, b\)"),
        (lambda m: m.remove("x"), "got 1"),
        (lambda m: m.labels("x", "y").remove("x"), "already"),
    ],
)
def test_wrong_labels_are_refused(
    registry: agent.Registry, call: Callable[[agent.Counter], object], message: str
) -> None:
    """LabelError, a ValueError, that names the labels; nothing is counted."""
    metric = agent.Counter("m", "M.", ["a", "b"], registry=registry)
    with pytest.raises(agent.LabelError, match=message):
        call(metric)
    assert set(values(registry, "m_total").values()) <= {0}


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (agent.Counter, "1a"),
        (agent.Counter, ""),
        (agent.Counter, "a-b"),
        (agent.Counter, "a:b"),
        (agent.Counter, "__a"),
        (agent.Counter, "agent_overflow"),
        (agent.Histogram, "le"),
        (agent.Summary, "quantile"),
        (lambda *a, **k: agent.Gauge(*a, multiprocess_mode="all", **k), "pid"),
    ],
)
def test_bad_and_reserved_label_names_are_refused(
    registry: agent.Registry, make: Callable[..., object], name: str
) -> None:
    """At the constructor, where the mistake is."""
    with pytest.raises(agent.InvalidNameError, match="label name"):
        make("m", "M.", [name], registry=registry)


def test_label_names_are_a_sequence_of_different_names(registry: agent.Registry) -> None:
    """Not one text, whose letters would be the labels."""
    with pytest.raises(TypeError, match="sequence"):
        agent.Counter("m", "M.", "ab", registry=registry)
    with pytest.raises(agent.InvalidNameError, match="twice"):
        agent.Counter("m", "M.", ["a", "a"], registry=registry)
    with pytest.raises(TypeError):
        agent.Counter("m", "M.", [1], registry=registry)  # type: ignore[list-item]
    assert agent.Counter("m", "M.", (n for n in "ab"), registry=registry).labelnames == ("a", "b")


@given(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=20))
def test_any_text_is_a_label_value(pairs: list[tuple[str, str]]) -> None:
    """Quotes, backslashes, line ends, any script: a parser reads back what was given."""
    registry = agent.Registry()
    metric = agent.Counter("m", "M.", ["a", "b"], registry=registry)
    expected: dict[frozenset[tuple[str, str]], float] = {}
    for a, b in pairs:
        metric.labels(a, b).inc()
        key = frozenset({("a", a), ("b", b)})
        expected[key] = expected.get(key, 0) + 1
    assert values(registry, "m_total") == expected


class Path(str):
    """A subclass of str, as libraries have them."""

    __slots__ = ()


@pytest.mark.parametrize("text", ["x\ud800y", Path("x\ud800y"), os.fsdecode(b"\xff")])
def test_half_a_surrogate_pair_is_refused_by_name(registry: agent.Registry, text: str) -> None:
    """Text that has no UTF-8: two such values must not become one. What to do is said."""
    metric = agent.Counter("m", "M.", ["a"], registry=registry)
    for use in (metric.labels, metric.remove, lambda value: metric.labels(a=value)):
        with pytest.raises(agent.LabelError, match=r'label "a" of m .*\\ud.*errors="replace"'):
            use(text)
    for made in (("n", text), (text, "N.")):
        with pytest.raises(agent.InvalidNameError, match=r"surrogate pair.*\\ud"):
            agent.Counter(*made, registry=registry)
    assert values(registry, "m_total") == {}


def test_what_is_over_the_limit_goes_to_the_overflow_series() -> None:
    """The total stays right, and memory does not grow with the label bomb."""
    registry = agent.Registry(metric_series_max=100)
    metric = agent.Counter("m", "M.", ["user"], registry=registry)
    for user in range(5000):
        metric.labels(f"bomb{user}").inc()
    found = values(registry, "m_total")
    assert sum(found.values()) == 5000
    assert found[frozenset({("agent_overflow", "true")})] == 4900
    assert len(found) == 101
    children = [o for o in gc.get_objects() if isinstance(o, dict) and ("bomb7",) in o]
    assert all(len(children) <= 100 for children in children)


@pytest.mark.parametrize("labels", [1, 32])
def test_a_label_value_of_any_length_is_counted(registry: agent.Registry, labels: int) -> None:
    """It is cut, with a hash of the whole, so that two that begin alike stay two series."""
    names = [f"l{number:02}" + "x" * 197 for number in range(labels)]
    metric = agent.Counter("m", "M.", names, registry=registry)
    metric.labels(*["\n" * 100_000] * labels).inc(1)
    metric.labels(*["\n" * 100_001] * labels).inc(2)
    assert sorted(values(registry, "m_total").values()) == [1, 2]


def test_a_removed_series_is_gone(registry: agent.Registry) -> None:
    """remove() says whether there was one; others stay."""
    metric = agent.Counter("m", "M.", ["a", "b"], registry=registry)
    metric.labels("x", 1).inc()
    metric.labels("y", 2).inc()
    assert metric.remove("x", 1)
    assert not metric.remove("x", 1)
    assert values(registry, "m_total") == {frozenset({("a", "y"), ("b", "2")}): 1}


def test_a_handle_of_a_removed_series_begins_anew(registry: agent.Registry) -> None:
    """It never writes into a series that reuses the memory."""
    metric = agent.Counter("m", "M.", ["a"], registry=registry)
    held = [metric.labels(number) for number in range(50)]
    for number in range(50):
        held[number].inc(100)
        metric.remove(number)
    others = [metric.labels(f"other {number}") for number in range(50)]
    for other in others:
        other.inc()
    for child in held:
        child.inc()
    found = values(registry, "m_total")
    assert len(found) == 100
    assert set(found.values()) == {1}


def test_clear_removes_all_children(registry: agent.Registry) -> None:
    """And a held child begins anew."""
    metric = agent.Gauge("m", "M.", ["a"], registry=registry)
    held = metric.labels("x")
    held.set(5)
    metric.labels("y").set(6)
    metric.clear()
    assert values(registry, "m") == {}
    held.inc()
    assert values(registry, "m") == {frozenset({("a", "x")}): 1}


def test_the_order_of_label_names_does_not_make_two_series(segments: str) -> None:
    """Two definitions that differ in order only mean the same label sets."""
    path = f"{segments}/x.v3.seg"
    one, two = agent.Registry(path, "x"), agent.Registry(path, "x")
    agent.Counter("m", "M.", ["a", "b"], registry=one).labels("x", "y").inc()
    agent.Counter("m", "M.", ["b", "a"], registry=two).labels("y", "x").inc()
    assert values(one, "m_total") == {frozenset({("a", "x"), ("b", "y")}): 2}


def test_a_known_child_is_found_without_garbage(registry: agent.Registry) -> None:
    """Looking up and counting leaves nothing behind."""
    metric = agent.Counter("m", "M.", ["a", "b", "c"], registry=registry)

    def work() -> None:
        for _ in range(1000):
            metric.labels("x", "y", "z").inc()
            metric.labels(c="z", a="x", b="y").inc()
            metric.labels("x", 1, None).inc()

    work()
    gc.collect()
    before = sys.getallocatedblocks()
    work()
    gc.collect()
    assert sys.getallocatedblocks() - before < 100
