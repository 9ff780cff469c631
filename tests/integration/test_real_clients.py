"""The `statsd` and `datadog` packages, as their users call them, against a running collector."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import statsd
from datadog.dogstatsd.base import DogStatsd

from collector import Collector

pytestmark = pytest.mark.peer


@pytest.fixture(params=["udp", "tcp"])
def client(request: pytest.FixtureRequest, collector: Collector) -> Iterator[object]:
    """The client of the `statsd` package over each transport that it has."""
    kind = statsd.StatsClient if request.param == "udp" else statsd.TCPStatsClient
    made = kind("127.0.0.1", collector.statsd_port, prefix="shop")
    yield made
    made.close()


def test_every_call_of_the_statsd_client_is_understood(
    client: statsd.StatsClient, collector: Collector
) -> None:
    """Counters, gauges with deltas, timers, sets and pipelines arrive with the documented names."""
    for _ in range(10):
        client.incr("sold")
    client.incr("sold", 5)
    client.decr("sold", 0)
    client.gauge("stock", 40)
    client.gauge("stock", -8, delta=True)
    client.gauge("stock", 10, delta=True)
    client.timing("wait", 250)
    with client.timer("work"):
        pass
    client.set("users", "anna")
    with client.pipeline() as pipe:
        pipe.incr("piped")
        pipe.incr("piped", 2)
        pipe.timing("piped_wait", 40)
    # Datagrams may be read by several workers; each fact is waited for.
    collector.wait_for(1, "shop_piped_wait_seconds_count")
    collector.wait_for(15, "shop_sold_total")
    collector.wait_for(3, "shop_piped_total")
    collector.wait_for(1, "shop_work_seconds_count")
    samples = collector.wait_for(42, "shop_stock")
    assert samples.sum("shop_piped_total") == 3
    assert samples.one("shop_stock") == 42
    assert samples.one("shop_wait_seconds_count") == 1
    assert samples.one("shop_wait_seconds_sum") == pytest.approx(0.25)
    assert samples.one("shop_work_seconds_count") == 1


def test_sampled_counts_of_the_statsd_client_are_scaled_back(collector: Collector) -> None:
    """A counter sent at rate 0.5 counts double for each line that the client did send."""
    client = statsd.TCPStatsClient("127.0.0.1", collector.statsd_port)
    sent: list[str] = []
    forward = client._send
    client._send = lambda line: (sent.append(line), forward(line))[1]
    for _ in range(200):
        client.incr("sampled", rate=0.5)
    client.close()
    assert 0 < len(sent) < 200
    collector.wait_for(2 * len(sent), "sampled_total")


@pytest.fixture(params=["udp", "unix datagram", "unix stream"])
def dogstatsd(
    request: pytest.FixtureRequest, collector: Collector
) -> Iterator[Callable[..., DogStatsd]]:
    """Makes DogStatsD clients for each transport; they are flushed and closed at the end."""
    made: list[DogStatsd] = []

    def make(**options: object) -> DogStatsd:
        where: dict[str, object] = {
            "udp": {"host": "127.0.0.1", "port": collector.statsd_port},
            "unix datagram": {"socket_path": f"unixgram://{collector.socket_path}"},
            "unix stream": {"socket_path": f"unixstream://{collector.socket_path}.stream"},
        }[request.param]
        # The client drops what does not fit at once; a kernel queues only ten datagrams on a Unix
        # socket. With a timeout it waits, and a loss here is ours.
        client = DogStatsd(disable_telemetry=True, socket_timeout=10, **where, **options)
        made.append(client)
        return client

    yield make
    for client in made:
        client.stop()
        client.close_socket()


@pytest.mark.parametrize("buffered", [False, True], ids=["one a packet", "packed"])
def test_every_call_of_the_datadog_client_is_understood(
    dogstatsd: Callable[..., DogStatsd], collector: Collector, buffered: bool
) -> None:
    """All metric kinds, events and checks of the real client are applied, none refused."""
    client = dogstatsd(
        disable_buffering=not buffered,
        disable_aggregation=True,
        namespace="shop",
        constant_tags=["env:test"],
    )
    for _ in range(20):
        client.increment("sold", tags=["region:eu", "vip"])
    client.decrement("returned", 0)
    client.gauge("stock", 7)
    client.histogram("size_bytes", 512, tags=["region:eu"])
    client.distribution("weight_grams", 3.5)
    client.timing("wait", 250)
    client.set("users", "anna")
    with client.timed("work"):
        pass
    client.event("deployed", "line one\nline two", alert_type="info", tags=["version:1"])
    client.service_check("db", DogStatsd.WARNING, message="slow")
    client.gauge_with_timestamp("noon", 5, int(time.time()) - 1)
    client.count_with_timestamp("late", 11, int(time.time()) - 1)
    client.flush()
    # Workers share a Unix socket: what was sent last may count first.
    collector.wait_for(20, "shop_sold_total", region="eu", env="test")
    collector.wait_for(11, "shop_late_total")
    collector.wait_for(7, "shop_stock", env="test")
    collector.wait_for(512, "shop_size_bytes_sum", region="eu")
    collector.wait_for(3.5, "shop_weight_grams_sum")
    collector.wait_for(0.25, "shop_wait_seconds_sum")
    collector.wait_for(1, "shop_work_seconds_count")
    samples = collector.wait_for(5, "shop_noon")
    assert "agent_source_samples_received_total" in samples
    assert samples.sum("agent_source_samples_rejected_total") == 0


def test_the_datadog_clients_own_aggregation_keeps_the_totals(
    dogstatsd: Callable[..., DogStatsd], collector: Collector
) -> None:
    """With client-side aggregation on, a thousand increments arrive as their sum."""
    client = dogstatsd(disable_aggregation=False, flush_interval=0.05)
    for _ in range(1000):
        client.increment("merged", tags=["a:b"])
    client.flush_aggregated_metrics()
    client.flush()
    samples = collector.wait_for(1000, "merged_total", a="b")
    received = samples.sum("agent_source_samples_received_total")
    assert 0 < received < 1000, "they were merged by the client"
