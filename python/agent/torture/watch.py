"""Pages read while others count: each is valid, and stands between two readings of the board.

Purpose: the comparison that every case of kills, stops and restarts makes, and the account at its
end: counted less acknowledged is between 0 and the updates in flight.
"""

from __future__ import annotations

from collections.abc import Callable

from agent._native import inspect, render_segment

from .board import Board
from .ground import Ground, NotHeldError
from .page import Labels, Page, PageError
from .tallies import STEPS, TALLIES

# Removed series wait for whoever is inside an operation, and on a busy machine such a process may
# wait long for its turn: meanwhile others take new memory. A leak of a death is found all the same,
# after so many that they make more.
SLACK_BYTES = 1 << 20

Tallies = tuple[tuple[str, float, int], ...]


class Watcher:
    """Reads the page of one app over and over."""

    def __init__(
        self,
        ground: Ground,
        board: Board,
        read: Callable[[], bytes] | None = None,
        tallies: Tallies = TALLIES,
    ) -> None:
        self.ground = ground
        self.board = board
        self.read = read or (lambda: render_segment(ground.segment()))
        self.tallies = tallies
        self.before: dict[str, dict[Labels, float]] = {}
        self.size_early: int | None = None

    def look(self, in_flight: int) -> Page | None:
        """One page, checked. At most `in_flight` updates are counted and not acknowledged."""
        ground = self.ground
        low = self.board.totals(len(self.tallies))
        data = self.read()
        high = self.board.totals(len(self.tallies))
        ground.outcome.operations = sum(high)
        if ground.sabotage == "doubled":
            data += b"\n".join(data.splitlines()[-1:]) + b"\n"
        try:
            page = Page(data)
        except PageError as error:
            ground.fail(f"a page is not valid: {error}")
            return None
        ground.outcome.pages += 1
        for number, (sample, unit, most) in enumerate(self.tallies):
            counted = page.total(sample) / unit
            room = in_flight * most
            if not low[number] <= counted <= high[number] + room:
                ground.fail(
                    f"{sample}: a page says {counted:.10g}, {low[number]} were acknowledged before"
                    f" it and {high[number]} after it, with {in_flight} in flight"
                )
        self.only_up(page)
        ground.tick()
        return page

    def only_up(self, page: Page) -> None:
        """No counter goes back from one page to the next."""
        names = {sample for sample, _, _ in self.tallies if not sample.endswith("_sum")}
        for name in names & page.samples.keys():
            now, before = page.samples[name], self.before.get(name, {})
            for labels, value in before.items():
                if now.get(labels, -1.0) < value:
                    self.ground.fail(
                        f"{name}{dict(labels)} went from {value:.10g} to {now.get(labels)}"
                    )
            self.before[name] = now

    def note_size(self) -> None:
        """The size that must not be passed from now on."""
        if self.size_early is None:
            self.size_early = committed(self.ground.segment())

    def settle(self, kills: int) -> None:
        """The account, when everybody has ended."""
        ground = self.ground
        page = self.look(kills)
        if page is None:
            return
        totals = self.board.totals(len(self.tallies))
        differences = []
        for number, (sample, unit, _) in enumerate(self.tallies):
            if sample.endswith("_sum"):
                continue
            differences.append(page.total(sample) / unit - totals[number])
        ground.outcome.difference = sum(differences)
        ground.outcome.in_flight = kills
        # A process has one update in flight, whatever it is of.
        if not 0 <= sum(differences) <= kills:
            ground.fail(f"counted less acknowledged is {differences}, with {kills} kills")
        if not totals[STEPS]:
            raise NotHeldError("nothing was counted")
        for name in ("busy", "up"):
            if page.total(name) != 0:
                ground.fail(f"{name} is {page.total(name):g} though no process lives")
        seen = inspect(ground.segment(), series_shown_max=0)
        if alive := [slot for slot in seen["slots"] if slot["alive"]]:
            ground.fail(f"slots are alive though no process lives: {alive[:3]}")
        usage = seen["usage"]
        ground.figure("segment bytes", usage["bytes_committed"])
        if usage["damage"] or usage["refused"]:
            ground.fail(f"the segment tells of damage or refusals: {usage}")
        if self.size_early is not None and usage["bytes_committed"] > self.size_early + SLACK_BYTES:
            ground.fail(
                f"the segment grew from {self.size_early} to {usage['bytes_committed']} bytes"
            )


def committed(path: str) -> int:
    usage = inspect(path, series_shown_max=0)["usage"]
    return int(usage["bytes_committed"])
