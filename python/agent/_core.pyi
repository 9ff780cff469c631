# ruff: noqa: PYI021, E501 - the stub is where the documentation is
"""The compiled part of agent-metrics. Import it through `agent` (users) or `agent._native` (this package)."""

from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, Final, Literal, Protocol, Self, TypeAlias, TypeVar, type_check_only

from agent.metrics import Format, GaugeMode

_F = TypeVar("_F", bound=Callable[..., Any])

@type_check_only
class _Buffer(Protocol):
    """numpy arrays, array.array, memoryview: f64, f32, i64 or i32 in native byte order."""

    def __buffer__(self, flags: int, /) -> memoryview: ...

@type_check_only
class _Number(Protocol):
    def __float__(self) -> float: ...

_Values: TypeAlias = _Buffer | Sequence[float]

BUILD_PROFILE: Final[str]
"""`release` or `debug`. Benchmarks refuse a debug build."""
LAYOUT_VERSION: Final[int]
"""The version of the segment's layout, the number in the file name `APP.vN.seg`."""
VERSION: Final[str]

class Metric:
    """Base of the four classes. A metric with label names is a parent: only its children have a value."""

    @property
    def name(self) -> str:
        """The family's name: namespace, subsystem, name and unit, without `_total`."""
    @property
    def documentation(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def labelnames(self) -> tuple[str, ...]: ...
    @property
    def labelvalues(self) -> tuple[str, ...]: ...
    def labels(self, *labelvalues: object, **labelkwargs: object) -> Self:
        """The child of these label values, by position or by keyword. The same values give the same child.

        Values are turned into text by `str()`. Raises LabelError for a wrong number or wrong names.
        """
    def remove(self, *labelvalues: object) -> bool:
        """Removes the child's series, for all processes. True if there was one.

        A handle that somebody still holds stays good: its next use begins the series anew, at 0.
        """
    def clear(self) -> None:
        """Removes every series of the metric, for all processes. Without labels it begins anew at 0."""
    def __reduce__(self) -> tuple[Any, ...]: ...

class Counter(Metric):
    """Only goes up. Exposed as `NAME_total`."""

    def __new__(
        cls,
        name: str,
        documentation: str,
        labelnames: Iterable[str] | None = None,
        namespace: str = "",
        subsystem: str = "",
        unit: str = "",
        registry: Registry | None = None,
    ) -> Self: ...
    def inc(self, amount: _Number = 1) -> None:
        """Raises the counter by 1, or by an amount that is finite and not negative (else AmountError)."""
    def inc_many(self, amounts: _Values) -> None:
        """Raises the counter by every amount of a buffer, list or tuple; by none when one of them is bad."""
    def count_exceptions(
        self, exception: type[BaseException] | tuple[type[BaseException], ...] | None = None
    ) -> Block:
        """Counts the exceptions of a `with` block or of a decorated function, and lets them pass."""

class Gauge(Metric):
    """Goes up and down.

    `multiprocess_mode` says what several processes mean by it: `mostrecent` (the default) is one number that all
    change; `sum`, `min`, `max` and `all` keep one for each process, and the `live` modes forget those of dead ones.
    """

    def __new__(
        cls,
        name: str,
        documentation: str,
        labelnames: Iterable[str] | None = None,
        namespace: str = "",
        subsystem: str = "",
        unit: str = "",
        registry: Registry | None = None,
        *,
        multiprocess_mode: GaugeMode = "mostrecent",
    ) -> Self: ...
    def set(self, value: _Number, /) -> None:
        """Sets the gauge; any float, NaN and infinities included."""
    def inc(self, amount: _Number = 1) -> None: ...
    def dec(self, amount: _Number = 1) -> None: ...
    def set_to_current_time(self) -> None:
        """Sets the gauge to the seconds since 1970."""
    def track_inprogress(self) -> Block:
        """Raises the gauge during a `with` block or a call of a decorated function.

        The block gives back what it took, or nothing when that is gone: cleared, removed, or its parent's in a forked
        child. What a killed process held is taken away in the modes `mostrecent` and `live...`, and stays in `sum`,
        `min`, `max` and `all`. In `mostrecent` it is counted on top of what is `set`.
        """
    def time(self) -> Block:
        """Sets the gauge to the seconds that a `with` block or a call of a decorated function took."""

class Histogram(Metric):
    """Counts of values by bucket. All series of a metric have the same bounds, from birth.

    *Classic*, the default: the finite upper bounds in `buckets`, in the unit of the metric, ascending, at most 512; +Inf
    is implied. Not given: those of prometheus_client, 0.005 to 10, made for seconds. A quantile computed from them is in
    the right bucket and off by at most its width.

    *Native*, with `native=True`: 2^schema buckets for each power of two (schema 0 to 6, 3 if not given), made where values
    fall, so any range is covered. A quantile is in the right bucket, so off by at most its width: 100 % with schema 0,
    41, 19, 9.1, 4.4, 2.2, 1.1 % with 1 to 6, and half of that read as its middle. Prometheus gets these buckets by protobuf, which it asks for when native histograms are enabled there. The text
    formats show the powers of two from 2^-20 (a microsecond) to 2^30 instead: exact counts at these bounds, a quantile up
    to a factor of two off, what is smaller (or negative) in the first bucket, what is larger in the last. `schema` alone
    means native, too.

    InvalidNameError: bounds or a schema that cannot be used. TypeError: both `buckets` and native.
    """

    def __new__(
        cls,
        name: str,
        documentation: str,
        labelnames: Iterable[str] | None = None,
        namespace: str = "",
        subsystem: str = "",
        unit: str = "",
        registry: Registry | None = None,
        *,
        buckets: Sequence[float] | None = None,
        native: bool = False,
        schema: int | None = None,
    ) -> Self: ...
    def observe(self, amount: _Number) -> None:
        """Counts a value in its bucket; AmountError when it is not finite, or 2^900 or more in magnitude."""
    def observe_many(self, values: _Values) -> None:
        """Counts every value of a buffer, list or tuple; none when one of them is bad."""
    def time(self) -> Block:
        """Observes the seconds that a `with` block or a call of a decorated function takes."""

class Summary(Metric):
    """Count, sum, and quantiles of the last 60 seconds, computed when the page is rendered.

    The quantiles are of the newest values of each label set, of all processes together: the last 64 at least, up to 2,048
    (more where several processes observe much) while the summaries of the app take less than a quarter of its segment's
    memory. Count and sum are of all values. `agent.render()` shows the quantiles, the collector does not.
    """

    def __new__(
        cls,
        name: str,
        documentation: str,
        labelnames: Iterable[str] | None = None,
        namespace: str = "",
        subsystem: str = "",
        unit: str = "",
        registry: Registry | None = None,
        *,
        quantiles: Sequence[float] | None = None,
    ) -> Self: ...
    def observe(self, amount: _Number) -> None:
        """Adds a value; AmountError when it is not finite, or 2^900 or more in magnitude."""
    def observe_many(self, values: _Values) -> None:
        """Adds every value of a buffer, list or tuple; none when one of them is bad."""
    def time(self) -> Block:
        """Observes the seconds that a `with` block or a call of a decorated function takes."""

class Block:
    """A `with` block or decorator; see the methods that give one. It may be entered again while it is open, by other
    threads as well. Tasks of one thread that share one `with time()` block swap their times: call `time()` for each.

    As a decorator it is open during each call: of an `async` function until its coroutine ends, of a generator function
    from the first item asked for to the end. Asynchronous generators raise TypeError: use `with` inside of them.
    """

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        class_: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> Literal[False]: ...
    def __call__(self, function: _F) -> _F: ...
    def fresh(self) -> Block:
        """A block that does the same and is not open."""

class Registry:
    """Metrics bound to one segment: a file, or private memory when no path is given.

    `agent.REGISTRY` is the app's own. Limits count for a file that is made now; one that is there keeps its own.
    """

    def __new__(
        cls,
        path: str | PathLike[str] | None = None,
        app: str | None = None,
        *,
        series_max: int | None = None,
        metric_series_max: int | None = None,
        metrics_max: int | None = None,
        slots_max: int | None = None,
        recent_max: int | None = None,
        bytes_max: int | None = None,
    ) -> Self: ...
    @property
    def app(self) -> str:
        """Name of the app; empty before the first update."""
    @property
    def path(self) -> str | None:
        """The segment's file; None in private memory and before the first update."""
    @property
    def fallback(self) -> tuple[str, str] | None:
        """Why this process is in private memory though it should share: cause and detail."""
    @property
    def lost(self) -> int:
        """Updates of this process that found no memory anywhere; all pages show those of all processes."""
    def open(self) -> None:
        """Opens the segment when metrics are defined and it is not open yet. What cannot be opened is left to the first update."""
    def render(self, format: Format = "prometheus") -> bytes:  # noqa: A002
        """The metrics of all processes: Prometheus text 0.0.4, OpenMetrics 1.0 or protobuf. Made without the GIL.

        Every form has the same series and values; only protobuf has native histograms, and text 0.0.4 has no `_created`.
        In OpenMetrics a histogram or summary with anything below zero has no type; its samples stay as they are.
        """
    def clear(self) -> int:
        """Removes every series of every metric, for all processes. Gives how many there were."""
    def __reduce__(self) -> tuple[Any, ...]: ...

def default_registry() -> Registry:
    """The registry of the app."""

def configure(app: str | None, strict: bool | None) -> None:
    """Keeps what `agent.configure` was told, unchecked. None leaves it as it was; a second name is ignored."""

def configured() -> tuple[str | None, bool]:
    """The name of the app that was given, and whether an update raises where it would fall back to private memory."""

def inspect(path: str | PathLike[str], *, series_shown_max: int = 100_000) -> dict[str, Any]:
    """What a segment says: header, usage, slots, families with series and values. Attaches for reading only."""

def render_segment(path: str | PathLike[str], format: Format = "prometheus") -> bytes:  # noqa: A002
    """The page of the segment at `path`, as its app's own `render()` gives it. Attaches for reading only; raises SegmentError."""

def open_segment(
    path: str | PathLike[str],
    app: str = "agent",
    *,
    series_max: int | None = None,
    metric_series_max: int | None = None,
    metrics_max: int | None = None,
    slots_max: int | None = None,
    ring_records: int | None = None,
    bytes_max: int | None = None,
) -> Registry:
    """The registry of the segment at `path`, made with the collector's limits where none are given."""

def check_worker_config(config: bytes) -> list[tuple[int | None, str]]:
    """Why a worker would refuse its config: for each reason the mapping rule at fault, if it is one. Empty when it is good."""

def fork_children(
    children: list[tuple[Literal["worker", "aggregator"], str, bytes, list[int]]],
) -> list[int]:
    """Forks children, one right after the other; returns their pids, or -errno where it failed.

    Each is (what it is, its name, its settings as JSON, the descriptors it closes). A child runs no
    Python: a worker serves until it has drained, the aggregator until it is told to stop; then it
    exits with its code. `ps` shows 15 characters of `agent-NAME`. This process must have one thread.
    Raises ValueError when a child is neither.
    """

def settle_worker(path: str | PathLike[str], place: str) -> int:
    """After a worker's death: books what it had received and not finished as rejected. Gives how many samples."""

def run_load_executor(plan: bytes) -> int:
    """One executor of a load run, until it is told to stop; gives its exit code. `plan` is JSON. Without the GIL."""

def torture_steps(
    seed: int,
    seconds: float,
    operations: Sequence[str] | None = None,
    progress: Callable[[dict[str, Any]], object] | None = None,
    folder: str | PathLike[str] | None = None,
) -> dict[str, Any]:
    """Walks the operations of a segment one instruction at a time, and recovers what a death at each would leave. Without the GIL.

    Ends when an operation is over and `seconds` have passed. `operations` are names of operations or groups, all when it is
    None. `folder` is where segments are made: shared memory when it is None. Between two operations signals are handled,
    and `progress` is called with round, operation, kill_points, states, findings and seconds; `False` from it stops.

    Gives seed, rounds, seconds, stopped, kill_points, states and operations: for each its name, group, walks, kill_points,
    states and findings, which have seed, operation, instruction and reason. A run with the seed of a finding and its
    operation alone finds it in the first round.

    Raises NotImplementedError (no x86-64 Linux) or PermissionError (ptrace is forbidden) where it cannot be done, RuntimeError
    when this process has more than one thread, ValueError for an operation that there is not, OSError for its own files.
    """
