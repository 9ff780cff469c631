"""The account of an app: what each series must be, from what its processes acknowledged. Pure.

Purpose: every series has a lowest and a highest value, and a page that says anything else is found.
Of a process that lives, each operation of its round may be counted and not acknowledged yet. Of one
that was killed it is at most the one operation that it was in; of one that ended by itself, none.
Where two values are possible of a killed process, the series of its own must all say the same one.

A process that has died is settled by the first page that was read after its death: its share in the
series of all is added up then, and the series of its own must not move any more.

With `has_overflow` label sets may have gone to the overflow series of their metric, because there
was no memory: then no series has more than it may, and all series of a sample together, the
overflow series among them, are what they must be.

Limits: whether the last operation of a killed process is in a series that all share is never known,
so there the room for it stays. Those who read while others write must take `low` before the page
and `high` after it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from .board import Tallied
from .page import Labels, Page
from .tallies import (
    BEGIN,
    EACH,
    KINDS_MAX,
    OPERATIONS,
    STEPS,
    Cell,
    amounts,
    count_of,
    in_flight,
    one,
    samples_of,
)

Cells = dict[Cell, float]
COMPARED = [sample for operation in OPERATIONS for sample in samples_of(operation)]
REASONS_MAX = 4
# What the product puts in the place of the labels of whoever found no room.
OVERFLOW = ("agent_overflow", "true")


class Account:
    """Of one board. `app`: only samples with this label, which the collector adds."""

    def __init__(
        self, spread: int = KINDS_MAX, app: str | None = None, *, has_overflow: bool = False
    ) -> None:
        self.spread = spread
        self.has_overflow = has_overflow
        self.app = app
        self.settled: set[int] = set()
        # Of settled processes together, in the series of all: acknowledged, and the most above it.
        self.base: Cells = defaultdict(float)
        self.room: Cells = defaultdict(float)
        # The series of their own, as they were when they were settled, and which may go.
        self.own: Cells = {}
        self.released: set[Cell] = set()
        # Updates of settled processes: killed in one, and counted in a series of their own.
        self.in_flight = 0
        self.own_above = 0

    def judge(
        self,
        page: Page,
        low: Sequence[Tallied],
        high: Sequence[Tallied],
        ended: Collection[int] = (),
        *,
        is_complete: bool = True,
    ) -> list[str]:
        """What is wrong with a page. `ended`: rows of processes that were dead before `low`.

        Without `is_complete` the page may lack what is counted aside.
        """
        seen = self.cells(page)
        dead = {row for row in ended if row not in self.settled and row < len(low)}
        least, most = self._bounds(low, high, dead)
        wrong = []
        if self.has_overflow:
            wrong = [_reason(c, v, v, most.get(c, 0.0)) for c, v in _too_much(seen, most)]
            seen, least, most = _together(seen), _together(least), _together(most)
        for cell in least.keys() | most.keys() | seen.keys():
            value, lowest = seen.get(cell, 0.0), least.get(cell, 0.0)
            highest = most.get(cell, 0.0)
            if cell in self.released and cell not in seen:
                # It must not come back.
                self.released.remove(cell)
                del self.own[cell]
            elif value > highest or (is_complete and value < lowest):
                wrong.append(_reason(cell, value, lowest, highest))
        for row in sorted(dead) if not wrong and is_complete else ():
            wrong += self._settle(row, high[row], seen)
        return sorted(wrong)[:REASONS_MAX]

    def release(self, row: int) -> None:
        """From now on the series of a settled process may be removed."""
        self.released.update(cell for cell in self.own if _is_of(cell, row))

    def lacks(self, page: Page, tallied: Sequence[Tallied]) -> Cells:
        """What a page does not have of what was acknowledged."""
        seen, least = self.cells(page), self._bounds(tallied, tallied, set())[0]
        if self.has_overflow:
            seen, least = _together(seen), _together(least)
        return {
            cell: value - seen.get(cell, 0.0)
            for cell, value in least.items()
            if seen.get(cell, 0.0) < value
        }

    def difference(self, page: Page, tallied: Sequence[Tallied]) -> int:
        """Updates counted less updates acknowledged, when everybody is settled."""
        counted = float(self.own_above)
        cells = self.cells(page)
        for tally, operation in enumerate(OPERATIONS, STEPS):
            sample = count_of(operation)
            acknowledged = sum(row[tally] for row in tallied)
            if sample is not None and (self.has_overflow or not operation.is_own):
                name, amount = sample
                total = sum(value for (found, _), value in cells.items() if found == name)
                counted += total / amount - acknowledged
        return round(counted)

    def cells(self, page: Page) -> Cells:
        """The samples of a page that are compared; of buckets, what is in each alone."""
        found: Cells = {}
        for name in COMPARED:
            series = self._of_app(page.samples.get(name, {}))
            if name.endswith("_bucket"):
                series = _alone(series)
            found.update({(name, labels): value for labels, value in series.items()})
        return found

    def _of_app(self, series: dict[Labels, float]) -> dict[Labels, float]:
        if self.app is None:
            return series
        label = ("app", self.app)
        return {
            tuple(pair for pair in labels if pair != label): value
            for labels, value in series.items()
            if label in labels
        }

    def _bounds(
        self, low: Sequence[Tallied], high: Sequence[Tallied], dead: set[int]
    ) -> tuple[Cells, Cells]:
        """The lowest and the highest value of each series."""
        least: Cells = defaultdict(float, self.base)
        most: Cells = defaultdict(float, self.base)
        _add(most, self.room.items())
        for cell, value in self.own.items():
            least[cell] = most[cell] = value
        for row, tallied in enumerate(low):
            if row not in self.settled:
                _add(least, self._acknowledged(row, tallied))
        for row, tallied in enumerate(high):
            if row not in self.settled:
                _add(most, self._acknowledged(row, tallied))
                for tally in _possible(tallied, is_dead=row in dead):
                    _add(most, one(tally, tallied[tally] + 1, row, self.spread))
        return least, most

    def _acknowledged(self, row: int, tallied: Tallied) -> Iterable[tuple[Cell, float]]:
        for tally in range(STEPS, EACH):
            yield from amounts(tally, tallied[tally], row, self.spread)

    def _settle(self, row: int, tallied: Tallied, seen: Cells) -> list[str]:
        """Takes a dead process out of the account of the living."""
        low: Cells = defaultdict(float)
        _add(low, self._acknowledged(row, tallied))
        tally = in_flight(tallied)
        last = dict(one(tally, tallied[tally] + 1, row, self.spread)) if tally else {}
        own, before = self._own(seen, row), self._own(low, row)
        after = defaultdict(float, before)
        _add(after, self._own(last, row).items())
        if _filled(own) not in (_filled(before), _filled(after)):
            was_in = OPERATIONS[tally - STEPS].name if tally else "no update"
            counted = f"process {row} has counted {_filled(own)}"
            return [f"{counted}; it acknowledged {_filled(before)} and was in {was_in}"]
        self.own_above += _filled(own) != _filled(before)
        self.in_flight += tally is not None
        self.settled.add(row)
        self.own.update(own)
        _add(self.base, ((cell, value) for cell, value in low.items() if cell not in before))
        _add(self.room, ((cell, value) for cell, value in last.items() if cell not in after))
        return []

    def _own(self, cells: Cells, row: int) -> Cells:
        """Those of one process alone; none where they may have gone to the overflow series."""
        if self.has_overflow:
            return {}
        return {cell: value for cell, value in cells.items() if _is_of(cell, row)}


def _add(cells: Cells, more: Iterable[tuple[Cell, float]]) -> None:
    for cell, value in more:
        cells[cell] += value


def _too_much(seen: Cells, most: Cells) -> list[tuple[Cell, float]]:
    """Series that have more than they may; the overflow series are told from the rest of them."""
    return [
        (cell, value)
        for cell, value in seen.items()
        if OVERFLOW not in cell[1] and value > most.get(cell, 0.0)
    ]


def _together(cells: Cells) -> Cells:
    """By sample, and by bucket."""
    found: Cells = defaultdict(float)
    for (name, labels), value in cells.items():
        found[name, tuple(pair for pair in labels if pair[0] == "le")] += value
    return found


def _possible(tallied: Tallied, *, is_dead: bool) -> list[int]:
    """Operations that may be counted once more than they were acknowledged."""
    if is_dead:
        tally = in_flight(tallied)
        return [] if tally is None else [tally]
    # Words of a process that runs were read one after the other: it may be in any of its round.
    begun = max(tallied[BEGIN : EACH + 1])
    return [tally for tally in range(STEPS, EACH) if tallied[tally] < begun]


def _alone(series: dict[Labels, float]) -> dict[Labels, float]:
    """Buckets, each without those below it."""
    groups: dict[Labels, list[tuple[float, Labels, float]]] = {}
    for labels, value in series.items():
        rest = tuple(pair for pair in labels if pair[0] != "le")
        groups.setdefault(rest, []).append((float(dict(labels)["le"]), labels, value))
    found = {}
    for buckets in groups.values():
        below = 0.0
        for _, labels, value in sorted(buckets):
            found[labels] = value - below
            below = value
    return found


def _is_of(cell: Cell, row: int) -> bool:
    """Whether a series is that of one process alone."""
    return ("process", str(row)) in cell[1]


def _filled(cells: Cells) -> Cells:
    return {cell: value for cell, value in cells.items() if value}


def _reason(cell: Cell, value: float, lowest: float, highest: float) -> str:
    name, labels = cell
    inside = ",".join(f'{label}="{said}"' for label, said in labels)
    return (
        f"{name}{{{inside}}}: a page says {value:.10g};"
        f" {lowest:.10g} was acknowledged before it, at most {highest:.10g} may be counted"
    )
