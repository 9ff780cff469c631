"""Where the supervisor meets the compiled part: the segment, the ledger, and the lives of its
children.

Purpose: the only module of the supervisor that imports `_native`.

A child is forked by Rust and never runs Python: SIGTERM ("drain this worker"), deadlines and the
control pipe are Rust's business, and what it does not touch costs it no memory. It closes the
listening sockets of its siblings and nothing that it was given.
"""

from __future__ import annotations

from typing import Any, Literal

from agent import _native
from agent.config_limits import Series
from agent.errors import SegmentError

__all__ = [
    "APP",
    "Child",
    "Registry",
    "SegmentError",
    "fork_children",
    "inspect",
    "open_registry",
    "settle",
    "writers",
]

# The collector's own app; its segment lies beside those of the programs.
APP = "agent"

Registry = _native.Registry


def segment_path(folder: str) -> str:
    return f"{folder}/{APP}.v{_native.LAYOUT_VERSION}.seg"


def open_registry(path: str, series: Series) -> Registry:
    """Creates or opens the collector's segment. Raises SegmentError with the reason."""
    return _native.open_segment(
        path,
        APP,
        series_max=series.series_max,
        metric_series_max=series.metric_series_max,
        metrics_max=series.metrics_max,
        bytes_max=series.segment_bytes_max,
    )


def inspect(path: str) -> dict[str, Any]:
    """What a segment's header says. Raises SegmentError with the reason when it is none."""
    return _native.inspect(path, series_shown_max=0)


def settle(path: str, place: str) -> int:
    """Books what a dead worker, or the desk, received and never applied as rejected; returns how
    much it was.
    """
    return _native.settle_worker(path, place)


def writers(path: str) -> str:
    """The processes that write to a segment, for people; whoever only reads it is not there."""
    try:
        slots = inspect(path)["slots"]
    except SegmentError:
        slots = []
    found = [f"{_process_name(slot['pid'])} (pid {slot['pid']})" for slot in slots if slot["alive"]]
    return ", ".join(found) or "unknown processes"


def _process_name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "process"


# What it is, its name, its settings, the descriptors it closes.
Child = tuple[Literal["worker", "aggregator"], str, bytes, list[int]]


def fork_children(children: list[Child]) -> list[int]:
    """Forks them; returns their pids, negative where it failed: -errno."""
    return _native.fork_children(children)
