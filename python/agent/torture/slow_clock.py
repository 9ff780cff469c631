"""Wall clocks mean nothing: that of an app steps by a year, under all of its processes.

Purpose: nobody loses a slot for it, everybody goes on counting, and whoever begins in another time
than the others counts with them.

Limits: the clock of the machine is not touched, which would hit everybody on it. That of the app's
processes is moved, which is what they see of such a step; `clock` has how.
"""

from __future__ import annotations

import time

from .clock import Clock
from .ground import Ground, NotHeldError
from .slow import App, slots

STEPS_MIN = 6
DAY_S = 86_400
YEAR_S = 365 * DAY_S


def clock(ground: Ground) -> None:
    """The wall clock of the app steps a year back and a year ahead, under all of its processes.

    The reader's own stays, so that times in the segment are also a year from those who read them.
    """
    moved = Clock(ground)
    app = App(ground, env=moved.environment, pass_fds=moved.pass_fds)
    steps = newcomers = 0
    while ground.has_time or steps < STEPS_MIN:
        identities = {(s["index"], s["generation"]) for s in slots(ground) if s["alive"]}
        by = (-YEAR_S, YEAR_S, 0)[steps % 3]
        moved.move(by)
        rows = app.rows()
        before = {row.index: row.tallied() for row in rows}
        ground.until(
            lambda: all(row.tallied() > before[row.index] + 500 for row in rows),  # noqa: B023
            "everybody goes on counting",
        )
        app.watcher.look()
        alive = {(s["index"], s["generation"]) for s in slots(ground) if s["alive"]}
        if not identities <= alive:
            ground.fail(f"living slots {identities - alive} were taken over")
        # A newcomer begins in a time that is not that of the others.
        ground.until(app.killer.kill_one, "there is somebody to kill")
        newcomers += _began_at(ground, app, by)
        steps += 1
        if ground.is_bad:
            break
    ground.figure("steps of the clock", steps)
    ground.figure("began in another time", newcomers)
    if not newcomers and not ground.is_bad:
        raise NotHeldError("the clocks did not move: no process began in another time")
    app.finish()


def _began_at(ground: Ground, app: App, by: int) -> int:
    """How many of the living slots say that they began about `by` seconds from now."""
    pids = {row.pid for row in app.rows()}
    wanted = time.time() + by
    began = [s["started_unix_ms"] / 1000 for s in slots(ground) if s["alive"] and s["pid"] in pids]
    return sum(by != 0 and abs(at - wanted) < DAY_S for at in began)
