"""The supervisor's loop with real processes: deaths, back-off, reload, the end. No extension
module.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from collector import DEADLINE_S, eventually, insist

TOY = Path(__file__).parents[1] / "support" / "toy_crew.py"


class Running:
    """The toy as a process; `wait_for` reads its account of what happened."""

    def __init__(self, settings: Path, *policy: str, workers: int = 2) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(TOY), str(workers), str(settings), *policy],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.seen: list[dict[str, Any]] = []
        ready = self.wait_for(did="announce", what="ready")
        host, port = ready["addresses"]["statsd"].split(":")
        self.address = (host, int(port))

    def wait_for(self, **wanted: object) -> dict[str, Any]:
        assert self.process.stdout
        while True:
            line = self.process.stdout.readline()
            assert line, f"it ended without {wanted}: {self.seen} {self.stderr()}"
            self.seen.append(json.loads(line))
            if wanted.items() <= self.seen[-1].items():
                return self.seen[-1]

    def rest(self) -> list[dict[str, Any]]:
        assert self.process.stdout
        return [json.loads(line) for line in self.process.stdout]

    def stderr(self) -> str:
        assert self.process.stderr
        return self.process.stderr.read().decode()

    def connect(self, word: bytes = b"hello") -> socket.socket:
        connection = socket.create_connection(self.address, DEADLINE_S)
        connection.sendall(word + b"\n")
        return connection

    def hello(self) -> tuple[int, str, str]:
        with self.connect() as connection:
            pid, settings, state = connection.makefile().readline().split()
        return int(pid), settings, state

    def pids(self) -> set[int]:
        """The workers that answer; the kernel picks one per connection."""
        return {self.hello()[0] for _ in range(40)}

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "settings"
    path.write_text("first")
    return path


@pytest.fixture
def start(settings: Path) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def starter(*policy: str, workers: int = 2) -> Running:
        started.append(Running(settings, *policy, workers=workers))
        return started[-1]

    yield starter
    for one in started:
        one.process.kill()
        one.process.wait()
        assert one.process.stdout
        assert one.process.stderr
        one.process.stdout.close()
        one.process.stderr.close()


def test_all_workers_answer_and_term_ends_them_with_0(start) -> None:
    toy = start(workers=3)
    assert len(toy.pids()) == 3
    assert toy.hello()[1:] == ("first", "running")
    assert toy.end() == 0
    rest = toy.rest()
    assert rest[0]["what"] == "stopping"
    assert sorted(x["name"] for x in rest[1:]) == ["worker-0", "worker-1", "worker-2"]


def test_interrupt_from_the_terminal_reaches_the_whole_group_and_still_drains(start) -> None:
    toy = start()
    os.killpg(toy.process.pid, signal.SIGINT)
    assert toy.process.wait(DEADLINE_S) == 0
    assert [x["did"] for x in toy.rest()] == ["announce", "settle", "settle"]


def test_a_killed_worker_is_settled_and_replaced(start) -> None:
    toy = start()
    victim = toy.hello()[0]
    before = toy.pids()
    os.kill(victim, signal.SIGKILL)
    assert toy.wait_for(did="settle")["name"] in {"worker-0", "worker-1"}
    after = eventually(toy.pids, lambda pids: len(pids) == 2, "two workers answer")
    assert victim not in after
    assert len(before & after) == 1


def test_connections_queued_at_a_dead_worker_are_served_by_its_replacement(start) -> None:
    toy = start(workers=1)
    pid = toy.hello()[0]
    os.kill(pid, signal.SIGSTOP)
    waiting = [toy.connect() for _ in range(50)]
    os.kill(pid, signal.SIGKILL)
    answers = [connection.makefile().readline().split()[0] for connection in waiting]
    for connection in waiting:
        connection.close()
    assert len(answers) == 50
    assert str(pid) not in answers


def test_a_worker_that_keeps_dying_is_started_again_and_again(start) -> None:
    toy = start("restart_delay_s_max=0.2", workers=1)
    for _ in range(6):
        toy.connect(b"crash").close()
        toy.wait_for(did="settle", name="worker-0")
    assert toy.hello()[0]
    assert toy.end() == 0
    assert "SIGSEGV" in toy.stderr()


def test_a_good_reload_reaches_every_child_and_keeps_the_processes(start, settings: Path) -> None:
    toy = start()
    before = toy.pids()
    settings.write_text("second")
    toy.process.send_signal(signal.SIGHUP)
    assert toy.wait_for(did="commit")["settings"] == "second"
    assert {toy.hello()[1] for _ in range(20)} == {"second"}
    assert toy.pids() == before
    os.kill(next(iter(before)), signal.SIGKILL)
    toy.wait_for(did="settle")
    after = eventually(toy.pids, lambda pids: len(pids) == 2, "two workers answer")
    assert after != before
    assert {toy.hello()[1] for _ in range(20)} == {"second"}, "a replacement has the new settings"


@pytest.mark.parametrize(
    ("text", "why"),
    [("wrong", "they are wrong"), ("refuse", "worker-1: it is not good")],
)
def test_a_bad_reload_leaves_the_old_settings_everywhere(
    start, settings: Path, text: str, why: str
) -> None:
    toy = start()
    settings.write_text(text)
    toy.process.send_signal(signal.SIGHUP)
    assert toy.wait_for(did="reject")["why"] == why
    eventually(
        lambda: {toy.hello()[1] for _ in range(20)}, lambda seen: seen == {"first"}, "rolled back"
    )


def test_usr2_replaces_every_worker_and_no_connection_is_refused(start) -> None:
    toy = start(workers=3)
    before = toy.pids()
    toy.process.send_signal(signal.SIGUSR2)
    after = eventually(toy.pids, lambda pids: not pids & before and len(pids) == 3, "all are new")
    assert len(after) == 3
    assert toy.end() == 0
    assert "all workers are replaced" in toy.stderr()


def test_usr1_of_a_log_rotation_changes_nothing(start) -> None:
    toy = start(workers=1)
    before = toy.pids()
    toy.process.send_signal(signal.SIGUSR1)
    os.kill(next(iter(before)), signal.SIGUSR1)
    assert toy.pids() == before
    assert toy.end() == 0
    assert "SIGUSR1 ignored" in toy.stderr()


def test_a_worker_that_does_not_drain_is_killed_and_the_exit_says_so(start) -> None:
    toy = start("drain_timeout_s=0.2", workers=1)
    with toy.connect(b"hang") as connection:
        connection.makefile().readline()
    assert toy.end() == 1
    assert "killed while draining" in toy.stderr()


def test_the_second_signal_leaves_at_once(start) -> None:
    toy = start(workers=1)
    with toy.connect(b"hang") as connection:
        pid = int(connection.makefile().readline().split()[0])
    toy.process.send_signal(signal.SIGTERM)
    toy.wait_for(what="stopping")
    assert insist(toy.process) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_signal_to_process_and_group_at_once_drains_like_one(start) -> None:
    toy = start()
    os.killpg(toy.process.pid, signal.SIGINT)
    os.kill(toy.process.pid, signal.SIGTERM)
    os.killpg(toy.process.pid, signal.SIGINT)
    assert toy.process.wait(DEADLINE_S) == 0


def test_children_leave_when_the_supervisor_is_killed(start) -> None:
    toy = start(workers=2)
    pids = toy.pids()
    toy.process.kill()
    assert toy.process.wait() == -signal.SIGKILL

    def alive() -> set[int]:
        return {pid for pid in pids if Path(f"/proc/{pid}/stat").exists() and not _zombie(pid)}

    assert len(pids) == 2
    assert eventually(alive, lambda left: not left, "the workers have left") == set()


def _zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_unusable_settings_end_the_start_with_78(settings: Path) -> None:
    settings.write_text("unusable")
    done = subprocess.run(
        [sys.executable, str(TOY), "2", str(settings)],
        capture_output=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 78
    assert b"cannot use the settings" in done.stderr


def test_a_worker_holds_no_descriptor_of_its_siblings(start) -> None:
    """Its pipe, its end of the handover, the listeners: nothing else is a socket."""
    toy = start(workers=3)
    first = toy.pids().pop()
    # Sockets of the supervisor: 6 listeners, 4 pipes and 4 legacies (one a child), 2 ends of the
    # wake-up.
    eventually(lambda: sockets(toy.process.pid), lambda seen: len(seen) == 16, "its sockets")

    # The toy does not close the listeners of others; whoever forks closes pipes and wake-up. A
    # connection that was answered may still be open for a moment.
    own = eventually(
        lambda: sockets(first), lambda seen: len(seen) == 6 + 2, "its listeners, pipe and handover"
    )
    others = [sockets(pid) for pid in toy.pids() if pid != first]
    assert len(others) == 2
    # What several have are the listeners.
    assert all(len(own & other) == 6 for other in others)


def sockets(pid: int) -> set[str]:
    names = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            names.add(os.readlink(fd))
    return {name for name in names if name.startswith("socket:")}
