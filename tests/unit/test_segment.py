"""The collector's segment at the start: kept when it fits, replaced with a reason otherwise."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

import agent
from agent.config import Series
from agent.log import Log
from agent.supervisor import segment, worker


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path / "agent.v3.seg"


def orders(registry: worker.Registry) -> agent.Counter:
    return agent.Counter("orders", "Orders.", registry=registry)


def open_and_count(path: Path, series: Series) -> tuple[bytes, str]:
    """Opens the segment, adds one order; the page and the log."""
    reader, writer = os.pipe()
    registry, counter = segment.open_with(str(path), series, Log(writer, "text"), orders)
    counter.inc()
    os.close(writer)
    with os.fdopen(reader) as log:
        return registry.render(), log.read()


def test_the_segment_of_the_last_run_goes_on(path: Path) -> None:
    assert b"orders_total 1\n" in open_and_count(path, Series())[0]
    page, log = open_and_count(path, Series())
    assert b"orders_total 2\n" in page
    assert log == ""


def test_other_limits_begin_anew_and_are_named(path: Path) -> None:
    open_and_count(path, Series(series_max=1000, metric_series_max=100))
    page, log = open_and_count(path, Series(series_max=2000, metric_series_max=100))
    assert b"orders_total 1\n" in page
    assert "series.series_max (1000 to 2000)" in log
    assert worker.inspect(str(path))["header"]["series_max"] == 2000


def test_the_largest_and_smallest_limits_are_kept_as_they_are_set(path: Path) -> None:
    """The file must not bend a limit, or every restart would find a change."""
    for series in (
        Series(series_max=100, metric_series_max=1, metrics_max=100, segment_bytes_max=16 << 20),
        Series(
            series_max=50_000_000,
            metric_series_max=50_000_000,
            metrics_max=1_000_000,
            segment_bytes_max=16 << 30,
        ),
    ):
        open_and_count(path, series)
        assert open_and_count(path, series)[1] == ""


def test_a_metric_of_another_shape_begins_anew(path: Path) -> None:
    old = agent.Registry(path, "agent", **_options(Series()))
    agent.Gauge("orders", "Another version.", registry=old).set(7)
    del old
    gc.collect()
    page, log = open_and_count(path, Series())
    assert b"orders_total 1\n" in page
    assert b"orders 7" not in page
    assert log == "", "nothing else begins anew"


def test_a_damaged_file_is_kept_aside(path: Path) -> None:
    path.write_bytes(b"noise" * 1000)
    page, log = open_and_count(path, Series())
    assert b"orders_total 1\n" in page
    assert "cannot be used" in log
    assert Path(f"{path}.damaged").read_bytes() == b"noise" * 1000


def _options(series: Series) -> dict[str, int]:
    return {name: getattr(series, setting) for setting, name in segment.FIXED.items()}
