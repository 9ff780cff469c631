"""A file system in memory of 1, 32 or 64 MB that is filled up while apps count, and emptied again.

Purpose: a full disk is never a signal and never a lost update. While it is full, pages may lack
what processes count aside; they stay valid, never go back and have nothing that was not counted.
Once there is room again, everything acknowledged is on the page, what was counted aside and by
processes that began meanwhile included: series by series, with native histograms and the gauge of
each process. Nobody is left in private memory then, and no update has found no memory anywhere.

Limits: mounts in a namespace of the case's own. Nobody is killed here: what a process counts aside
is in its own memory and dies with it, which docs/ARCHITECTURE.md says.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time

from agent._native import inspect

from .board import Board, Tallied
from .ground import CannotRunError, Ground, NotHeldError
from .page import Page
from .tallies import EACH, LATE, STEPS
from .watch import Watcher

MIB = 1 << 20
# Label sets of one metric, so that there is always need for memory.
SPREAD = 4000
# Twice as long as a process waits before it asks for room again.
LAST_RETRY_S = 2.0
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
    board = ground.board()
    spread = ("--board", board.path, "--spread", str(SPREAD))
    programs = [ground.start(*MODULE, "fork", *spread, "--workers", "3")]
    watcher = Watcher(ground, board, spread=SPREAD, has_overflow=True)
    ground.until(lambda: board.total(STEPS) > 0, f"somebody counts: {ground.log()}")
    ground.until(lambda: os.path.exists(ground.segment()), "the segment is there")
    ground.restart_clock()
    # In 1 MB there is never room for them: what is aside would stay there.
    late = ("--late",) if mib > 1 else ()
    cycles = 0
    while ground.has_time or cycles < CYCLES_MIN:
        filler = _fill(ground)
        before = board.total(STEPS)
        if len(programs) < NEWCOMERS_MAX:
            born = len(board.rows())
            programs.append(ground.start(*MODULE, "single", *spread, *late))
            # It takes the row after those that are there, and counts while there is no room.
            ground.until(lambda: _counts(board, born), f"a newcomer counts: {ground.log()}")  # noqa: B023
        ground.until(
            lambda: board.total(STEPS) > before + ROUNDS_FULL,  # noqa: B023
            "everybody counts on a full file system",
        )
        watcher.look(is_complete=False)
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
    # What is aside dies with its process: everybody gets another second in which he asks for room.
    time.sleep(LAST_RETRY_S)
    _comes_back(ground, board, watcher)
    board.stop()
    for program in programs:
        ground.until(lambda: program.poll() is not None, "the programs end")  # noqa: B023
        if program.returncode or board.strange:
            ground.fail(f"a process ended by itself ({program.returncode}): {ground.log()}")
    _judge(ground, board, watcher)


def _judge(ground: Ground, board: Board, watcher: Watcher) -> None:
    """When everybody has ended and there is room."""
    usage = inspect(ground.segment(), series_shown_max=0)["usage"]
    for name in ("overflows", "refused", "fallbacks"):
        ground.figure(name, usage[name])
    if not usage["overflows"] + usage["refused"] + usage["fallbacks"]:
        ground.fail("it was never full: everybody found room")
    if aside := [row.pid for row in board.rows() if row.is_aside]:
        ground.fail(f"the processes {aside} were in private memory to their end")
    page = watcher.balance()
    if page is not None and (late := board.total(LATE)) != _late(page):
        ground.fail(f"late metrics: counted {_late(page):.10g}, acknowledged {late}")


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


def _comes_back(ground: Ground, board: Board, watcher: Watcher) -> None:
    """Everything that was acknowledged by now gets onto the page."""
    wanted = board.snapshot()
    began = time.monotonic()
    missing: list[str] = ["a page"]

    def is_back() -> bool:
        page = watcher.look(is_complete=False)
        if page is None or ground.is_bad:
            return True
        missing[:] = _missing(page, watcher, wanted)
        return not missing

    try:
        ground.until(is_back, "what was counted aside comes back to the page")
    except NotHeldError as error:
        raise NotHeldError(f"{error}; there is no {', no '.join(missing[:5])}") from None
    longest = ground.outcome.figures.get("back after s", 0.0)
    ground.figure("back after s", round(max(longest, time.monotonic() - began), 2))


def _missing(page: Page, watcher: Watcher, wanted: list[Tallied]) -> list[str]:
    """What a page lacks of what was acknowledged, in words."""
    lacks = watcher.account.lacks(page, wanted)
    found = [f"{name}{dict(labels)} ({value:g} less)" for (name, labels), value in lacks.items()]
    shown = {dict(labels)["pid"]: value for labels, value in page.samples.get("each", {}).items()}
    for row, tallied in zip(watcher.board.rows(), wanted, strict=False):
        late = _late(page, f"late_{row.index}_")
        if late < tallied[LATE]:
            found.append(f"late metrics of process {row.pid} ({tallied[LATE] - late:g} less)")
        if shown.get(str(row.pid), -1.0) < tallied[EACH]:
            found.append(
                f"each of process {row.pid} ({shown.get(str(row.pid))}, not {tallied[EACH]})"
            )
    return sorted(found)


def _late(page: Page, start: str = "late_") -> float:
    """Updates of the metrics that processes, or one of them, define for themselves."""
    names = (name for name in page.samples if name.startswith(start) and name.endswith("_count"))
    return sum(page.total(name) for name in names)
