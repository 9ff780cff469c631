"""What `track_inprogress()` took is given back where it was taken, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from programs import Program

# Prints what the page shows of two gauges inside of the block, after `HAPPENS`, after the block,
# inside of two others, and after those.
PROGRAM = """
import os, subprocess, sys, warnings
warnings.simplefilter("ignore")
import agent

folder, mode = os.environ["AGENT_METRICS_DIR"], sys.argv[1]
busy = agent.Gauge("busy", "Busy.", multiprocess_mode=mode)
kinds = agent.Gauge("kinds", "Kinds.", ["kind"], multiprocess_mode=mode)
other = agent.Counter("other", "Other.")
busy.set(0)
kinds.labels("a").set(0)

def shown():
    page = agent.render().decode().splitlines()
    of = lambda start: sum(float(line.split()[-1]) for line in page if line.startswith(start))
    return of("busy"), of("kinds")

def forked(work):
    child = os.fork()
    if child == 0:
        work()
        os._exit(0 if shown() == (1, 1) else 1)
    assert os.waitpid(child, 0)[1] == 0

class Both:
    def __init__(self):
        self.blocks = [busy.track_inprogress(), kinds.labels("a").track_inprogress()]
    def __enter__(self):
        [block.__enter__() for block in self.blocks]
    def __exit__(self, *error):
        [block.__exit__(None, None, None) for block in self.blocks]

blocks = Both()
with blocks:
    print(*shown())
    HAPPENS
    print(*shown())
print(*shown())
again = Both()
with blocks, again:
    print(*shown())
print(*shown())
"""

CLEAR = "busy.clear(); kinds.clear()"
REMOVE = "busy.clear(); kinds.remove('a')"
# Two files of one app never meet here: the first is gone before the second is made.
UNLINK = "[os.unlink(os.path.join(folder, name)) for name in os.listdir(folder)]"
APPS_CLEAR = (
    "subprocess.run([sys.executable, '-m', 'agent', 'apps', 'clear', 'shop'], check=True, "
    "stdout=subprocess.DEVNULL)"
)
# What another process defines anew moves the handles of all others, and not what they hold.
REDEFINE = (
    "subprocess.run([sys.executable, '-c', 'import agent; agent.Gauge(\"other\", \"\").set(1)'], "
    "check=True)"
)
CHILD_LEAVES = "forked(lambda: blocks.__exit__())"
# It begins and ends blocks of its own inside of the one that it inherited, which it then leaves.
CHILD_WORKS = (
    "forked(lambda: (blocks.__enter__(), blocks.__exit__(), blocks.__exit__(), blocks.__exit__()))"
)
TWICE = "Both().__exit__()"


@pytest.mark.parametrize("mode", ["mostrecent", "livesum", "liveall", "sum", "all"])
@pytest.mark.parametrize(
    ("happens", "still_held"),
    [
        (CLEAR, 0),
        (REMOVE, 0),
        (UNLINK, 0),
        (APPS_CLEAR, 0),
        (REDEFINE, 1),
        (CHILD_LEAVES, 1),
        (CHILD_WORKS, 1),
        (TWICE, 1),
    ],
    ids=[
        "clear",
        "remove",
        "unlink",
        "apps-clear",
        "redefine",
        "child-leaves",
        "child-works",
        "no-begin",
    ],
)
def test_a_block_gives_back_what_it_took_and_no_more(
    tmp_path: Path, segments: str, mode: str, happens: str, still_held: int
) -> None:
    """Whatever becomes of the series, the file or the process meanwhile; the next blocks count."""
    program = Program(tmp_path, segments)
    program.write("shop.py", PROGRAM.replace("HAPPENS", happens))
    out = program.run("shop.py", mode, AGENT_METRICS_APP="shop")
    lines = [tuple(map(float, line.split())) for line in out.splitlines()]
    held = (still_held, still_held)
    assert lines == [(1, 1), held, (0, 0), (2, 2), (0, 0)]
