"""Where the supervisor meets the compiled part: the segment, the ledger, and the lives of its
children.

Purpose: the only module of the supervisor that imports `_native`.

A child leaves the supervisor's things alone: it closes the listening sockets of its siblings before
it goes into Rust, and Rust closes nothing that it was given. While it is there no Python code runs,
so SIGTERM ("drain this worker"), deadlines and the control pipe are Rust's business; the result is
the exit code.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agent import _native
from agent.config_limits import Series
from agent.errors import SegmentError

from .listeners import Listeners

__all__ = [
    "APP",
    "Registry",
    "SegmentError",
    "inspect",
    "keep_only",
    "open_registry",
    "run_aggregator",
    "run_worker",
    "settle",
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


def settle(path: str, worker: int) -> int:
    """Books what a dead worker received and never applied as rejected; returns how much it was."""
    return _native.settle_worker(path, worker)


def keep_only(listeners: Listeners, own: Iterable[int]) -> None:
    """Closes the listening sockets of the siblings."""
    kept = set(own)
    for sock in listeners.sockets:
        if sock.fileno() not in kept:
            sock.close()


def run_worker(config: bytes) -> int:
    """Serves until drained."""
    return _native.run_worker(config)


def run_aggregator(config: bytes) -> int:
    """Drains rings and computes windows until told to leave."""
    return _native.run_aggregator(config)
