"""What happens to the file of a segment as a whole, under living writers.

Purpose: each of ACTIONS is done to the file of an app of two processes, beside a neighbour and a
collector. Nobody crashes, everybody goes on counting; where the app can have a file again, its
numbers are on a page again; the neighbour stays exact.

Limits: what was counted between the damage and a process's next look, a second later at most, is
lost with the file. As root, permissions are asked of nobody: chmod does nothing then.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable

from agent._native import render_segment
from agent.errors import SegmentError

from .board import Board, Row
from .collector import Serving
from .damage import MODULE, NEIGHBOUR, is_shown, neighbour_of
from .extents import extents
from .ground import Ground
from .kills import Killer
from .page import Page, PageError
from .processes import send, status
from .tallies import STEPS
from .watch import Watcher

FALLOC_FL_KEEP_SIZE = 1
FALLOC_FL_PUNCH_HOLE = 2
PAGE = 4096
NOBODY = 65_534
# Updates of each process after the damage before anything is judged.
UPDATES = 2000

Action = Callable[[str, Ground, list[Row]], None]


def truncate_all(path: str, _ground: Ground, _rows: list[Row]) -> None:
    os.truncate(path, 0)


def truncate_some(path: str, ground: Ground, _rows: list[Row]) -> None:
    """Within what is used."""
    with open(path, "r+b") as file:
        _, end = max(extents(file.fileno()))
        os.ftruncate(file.fileno(), ground.rng.randrange(end))


def truncate_tail(path: str, ground: Ground, _rows: list[Row]) -> None:
    """Behind everything that is used: writers have no reason to touch what is gone."""
    with open(path, "r+b") as file:
        _, end = max(extents(file.fileno()))
        os.ftruncate(file.fileno(), ground.rng.randrange(end, os.path.getsize(path)))


def truncate_header(path: str, ground: Ground, _rows: list[Row]) -> None:
    os.truncate(path, ground.rng.randrange(PAGE))


def punch_some(path: str, ground: Ground, _rows: list[Row]) -> None:
    """One page of those that exist."""
    with open(path, "r+b") as file:
        pages = [at for start, end in extents(file.fileno()) for at in range(start, end, PAGE)]
        _punch(file.fileno(), ground.rng.choice(pages), PAGE)


def punch_all(path: str, _ground: Ground, _rows: list[Row]) -> None:
    with open(path, "r+b") as file:
        _punch(file.fileno(), 0, os.path.getsize(path))


def replace_by_text(path: str, _ground: Ground, _rows: list[Row]) -> None:
    other = f"{path}.other"
    with open(other, "wb") as file:
        file.write(b"this is no segment\n" * 1000)
    os.rename(other, path)


def replace_by_copy(path: str, ground: Ground, rows: list[Row]) -> None:
    """As a restored snapshot: the same content of one moment, another file.

    A copy that is made while others write is torn, and its own page may be.
    """
    other = f"{path}.other"
    for row in rows:
        send(row.pid, signal.SIGSTOP)
    ground.until(
        lambda: all(status(row.pid).get("State", "")[:1] == "T" for row in rows), "they stop"
    )
    with open(path, "rb") as old, open(other, "wb") as new:
        new.truncate(os.path.getsize(path))
        for start, end in extents(old.fileno()):
            os.pwrite(new.fileno(), os.pread(old.fileno(), end - start, start), start)
    os.chmod(other, 0o600)
    os.rename(other, path)
    for row in rows:
        send(row.pid, signal.SIGCONT)


def unlink(path: str, _ground: Ground, _rows: list[Row]) -> None:
    os.unlink(path)


def chmod(path: str, _ground: Ground, _rows: list[Row]) -> None:
    os.chmod(path, 0)


def chown(path: str, ground: Ground, _rows: list[Row]) -> None:
    try:
        os.chown(path, NOBODY, NOBODY)
    except PermissionError:
        ground.figure("chown not permitted", 1)


# And whether the app must be on a page again, with what it counts from then on.
ACTIONS: tuple[tuple[Action, bool], ...] = (
    (truncate_all, True),
    (truncate_some, True),
    (truncate_header, True),
    (truncate_tail, True),
    (punch_some, False),
    (punch_all, False),
    # Not ours to replace: the app counts in private memory until somebody takes it away.
    (replace_by_text, False),
    (replace_by_copy, True),
    (unlink, True),
    (chmod, False),
    (chown, False),
)


def files(ground: Ground) -> None:
    """The case: all actions, in an order of the seed, again and again."""
    neighbour = ground.board("neighbour")
    beside = ground.start(
        *(*MODULE, "fork", "--board", neighbour.path, "--workers", "1"),
        app=NEIGHBOUR,
        log="neighbour.log",
    )
    serving = Serving(ground, workers=1)
    parts = serving.parts()
    watcher = Watcher(ground, neighbour, serving.page, app=NEIGHBOUR)
    ground.until(lambda: is_shown(serving, NEIGHBOUR), "the collector shows it")
    ground.restart_clock()
    number = 0
    order = list(ACTIONS)
    while ground.has_time or number < len(ACTIONS):
        if number % len(order) == 0:
            ground.rng.shuffle(order)
        action, is_back = order[number % len(order)]
        _one(ground, f"app{number}", action, is_back)
        watcher.look()
        if serving.parts() != parts:
            ground.fail(f"after {action.__name__} a process of the collector has ended")
        number += 1
        if ground.is_bad:
            break
    ground.figure("files damaged", number)
    neighbour.stop()
    ground.until(lambda: beside.poll() is not None, "the neighbour ends")
    if beside.returncode:
        ground.fail(f"the neighbour ended with {beside.returncode}")
    neighbour_of(ground, neighbour).balance()
    serving.stop()


def _one(ground: Ground, app: str, action: Action, is_back: bool) -> None:
    """An app of its own for each action."""
    board = ground.board(f"{app}.board")
    program = ground.start(
        *(*MODULE, "fork", "--board", board.path, "--workers", "2", "--damaged"), app=app
    )
    killer = Killer(ground, board)
    path = ground.segment(app)

    def counting() -> bool:
        rows = killer.look()
        return len(rows) == 2 and all(row.tallied() > 500 for row in rows)

    ground.until(counting, f"{app} counts: {ground.log()}")
    ground.until(lambda: os.path.exists(path), "its segment is there")
    action(path, ground, killer.look())
    before = {row.index: row.tallied() for row in killer.look()}
    ground.until(
        lambda: (
            all(
                row.index in before and row.tallied() > before[row.index] + UPDATES
                for row in killer.look()
            )
            or ground.is_bad
        ),
        f"after {action.__name__} everybody goes on counting: {ground.log()}",
    )
    if is_back and not ground.is_bad:
        _back(ground, app, board, action.__name__)
    board.stop()
    ground.until(lambda: program.poll() is not None, "the program ends")
    if program.returncode or board.strange:
        ground.fail(f"{action.__name__}: a process ended by itself: {ground.log()}")
    ground.put_away(board)


def _back(ground: Ground, app: str, board: Board, name: str) -> None:
    """What all processes count from now on is on the pages of the app."""
    began = time.monotonic()

    def gains() -> bool:
        # From one moment to a later one, the pages gain what was acknowledged between.
        first = _steps(ground, app)
        low = board.total(STEPS)
        time.sleep(0.02)
        high = board.total(STEPS)
        last = _steps(ground, app)
        return first is not None and last is not None and last - first >= high - low > 0

    ground.until(gains, f"after {name} the app is on a page again: {ground.log()}")
    longest = ground.outcome.figures.get("back after s", 0.0)
    ground.figure("back after s", round(max(longest, time.monotonic() - began), 2))


def _steps(ground: Ground, app: str) -> float | None:
    """On the pages of all files of the app: a damaged one with writers has another beside it."""
    total, found = 0.0, False
    for name in os.listdir(ground.segments):
        if name.endswith(".seg") and name.split(".")[0].split("~")[0] == app:
            try:
                page = Page(render_segment(os.path.join(ground.segments, name)))
            except (SegmentError, PageError, OSError):
                continue
            total, found = total + page.total("steps_total"), True
            ground.outcome.pages += 1
    return total if found else None


def _punch(descriptor: int, start: int, length: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    how = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
    done = libc.fallocate(descriptor, how, ctypes.c_long(start), ctypes.c_long(length))
    if done != 0:
        raise OSError(ctypes.get_errno(), "fallocate cannot punch a hole on this file system")
