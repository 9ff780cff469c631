"""What a real Prometheus makes of our histograms, against the true quantiles of what was sent.

The errors are those that the documentation states: the right bucket of a classic histogram, the
right bucket of a native one (9.1 % wide with schema 3), a factor of two where a native one is
scraped as text.
"""

from __future__ import annotations

import bisect
import json
import math
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import prometheus_client
import pytest

from collector import Collector, clean_environment
from prometheus_server import Prometheus, prometheus

pytestmark = pytest.mark.peer

QUANTILES = (0.01, 0.25, 0.5, 0.9, 0.99, 0.999)
PROCESSES = 3
STATSD_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

CONFIG = """
[[mapping]]
match = "fine.*"
name = "fine"
labels = { of = "$1" }
native = true
"""

APP = """
import json, os, sys, agent
classic = agent.Histogram("classic", "C.", ["of"])
native = agent.Histogram("native", "N.", ["of"], native=True)
finer = agent.Histogram("finer", "F.", ["of"], native=True, schema=5)
signed = agent.Histogram("signed", "S.", ["of"], schema=4)
shares = json.loads(sys.stdin.read())
children = []
for share in shares:
    child = os.fork()
    if child == 0:
        for index, value in enumerate(share):
            for metric in (classic, native, finer):
                metric.labels(index % 4).observe(value)
        signed.labels("some").observe_many([value - 0.2 for value in share])
        os._exit(0)
    children.append(child)
assert all(os.waitpid(child, 0)[1] == 0 for child in children)
"""


def true_quantile(values: Sequence[float], quantile: float) -> float:
    """By nearest rank."""
    return sorted(values)[max(1, math.ceil(quantile * len(values))) - 1]


@pytest.fixture(scope="module")
def shares() -> list[list[float]]:
    """Durations around 0.2 s with a long tail, one list for each process."""
    chance = random.Random(8)
    return [[chance.lognormvariate(-1.6, 0.9) for _ in range(2000)] for _ in range(PROCESSES)]


@pytest.fixture(scope="module")
def values(shares: list[list[float]]) -> list[float]:
    return [value for share in shares for value in share]


@pytest.fixture
def target(
    segments: str, tmp_path: Path, shares: list[list[float]], values: list[float]
) -> Iterator[Collector]:
    """A collector that has all values from an app of several processes and from StatsD senders."""
    file = tmp_path / "agent.toml"
    file.write_text(CONFIG)
    with Collector(segments, f"--config={file}") as collector:
        env = clean_environment(AGENT_METRICS_DIR=segments, AGENT_METRICS_APP="shop")
        program = [sys.executable, "-c", APP]
        given = json.dumps(shares).encode()
        subprocess.run(program, check=True, env=env, cwd=segments, input=given, timeout=60)
        lines = []
        for index, value in enumerate(values):
            milliseconds = repr(value * 1000).encode()
            lines.append(b"plain:%b|ms|#of:%d" % (milliseconds, index % 4))
            lines.append(b"fine.%d:%b|ms" % (index % 4, milliseconds))
        collector.send_tcp(lines)
        yield collector


def check_bucket(server: Prometheus, of: str, bounds: Sequence[float], values: list[float]) -> None:
    """The answer lies in the bucket of the true quantile."""
    for quantile in QUANTILES:
        [told] = server.query(f"histogram_quantile({quantile}, sum by (le) ({of}_bucket))")
        place = bisect.bisect_left(bounds, true_quantile(values, quantile))
        assert [0, *bounds][place] <= told <= bounds[place], (of, quantile, told)


def check_ratio(server: Prometheus, of: str, width: float, values: list[float]) -> None:
    """The answer is off by at most the width of a bucket."""
    for quantile in QUANTILES:
        [told] = server.query(f"histogram_quantile({quantile}, sum({of}))")
        true = true_quantile(values, quantile)
        assert abs(told - true) <= width * abs(true) * (1 + 1e-9), (of, quantile, told, true)


def test_classic_quantiles_are_in_the_right_bucket(
    target: Collector, program: Callable[[str], str], tmp_path: Path, values: list[float]
) -> None:
    """Summed over series and processes; native ones as text are a factor of two off at most."""
    with prometheus(program("prometheus"), tmp_path, target.http_port) as server:
        for of in ("classic", "native", "finer", "plain_seconds", "fine_seconds"):
            server.wait_for(f"sum({of}_count)", len(values))
        bounds = prometheus_client.Histogram.DEFAULT_BUCKETS[:-1]
        check_bucket(server, "classic", bounds, values)
        check_bucket(server, "plain_seconds", STATSD_BOUNDS, values)
        ladder = [2.0**power for power in range(-20, 31)]
        for of in ("native", "finer", "fine_seconds"):
            check_bucket(server, of, ladder, values)
            assert server.query(f"count(count by (le) ({of}_bucket))") == [len(ladder) + 1]


def test_native_quantiles_are_off_by_the_width_of_a_bucket_at_most(
    target: Collector, program: Callable[[str], str], tmp_path: Path, values: list[float]
) -> None:
    """Prometheus asks for protobuf and gets native histograms; classic ones stay what they are."""
    feature = "--enable-feature=native-histograms"
    with prometheus(program("prometheus"), tmp_path, target.http_port, feature) as server:
        for of in ("native", "finer", "fine_seconds", "signed"):
            server.wait_for(f"histogram_count(sum({of}))", len(values))
        server.wait_for("sum(classic_count)", len(values))
        check_ratio(server, "native", 2 ** (1 / 8) - 1, values)
        check_ratio(server, "fine_seconds", 2 ** (1 / 8) - 1, values)
        check_ratio(server, "finer", 2 ** (1 / 32) - 1, values)
        check_ratio(server, "signed", 2 ** (1 / 16) - 1, [value - 0.2 for value in values])
        check_bucket(server, "classic", prometheus_client.Histogram.DEFAULT_BUCKETS[:-1], values)
        [total] = server.query("histogram_sum(sum(native))")
        assert total == pytest.approx(sum(values))
        assert server.query("native_bucket") == []
        # Every other type by protobuf, too.
        target.send_tcp([b"sold:3|c|#a:x y", b"sold:0.5|c|#a:x y", b"depth:-2|g", b"who:a|s"])
        server.wait_for('sum(sold_total{a="x y"})', 3.5)
        server.wait_for("max(depth)", -2)
        [state] = server.api("/api/v1/targets")["activeTargets"]  # type: ignore[index]
        assert (state["health"], state["lastError"]) == ("up", "")
