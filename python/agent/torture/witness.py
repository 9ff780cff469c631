"""The segment that is damaged one byte at a time: who counts in it, and what it must say.

Purpose: a few families of every form, each series counted equally often, so that what a page must
say follows from a number. `sabotage` makes the one who counts wrong, as a fault of the product
would.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import agent
from agent._native import inspect, open_segment

from . import sabotage as wrong
from .extents import extents
from .page import Page

ROUNDS_FIRST = 50
SERIES = 12
TRIAL_S = 20
# Exit codes: everything was counted; something went elsewhere, which the product said.
SAID = 3
# Of the layout: the header, and one word for so many bytes behind the heads of the map.
HEADER_BYTES = 4096
PAGE_BYTES = 16 * 1024

# By family, its series and values.
Values = dict[str, dict[Any, float]]


def in_child(path: str, rounds: int, sabotage: str | None = None) -> int | None:
    """A process that counts in the file. Its exit code, minus the signal; None when it hangs."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(_count(path, rounds, sabotage))
        except BaseException as error:  # noqa: BLE001 - a child of a fork must not return
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
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


def _count(path: str, rounds: int, sabotage: str | None) -> int:
    """Every series, `rounds` times. SAID when it counts elsewhere."""
    registry = open_segment(path, "witness", series_max=2000)
    families = [
        agent.Counter(f"counter_{number}", "C.", ["a"], registry=registry) for number in range(4)
    ]
    sizes = agent.Histogram("sizes", "S.", ["a"], buckets=[1, 2, 4], registry=registry)
    level = agent.Gauge("level", "G.", registry=registry)
    is_said = False
    for _ in range(rounds):
        for number in range(SERIES):
            label = f"label {number}"
            try:
                for family in families:
                    family.labels(label).inc()
                sizes.labels(label).observe(number % 5)
            except agent.AmountError:
                is_said = True
        level.inc()
    first = families[0].labels("label 0")
    if sabotage == wrong.LOST:
        level.dec()
    elif sabotage == wrong.TWICE:
        first.inc()
    elif sabotage == wrong.LABEL:
        families[0].labels("label of nobody").inc()
    registry.render()
    return SAID if is_said or registry.fallback is not None else 0


def values(page: bytes) -> tuple[Values, set[str]]:
    """By family, its series and values; and families of which a series is there twice.

    Raises PageError for everything else that a scraper would refuse.
    """
    kept: list[bytes] = []
    seen: set[bytes] = set()
    twice: set[str] = set()
    for line in page.splitlines(keepends=True):
        series = line.rpartition(b" ")[0]
        if not line.startswith(b"#") and series in seen:
            twice.add(_family(series.partition(b"{")[0].decode(errors="replace")))
        else:
            seen.add(series)
            kept.append(line)
    found: Values = {}
    for name, samples in Page(b"".join(kept)).samples.items():
        found.setdefault(_family(name), {}).update({(name, one): v for one, v in samples.items()})
    return found, twice


def _family(sample: str) -> str:
    return "sizes" if sample.startswith("sizes_") else sample


def after(before: dict[Any, float] | None, rounds: int) -> dict[Any, float] | None:
    """The values of a family that was counted in `rounds` times more."""
    if before is None:
        return None
    return {key: value * (ROUNDS_FIRST + rounds) / ROUNDS_FIRST for key, value in before.items()}


def page_words(path: str) -> range:
    """Where the words of pages in use stand: one for each page of memory, see layout.rs."""
    told = inspect(path, series_shown_max=0)
    heads = 1
    while heads < told["header"]["series_max"] // 2:
        heads *= 2
    start = HEADER_BYTES + 8 * heads
    with open(path, "rb") as file:
        file.seek(start)
        words = file.read(8 * (told["usage"]["bytes_committed"] // PAGE_BYTES))
    used = 0
    while any(words[used : used + 8]):
        used += 8
    return range(start, start + used)


class Pristine:
    """A copy of the file, to be put back."""

    def __init__(self, path: str) -> None:
        self.path = path
        with open(path, "rb") as file:
            descriptor = file.fileno()
            self._size = os.fstat(descriptor).st_size
            self._data = [
                (start, os.pread(descriptor, end - start, start))
                for start, end in extents(descriptor)
            ]

    def put_back(self) -> None:
        """Removes the file and all others of its folder, and makes it anew."""
        folder = os.path.dirname(self.path)
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.ftruncate(descriptor, self._size)
            for start, data in self._data:
                os.pwrite(descriptor, data, start)
        finally:
            os.close(descriptor)
