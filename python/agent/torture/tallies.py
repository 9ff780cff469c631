"""The operations of a round, in their order, and what so many of each are on a page. Pure.

Purpose: a tally of the board says how often a process has done one operation. The rounds are
numbered, and the number says which value and which label an operation has, so that the tally alone
says what each series, each bucket and each sum must be. Operations are done and acknowledged in the
order of the tallies: the first tally that is behind BEGIN is the one that was in flight when its
process was killed. BEGIN itself counts nowhere.

Half of the operations count in series that all processes share, and half in series of the process.
Limits: quantiles of summaries are not compared, and values are whole numbers from 1 to 8.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple

from .page import Labels

# A sample of a page by name and labels; of a bucket, what is in it alone, not below it.
Cell = tuple[str, Labels]


class Form(Enum):
    COUNTER = auto()
    BY_KIND = auto()
    HISTOGRAM = auto()
    SUMMARY = auto()
    GAUGE = auto()


class Operation(NamedTuple):
    """One kind of update."""

    name: str
    form: Form
    # Whether its series has the label `process`, the number of the row.
    is_own: bool = False
    amount: float = 1.0
    bounds: tuple[float, ...] = ()


BOUNDS = (1.0, 2.0, 4.0, 6.0)
# Those of a native histogram's text that the values fall between.
NATIVE_BOUNDS = (1.0, 2.0, 4.0, 8.0)
OPERATIONS = (
    Operation("steps", Form.COUNTER),
    Operation("own_steps", Form.COUNTER, is_own=True),
    Operation("halves", Form.COUNTER, amount=0.5),
    Operation("own_halves", Form.COUNTER, is_own=True, amount=0.5),
    Operation("sizes", Form.HISTOGRAM, bounds=BOUNDS),
    Operation("own_sizes", Form.HISTOGRAM, is_own=True, bounds=BOUNDS),
    Operation("kinds", Form.BY_KIND),
    Operation("waits_seconds", Form.SUMMARY),
    Operation("own_waits_seconds", Form.SUMMARY, is_own=True),
    Operation("natives", Form.HISTOGRAM, bounds=NATIVE_BOUNDS),
    # Of each process by its id, for as long as it lives: compared by `watch`.
    Operation("each", Form.GAUGE),
)
BEGIN = 0
(
    STEPS,
    OWN_STEPS,
    HALVES,
    OWN_HALVES,
    SIZES,
    OWN_SIZES,
    KINDS,
    WAITS,
    OWN_WAITS,
    NATIVES,
    EACH,
) = range(1, len(OPERATIONS) + 1)
# Of metrics that a process defines for itself, `late_*`; the last of a round that counts.
LATE = len(OPERATIONS) + 1
COUNTED = LATE + 1
LATE_METRICS = 40
# Rounds that raised AmountError: only where a counter is damaged.
RAISED = COUNTED
KINDS_MAX = 24
SIZE_MAX = 8


def size_of(number: int) -> int:
    """The value of round `number`."""
    return 1 + number % SIZE_MAX


def in_flight(tallied: tuple[int, ...]) -> int | None:
    """The operation that a process was in when it was killed. None: in none that is compared."""
    for tally in range(STEPS, EACH):
        if tallied[tally] < tallied[BEGIN]:
            return tally
    return None


def amounts(tally: int, count: int, row: int, spread: int) -> Iterator[tuple[Cell, float]]:
    """What the first `count` of an operation of one process are on a page; to be added up."""
    operation = OPERATIONS[tally - STEPS]
    name, labels = operation.name, _labels(operation, row)
    if not count or operation.form is Form.GAUGE:
        return
    if operation.form is Form.COUNTER:
        yield (f"{name}_total", labels), operation.amount * count
    elif operation.form is Form.BY_KIND:
        for kind, often in enumerate(_by_remainder(count, spread)):
            yield (f"{name}_total", (("kind", str(kind)),)), float(often)
    else:
        yield (f"{name}_count", labels), float(count)
        for size, often in enumerate(_by_remainder(count, SIZE_MAX), 1):
            yield (f"{name}_sum", labels), float(size * often)
            if operation.form is Form.HISTOGRAM:
                yield _bucket(operation, labels, size), float(often)


def one(tally: int, number: int, row: int, spread: int) -> Iterator[tuple[Cell, float]]:
    """What the operation of round `number` alone adds."""
    operation = OPERATIONS[tally - STEPS]
    name, labels = operation.name, _labels(operation, row)
    if operation.form is Form.COUNTER:
        yield (f"{name}_total", labels), operation.amount
    elif operation.form is Form.BY_KIND:
        yield (f"{name}_total", (("kind", str(number % spread)),)), 1.0
    elif operation.form is not Form.GAUGE:
        size = size_of(number)
        yield (f"{name}_count", labels), 1.0
        yield (f"{name}_sum", labels), float(size)
        if operation.form is Form.HISTOGRAM:
            yield _bucket(operation, labels, size), 1.0


def samples_of(operation: Operation) -> tuple[str, ...]:
    """The names on the page that are compared."""
    match operation.form:
        case Form.COUNTER | Form.BY_KIND:
            return (f"{operation.name}_total",)
        case Form.HISTOGRAM:
            return tuple(f"{operation.name}_{what}" for what in ("bucket", "sum", "count"))
        case Form.SUMMARY:
            return tuple(f"{operation.name}_{what}" for what in ("sum", "count"))
        case Form.GAUGE:
            return ()


def count_of(operation: Operation) -> tuple[str, float] | None:
    """The sample that says how many updates there were, and what one is on it."""
    match operation.form:
        case Form.COUNTER | Form.BY_KIND:
            return f"{operation.name}_total", operation.amount
        case Form.HISTOGRAM | Form.SUMMARY:
            return f"{operation.name}_count", 1.0
        case Form.GAUGE:
            return None


def _by_remainder(count: int, divisor: int) -> list[int]:
    """How many of the numbers 1 to `count` have the remainder 0, 1, 2 and so on."""
    whole, rest = divmod(count, divisor)
    return [whole + (1 <= remainder <= rest) for remainder in range(divisor)]


def _labels(operation: Operation, row: int) -> Labels:
    return (("process", str(row)),) if operation.is_own else ()


def _bucket(operation: Operation, labels: Labels, size: int) -> Cell:
    """The bucket that a value falls into."""
    bound = next((str(bound) for bound in operation.bounds if size <= bound), "+Inf")
    return f"{operation.name}_bucket", tuple(sorted((("le", bound), *labels)))
