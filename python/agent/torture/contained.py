"""One byte of a segment flipped, and what of the file is wrong then.

Purpose: a byte of a segment that was left in peace is flipped, a process counts in it, and
everything is compared. What is not exact is one family, or the file says that it is damaged. A
family of which a series is on the page twice is not exact: it was made anew where damage hides the
first.

What is promised of page words is less, and judged by that: series that stand in this page of memory
may be missing; what is shown is exact. So one trial of so many is for such a word. Another one
flips nothing and must be exact: a comparison that takes anything for damage finds nothing.

Limits: a process that raises anything but AmountError, which says that a counter is damaged, did
not hold, whatever the page says.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import agent
from agent._native import inspect, render_segment

from .damage import Flipper
from .ground import Ground
from .page import PageError
from .witness import (
    ROUNDS_FIRST,
    SAID,
    Pristine,
    Values,
    after,
    in_child,
    page_words,
    values,
)

TRIALS_MIN = 40
INCREMENTS = 3
# Of so many trials the first is without damage, and the one after it is for a page word.
EVERY = 10


def contained(ground: Ground) -> None:
    """The case."""
    warnings.simplefilter("ignore")
    judge = Judge(ground)
    flipper = Flipper(ground, judge.path)
    ground.figure("bytes", len(flipper.places))
    ground.restart_clock()
    trials = 0
    while (ground.has_time or trials < TRIALS_MIN) and not ground.is_bad:
        mask = ground.rng.randrange(1, 256)
        place = flipper.choose(2)
        if trials % EVERY == 0:
            mask = 0
        elif trials % EVERY == 1:
            place = ground.rng.choice(judge.page_words)
        flipper.flip(place, mask)
        judge.trial(place, mask)
        flipper.close()
        judge.pristine.put_back()
        flipper.descriptor = os.open(judge.path, os.O_RDWR)
        trials += 1
        ground.add("bytes flipped", bool(mask))
        ground.tick()
    flipper.close()


class Judge:
    """Knows what the file said, and says what is wrong with what it says."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.path = os.path.join(ground.segments, f"witness.v{agent._native.LAYOUT_VERSION}.seg")
        if in_child(self.path, ROUNDS_FIRST) != 0:
            raise AssertionError("the witness cannot be made")
        self.reference, _ = values(render_segment(self.path))
        self.created_ms = inspect(self.path, series_shown_max=0)["header"]["created_unix_ms"]
        self.page_words = page_words(self.path)
        self.pristine = Pristine(self.path)

    def trial(self, place: int, mask: int) -> None:
        """Counts in the file as it is now, and compares."""
        ground, what = self.ground, f"byte {place:#x} ^ {mask:#x}" if mask else "no byte"
        how = in_child(self.path, INCREMENTS, ground.sabotage)
        if how is None:
            ground.fail(f"{what}: a process that counts hangs")
        elif how < 0:
            ground.fail(f"{what}: a process that counts dies of signal {-how}")
        elif how not in (0, SAID):
            ground.fail(f"{what}: a process that counts ends with {how}: {ground.log('case.log')}")
        else:
            self._compare(what, place, is_said=how == SAID, is_damaged=mask != 0)

    def _compare(self, what: str, place: int, *, is_said: bool, is_damaged: bool) -> None:
        ground = self.ground
        try:
            seen, twice = values(ground.shown(render_segment(self.path)))
            is_said = is_said or self._says(seen)
        except PageError as error:
            ground.fail(f"{what}: the page is not valid: {error}")
            return
        except agent.SegmentError as error:
            if is_damaged:
                ground.add("said")
            else:
                ground.fail(f"{what}: {error}")
            return
        ground.outcome.pages += 1
        wrong = self._wrong(seen) | twice
        if twice:
            ground.add("of which a series was shown twice")
        if not is_damaged:
            ground.add("without damage")
            if wrong or is_said:
                ground.fail(f"no byte was damaged, and {sorted(wrong) or 'nothing'} is wrong")
        elif is_said:
            ground.add("said")
        elif not wrong:
            ground.add("without effect")
        elif place in self.page_words:
            self._missing(what, seen)
        elif len(wrong & self.reference.keys()) <= 1 and len(wrong - self.reference.keys()) <= 1:
            # Its own name may be what was damaged.
            ground.add("one family")
        else:
            ground.fail(f"{what}: {sorted(wrong)} are wrong and nothing says so")

    def _says(self, seen: Values) -> bool:
        """The product's own words: on the page, in the folder, in the file."""
        told = inspect(self.path, series_shown_max=0)
        others = [name for name in os.listdir(self.ground.segments) if not name.startswith(".")]
        # A new time of creation says that everything began anew, as after a reboot.
        return (
            told["header"]["created_unix_ms"] != self.created_ms
            or told["usage"]["damage"] > 0
            or any(name.startswith("agent_") for name in seen)
            or others != [os.path.basename(self.path)]
        )

    def _wrong(self, seen: Values) -> set[str]:
        """Families that are not what they must be."""
        return {
            name
            for name in self.reference.keys() | seen.keys()
            if seen.get(name) != after(self.reference.get(name), INCREMENTS)
        }

    def _missing(self, what: str, seen: Values) -> None:
        """Of a page word: what is shown is exact."""
        self.ground.add("page words of which series are missing")
        expected: dict[Any, float] = {}
        for family in self.reference.values():
            expected.update(after(family, INCREMENTS) or {})
        for family in seen.values():
            for series, value in family.items():
                if expected.get(series) != value:
                    self.ground.fail(
                        f"{what}, a page word: {series} is {value:.10g}, not {expected.get(series)}"
                    )
