"""What a signal handler raises while an update looks for its app reaches the program."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from programs import DEADLINE_S, Program

# `find` is interrupted where a signal would interrupt it: by code of the program.
PROGRAM = """
import sys
import agent, agent.app
counted = agent.Counter("counted", "C.")
when, what = sys.argv[1:]
error = {
    "exit": SystemExit(3),
    "interrupt": KeyboardInterrupt(),
    "limit": RuntimeError("soft time limit"),
    "timeout": TimeoutError("alarm"),
}[what]
find = agent.app.find

def interrupted(start_dir):
    agent.app.find = find
    raise error

agent.app.find = interrupted
try:
    if when == "update":
        counted.inc()
    elif when == "labels":
        agent.Counter("labelled", "L.", ["a"]).labels("b").inc()
    else:
        agent.render()
except BaseException as caught:
    print(caught is error, agent.REGISTRY.fallback)
counted.inc()
print([line for line in agent.render().decode().splitlines() if line.startswith("counted")])
print(agent.REGISTRY.fallback, agent.REGISTRY.lost)
"""


@pytest.fixture
def program(tmp_path: Path, segments: str) -> Program:
    made = Program(tmp_path, segments)
    made.write("interrupted.py", PROGRAM)
    return made


@pytest.mark.parametrize("what", ["exit", "interrupt", "limit", "timeout"])
@pytest.mark.parametrize(("when", "total"), [("update", 2), ("labels", 1), ("render", 1)])
def test_what_is_raised_meanwhile_reaches_the_caller_and_nothing_is_lost(
    program: Program, when: str, total: int, what: str
) -> None:
    lines = program.run("interrupted.py", when, what).splitlines()
    assert lines[0] == "True None"
    assert f"'counted_total {total}'" in lines[1]
    assert lines[2] == "None 0"
    assert program.total("counted") == total


def test_a_signal_in_the_midst_of_the_first_update_ends_the_program(
    program: Program, segments: str
) -> None:
    """A real one, at many moments: it never vanishes, and nobody counts alone for it."""
    program.write(
        "signals.py",
        "import agent, os, signal, sys, time\n"
        "def end(*_): raise SystemExit(3)\n"
        "signal.signal(signal.SIGALRM, end)\n"
        "counted = agent.Counter('counted', 'C.')\n"
        "try:\n"
        "    signal.setitimer(signal.ITIMER_REAL, float(sys.argv[1]))\n"
        "    counted.inc()\n"
        "    time.sleep(60)\n"
        "finally:\n"
        "    print(agent.REGISTRY.fallback)\n",
    )
    for step in range(20):
        command = program.command("signals.py", str(0.00005 * (step + 1)))
        done = subprocess.run(
            **command, capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
        assert (done.returncode, done.stdout) == (3, "None\n"), done.stderr
    assert Path(segments).exists()


def test_a_folder_that_cannot_be_used_still_is_no_exception(program: Program) -> None:
    program.write(
        "broken.py",
        "import agent, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "counted = agent.Counter('counted', 'C.')\n"
        "counted.inc()\n"
        "print(agent.REGISTRY.fallback[0])\n",
    )
    done = program.run("broken.py", AGENT_METRICS_DIR="/proc/nowhere")
    assert done == "folder\n"


def test_what_a_block_took_is_given_back_when_it_does_not_begin(program: Program) -> None:
    program.write(
        "held.py",
        "import agent, warnings\n"
        "level = agent.Gauge('level', 'L.')\n"
        "def show(*_, **__): raise KeyboardInterrupt\n"
        "warnings.simplefilter('always')\n"
        "warnings.showwarning = show\n"
        "try:\n"
        "    with level.track_inprogress(): pass\n"
        "except KeyboardInterrupt: print('interrupted')\n"
        "with level.track_inprogress(): pass\n"
        "print([x for x in agent.render().decode().splitlines() if x.startswith('level ')])\n",
    )
    assert program.run("held.py", AGENT_METRICS_DIR="/proc/x") == "interrupted\n['level 0']\n"


def test_the_first_update_at_the_very_end_is_no_exception(program: Program) -> None:
    program.write(
        "last.py",
        "import agent\n"
        "steps = agent.Counter('steps', 'S.')\n"
        "class Last:\n"
        "    def __del__(self, steps=steps, print=print):\n"
        "        steps.inc()\n"
        "        print('done')\n"
        "import builtins\n"
        "builtins.last = Last()\n",
    )
    command = program.command("last.py")
    done = subprocess.run(
        **command, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
