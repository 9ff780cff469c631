"""The work of every tortured process: updates of all kinds, each acknowledged after it returned.

Purpose: an app's metrics and a loop over them, in the order of `tallies.OPERATIONS`. Between two
rounds it does what is not compared: series that come and go, pages by the process itself, and the
removal of the series of dead processes. Only programs that are tortured import this: it defines
metrics.

Limits: what `sabotage` does is done in this process, so that it reaches the page as a fault of the
product would.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import agent

from . import sabotage as wrong
from .board import Board
from .tallies import (
    BEGIN,
    BOUNDS,
    EACH,
    HALVES,
    KINDS,
    KINDS_MAX,
    LATE,
    LATE_METRICS,
    NATIVES,
    OWN_HALVES,
    OWN_SIZES,
    OWN_STEPS,
    OWN_WAITS,
    RAISED,
    SIZES,
    STEPS,
    WAITS,
    size_of,
)

# One page by the process itself in as many rounds, and one look at what is in private memory.
ROUNDS_PER_PAGE = 400
ROUNDS_PER_SWEEP = 8

steps = agent.Counter("steps", "Whole steps.")
own_steps = agent.Counter("own_steps", "Whole steps of one process.", ["process"])
halves = agent.Counter("halves", "Steps of a half.")
own_halves = agent.Counter("own_halves", "Steps of a half of one process.", ["process"])
sizes = agent.Histogram("sizes", "Sizes, one to eight.", buckets=BOUNDS)
own_sizes = agent.Histogram("own_sizes", "Sizes of one process.", ["process"], buckets=BOUNDS)
kinds = agent.Counter("kinds", "Steps by kind.", ["kind"])
waits = agent.Summary("waits", "A summary.", unit="seconds")
# Without quantiles, for which each series would keep values of its own.
own_waits = agent.Summary("own_waits", "Of one process.", ["process"], unit="seconds", quantiles=[])
natives = agent.Histogram("natives", "Sizes, native.", native=True)
each = agent.Gauge("each", "Rounds of each process.", multiprocess_mode="liveall")
passing = agent.Counter("passing", "Series that come and go.", ["guest"])
busy = agent.Gauge("busy", "Rounds in progress.")
up = agent.Gauge("up", "Processes at work.", multiprocess_mode="livesum")

# An update of the round with that number.
Count = Callable[[int], object]


class Work:
    """The loop of one process, with its row of the board."""

    def __init__(self, board: Board, spread: int = KINDS_MAX, is_late: bool = False) -> None:
        self.board = board
        self.row = board.claim()
        self.sabotage = os.environ.get(wrong.VARIABLE)
        self.spread = spread
        self.rounds = 0
        self.sequence = self._sequence()
        if is_late:
            # New to the segment, and together larger than what it has committed in advance.
            late = [
                agent.Histogram(f"late_{self.row.index}_{number}", "Late.", buckets=range(1, 500))
                for number in range(LATE_METRICS)
            ]
            self.sequence.append((LATE, lambda n: late[n % LATE_METRICS].observe(n % 500)))
        up.set(1)

    def until_stopped(self) -> None:
        while not self.board.is_stopped:
            self.round()
        self.leave()

    def leave(self) -> None:
        """After the last round."""
        self._note()
        self.row.leave()

    def until_stopped_though_damaged(self) -> None:
        """A damaged counter may say that it is full; everything else must not raise."""
        while not self.board.is_stopped:
            try:
                self.round()
            except agent.AmountError:
                self.row.add(RAISED)

    def for_ns(self, span_ns: int) -> None:
        """Works for a time that the board tells, so that a killer knows where it is."""
        end = time.monotonic_ns() + span_ns
        self.row.busy_until_ns = end
        while time.monotonic_ns() < end and not self.board.is_stopped:
            self.round()
        self.row.busy_until_ns = 0

    def round(self) -> None:
        """One update of each kind."""
        self.rounds += 1
        number, add = self.rounds, self.row.add
        with busy.track_inprogress():
            add(BEGIN)
            if self.sabotage == wrong.EARLY:
                self._early(number)
            else:
                for tally, count in self.sequence:
                    count(number)
                    add(tally)
        self._between(number)

    def _between(self, number: int) -> None:
        """What is not compared."""
        passing.labels(str(number % 40)).inc()
        if number % 3 == 0:
            passing.remove(str((number + self.row.index) % 40))
        if number % ROUNDS_PER_SWEEP == 0:
            self._sweep()
        if number % ROUNDS_PER_PAGE == 0:
            agent.render()
            self._note()

    def _note(self) -> None:
        """What only this process knows."""
        self.row.note(agent.REGISTRY.fallback is not None, agent.REGISTRY.lost)

    def _sweep(self) -> None:
        """Removes the series of one dead process. Whoever is killed in it leaves it to others."""
        if found := self.board.to_sweep():
            place, index = found
            for metric in (own_steps, own_halves, own_sizes, own_waits):
                metric.remove(str(index))
            self.board.swept(place)

    def _sequence(self) -> list[tuple[int, Count]]:
        """The operations in the order of their tallies."""
        mine = str(self.row.index)
        my_steps, my_halves = own_steps.labels(mine), own_halves.labels(mine)
        my_sizes, my_waits = own_sizes.labels(mine), own_waits.labels(mine)
        return [
            (STEPS, self._step),
            (OWN_STEPS, self._twice(my_steps.inc)),
            (HALVES, lambda _: halves.inc(0.5)),
            (OWN_HALVES, lambda _: my_halves.inc(0.5)),
            (SIZES, lambda number: sizes.observe(size_of(number))),
            (OWN_SIZES, lambda number: my_sizes.observe(size_of(number))),
            (KINDS, self._kind),
            (WAITS, lambda number: waits.observe(size_of(number))),
            (OWN_WAITS, lambda number: my_waits.observe(size_of(number))),
            (NATIVES, lambda number: natives.observe(size_of(number))),
            (EACH, each.set),
        ]

    def _step(self, number: int) -> None:
        if self.sabotage != wrong.LOST or number % wrong.EVERY:
            steps.inc()

    def _twice(self, inc: Callable[[], None]) -> Count:
        def count(number: int) -> None:
            inc()
            if self.sabotage == wrong.TWICE and number == wrong.TWICE_AT:
                inc()

        return count

    def _kind(self, number: int) -> None:
        if self.sabotage == wrong.LABEL and number % wrong.EVERY == 0:
            number += 1
        kinds.labels(str(number % self.spread)).inc()

    def _early(self, number: int) -> None:
        for tally, _ in self.sequence:
            self.row.add(tally)
        time.sleep(wrong.EARLY_S)
        for _, count in self.sequence:
            count(number)
