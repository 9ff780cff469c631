"""A file that is truncated costs its numbers, not the process, whoever else handles SIGBUS."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from programs import DEADLINE_S, Program

# `faulthandler` is enabled at one of these moments; at the end the process may touch what is not
# ours, or signal itself.
PROGRAM = """
import faulthandler, mmap, os, sys, threading, warnings
moment, end, folder = sys.argv[1:]
warnings.simplefilter("ignore")

def on(now):
    if now == moment:
        faulthandler.enable()

on("before the import")
import agent
steps = agent.Counter("steps", "Steps.")
on("before the first update")
steps.inc()
on("after the first update")
on("just before the truncation")
if moment == "after the first update":
    agent.render()
os.truncate(os.path.join(folder, "shop.v3.seg"), 0)

def count():
    for _ in range(1000):
        steps.inc()

if end == "in a thread":
    thread = threading.Thread(target=count)
    thread.start()
    thread.join()
else:
    count()
print("lives", flush=True)
if end == "foreign":
    with open(os.path.join(folder, "other"), "w+b") as file:
        file.truncate(1 << 16)
        memory = mmap.mmap(file.fileno(), 1 << 16)
        file.truncate(0)
        memory[5000]
if end == "raised":
    import signal
    signal.raise_signal(signal.SIGBUS)
print("the end", flush=True)
"""

MOMENTS = [
    "never",
    "before the import",
    "before the first update",
    "after the first update",
    "just before the truncation",
]


@pytest.fixture
def program(tmp_path: Path, segments: str) -> Program:
    made = Program(tmp_path, segments)
    made.write("lost.py", PROGRAM)
    return made


def run(program: Program, moment: str, end: str) -> subprocess.CompletedProcess[str]:
    command = program.command("lost.py", moment, end, program.segments)
    command["env"]["AGENT_METRICS_APP"] = "shop"
    return subprocess.run(
        **command, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


@pytest.mark.parametrize("end", ["in the main thread", "in a thread"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_process_outlives_its_file_whenever_faulthandler_is_enabled(
    program: Program, moment: str, end: str
) -> None:
    """It says nothing either, unless it was enabled since our last look, a second ago at most."""
    done = run(program, moment, end)
    assert (done.returncode, done.stdout) == (0, "lives\nthe end\n"), done.stderr
    assert ("Bus error" in done.stderr) <= (moment == "just before the truncation"), done.stderr


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_fault_of_the_program_itself_ends_it_as_without_us(program: Program, moment: str) -> None:
    """`faulthandler` prints its traceback, once, and the process dies of SIGBUS."""
    done = run(program, moment, "foreign")
    assert (done.returncode, done.stdout) == (-signal.SIGBUS, "lives\n"), done.stderr
    assert done.stderr.count("Fatal Python error: Bus error") == (moment != "never"), done.stderr
    assert not os.path.exists(program.folder / "core")


@pytest.mark.parametrize("moment", ["never", "before the import", "after the first update"])
def test_a_signal_that_is_sent_still_ends_the_process(program: Program, moment: str) -> None:
    """It is not swallowed because we have a handler for it."""
    done = run(program, moment, "raised")
    assert (done.returncode, done.stdout) == (-signal.SIGBUS, "lives\n"), done.stderr


# A handler that jumps out of itself, as those do that read mapped files carefully.
JUMPING = """
#include <setjmp.h>
#include <signal.h>
static sigjmp_buf back;
static void on_bus(int signal, siginfo_t *info, void *context) { siglongjmp(back, 1); }
void install(void) {
    struct sigaction action = {0};
    action.sa_sigaction = on_bus;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGBUS, &action, 0);
}
int touch(volatile char *address) { return sigsetjmp(back, 1) ? -1 : *address; }
"""


def test_a_handler_that_jumps_out_of_itself_is_asked_every_time(program: Program) -> None:
    source = program.write("jumping.c", JUMPING)
    library = program.folder / "jumping.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    program.write(
        "jumping.py",
        "import agent, ctypes, mmap\n"
        "steps = agent.Counter('steps', 'Steps.')\n"
        "steps.inc()\n"
        "jumping = ctypes.CDLL('./jumping.so')\n"
        "jumping.install()\n"
        "agent.render()\n"
        "with open('other', 'w+b') as file:\n"
        "    file.truncate(1 << 16)\n"
        "    memory = mmap.mmap(file.fileno(), 1 << 16)\n"
        "    file.truncate(0)\n"
        "start = ctypes.addressof(ctypes.c_char.from_buffer(memory))\n"
        "touch = lambda: jumping.touch(ctypes.c_void_p(start + 5000))\n"
        "print(touch(), touch(), touch())\n",
    )
    assert program.run("jumping.py") == "-1 -1 -1\n"


# A handler that reports and goes back, and relies on being called once.
REPORTING = """
#include <signal.h>
#include <unistd.h>
static void on_bus(int signal) { write(1, "report\\n", 7); }
void install(void) {
    struct sigaction action = {0};
    action.sa_handler = on_bus;
    action.sa_flags = SA_RESETHAND;
    sigaction(SIGBUS, &action, 0);
}
"""

TOUCHING = """
import agent, ctypes, faulthandler, mmap, signal, sys, threading, time
when = sys.argv[1]
reporting = ctypes.CDLL("./reporting.so")
if when == "before":
    reporting.install()
