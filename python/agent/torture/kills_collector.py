"""SIGKILL of every process of the collector under acknowledged load.

Purpose: acknowledged <= counted <= sent at every page and at the end, each page valid, and no
counter ever goes back, whether a worker, the front end, the aggregator or the supervisor dies. An
app's metrics beside it stay exact.
"""

from __future__ import annotations

import time

from .board import Board
from .collector import Senders, Serving
from .ground import Ground
from .kills import INTERVAL_S
from .page import Page, PageError
from .watch import Watcher

KILLS_MIN = 10
# One of so many kills takes the supervisor, and with it all others.
SUPERVISOR = 40
# The kernel cuts names of processes to 15 characters.
PARTS = {"agent-aggregato": "agent-aggregator"}
SAMPLES = {"lines": "torture_lines_total", "pushes": "torture_pushes_total"}


def collector(ground: Ground) -> None:
    board = Board(ground.path("board"))
    app = ground.start(
        "-m", "agent.torture.program", "fork", "--board", board.path, "--workers", "1"
    )
    serving = Serving(ground)
    senders = Senders(serving, ground.rng.randrange(1 << 20))
    watcher = Watcher(ground, board, serving.page)
    senders.start()
    names: set[str] = set()
    ground.until(lambda: all(senders.account()[1].values()), "the collector acknowledges")
    ground.until(lambda: Page(serving.page()).total("steps_total") > 0, "it shows the app")
    ground.restart_clock()
    while ground.has_time or ground.outcome.kills < KILLS_MIN:
        due = time.monotonic() + ground.rng.uniform(*INTERVAL_S)
        look(ground, senders, watcher, serving)
        time.sleep(max(0.0, due - time.monotonic()))
        number = ground.outcome.kills
        parts = sorted(serving.parts())
        # Once in any case, so that short runs have it too.
        is_all = number == KILLS_MIN // 2 or ground.rng.randrange(SUPERVISOR) == 0
        if not parts and not is_all:
            continue
        name = "supervisor" if is_all else ground.rng.choice(parts)
        if serving.kill(name):
            ground.outcome.kills += 1
            ground.add(f"kills of {PARTS.get(name, name)}")
            names.add(name)
        if ground.is_bad:
            break
    board.stop()
    senders.stop()
    ground.until(lambda: app.poll() is not None, "the app ends")
    look(ground, senders, watcher, serving)
    watcher.look(0)
    sent, acknowledged = senders.account()
    counted = Page(serving.page())
    for what, sample in SAMPLES.items():
        ground.figure(f"{what} acknowledged", acknowledged[what])
        ground.figure(f"{what} counted above", counted.total(sample) - acknowledged[what])
        ground.figure(f"{what} sent above", sent[what] - acknowledged[what])
    ground.outcome.operations += sum(acknowledged.values())
    serving.stop()


def look(ground: Ground, senders: Senders, watcher: Watcher, serving: Serving) -> None:
    """A page of the collector against the senders' account and against the app's board."""
    _, acknowledged = senders.account()
    try:
        page = Page(serving.page())
    except PageError as error:
        ground.fail(f"a page of the collector is not valid: {error}")
        return
    sent, _ = senders.account()
    for what, sample in SAMPLES.items():
        counted = page.total(sample)
        if not acknowledged[what] <= counted <= sent[what]:
            ground.fail(
                f"{sample}: a page says {counted:.10g}; {acknowledged[what]} were acknowledged"
                f" before it, {sent[what]} sent after it"
            )
    watcher.look(1)
