"""Bytes of a segment flipped, under living writers and readers.

Purpose: bytes are flipped while an app counts, a neighbour counts, and a collector shows both:
nobody crashes or hangs, the collector's page stays valid, the neighbour stays exact.

Limits: a flip is undone after a moment, which races with writers as damage does. Bytes come in an
order of the seed that meets all of them once, if the run is long enough, before any twice; bytes
that are not zero come more often.
"""

from __future__ import annotations

import math
import os
import random
import time
from array import array
from collections.abc import Iterator

import agent
from agent._native import inspect, render_segment

from .board import Board
from .collector import Serving
from .extents import extents
from .ground import Ground
from .kills import Killer
from .page import Page, PageError
from .tallies import RAISED, STEPS
from .watch import Watcher

FLIPS = 32
HELD_S = 0.002
# Between two looks at everything else.
BATCHES = 20
LOOKS_MIN = 5
MODULE = ("-m", "agent.torture.program")
NEIGHBOUR = "neighbour"


class Flipper:
    """A file whose bytes are flipped by seed."""

    def __init__(self, ground: Ground, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDWR)
        # Compact, because processes are forked from this one.
        self.places, self.used = array("Q"), array("Q")
        for start, end in extents(self.descriptor):
            data = os.pread(self.descriptor, end - start, start)
            self.used.extend(start + at for at, byte in enumerate(data) if byte)
            self.places.extend(range(start, end))

        # Two walks that meet every byte once before any byte twice, in an order of the seed.
        self.walk_used, self.walk_all = _walk(self.used, ground.rng), _walk(self.places, ground.rng)
        self.chosen = 0

    def choose(self, used_every: int) -> int:
        """Any byte; one of so many is one that was not zero."""
        self.chosen += 1
        return next(self.walk_all if self.chosen % used_every else self.walk_used)

    def flip(self, place: int, mask: int) -> None:
        byte = os.pread(self.descriptor, 1, place)[0]
        os.pwrite(self.descriptor, bytes([byte ^ mask]), place)

    def close(self) -> None:
        os.close(self.descriptor)


def _walk(places: array[int], rng: random.Random) -> Iterator[int]:
    size = len(places)
    at, step = rng.randrange(size), rng.randrange(size // 3, size // 2)
    while math.gcd(step, size) != 1:
        step += 1
    while True:
        yield places[at]
        at = (at + step) % size


def under_writers(ground: Ground) -> None:
    """`bytes`."""
    victim, neighbour = ground.board(), ground.board("neighbour")
    programs = [
        ground.start(*MODULE, "fork", "--board", victim.path, "--workers", "3", "--damaged"),
        ground.start(
            *(*MODULE, "fork", "--board", neighbour.path, "--workers", "1"),
            app=NEIGHBOUR,
            log="neighbour.log",
        ),
    ]
    serving = Serving(ground, workers=1)
    killers = [Killer(ground, board) for board in (victim, neighbour)]
    watcher = Watcher(ground, neighbour, serving.page, app=NEIGHBOUR)
    ground.until(lambda: victim.total(STEPS) > 500, f"the app counts: {ground.log()}")
    ground.until(lambda: neighbour.total(STEPS) > 500, "the neighbour counts")
    ground.until(lambda: is_shown(serving, NEIGHBOUR), "the collector shows it")
    parts = serving.parts()
    flipper = Flipper(ground, ground.segment())
    ground.figure("bytes", len(flipper.places))
    ground.restart_clock()
    looks = 0
    while ground.has_time or looks < LOOKS_MIN:
        for _ in range(BATCHES):
            flips = [(flipper.choose(8), ground.rng.randrange(1, 256)) for _ in range(FLIPS)]
            for place, mask in flips:
                flipper.flip(place, mask)
            time.sleep(HELD_S)
            _read_damaged(ground)
            for place, mask in flips:
                flipper.flip(place, mask)
            ground.add("bytes flipped", FLIPS)
        _all_well(ground, killers)
        watcher.look()
        if serving.parts() != parts:
            ground.fail(f"a process of the collector ended: {parts} became {serving.parts()}")
        looks += 1
        if ground.is_bad:
            break
    flipper.close()
    for board in (victim, neighbour):
        board.stop()
    for program in programs:
        ground.until(lambda: program.poll() is not None, "the programs end")  # noqa: B023
        if program.returncode:
            ground.fail(f"a program ended with {program.returncode}: {ground.log()}")
    if victim.strange or neighbour.strange:
        ground.fail(f"a process ended by itself: {ground.log()}")
    ground.add("amounts refused", sum(row.tally(RAISED) for row in victim.rows()))
    watcher.look()
    neighbour_of(ground, neighbour).balance()
    serving.stop()


def neighbour_of(ground: Ground, board: Board) -> Watcher:
    """Reads the neighbour's own segment; its collector is another reader."""
    return Watcher(ground, board, lambda: render_segment(ground.segment(NEIGHBOUR)))


def is_shown(serving: Serving, app: str) -> bool:
    """An app is on the collector's page."""
    return Page(serving.page()).value("steps_total", app=app) is not None


def _read_damaged(ground: Ground) -> None:
    """As a reader of the damaged file: anything but an end of this process is an answer."""
    try:
        Page(render_segment(ground.segment()))
        ground.outcome.pages += 1
        inspect(ground.segment(), series_shown_max=100)
    except PageError:
        ground.add("own pages with damaged text")
    except agent.SegmentError:
        ground.add("readings refused")
    ground.tick()


def _all_well(ground: Ground, killers: list[Killer]) -> None:
    """Everybody lives and goes on."""
    for killer in killers:
        rows = killer.look()
        before = {row.index: row.tallied() for row in rows}
        ground.until(
            lambda: all(row.tallied() > before[row.index] for row in rows),  # noqa: B023
            "every process goes on counting",
        )
