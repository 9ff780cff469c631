"""A file system in memory of 1, 32 or 64 MB that is filled up while apps count, and emptied again.

Purpose: a full disk is never a signal and never a lost update. While it is full, pages may lack
what processes count aside; they stay valid and never go back. Once there is room again, everything
acknowledged is on the page, what was counted aside and by processes that began meanwhile included.

Limits: mounts in a namespace of the case's own. Nobody is killed here: what a process counts aside
is in its own memory and dies with it, which docs/ARCHITECTURE.md says.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time

from agent._native import inspect

from .board import Board
from .ground import CannotRunError, Ground
from .page import Page
from .tallies import LATE, TALLIES
from .watch import Watcher

MIB = 1 << 20
# Label sets of one metric, so that there is always need for memory.
SPREAD = 4000
CYCLES_MIN = 1
# Rounds of all processes together while it is full.
ROUNDS_FULL = 3000
NEWCOMERS_MAX = 8
MODULE = ("-m", "agent.torture.program")


def one(ground: Ground) -> None:
    """1 MB: smaller than what the app would take."""
    _case(ground, 1)


def thirty_two(ground: Ground) -> None:
    """32 MB."""
    _case(ground, 32)


def sixty_four(ground: Ground) -> None:
    """64 MB, the size of /dev/shm in a container of Docker."""
    _case(ground, 64)


def _mount(path: str, mib: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"size={mib}m,mode=0700".encode()
    if libc.mount(b"tmpfs", path.encode(), b"tmpfs", 0, options) != 0:
        raise CannotRunError(f"a tmpfs cannot be mounted: {os.strerror(ctypes.get_errno())}")


def _case(ground: Ground, mib: int) -> None:
    _mount(ground.segments, mib)
    board = Board(ground.path("board"))
    words = (*MODULE, "fork", "--board", board.path, "--spread", str(SPREAD))
    programs = [ground.start(*words, "--workers", "3")]
    watcher = Watcher(ground, board)
    ground.until(lambda: board.totals(1)[0] > 0, f"somebody counts: {ground.log()}")
    ground.until(lambda: os.path.exists(ground.segment()), "the segment is there")
    ground.restart_clock()
    # In 1 MB there is never room for them: what is aside would stay there.
    late = ("--late",) if mib > 1 else ()
    cycles = 0
    while ground.has_time or cycles < CYCLES_MIN:
        filler = _fill(ground)
        before = board.totals(1)[0]
        if len(programs) < NEWCOMERS_MAX:
            born = len(board.rows())
            programs.append(ground.start(*MODULE, "single", "--board", board.path, *late))
            # It takes the row after those that are there, and counts while there is no room.
            ground.until(lambda: _counts(board, born), f"a newcomer counts: {ground.log()}")  # noqa: B023
        ground.until(
            lambda: board.totals(1)[0] > before + ROUNDS_FULL,  # noqa: B023
            "everybody counts on a full file system",
        )
        _valid(ground, watcher)
        os.unlink(filler)
        _comes_back(ground, board, watcher)
        cycles += 1
        for program in programs:
            if program.poll() is not None:
                ground.fail(f"a program ended with {program.returncode}: {ground.log()}")
        if ground.is_bad:
            break
    ground.figure("times full", cycles)
    ground.figure("started while full", len(programs) - 1)
    board.stop()
    for program in programs:
        ground.until(lambda: program.poll() is not None, "the programs end")  # noqa: B023
        if program.returncode or board.strange:
            ground.fail(f"a process ended by itself ({program.returncode}): {ground.log()}")
    usage = inspect(ground.segment(), series_shown_max=0)["usage"]
    for name in ("overflows", "refused", "fallbacks"):
        ground.figure(name, usage[name])
    page = _valid(ground, watcher)
    totals = board.totals(LATE + 1)
    counted = _counted(page)
    ground.outcome.difference = sum(counted) - sum(totals)
    ground.outcome.in_flight = 0
    if counted != totals:
        ground.fail(f"counted {counted}, acknowledged {totals}")


def _counts(board: Board, index: int) -> bool:
    rows = board.rows()
    return len(rows) > index and rows[index].tallied() > 0


def _fill(ground: Ground) -> str:
    """Takes all room but a random rest, in steps, as a log file would."""
    path = os.path.join(ground.segments, "filler")
    block = b"x" * (64 * 1024)
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(block)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
        # The last pages, too.
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
        rest = ground.rng.choice((0, 0, 4096, 8192, 65_536))
        file.truncate(max(0, file.tell() - rest))
    return path


def _valid(ground: Ground, watcher: Watcher) -> Page:
    """A page that may lack what is counted aside; it is valid and does not go back."""
    page = Page(watcher.read())
    watcher.only_up(page)
    ground.outcome.pages += 1
    ground.outcome.operations = sum(watcher.board.totals(LATE + 1))
    ground.tick()
    return page


def _comes_back(ground: Ground, board: Board, watcher: Watcher) -> None:
    """Everything that was acknowledged by now gets onto the page."""
    wanted = board.totals(LATE + 1)
    began = time.monotonic()

    def is_back() -> bool:
        page = _valid(ground, watcher)
        return all(now >= low for now, low in zip(_counted(page), wanted, strict=True))

    ground.until(is_back, "what was counted aside comes back to the page")
    longest = ground.outcome.figures.get("back after s", 0.0)
    ground.figure("back after s", round(max(longest, time.monotonic() - began), 2))


def _counted(page: Page) -> list[float]:
    """In the order of the board's tallies."""
    late = (
        page.total(name)
        for name in page.samples
        if name.startswith("late_") and name.endswith("_count")
    )
    return [*(page.total(sample) / unit for sample, unit, _ in TALLIES), sum(late)]