steps = agent.Counter("steps", "S.")
steps.inc()
if when == "after":
    reporting.install()
if when == "gone":
    faulthandler.enable()
# The next look comes first again.
agent.render()
if when == "gone":
    faulthandler.disable()
with open("other", "w+b") as file:
    file.truncate(1 << 16)
    memory = mmap.mmap(file.fileno(), 1 << 16)
    file.truncate(0)
print("touches", flush=True)
memory[5000]
print("lives", flush=True)
"""


@pytest.mark.parametrize("when", ["before", "after", "gone"])
def test_a_handler_is_called_as_it_asked_for(program: Program, when: str) -> None:
    """Once, when it said so; and not at all when it has gone. The fault never repeats for ever."""
    source = program.write("reporting.c", REPORTING)
    library = program.folder / "reporting.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    program.write("touching.py", TOUCHING)
    done = subprocess.run(
        **program.command("touching.py", when),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    told = "touches\n" + ("" if when == "gone" else "report\n")
    assert (done.returncode, done.stdout) == (-signal.SIGBUS, told), done.stderr


def test_a_python_handler_gets_every_signal(program: Program) -> None:
    program.write(
        "hit.py",
        "import agent, signal, time\n"
        "steps = agent.Counter('steps', 'S.')\n"
        "steps.inc()\n"
        "hits = []\n"
        "signal.signal(signal.SIGBUS, lambda *_: hits.append(1))\n"
        "for _ in range(4):\n"
        "    agent.render()\n"
        "    signal.raise_signal(signal.SIGBUS)\n"
        "    signal.raise_signal(signal.SIGBUS)\n"
        "print(len(hits))\n",
    )
    assert program.run("hit.py") == "8\n"


def test_threads_that_survive_their_faults_are_no_limit(program: Program) -> None:
    source = program.write("jumping.c", JUMPING)
    library = program.folder / "jumping.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    program.write(
        "threads.py",
        "import agent, ctypes, mmap, threading\n"
        "steps = agent.Counter('steps', 'S.')\n"
        "steps.inc()\n"
        "jumping = ctypes.CDLL('./jumping.so')\n"
        "jumping.install()\n"
        "with open('other', 'w+b') as file:\n"
        "    file.truncate(1 << 16)\n"
        "    memory = mmap.mmap(file.fileno(), 1 << 16)\n"
        "    file.truncate(0)\n"
        "start = ctypes.addressof(ctypes.c_char.from_buffer(memory))\n"
        "found = []\n"
        "for _ in range(100):\n"
        "    agent.render()\n"
        "    touch = lambda: found.append(jumping.touch(ctypes.c_void_p(start + 5000)))\n"
        "    thread = threading.Thread(target=touch)\n"
        "    thread.start()\n"
        "    thread.join()\n"
        "print(found.count(-1))\n",
    )
    assert program.run("threads.py") == "100\n"
