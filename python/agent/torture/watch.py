"""Pages read while others count: each is valid, and stands between two readings of the board.

Purpose: the comparison that every case of kills, stops and restarts makes, and the account at its
end. What a page must be is in `account`; here are the reading, the order of readings, and who has
ended.

Limits: gauges of processes are compared where each process has an id of its own for the time of the
case (`has_ids`).
"""

from __future__ import annotations

from collections.abc import Callable

from agent._native import inspect, render_segment

from .account import Account, Cells
from .board import Board, Row, Tallied
from .ground import Ground, NotHeldError
from .page import Page, PageError
from .processes import is_alive
from .tallies import EACH, KINDS_MAX, STEPS

# Removed series wait for whoever is inside an operation, and on a busy machine such a process may
# wait long for its turn: meanwhile others take new memory. A leak of a death is found all the same,
# after so many that they make more.
SLACK_BYTES = 1 << 20
# Dead processes whose series stay.
KEPT = 24


class Watcher:
    """Reads the page of one app over and over."""

    def __init__(
        self,
        ground: Ground,
        board: Board,
        read: Callable[[], bytes] | None = None,
        *,
        app: str | None = None,
        spread: int = KINDS_MAX,
        has_ids: bool = True,
        has_overflow: bool = False,
    ) -> None:
        self.ground = ground
        self.board = board
        self.read = read or (lambda: render_segment(ground.segment()))
        self.account = Account(spread, app, has_overflow=has_overflow)
        self.has_ids = has_ids
        self.before: Cells = {}
        self.size_early: int | None = None
        # Rows whose processes may live; settled ones whose series stay for now.
        self._open: list[Row] = []
        self._seen = 0
        self._kept: list[int] = []

    def look(self, *, is_complete: bool = True, is_over: bool = False) -> Page | None:
        """One page, checked. Without `is_complete` it may lack what processes count aside.

        `is_over`: the case knows that everybody has ended.
        """
        ground = self.ground
        ended = self._ended(is_over=is_over)
        low = self.board.snapshot()
        data = self.read()
        high = self.board.snapshot()
        try:
            page = Page(ground.shown(data))
        except PageError as error:
            ground.fail(f"a page is not valid: {error}")
            return None
        ground.outcome.pages += 1
        for reason in self.account.judge(page, low, high, ended, is_complete=is_complete):
            ground.fail(reason)
        if self.has_ids and not is_over:
            self._gauges(page, low, high, is_complete=is_complete)
        self._release()
        self.only_up(page)
        ground.tick()
        return page

    def _ended(self, *, is_over: bool) -> list[int]:
        """Rows whose process has died and that are not settled."""
        rows = self.board.rows(self._seen)
        self._open += rows
        self._seen += len(rows)
        return [row.index for row in self._open if row.pid and (is_over or not is_alive(row.pid))]

    def _release(self) -> None:
        """Lets the series of the dead go, but for the last of them."""
        settled = self.account.settled
        self._kept += [row.index for row in self._open if row.index in settled]
        self._open = [row for row in self._open if row.index not in settled]
        while len(self._kept) > KEPT:
            row = self._kept.pop(0)
            self.account.release(row)
            self.board.settle(row)

    def _gauges(
        self, page: Page, low: list[Tallied], high: list[Tallied], *, is_complete: bool
    ) -> None:
        """The gauge of each process is the number of its round."""
        shown = {
            dict(labels)["pid"]: value for labels, value in page.samples.get("each", {}).items()
        }
        for row in self._open:
            least, most = low[row.index][EACH], high[row.index][EACH] + 1
            value = shown.get(str(row.pid))
            if not least or row.index in self.account.settled:
                continue
            if value is None:
                if is_complete and not row.is_leaving:
                    self.ground.fail(f"each: process {row.pid} lives, and a page lacks its gauge")
            elif not (least if is_complete else 0) <= value <= most:
                self.ground.fail(
                    f"each: a page says {value:.10g} of process {row.pid}, not {least} to {most}"
                )

    def only_up(self, page: Page) -> None:
        """No counter goes back from one page to the next."""
        now = self.account.cells(page)
        for cell, value in self.before.items():
            name, labels = cell
            # The series of the dead are removed; `account` knows whose.
            if cell not in now and name.startswith("own_"):
                continue
            if now.get(cell, -1.0) < value:
                self.ground.fail(f"{name}{dict(labels)} went from {value:.10g} to {now.get(cell)}")
        self.before = now

    def note_size(self) -> None:
        """The size that must not be passed from now on."""
        if self.size_early is None:
            self.size_early = committed(self.ground.segment())

    def settle(self) -> None:
        """The account, when everybody has ended."""
        page = self.balance()
        if page is None:
            return
        ground = self.ground
        for name in ("busy", "up", "each"):
            if page.total(name) != 0:
                ground.fail(f"{name} is {page.total(name):g} though no process lives")
        seen = inspect(ground.segment(), series_shown_max=0)
        if alive := [slot for slot in seen["slots"] if slot["alive"]]:
            ground.fail(f"slots are alive though no process lives: {alive[:3]}")
        usage = seen["usage"]
        ground.figure("segment bytes", usage["bytes_committed"])
        if any(usage[name] for name in ("damage", "refused", "fallbacks", "overflows")):
            ground.fail(f"the segment tells of damage or of a lack of room: {usage}")
        if self.size_early is not None and usage["bytes_committed"] > self.size_early + SLACK_BYTES:
            ground.fail(
                f"the segment grew from {self.size_early} to {usage['bytes_committed']} bytes"
            )

    def balance(self) -> Page | None:
        """A page when everybody has ended, against the board, into the outcome of the case."""
        ground, account = self.ground, self.account
        if self.has_ids and (left := [row.pid for row in self._open if is_alive(row.pid)]):
            ground.fail(f"the processes {left[:5]} have not ended")
        page = self.look(is_over=True)
        if page is None or ground.is_bad:
            return None
        tallied = self.board.snapshot()
        if not any(row[STEPS] for row in tallied):
            raise NotHeldError("nothing was counted")
        if lost := sum(row.lost for row in self.board.rows()):
            ground.fail(f"{lost} updates found no memory anywhere, and were acknowledged")
        difference = account.difference(page, tallied)
        ground.outcome.difference = (ground.outcome.difference or 0) + difference
        ground.outcome.in_flight = (ground.outcome.in_flight or 0) + account.in_flight
        if not 0 <= difference <= account.in_flight:
            ground.fail(
                f"counted less acknowledged is {difference}, with {account.in_flight} killed in an"
                " update"
            )
        return page


def committed(path: str) -> int:
    usage = inspect(path, series_shown_max=0)["usage"]
    return int(usage["bytes_committed"])
