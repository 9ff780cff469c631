"""A file that is damaged while processes live in it is not replaced: who comes begins beside it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from agent._native import LAYOUT_VERSION
from collector import Collector
from programs import Program, running

Start = Callable[..., Collector]

# Counts, and says what its own page has, as often as it is asked.
COUNTING = """
import sys, agent
agent.configure(app="shop")
hits = agent.Counter("hits", "H.")
working = agent.Gauge("working", "W.")
for line in sys.stdin:
    hits.inc(int(line))
    working.set(int(line))
    page = agent.render().decode()
    print(*[row for row in page.splitlines() if row.startswith("hits_total ")], flush=True)
"""


def ask(process: subprocess.Popen[str], count: int) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{count}\n")
    process.stdin.flush()
    return process.stdout.readline()


@pytest.fixture
def program(tmp_path: Path, segments: str) -> Program:
    made = Program(tmp_path, segments)
    made.write("shop.py", COUNTING)
    return made


def test_both_halves_of_an_app_are_one_app_until_the_damaged_one_is_gone(
    program: Program, start_collector: Start
) -> None:
    """The page adds them under one name; once nobody lives in the damaged one, it is kept aside."""
    collector = start_collector()
    first = Path(program.segments, f"shop.v{LAYOUT_VERSION}.seg")
    with running(program, "shop.py") as one:
        assert ask(one, 5) == "hits_total 5\n"
        assert collector.scrape().one("hits_total", app="shop") == 5
        with first.open("ab") as file:
            file.write(b"!")
        with running(program, "shop.py") as two:
            assert ask(two, 7) == "hits_total 7\n", "it cannot read the damaged one"
            assert ask(one, 1) == "hits_total 13\n", "it can read both"
            samples = collector.scrape()
            assert samples.one("hits_total", app="shop") == 13
            assert samples.one("working", app="shop") == 7
            assert "shop~2" not in samples.text
            assert collector.get("/v1/status").count('"name":"shop"') == 1
            one.kill()
            one.wait()
            assert collector.scrape().one("hits_total", app="shop") == 13
            with running(program, "shop.py") as three:
                assert ask(three, 2) == "hits_total 9\n"
                assert Path(f"{first}.damaged").exists()
                assert collector.scrape().one("hits_total", app="shop") == 9
                assert ask(two, 1) == "hits_total 10\n"
