"""`python -m agent.torture.program METHOD`: an app of processes, started as users start it.

Purpose: a parent that keeps as many children alive as it was told, by one of multiprocessing's
start methods, and starts another one for each that was killed. It ends when the board says so.
`single` is a program of one process.

A child that ends without SIGKILL before the board said stop is noted there as strange.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
from multiprocessing.connection import wait
from typing import Any

from agent.torture.board import Board

LOOK_S = 0.05


def work(path: str, options: argparse.Namespace) -> None:
    """A child."""
    # Here, so that a spawned child imports the metrics as a worker module does.
    from agent.torture.processes import die_with_parent
    from agent.torture.work import Work

    # A forkserver's children belong to it, and it ends with its parent.
    die_with_parent()
    made = Work(Board(path), options.spread, options.late)
    if options.damaged:
        made.until_stopped_though_damaged()
    else:
        made.until_stopped()


def main() -> None:
    given = argparse.ArgumentParser()
    given.add_argument("method", choices=["fork", "spawn", "forkserver", "single"])
    given.add_argument("--board", required=True)
    given.add_argument("--workers", type=int, default=4)
    given.add_argument("--spread", type=int, default=24, help="label sets of one metric")
    given.add_argument("--late", action="store_true", help="defines large metrics of its own")
    given.add_argument("--damaged", action="store_true", help="takes AmountError for possible")
    options = given.parse_args()
    board = Board(options.board)
    if options.method == "single":
        work(options.board, options)
        return
    if options.method == "fork":
        # As a server with preloaded code: the metrics are there before the fork.
        from agent.torture import work as _metrics  # noqa: F401
    context: Any = multiprocessing.get_context(options.method)
    alive: list[Any] = []
    while not board.is_stopped:
        while len(alive) < options.workers:
            child = context.Process(target=work, args=(options.board, options))
            child.start()
            alive.append(child)
        wait([child.sentinel for child in alive], LOOK_S)
        alive = [child for child in alive if not _ended(child, board)]
    for child in alive:
        child.join()
        _ended(child, board)
    # Without the handlers of multiprocessing: there is nothing to clean up but the forkserver,
    # which ends with this process.
    os._exit(0)


def _ended(child: Any, board: Board) -> bool:
    code = child.exitcode
    if code is None:
        return False
    if code != -signal.SIGKILL and not (code == 0 and board.is_stopped):
        board.note_strange()
        print(f"child {child.pid} ended with {code}", flush=True)
    child.close()
    return True


if __name__ == "__main__":
    main()
