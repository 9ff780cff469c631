"""The work of every tortured process: updates of all kinds, each acknowledged after it returned.

Purpose: an app's metrics and a loop over them. What each tally of the board stands for is in
`tallies`. Only programs that are tortured import this: it defines metrics.

Sabotage proves that a torture can fail: `early` acknowledges before it counts, `lost` leaves out
one of a hundred updates and acknowledges it.
"""

from __future__ import annotations

import time

import agent

from .board import Board
from .tallies import (
    HALVES,
    KINDS,
    KINDS_MAX,
    LATE,
    LATE_METRICS,
    RAISED,
    SIZES,
    SIZES_SUM,
    STEPS,
    TALLIES,
    WAITS,
)

# One page by the process itself in as many rounds.
ROUNDS_PER_PAGE = 400

steps = agent.Counter("steps", "Whole steps.")
halves = agent.Counter("halves", "Steps of a half.")
sizes = agent.Histogram("sizes", "Sizes, one to eight.", buckets=[1, 2, 4, 6])
kinds = agent.Counter("kinds", "Steps by kind.", ["kind"])
waits = agent.Summary("waits", "A summary.", unit="seconds")
passing = agent.Counter("passing", "Series that come and go.", ["guest"])
busy = agent.Gauge("busy", "Rounds in progress.")
up = agent.Gauge("up", "Processes at work.", multiprocess_mode="livesum")


class Work:
    """The loop of one process, with its row of the board."""

    def __init__(
        self,
        board: Board,
        sabotage: str | None = None,
        spread: int = KINDS_MAX,
        is_late: bool = False,
    ) -> None:
        self.board = board
        self.row = board.claim()
        self.sabotage = sabotage
        self.spread = spread
        self.rounds = 0
        # New to the segment, and together larger than what it has committed in advance.
        self.late = [
            agent.Histogram(f"late_{self.row.index}_{number}", "Late.", buckets=range(1, 500))
            for number in range(LATE_METRICS if is_late else 0)
        ]
        up.set(1)

    def until_stopped(self) -> None:
        while not self.board.is_stopped:
            self.round()

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
        number = self.rounds
        size = 1 + number % 8
        if self.sabotage == "early":
            self._acknowledge(size)
        with busy.track_inprogress():
            if self.sabotage is None:
                self._count(number, size)
            else:
                if not (self.sabotage == "lost" and number % 100 == 0):
                    steps.inc()
                self._count_rest(number, size)
                if self.sabotage != "early":
                    self._acknowledge(size)
        if self.late:
            self.late[number % LATE_METRICS].observe(number % 500)
            self.row.add(LATE)
        guest = passing.labels(str(number % 40))
        guest.inc()
        if number % 3 == 0:
            passing.remove(str((number + self.row.index) % 40))
        if number % ROUNDS_PER_PAGE == 0:
            agent.render()

    def _count(self, number: int, size: int) -> None:
        add = self.row.add
        steps.inc()
        add(STEPS)
        halves.inc(0.5)
        add(HALVES)
        sizes.observe(size)
        add(SIZES)
        add(SIZES_SUM, size)
        kinds.labels(str(number % self.spread)).inc()
        add(KINDS)
        waits.observe(size)
        add(WAITS)

    def _count_rest(self, number: int, size: int) -> None:
        halves.inc(0.5)
        sizes.observe(size)
        kinds.labels(str(number % self.spread)).inc()
        waits.observe(size)

    def _acknowledge(self, size: int) -> None:
        for tally in range(len(TALLIES)):
            self.row.add(tally, size if tally == SIZES_SUM else 1)
