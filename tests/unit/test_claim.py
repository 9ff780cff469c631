"""One collector per folder: who has it, who is waited for, and what the refusal says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.log import Log
from agent.supervisor.claim import ClaimError, claim
from collector import DEADLINE_S, eventually

# Claims the folder and forks a child, which lives until its standard input ends.
COLLECTOR = """
import os, sys
from agent.log import Log
from agent.supervisor.claim import claim
claim(sys.argv[1], Log(form="json", level="info"), lambda: "")
child = os.fork()
if child:
    print(child, flush=True)
    os.waitpid(child, 0)
else:
    sys.stdin.read()
"""


class Other:
    """A collector in the folder, with one child."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", COLLECTOR, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout
        self.child = int(self.process.stdout.readline())

    def kill(self) -> None:
        """The supervisor is killed; the child goes on."""
        self.process.kill()
        self.process.wait(DEADLINE_S)

    def end_child(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Other]:
    made = Other(tmp_path)
    yield made
    made.kill()
    made.end_child()
    assert made.process.stdout
    made.process.stdout.close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with (tmp_path / "log").open("wb") as file:
        yield Log(file.fileno(), form="json")


def test_a_running_collector_is_refused_at_once_and_named_by_its_pid(
    tmp_path: Path, other: Other, log: Log
) -> None:
    with pytest.raises(ClaimError, match=rf"another collector \(pid {other.process.pid}\)"):
        claim(str(tmp_path), log, lambda: "", wait_s=3600)


def test_children_of_a_killed_collector_are_waited_for(
    tmp_path: Path, other: Other, log: Log
) -> None:
    other.kill()
    taken: list[bool] = []

    def start() -> None:
        mine = claim(str(tmp_path), log, lambda: "agent-worker-0 (pid 7)")
        taken.append(mine.was_killed)
        mine.release()

    starting = threading.Thread(target=start)
    starting.start()
    eventually(
        (tmp_path / "log").read_text,
        lambda text: "agent-worker-0 (pid 7)" in text,
        "it says what it waits for",
    )
    assert not taken
    other.end_child()
    starting.join(DEADLINE_S)
    assert taken == [True]


def test_children_that_do_not_leave_are_named_not_their_dead_supervisor(
    tmp_path: Path, other: Other, log: Log
) -> None:
    other.kill()
    with pytest.raises(ClaimError) as caught:
        claim(str(tmp_path), log, lambda: f"agent-worker-0 (pid {other.child})", wait_s=0.1)
    assert str(caught.value) == (
        f"dir: {tmp_path} is still in use by processes of a collector that was killed, which did "
        f"not leave within 0.1 s: agent-worker-0 (pid {other.child})"
    )


def test_a_collector_that_left_by_itself_leaves_no_trace(tmp_path: Path, log: Log) -> None:
    first = claim(str(tmp_path), log, lambda: "")
    assert not first.was_killed
    first.release()
    second = claim(str(tmp_path), log, lambda: "")
    assert not second.was_killed
    second.release()


def test_a_collector_that_was_killed_with_its_children_is_known_to_have_been(
    tmp_path: Path, other: Other, log: Log
) -> None:
    os.kill(other.child, signal.SIGKILL)
    other.kill()
    mine = eventually(
        lambda: claim(str(tmp_path), log, lambda: ""), lambda claim: True, "the folder is free"
    )
    assert mine.was_killed
    mine.release()
