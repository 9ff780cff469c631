"""SIGKILL of processes that count: programs of multiprocessing, by each of its start methods.

Purpose: every 20 to 80 ms a process is killed, wherever it is, and one in eight just born; pages
are read all the while, and each series is compared with what its processes acknowledged: a killed
one may have counted the update that it was in, and nothing else. In the end the segment has not
grown by more than `watch.SLACK_BYTES`.
"""

from __future__ import annotations

import os
import signal
import time

from .board import Board, Row
from .ground import Ground
from .processes import is_alive, send
from .tallies import STEPS
from .watch import Watcher

INTERVAL_S = (0.02, 0.08)
# What a case does whatever its time is.
KILLS_MIN = 12
WORKERS = 4
# One of so many kills takes the youngest process as soon as it can be seen.
YOUNG = 8


class Killer:
    """Whom it has killed, and whom it may."""

    def __init__(self, ground: Ground, board: Board) -> None:
        self.ground = ground
        self.board = board
        self.alive: list[Row] = []
        self.seen = 0

    def look(self) -> list[Row]:
        """The rows of processes that live. One that ended by itself is a failure."""
        rows = self.board.rows(self.seen)
        self.alive += rows
        self.seen += len(rows)
        kept = []
        for row in self.alive:
            if row.pid == 0:
                # Claimed, not yet signed; its process is either about to or was killed.
                kept.append(row)
            elif is_alive(row.pid):
                kept.append(row)
            else:
                self.ground.fail(f"process {row.pid} ended though nobody killed it")
        self.alive = kept
        return [row for row in kept if row.pid]

    def kill_one(self) -> bool:
        """Kills somebody, if there is somebody to kill."""
        rows = self.look()
        if not rows:
            return False
        is_young = self.ground.rng.randrange(YOUNG) == 0
        row = rows[-1] if is_young else self.ground.rng.choice(rows)
        return self.kill(row)

    def kill(self, row: Row) -> bool:
        row.leave()
        if not send(row.pid, signal.SIGKILL):
            return False
        self.alive.remove(row)
        self.ground.outcome.kills += 1
        return True


def interval(ground: Ground) -> float:
    """When the next kill is due."""
    return time.monotonic() + ground.rng.uniform(*INTERVAL_S)


def torment(ground: Ground, killer: Killer, kills_min: int = KILLS_MIN) -> Watcher:
    """Kills and reads pages until the time is over, at least `kills_min` times."""
    board = killer.board
    watcher = Watcher(ground, board)
    ground.until(lambda: os.path.exists(ground.segment()), "the segment is there")
    ground.until(lambda: board.total(STEPS) > 0, f"somebody counts: {ground.log()}")
    ground.restart_clock()
    while ground.has_time or ground.outcome.kills < kills_min:
        due = interval(ground)
        watcher.look()
        time.sleep(max(0.0, due - time.monotonic()))
        ground.until(killer.kill_one, f"there is somebody to kill: {ground.log()}")
        if ground.elapsed_s > ground.seconds / 3 and ground.outcome.kills > kills_min / 2:
            watcher.note_size()
        if ground.is_bad:
            break
    return watcher


def multiprocessing(ground: Ground, method: str, kills_min: int = KILLS_MIN) -> None:
    """The case of one start method."""
    board = ground.board()
    arguments = ["-m", "agent.torture.program", method, "--board", board.path]
    arguments += ["--workers", str(WORKERS)]
    program = ground.start(*arguments)
    watcher = torment(ground, Killer(ground, board), kills_min)
    board.stop()
    ground.until(lambda: program.poll() is not None, "the program ends")
    if program.returncode or board.strange:
        ground.fail(
            f"the program ended with {program.returncode}, {board.strange} of its children without"
            f" being killed: {ground.log()}"
        )
    watcher.settle()


def fork(ground: Ground) -> None:
    multiprocessing(ground, "fork")


def spawn(ground: Ground) -> None:
    multiprocessing(ground, "spawn", kills_min=5)


def forkserver(ground: Ground) -> None:
    multiprocessing(ground, "forkserver")
