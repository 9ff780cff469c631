"""SIGHUP: new settings are checked, then swapped everywhere or nowhere."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from collector import Collector, Samples, eventually

RULE = "[[mapping]]\nmatch = '{}.*'\nname = 'mapped_{}'\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "agent.toml"
    path.write_text(RULE.format("old", "old"))
    return path


@pytest.fixture
def running(start_collector: Callable[..., Collector], file: Path) -> Collector:
    return start_collector("--config", str(file))


def reloads(samples: Samples) -> tuple[float, float]:
    name = "agent_config_reloads_total"
    return samples.one(name, result="success"), samples.one(name, result="failure")


def hang_up(collector: Collector) -> Samples:
    """Sends SIGHUP and waits until the supervisor has counted an outcome."""
    before = reloads(collector.scrape())
    collector.process.send_signal(signal.SIGHUP)
    return eventually(collector.scrape, lambda seen: reloads(seen) != before, "an outcome")


def reload_error(collector: Collector) -> str:
    return str(collector.supervisor()["reload_error"])


def errors(collector: Collector) -> list[str]:
    found = [json.loads(line) for line in collector.log.splitlines()]
    return [str(record.get("why")) for record in found if record["level"] == "error"]


def children(collector: Collector) -> dict[str, int]:
    return {child["name"]: child["pid"] for child in collector.supervisor()["children"]}


def test_good_settings_reach_every_worker_without_a_restart(running: Collector, file: Path) -> None:
    before = children(running)
    file.write_text(RULE.format("new", "new"))
    seen = hang_up(running)
    assert reloads(seen) == (1, 0)
    assert seen.one("agent_config_last_reload_successful") == 1
    # Each connection may land at either worker.
    for _ in range(10):
        running.send_tcp([b"old.a:1|c", b"new.a:1|c"])
    seen = running.scrape()
    assert seen.one("mapped_new_total") == 10
    assert seen.one("old_a_total") == 10
    assert "mapped_old_total" not in seen
    assert children(running) == before


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("limitz = 1\n", "agent.toml:1: limitz: unknown setting (did you mean 'limits'?)"),
        ("a = \n", "not valid TOML"),
        ("workers = 9\n", "--workers"),
        ("[series]\nseries_max = 50_000\n", "a restart is needed to change series.series_max"),
        (
            "[[mapping]]\nmatch = '('\nmatch_type = 'regex'\nname = 'x'\n",
            "agent.toml:1: mapping[0]: ",
        ),
    ],
)
def test_bad_settings_change_nothing_and_say_so(
    running: Collector, file: Path, text: str, why: str
) -> None:
    file.write_text(text)
    seen = hang_up(running)
    if why == "--workers":
        # The flag still wins over the file, so nothing has changed.
        assert reloads(seen) == (1, 0)
        return
    assert reloads(seen) == (0, 1)
    assert seen.one("agent_config_last_reload_successful") == 0
    assert any(why in error for error in errors(running)), errors(running)
    eventually(lambda: reload_error(running), lambda said: why in said, "the status says why")
    for _ in range(10):
        running.send_tcp([b"old.a:1|c"])
    assert running.scrape().one("mapped_old_total") == 10
    assert running.get("/readyz") == "ok\n"


def test_a_missing_file_keeps_the_settings_and_a_repaired_one_is_taken(
    running: Collector, file: Path
) -> None:
    file.unlink()
    assert reloads(hang_up(running)) == (0, 1)
    eventually(lambda: reload_error(running), lambda said: "cannot be read" in said, "why")
    file.write_text(RULE.format("new", "new"))
    seen = hang_up(running)
    eventually(lambda: reload_error(running), lambda said: said == "", "nothing is wrong any more")
    assert reloads(seen) == (1, 1)
    assert seen.one("agent_config_last_reload_successful") == 1
