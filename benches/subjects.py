"""The metrics libraries under comparison, each behind the same few loops.

A subject makes the same three metrics in its own way: a counter, a counter with three labels and a
histogram with 15 buckets, the default of both.
Each entry is a loop of n calls written as a user would write the call, with no wrapper of ours
inside, so every figure includes the same cost of the `for` loop; `test_calls.py` measures that too.
"""

from __future__ import annotations

import io
import itertools
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

Loop = Callable[[int], None]
LABELS = ("method", "path", "status")
VALUES = ("GET", "/orders", "200")
# Metric names are unique in a process, and a subject is made once for each benchmark.
_serial = itertools.count()


@dataclass
class Subject:
    """One library: the loops to time. A missing one means that the library has no such call."""

    name: str
    inc: Loop | None = None
    child_inc: Loop | None = None
    labels_inc: Loop | None = None
    gauge_set: Loop | None = None
    observe: Loop | None = None
    # Keeps sockets and providers alive as long as the loops are.
    keep: list[object] = field(default_factory=list)


def loop_0(call: Callable[[], object]) -> Loop:
    def run(n: int) -> None:
        for _ in itertools.repeat(None, n):
            call()

    return run


def loop_1(call: Callable[..., object], argument: object) -> Loop:
    def run(n: int) -> None:
        for _ in itertools.repeat(None, n):
            call(argument)

    return run


def loop_2(call: Callable[..., object], first: object, second: object) -> Loop:
    def run(n: int) -> None:
        for _ in itertools.repeat(None, n):
            call(first, second)

    return run


def loop_labels(metric) -> Loop:
    method, path, status = VALUES

    def run(n: int) -> None:
        for _ in itertools.repeat(None, n):
            metric.labels(method, path, status).inc()

    return run


def empty_loop(n: int) -> None:
    for _ in itertools.repeat(None, n):
        pass


def floor() -> Subject:
    """A C method with no argument, and one with a float: no extension can be faster."""
    return Subject(
        "C method",
        inc=loop_0(io.BytesIO().tell),
        gauge_set=loop_1(set().discard, 0.125),
        observe=loop_1(set().discard, 0.125),
    )


def agent() -> Subject:
    import agent

    serial = next(_serial)
    return _prometheus_shape(
        "agent",
        agent.Counter(f"plain_{serial}", "A counter."),
        agent.Counter(f"labelled_{serial}", "A counter with labels.", LABELS),
        agent.Gauge(f"gauge_{serial}", "A gauge."),
        agent.Histogram(f"histogram_{serial}", "A histogram."),
    )


def _prometheus_shape(name, plain, labelled, gauge, histogram) -> Subject:
    return Subject(
        name,
        inc=loop_0(plain.inc),
        child_inc=loop_0(labelled.labels(*VALUES).inc),
        labels_inc=loop_labels(labelled),
        gauge_set=loop_1(gauge.set, 0.125),
        observe=loop_1(histogram.observe, 0.125),
        keep=[plain, labelled, gauge, histogram],
    )


def prometheus(name: str, multiprocess: bool) -> Subject:
    import prometheus_client
    from prometheus_client import values

    # The library picks the class at import; its own tests switch it the same way.
    kind = values.MultiProcessValue() if multiprocess else values.MutexValue
    before, values.ValueClass = values.ValueClass, kind
    try:
        serial = next(_serial)
        registry = prometheus_client.CollectorRegistry()
        keywords = {"registry": registry}
        made = (
            prometheus_client.Counter(f"plain_{serial}", "A counter.", **keywords),
            prometheus_client.Counter(f"labelled_{serial}", "With labels.", LABELS, **keywords),
            prometheus_client.Gauge(
                f"gauge_{serial}", "A gauge.", multiprocess_mode="mostrecent", **keywords
            ),
            prometheus_client.Histogram(f"histogram_{serial}", "A histogram.", **keywords),
        )
        # The child of the labels is made now, while the class is switched.
        return _prometheus_shape(name, *made)
    finally:
        values.ValueClass = before


def opentelemetry() -> Subject:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    provider = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    meter = provider.get_meter("bench")
    counter = meter.create_counter("plain")
    gauge = meter.create_gauge("gauge")
    histogram = meter.create_histogram("histogram")
    method, path, status = VALUES

    def labels_inc(n: int) -> None:
        for _ in itertools.repeat(None, n):
            counter.add(1, {"method": method, "path": path, "status": status})

    return Subject(
        "OpenTelemetry",
        inc=loop_1(counter.add, 1),
        labels_inc=labels_inc,
        gauge_set=loop_1(gauge.set, 0.125),
        observe=loop_1(histogram.record, 0.125),
        keep=[provider],
    )


def dogstatsd(name: str, buffered: bool) -> Subject:
    from datadog.dogstatsd.base import DogStatsd

    # A socket that nobody reads: the kernel drops what does not fit, at the full cost of sending.
    sink = socket.socket(type=socket.SOCK_DGRAM)
    sink.bind(("127.0.0.1", 0))
    client = DogStatsd(
        "127.0.0.1",
        sink.getsockname()[1],
        disable_telemetry=True,
        disable_buffering=not buffered,
        disable_aggregation=True,
    )
    method, path, status = VALUES

    def labels_inc(n: int) -> None:
        for _ in itertools.repeat(None, n):
            client.increment(
                "labelled", tags=[f"method:{method}", f"path:{path}", f"status:{status}"]
            )

    return Subject(
        name,
        inc=loop_1(client.increment, "plain"),
        labels_inc=labels_inc,
        gauge_set=loop_2(client.gauge, "gauge", 0.125),
        observe=loop_2(client.histogram, "histogram", 0.125),
        keep=[sink, client],
    )


SUBJECTS: dict[str, Callable[[], Subject]] = {
    "C method": floor,
    "agent": agent,
    "prometheus_client": lambda: prometheus("prometheus_client", multiprocess=False),
    "prometheus_client mp": lambda: prometheus("prometheus_client mp", multiprocess=True),
    "OpenTelemetry": opentelemetry,
    "DogStatsD": lambda: dogstatsd("DogStatsD", buffered=False),
    "DogStatsD packed": lambda: dogstatsd("DogStatsD packed", buffered=True),
}
