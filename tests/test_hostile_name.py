"""Many folders hold an `agent.py` of their own. The command works there all the same."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from collector import Collector, clean_environment

HOSTILE = "raise SystemExit('a stranger named agent.py was imported')\n"


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder with an `agent.py` that ends whoever imports it."""
    tmp_path.joinpath("agent.py").write_text(HOSTILE)
    return tmp_path


def command() -> str:
    path = os.path.join(sysconfig.get_path("scripts"), "agent-metrics")
    assert os.access(path, os.X_OK), f"{path} is not installed"
    return path


def test_the_folder_is_hostile(hostile: Path) -> None:
    """The trap works: plain `python -m agent` in that folder runs the stranger."""
    done = subprocess.run(
        [sys.executable, "-m", "agent"], cwd=hostile, capture_output=True, text=True, check=False
    )
    assert "a stranger" in done.stderr


@pytest.mark.parametrize("how", ["command", "safe path"])
def test_the_collector_serves_from_a_hostile_folder(hostile: Path, segments: str, how: str) -> None:
    """`agent-metrics serve` and `python -P -m agent serve` start, count and drain there."""
    start = (command(),) if how == "command" else (sys.executable, "-P", "-m", "agent")
    with Collector(segments, command=start, cwd=str(hostile)) as collector:
        collector.send_tcp([b"steps:1|c"] * 10)
        assert collector.scrape().one("steps_total") == 10


def test_a_program_elsewhere_imports_the_package(hostile: Path, segments: str) -> None:
    """A script's own folder comes first, not the folder it is run from: `import agent` is ours."""
    script = Path(segments, "program.py")
    script.write_text("import agent; agent.Counter('steps', 'Steps.').inc(); print(agent.__name__)")
    done = subprocess.run(
        [sys.executable, script],
        cwd=hostile,
        env=clean_environment(AGENT_METRICS_DIR=segments),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("agent\n", 0), done.stderr


def test_strangers_names_are_explained() -> None:
    """Code that expects another package called `agent` gets told what this one is."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", "from agent import root_agent"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "agent-metrics" in done.stderr
