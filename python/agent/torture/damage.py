"""Bytes of a segment flipped, under living writers and readers, and one at a time with a witness.

Purpose: `bytes` flips while an app counts, a neighbour counts, and a collector shows both: nobody
crashes or hangs, the collector's page stays valid, the neighbour stays exact. `contained` flips one
byte of a segment that was left in peace, lets a process count in it, and compares everything: what
is not exact is one family, or the file says that it is damaged.

Limits: a flip is undone after a moment in `bytes`, which races with writers as damage does. Bytes
come in an order of the seed that meets all of them once, if the run is long enough, before any
twice; bytes that are not zero come more often.
"""

from __future__ import annotations

import math
import os
import random
import signal
import time
import warnings
from array import array
from collections.abc import Iterator
from typing import Any

import agent
from agent._native import inspect, open_segment, render_segment

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
LOOKS_MIN = 3
TRIALS_MIN = 40
TRIAL_S = 20
INCREMENTS = 3
SERIES = 12
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


def contained(ground: Ground) -> None:
    """One byte, one process that counts in the damaged file, one comparison."""
    warnings.simplefilter("ignore")
    path = os.path.join(ground.segments, f"witness.v{agent._native.LAYOUT_VERSION}.seg")
    _in_child(path, rounds=50)
    reference = _values(render_segment(path))
    created_ms = inspect(path, series_shown_max=0)["header"]["created_unix_ms"]
    pristine = _load(path)
    flipper = Flipper(ground, path)
    ground.figure("bytes", len(flipper.places))
    ground.restart_clock()
    trials = 0
    while ground.has_time or trials < TRIALS_MIN:
        place, mask = flipper.choose(2), ground.rng.randrange(1, 256)
        flipper.flip(place, mask)
        _judge(ground, path, reference, created_ms, f"byte {place:#x} ^ {mask:#x}")
        flipper.close()
        for name in os.listdir(ground.segments):
            os.unlink(os.path.join(ground.segments, name))
        _store(path, pristine)
        flipper.descriptor = os.open(path, os.O_RDWR)
        trials += 1
        ground.tick()
    ground.figure("bytes flipped", trials)
    flipper.close()


def _judge(
    ground: Ground, path: str, reference: dict[str, Any], created_ms: int, what: str
) -> None:
    how = _in_child(path, rounds=INCREMENTS)
    if how is None:
        ground.fail(f"{what}: a process that counts hangs")
        return
    if how < 0:
        ground.fail(f"{what}: a process that counts dies of signal {-how}")
        return
    is_said = how == SAID or any(
        name != os.path.basename(path) and not name.startswith(".")
        for name in os.listdir(ground.segments)
    )
    try:
        seen = _values(render_segment(path))
        told = inspect(path, series_shown_max=0)
        # A new time of creation says that everything began anew, as after a reboot.
        is_new = told["header"]["created_unix_ms"] != created_ms
        is_said = is_said or is_new or told["usage"]["damage"] > 0
    except (agent.SegmentError, PageError):
        ground.add("said")
        return
    # The product's own words about what is missing on its page.
    is_said = is_said or any(name.startswith("agent_") for name in seen)
    wrong = {
        name
        for name in reference.keys() | seen.keys()
        if seen.get(name) != _after(reference.get(name), INCREMENTS)
    }
    if is_said:
        ground.add("said")
    elif not wrong:
        ground.add("without effect")
    elif len(wrong & reference.keys()) <= 1 and len(wrong - reference.keys()) <= 1:
        # Its own name may be what was damaged.
        ground.add("one family")
    else:
        ground.add("several families")
        ground.fail(f"{what}: {sorted(wrong)} are wrong and nothing says so")


SAID = 3


def _in_child(path: str, rounds: int) -> int | None:
    """A process that counts in the file. Its exit code, minus the signal; None when it hangs."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(_count(path, rounds))
        except BaseException:  # noqa: BLE001 - a child of a fork must not return
            os._exit(1)
    deadline = time.monotonic() + TRIAL_S
    while True:
        ended, code = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(code)
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        time.sleep(0.0005)


def _count(path: str, rounds: int) -> int:
    """Every series of the witness, `rounds` times. SAID when it counts elsewhere."""
    registry = open_segment(path, "witness", series_max=2000)
    families = [
        agent.Counter(f"counter_{number}", "C.", ["a"], registry=registry) for number in range(4)
    ]
    sizes = agent.Histogram("sizes", "S.", ["a"], buckets=[1, 2, 4], registry=registry)
    level = agent.Gauge("level", "G.", registry=registry)
    is_said = False
    for _ in range(rounds):
        for number in range(SERIES):
            try:
                for family in families:
                    family.labels(f"label {number}").inc()
                sizes.labels(f"label {number}").observe(number % 5)
            except agent.AmountError:
                is_said = True
        level.inc()
    registry.render()
    return SAID if is_said or registry.fallback is not None else 0


def _values(page: bytes) -> dict[str, Any]:
    """By family, its series and values."""
    read = Page(page)
    found: dict[str, Any] = {}
    for name, series in read.samples.items():
        family = "sizes" if name.startswith("sizes_") else name
        found.setdefault(family, {}).update({(name, labels): v for labels, v in series.items()})
    return found


def _after(before: dict[Any, float] | None, rounds: int) -> dict[Any, float] | None:
    """The values of a family that was counted in `rounds` times more."""
    if before is None:
        return None
    return {key: value * (50 + rounds) / 50 for key, value in before.items()}


def _load(path: str) -> list[tuple[int, bytes]]:
    with open(path, "rb") as file:
        descriptor = file.fileno()
        data = [
            (start, os.pread(descriptor, end - start, start)) for start, end in extents(descriptor)
        ]
        return [*data, (os.fstat(descriptor).st_size, b"")]


def _store(path: str, pristine: list[tuple[int, bytes]]) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.ftruncate(descriptor, pristine[-1][0])
        for start, data in pristine[:-1]:
            os.pwrite(descriptor, data, start)
    finally:
        os.close(descriptor)
