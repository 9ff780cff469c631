"""What a user sees of segments that another version left, or still uses; and how they go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agent._native import LAYOUT_VERSION
from agent.cli import commands
from agent.doctor import examine, read
from collector import Collector, eventually
from programs import Program, running

OLD = LAYOUT_VERSION - 1
SAID = f"of layout {OLD} "
LIVING = "import agent\nagent.Counter('runs', 'R.').inc()\nprint('up', flush=True)\ninput()\n"


@pytest.fixture
def program(tmp_path: Path, segments: str, monkeypatch: pytest.MonkeyPatch) -> Program:
    monkeypatch.setenv("AGENT_METRICS_DIR", segments)
    made = Program(tmp_path, segments)
    made.write("shop.py", LIVING)
    return made


def test_one_in_use_is_named_and_kept_and_a_dead_one_is_pruned(
    program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether a process lives in it is asked of the kernel, as in every version."""
    old = Path(program.segments, f"shop.v{OLD}.seg")
    with running(program, "shop.py") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        [made] = Path(program.segments).glob("*.seg")
        made.rename(old)
        assert commands.run(["apps", "list"]) == 0
        told = capsys.readouterr()
        assert f"{old}: layout {OLD} is not read by this version" in told.out
        assert f"1 segment {SAID}is not read" in told.err
        assert commands.run(["apps", "prune", "--older-than", "0s"]) == 0
        assert commands.run(["apps", "remove", f"shop.v{OLD}"]) == 69
        assert "living processes: of another version" in capsys.readouterr().err
        assert SAID in read().other_layouts
        findings = {finding.name: finding for finding in examine(read()).findings}
        assert findings["segments of apps"].standing == "note"
        assert old.exists()
    assert commands.run(["apps", "prune", "--older-than", "0s", "--dry-run"]) == 0
    assert old.exists()
    assert commands.run(["apps", "prune", "--older-than", "0s"]) == 0
    assert f"shop.v{OLD}: removed" in capsys.readouterr().out
    assert not old.exists()
    assert commands.run(["apps", "list"]) == 0
    assert SAID not in capsys.readouterr().err
    assert read().other_layouts == ""


def test_the_collector_says_that_apps_are_missing(
    segments: str, start_collector: Callable[..., Collector]
) -> None:
    """In its log when it starts, and on its page and its status page while it runs."""
    Path(segments, f"shop.v{OLD}.seg").write_bytes(b"")
    collector = start_collector()
    assert any(f"1 segment {SAID}is not read" in line for line in collector.log.splitlines())
    refused = "agent_apps_refused_total"
    before = eventually(
        lambda: collector.scrape().sum(refused, reason="other_layout"),
        lambda count: count > 0,
        "it is refused",
    )
    Path(segments, f"blog.v{OLD}.seg").write_bytes(b"")
    eventually(
        lambda: collector.scrape().sum(refused, reason="other_layout"),
        lambda count: count > before,
        "one more is refused",
    )
    assert f"blog.v{OLD}.seg" in collector.get("/v1/status")
