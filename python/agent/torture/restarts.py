"""Real life: an app of four workers that is started again and again with changed definitions.

Purpose: each release changes what some families are (type, buckets, label names, quantiles), drops
some and brings others; five families stay as they are. Releases follow each other rolling, old and
new side by side, or by stop and start. At every moment there is one valid page, and the totals of
the families that stay are exact.

Limits: nobody is killed here, so nothing is in flight at the end of a release.
"""

from __future__ import annotations

import os
import subprocess

from .board import Board
from .ground import Ground
from .watch import Watcher

WORKERS = 4
RESTARTS_MIN = 4
# What each worker of a release counts before the next release may come.
UPDATES = 60


def changed_definitions(ground: Ground) -> None:
    """The case."""
    board = ground.board()
    watcher = Watcher(ground, board)
    releases = 0
    running = _start(ground, board, releases)
    ground.until(lambda: os.path.exists(ground.segment()), "the segment is there")
    ground.restart_clock()
    while ground.has_time or releases < RESTARTS_MIN:
        releases += 1
        is_rolling = ground.rng.random() < 0.5
        ground.add("rolling" if is_rolling else "stop and start")
        if is_rolling:
            fresh = _start(ground, board, releases, watcher)
            _stop(ground, running, watcher)
        else:
            _stop(ground, running, watcher)
            watcher.look()
            fresh = _start(ground, board, releases, watcher)
        running = fresh
        watcher.look()
        if ground.elapsed_s > ground.seconds / 3 and releases > RESTARTS_MIN / 2:
            ground.outcome.figures.setdefault("bytes after a third", _bytes(ground))
        if ground.is_bad:
            break
    ground.figure("restarts", releases)
    _stop(ground, running, watcher)
    watcher.settle()


def _bytes(ground: Ground) -> int:
    from .watch import committed

    return committed(ground.segment())


class Release:
    """A program of one release, and the rows of its workers."""

    def __init__(self, process: subprocess.Popen[bytes], stop: str, first: int) -> None:
        self.process = process
        self.stop = stop
        self.first = first


def _start(ground: Ground, board: Board, number: int, watcher: Watcher | None = None) -> Release:
    """A release, up and counting."""
    stop = ground.path(f"stop{number}")
    first = len(board.rows())
    process = ground.start(
        *("-m", "agent.torture.release", str(number), "--board", board.path, "--stop", stop),
        *("--seed", str(ground.rng.randrange(1 << 30)), "--workers", str(WORKERS)),
    )

    def is_up() -> bool:
        if process.poll() is not None:
            ground.fail(f"release {number} ended with {process.returncode}: {ground.log()}")
            return True
        if watcher is not None:
            watcher.look()
        rows = board.rows()[first:]
        return len(rows) == WORKERS and all(row.tallied() > UPDATES for row in rows)

    ground.until(is_up, f"release {number} counts: {ground.log()}")
    return Release(process, stop, first)


def _stop(ground: Ground, release: Release, watcher: Watcher) -> None:
    with open(release.stop, "w"):
        pass

    def is_down() -> bool:
        watcher.look()
        return release.process.poll() is not None

    ground.until(is_down, "a release ends")
    if release.process.returncode:
        ground.fail(f"a release ended with {release.process.returncode}: {ground.log()}")
    os.unlink(release.stop)
