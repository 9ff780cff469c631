"""Metrics in memory that all processes of an app share.

    import agent

    requests = agent.Counter("http_requests", "Requests answered.", ["method", "code"])
    latency = agent.Histogram("http_request", "Time to answer.", unit="seconds")

    requests.labels("GET", "200").inc()
    with latency.time():
        ...
    page = agent.render()          # bytes, all processes merged, no collector needed

There is nothing to configure. The first update opens (or makes) the segment of this app, with all
metrics that are defined by then; every later process of the app, however it was started, adds to
the same cells. An update is one atomic step in shared memory: no lock, no thread, and hardly ever a
system call. A process that is killed loses nothing that it counted and leaves nothing to clean up.

*Which app*: `agent.configure(app=...)`, else `AGENT_METRICS_APP`, else the name of the project that
the program is of (docs/APPS.md), so that its web workers, task workers and commands meet. *Where*:
`AGENT_METRICS_DIR`, else `/dev/shm/agent-metrics-UID`. When
that place cannot be used, or an app has more than 4,096 living processes, the process counts in
private memory; where one metric finds no room, that metric alone is counted so. One `AgentWarning`
says it. Private numbers are not on the collector's page, which says that there are some. The
process asks for room every second and then adds what it counted; when it ends before, that is lost.
An update never raises for such a reason, unless `agent.configure(strict=True)` was called.

*How long counters live*: as long as the segment's file, so past the death of every process of the
app, until a reboot, `clear()`, or the loss of the file. A process whose file was removed or
truncated notices within a second of updates, warns, and begins anew in a new file. `_created`
always tells when a series really began.

*Definitions*: type, label names, buckets, gauge mode, quantiles and unit, but not the text. The
same definition twice is the same metric; another one under the same name in one process raises
`ConflictError`. A program that comes back with another definition of a metric begins that metric
anew, and no other. While processes of both kinds live, each counts for itself, and the page shows
the definition that appeared last. A program that is rolled back begins at 0.

*Labels*: values are turned into text. A metric has at most 10,000 label sets and an app 100,000;
what is over goes to the series `{agent_overflow="true"}`, so totals stay right. Memory of removed
label sets is used again.

*Histograms*: all series of one have the same bounds from birth; classic ones by default, or with
`native=True` exponential buckets that Prometheus gets by protobuf. See `Histogram` for the errors.

*Numbers*: whole amounts of a counter are added as integers, exactly, and stay below 2^63; fractions
are kept beside them as a float below 1. Gauges and sums are floats. `AmountError` is raised, and
nothing changed, when a counter would pass 2^63 - 1, when an amount of a counter is negative or not
finite, when an observation is not finite or its magnitude is 2^900 (8.5e270) or more, so that no
sum is ever infinite, and when `inc` or `dec` would make a gauge infinite. `set` takes every float.

*Clearing*: `labels(...)` puts a series on the page at 0. When another process removes or clears it,
it comes back with the next update, not with the next `labels(...)`.

*Serving it yourself*: `render()` gives bytes without a header. `Content-Type` is `text/plain;
version=0.0.4; charset=utf-8` for "prometheus", `application/openmetrics-text; version=1.0.0;
charset=utf-8` for "openmetrics", and for "protobuf" `application/vnd.google.protobuf;
proto=io.prometheus.client.MetricFamily; encoding=delimited`.

*Not here*: exemplars; `set_function`, because whoever renders is usually another process and cannot
call into yours; `Info`, `Enum` and `unregister`; UTF-8 names; `name[]` filters; series about the
process, the garbage collector and the platform.
"""

from __future__ import annotations

from agent._native import (
    Block,
    Counter,
    Gauge,
    Histogram,
    Metric,
    Registry,
    Summary,
    default_registry,
)

# What `typing` has, without its 8 ms: type checkers take the name for true.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Literal, TypeAlias

    Format: TypeAlias = Literal["prometheus", "openmetrics", "protobuf"]
    GaugeMode: TypeAlias = Literal[
        "mostrecent",
        "all",
        "liveall",
        "sum",
        "livesum",
        "min",
        "livemin",
        "max",
        "livemax",
        "livemostrecent",
    ]

__all__ = [
    "REGISTRY",
    "Block",
    "Counter",
    "Gauge",
    "Histogram",
    "Metric",
    "Registry",
    "Summary",
    "render",
]

# The registry of the app. Nothing is opened before the first update.
REGISTRY: Registry = default_registry()

# Flags of code objects, as `inspect` has them, which takes 10 ms to load.
_IS_GENERATOR = 0x20
_IS_COROUTINE = 0x80
_IS_ASYNC_GENERATOR = 0x200


def render(format: Format = "prometheus") -> bytes:  # noqa: A002
    """The metrics of all processes of this app: Prometheus text 0.0.4, OpenMetrics 1.0, or protobuf
    (delimited `io.prometheus.client.MetricFamily`), the only form with native histograms.
    """
    return REGISTRY.render(format)


def decorate(block: Block, function: Callable[..., Any]) -> Callable[..., Any]:
    """What a block used as a decorator gives: each call runs in a block of its own.

    The block of an `async` function ends when its coroutine does. That of a generator is open from
    the first item asked for to the end of the generator, what its consumer does meanwhile included.
    """
    from functools import wraps

    flags = _code_flags(function)
    if flags & _IS_ASYNC_GENERATOR:
        name = getattr(function, "__qualname__", repr(function))
        raise TypeError(
            f"{name} is an asynchronous generator, whose items others wait for between: "
            "it cannot be decorated, use `with` inside of it"
        )

    if flags & _IS_COROUTINE:

        @wraps(function)
        async def in_block_async(*args: Any, **kwargs: Any) -> Any:
            with block.fresh():
                return await function(*args, **kwargs)

        return in_block_async

    if flags & _IS_GENERATOR:

        @wraps(function)
        def in_block_generator(*args: Any, **kwargs: Any) -> Any:
            with block.fresh():
                return (yield from function(*args, **kwargs))

        return in_block_generator

    @wraps(function)
    def in_block(*args: Any, **kwargs: Any) -> Any:
        with block.fresh():
            return function(*args, **kwargs)

    return in_block


def _code_flags(function: Callable[..., Any]) -> int:
    """Of the code behind a function, a method, a `partial` or an object with `__call__`."""
    from functools import partial

    while isinstance(function, partial):
        function = function.func
    code = getattr(function, "__code__", None)
    if code is None:
        code = getattr(type(function).__call__, "__code__", None)
    flags = getattr(code, "co_flags", 0)
    return flags if isinstance(flags, int) else 0


def rebuild(
    metric_class: Callable[..., Metric],
    name: str,
    documentation: str,
    options: dict[str, Any],
    labelvalues: tuple[str, ...] | None,
) -> Metric:
    """A metric that was pickled, as in the arguments of a spawned process."""
    metric = metric_class(name, documentation, **options)
    return metric if labelvalues is None else metric.labels(*labelvalues)
