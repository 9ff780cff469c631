"""The collector's own segment at the start: the one of the last run, unless it no longer fits.

Purpose: counters go on over a restart. Two things end that, each with one record in the log that
says so:

* the file is damaged: it is moved to `*.damaged`, for whoever wants to know why;
* its limits are not those of the settings (they are fixed when a segment is made): it is removed.

A metric that another version defined otherwise begins anew, alone.

Called while the folder is locked, so no other collector uses the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from agent.config_limits import Series
from agent.log import Log

from . import worker

T = TypeVar("T")

# Setting: name in the segment's header.
FIXED = {
    "series_max": "series_max",
    "metric_series_max": "metric_series_max",
    "metrics_max": "metrics_max",
    "segment_bytes_max": "bytes_max",
}


def open_with(
    path: str, series: Series, log: Log, build: Callable[[worker.Registry], T]
) -> tuple[worker.Registry, T]:
    """The registry and what `build` makes of it. Raises SegmentError when there can be none."""
    _make_room(path, series, log)
    registry = worker.open_registry(path, series)
    return registry, build(registry)


def _make_room(path: str, series: Series, log: Log) -> None:
    """Moves a file that cannot be used out of the way."""
    if not os.path.lexists(path):
        return
    try:
        header = worker.inspect(path)["header"]
    except worker.SegmentError as error:
        aside = f"{path}.damaged"
        os.replace(path, aside)
        log.error("the segment cannot be used; counters begin anew", why=str(error), kept=aside)
        return
    changed = [
        f"series.{setting} ({header[name]} to {getattr(series, setting)})"
        for setting, name in FIXED.items()
        if header[name] != getattr(series, setting)
    ]
    if changed:
        os.unlink(path)
        log.warning("limits have changed; counters begin anew", changed=", ".join(changed))
