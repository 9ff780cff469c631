"""SIGKILL of every process of the collector under acknowledged load.

Purpose: acknowledged <= counted <= sent at every page and at the end, each page valid, and no
counter ever goes back, whether a worker, the front end, the aggregator or the supervisor dies. An
app's metrics beside it stay exact.
"""

from __future__ import annotations

import time

from .collector import Serving
from .ground import APP, Ground
from .kills import INTERVAL_S
from .page import Page, PageError
from .senders import Account, Senders
from .watch import Watcher

KILLS_MIN = 10
# One of so many kills takes the supervisor, and with it all others.
SUPERVISOR = 40
# The kernel cuts names of processes to 15 characters.
PARTS = {"agent-aggregato": "agent-aggregator"}
SAMPLES = {"lines": "torture_lines_total", "pushes": "torture_pushes_total"}


class Ledger:
    """What senders say, against the pages of the collector, one after the other."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.before = dict.fromkeys(SAMPLES, 0.0)

    def judge(self, page: Page, acknowledged: Account, sent: Account) -> None:
        """`acknowledged` is of a moment before the page was asked for, `sent` of one after it."""
        for what, sample in SAMPLES.items():
            counted = page.total(sample)
            if not acknowledged[what] <= counted <= sent[what]:
                self.ground.fail(
                    f"{sample}: a page says {counted:.10g}; {acknowledged[what]} were acknowledged"
                    f" before it, {sent[what]} sent after it"
                )
            if counted < self.before[what]:
                self.ground.fail(f"{sample} went from {self.before[what]:.10g} to {counted:.10g}")
            self.before[what] = counted


def collector(ground: Ground) -> None:
    board = ground.board()
    app = ground.start(
        "-m", "agent.torture.program", "fork", "--board", board.path, "--workers", "1"
    )
    serving = Serving(ground)
    senders = Senders(serving, ground.rng.randrange(1 << 20), ground.sabotage)
    ledger = Ledger(ground)
    watcher = Watcher(ground, board, serving.page, app=APP)
    senders.start()
    ground.until(lambda: all(senders.account()[1].values()), "the collector acknowledges")
    ground.until(lambda: Page(serving.page()).total("steps_total") > 0, "it shows the app")
    ground.restart_clock()
    while ground.has_time or ground.outcome.kills < KILLS_MIN:
        due = time.monotonic() + ground.rng.uniform(*INTERVAL_S)
        look(ground, senders, ledger, serving)
        watcher.look()
        time.sleep(max(0.0, due - time.monotonic()))
        _kill(ground, serving)
        if ground.is_bad:
            break
    board.stop()
    senders.stop()
    ground.until(lambda: app.poll() is not None, "the app ends")
    page = look(ground, senders, ledger, serving)
    watcher.balance()
    sent, acknowledged = senders.account()
    for what, sample in SAMPLES.items():
        ground.figure(f"{what} acknowledged", acknowledged[what])
        if page is not None:
            ground.figure(f"{what} counted above", page.total(sample) - acknowledged[what])
        ground.figure(f"{what} sent above", sent[what] - acknowledged[what])
    serving.stop()


def _kill(ground: Ground, serving: Serving) -> None:
    """One part of the collector, if there is any."""
    # The supervisor once in any case, so that short runs have it too.
    number = ground.outcome.kills
    is_all = number == KILLS_MIN // 2 or ground.rng.randrange(SUPERVISOR) == 0
    parts = sorted(serving.parts())
    if not parts and not is_all:
        return
    name = "supervisor" if is_all else ground.rng.choice(parts)
    if serving.kill(name):
        ground.outcome.kills += 1
        ground.add(f"kills of {PARTS.get(name, name)}")


def look(ground: Ground, senders: Senders, ledger: Ledger, serving: Serving) -> Page | None:
    """A page of the collector against the senders' account."""
    _, acknowledged = senders.account()
    try:
        page = Page(ground.shown(serving.page()))
    except PageError as error:
        ground.fail(f"a page of the collector is not valid: {error}")
        return None
    sent, _ = senders.account()
    ledger.judge(page, acknowledged, sent)
    return page
