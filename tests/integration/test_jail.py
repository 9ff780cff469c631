"""Processes that change their root, their processes' namespace or their clock."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from agent._native import render_segment
from programs import Program, running

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root")


@pytest.fixture
def program(tmp_path: Path, segments: str) -> Program:
    return Program(tmp_path, segments)


def test_a_worker_in_a_jail_goes_on_in_the_segment(program: Program) -> None:
    """Its path leads nowhere there; the file is in its place all the same."""
    (program.folder / "jail").mkdir()
    program.write(
        "jailed.py",
        "import agent, os, time\n"
        "steps = agent.Counter('steps', 'S.')\n"
        "steps.inc()\n"
        "if os.fork() == 0:\n"
        "    os.chroot('jail'); os.chdir('/')\n"
        "    for _ in range(2):\n"
        "        for _ in range(1000): steps.inc()\n"
        "        time.sleep(1.1)\n"
        "    os._exit(agent.REGISTRY.fallback is not None)\n"
        "assert os.wait()[1] == 0\n",
    )
    program.run("jailed.py")
    assert program.total("steps") == 2001


def test_a_worker_that_is_forked_in_a_jail_is_said_to_count_alone(program: Program) -> None:
    """It cannot open the file; every page says that something is missing."""
    (program.folder / "jail").mkdir()
    program.write(
        "forked.py",
        "import agent, os, sys, warnings\n"
        "warnings.simplefilter('always')\n"
        "steps = agent.Counter('steps', 'S.')\n"
        "steps.inc()\n"
        "if os.fork() == 0:\n"
        "    os.chroot('jail'); os.chdir('/')\n"
        "    steps.inc()\n"
        "    if os.fork() == 0:\n"
        "        with warnings.catch_warnings(record=True) as caught: steps.inc(100)\n"
        "        os._exit('private memory' not in str(caught[0].message))\n"
        "    os._exit(os.waitstatus_to_exitcode(os.wait()[1]))\n"
        "assert os.wait()[1] == 0\n",
    )
    program.run("forked.py")
    app = program.app()
    assert (program.total("steps"), app["usage"]["fallbacks"]) == (2, 1)


# A master that is the first process of its namespace, as in a container, and replaces its worker.
MASTER = """
import agent, os, signal, sys
buckets = {"old": [1, 2], "new": [1, 2, 3]}[sys.argv[1]]

def spawn():
    read, write = os.pipe()
    worker = os.fork()
    if worker == 0:
        times = agent.Histogram("times", "T.", buckets=buckets)
        times.observe(0.5)
        os.write(write, b"x")
        signal.pause()
    os.read(read, 1)
    return worker

assert os.getpid() == 1
worker = spawn()
print("ready", flush=True)
for line in sys.stdin:
    os.kill(worker, 9)
    os.waitpid(worker, 0)
    worker = spawn()
    print("ready", flush=True)
os.kill(worker, 9)
"""


def bounds(segments: str) -> int:
    (path,) = Path(segments).glob("*.seg")
    return render_segment(path).count(b"times_bucket{")


def test_a_recycled_worker_of_an_old_container_does_not_win_its_definition_back(
    program: Program,
) -> None:
    program.write("master.py", MASTER)

    def start(version: str) -> subprocess.Popen[str]:
        command = program.command("master.py", version)
        command["args"] = ["unshare", "--pid", "--fork", "--mount-proc", *command["args"]]
        command["env"]["AGENT_METRICS_APP"] = "rolled"
        return subprocess.Popen(**command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def wait(master: subprocess.Popen[str]) -> None:
        assert master.stdout is not None
        assert master.stdout.readline() == "ready\n"

    def recycle(master: subprocess.Popen[str]) -> None:
        assert master.stdin is not None
        master.stdin.write("\n")
        master.stdin.flush()
        wait(master)

    old = start("old")
    try:
        wait(old)
        before = bounds(program.segments)
        new = start("new")
        try:
            wait(new)
            after = bounds(program.segments)
            assert after == before + 1
            recycle(old)
            assert bounds(program.segments) == after
            recycle(new)
            assert bounds(program.segments) == after
            recycle(old)
            assert bounds(program.segments) == after
        finally:
            new.communicate()
    finally:
        old.communicate()


AHEAD = """
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *time) {
    int result = syscall(SYS_clock_gettime, id, time);
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) time->tv_sec += 3600;
    return result;
}
"""


def test_the_latest_value_of_a_gauge_is_the_one_that_was_set_last_whatever_clocks_say(
    program: Program,
) -> None:
    source, library = program.write("ahead.c", AHEAD), program.folder / "ahead.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    program.write(
        "setting.py",
        "import agent, os, sys\n"
        "value = agent.Gauge('value', 'V.', multiprocess_mode='livemostrecent')\n"
        "value.set(float(sys.argv[1]))\n"
        "lines = agent.render().decode().splitlines()\n"
        "print([line for line in lines if line.startswith('value ')], flush=True)\n"
        "os.read(0, 1)\n",
    )
    program.write(
        "ahead.py",
        "import os, sys\n"
        "os.environ['LD_PRELOAD'] = './ahead.so'\n"
        "os.execv(sys.executable, [sys.executable, 'setting.py', '1'])\n",
    )
    with running(program, "ahead.py") as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "['value 1']\n"
        for value in ("2", "3"):
            with running(program, "setting.py", value) as later:
                assert later.stdout is not None
                assert later.stdout.readline() == f"['value {value}']\n"
