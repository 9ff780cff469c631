"""Two sources want one name with two types: whoever was there first keeps it, and stays."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

import agent
from agent._native import LAYOUT_VERSION
from collector import DEADLINE_S, Collector, eventually

Start = Callable[..., Collector]
CLOCK_REALTIME_COARSE = 5


def tick() -> None:
    """Waits until the clock that definitions are dated by has moved, and a push is later."""
    for _ in range(2):
        before = time.clock_gettime_ns(CLOCK_REALTIME_COARSE)
        while time.clock_gettime_ns(CLOCK_REALTIME_COARSE) == before:
            pass


def registry(folder: str, app: str) -> agent.Registry:
    return agent.Registry(f"{folder}/{app}.v{LAYOUT_VERSION}.seg", app)


def counter(folder: str, app: str) -> None:
    agent.Counter("jobs", "Jobs.", registry=registry(folder, app)).inc()


def gauge(folder: str, app: str) -> None:
    agent.Gauge("jobs", "Jobs.", registry=registry(folder, app)).set(7)


def push(collector: Collector, body: str) -> int:
    request = urllib.request.Request(
        collector.url("/metrics/job/night"), body.encode(), method="PUT"
    )
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
            status: int = answer.status
    except urllib.error.HTTPError as error:
        status = error.code
    return status


def conflicts(collector: Collector) -> list[dict[str, Any]]:
    """The families that are left out, by name and owner, with the holders."""
    found: list[dict[str, Any]] = json.loads(collector.get("/v1/status"))["conflicts"]
    return found


@pytest.mark.parametrize(("first", "second"), [("aaa", "zzz"), ("zzz", "aaa")])
def test_the_app_that_had_a_name_first_keeps_it(
    start_collector: Start, segments: str, first: str, second: str
) -> None:
    """Whatever the files are called, and after every restart of collector and apps."""
    counter(segments, first)
    tick()
    gauge(segments, second)
    holder = {"name": "jobs_total", "type": "counter", "app": first}
    for restart in range(2):
        collector = start_collector()
        seen = collector.scrape()
        assert seen.one("jobs_total", app=first) == 1 + restart
        assert "jobs" not in seen
        assert conflicts(collector) == [
            {"name": "jobs", "type": "gauge", "app": second, "holder": holder}
        ]
        # Its own numbers a collector publishes once a second.
        skipped = eventually(
            collector.scrape,
            lambda seen: (
                seen.sum("agent_scrape_families_skipped_total", app=second, reason="type_conflict")
                > 0
            ),
            "the later one is counted",
        )
        assert skipped.sum("agent_scrape_families_skipped_total", app=first) == 0
        collector.stop()
        gauge(segments, second)
        counter(segments, first)


def test_a_definition_of_another_type_comes_later_than_all_others(
    collector: Collector, segments: str
) -> None:
    """Other buckets, labels or modes change nothing; another type makes a new family of it."""
    counter(segments, "shop")
    tick()
    gauge(segments, "blog")
    agent.Counter("jobs", "Jobs.", ["kind"], registry=registry(segments, "shop")).labels("a").inc()
    assert collector.scrape().one("jobs_total", app="shop", kind="a") == 1
    agent.Summary("jobs", "Jobs.", registry=registry(segments, "shop")).observe(1)
    seen = collector.scrape()
    assert seen.one("jobs", app="blog") == 7
    assert "jobs_count" not in seen


@pytest.mark.parametrize("first", ["statsd", "push", "app"])
def test_senders_and_jobs_are_as_old_as_their_first_word(
    start_collector: Start, segments: str, first: str
) -> None:
    """StatsD, a pushed group and an app: the first of them keeps the name over a restart."""
    collector = start_collector()

    def send() -> None:
        collector.send_tcp([b"jobs:1|h"])

    def job() -> None:
        push(collector, "# TYPE jobs gauge\njobs 3\n")

    def app() -> None:
        counter(segments, "shop")

    ways: dict[str, tuple[Callable[[], None], str]] = {
        "statsd": (send, "histogram"),
        "push": (job, "gauge"),
        "app": (app, "counter"),
    }
    act, kind = ways.pop(first)
    act()
    for later, _ in ways.values():
        tick()
        later()
    for _ in range(2):
        text = collector.get("/metrics", Accept="text/plain")
        types = [line for line in text.splitlines() if line.startswith("# TYPE jobs")]
        assert len(types) == 1, types
        assert types[0].endswith(f" {kind}")
        refused = {(one.get("app"), one.get("group"), one["type"]) for one in conflicts(collector)}
        # A push that comes later is refused, so it is not there to be left out.
        expected = {
            (None, None, "histogram"),
            (None, 'job="night"', "gauge"),
            ("shop", None, "counter"),
        }
        assert refused == {
            one for one in expected if one[2] != kind and (one[2] != "gauge" or first == "push")
        }
        assert push(collector, "# TYPE jobs gauge\njobs 4\n") == (200 if first == "push" else 400)
        collector.stop()
        collector = start_collector()
    collector.stop()
